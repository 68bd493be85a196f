//! The packages that an artifact needs: installed once, when it is published, and never by running anybody's code.
//!
//! A layer is content like an artifact. It is found again by what it was made of: the lock file, the interpreter's version
//! and the platform. Whoever publishes the same lock file gets the layer that is there, without asking any index.

mod node;
mod python;
mod tool;

pub(super) use node::{APP, assemble, assembly};

use super::{Language, Manifest, gather, listing, store::ArtifactStore};
use crosspoint_core::{Code, ContentDigest, Error, ErrorExt, Result};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

/// How packages are installed.
///
/// Package managers run with an environment of their own: nothing of the host's but `PATH`, and the variables that stand
/// here. Without any, they know their public indexes and no proxy.
///
/// ```
/// use crosspoint_runtime::artifacts::Dependencies;
/// let dependencies = Dependencies::new()
///     .inherit(["HTTPS_PROXY", "NO_PROXY"])
///     .variable("PIP_INDEX_URL", "https://pypi.example.com/simple");
/// ```
#[derive(Clone)]
#[must_use]
pub struct Dependencies {
    variables: BTreeMap<String, OsString>,
    limit: Duration,
}

impl Dependencies {
    /// No variables; five minutes.
    pub const fn new() -> Self {
        Self {
            variables: BTreeMap::new(),
            limit: Duration::from_secs(300),
        }
    }

    /// Passes these variables on as the host has them: those of proxies, indexes and certificates. Those that the host
    /// does not have are left out.
    pub fn inherit<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        for name in names {
            let name = name.into();
            if let Some(value) = std::env::var_os(&name) {
                self.variables.insert(name, value);
            }
        }
        self
    }

    /// Sets a variable.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// How long one package manager may take; five minutes unless set.
    pub const fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

impl Default for Dependencies {
    fn default() -> Self {
        Self::new()
    }
}

/// Values may hold the credentials of an index.
impl std::fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dependencies")
            .field("variables", &self.variables.keys())
            .field("limit", &self.limit)
            .finish()
    }
}

/// What has to be installed for an artifact.
#[derive(Debug)]
struct Wanted {
    language: Language,
    /// The content of the file that says so.
    lock: Vec<u8>,
}

/// What an artifact needs, and what its author may want to know.
fn wanted(manifest: &Manifest, folder: &Path) -> Result<(Vec<Wanted>, Vec<String>)> {
    let mut all = Vec::new();
    let mut warnings = Vec::new();
    for (language, file) in [(Language::Python, python::FILE), (Language::Node, node::FILE)] {
        let lock = match std::fs::read(folder.join(file)) {
            Ok(lock) => lock,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::new(Code::ArtifactInvalid, "a lock file cannot be read").caused_by(e)),
        };
        if !manifest.flows.iter().any(|flow| flow.language == language) {
            warnings.push(format!(
                "{file} is not looked at: no flow says that it is written for it"
            ));
            continue;
        }
        let any = match language {
            Language::Python => python::check(&lock, &mut warnings)?,
            _ => node::check(&lock)?,
        };
        if any {
            all.push(Wanted { language, lock });
        }
    }
    if folder.join("package.json").exists() && !folder.join(node::FILE).exists() {
        warnings.push("package.json has no package-lock.json beside it, so no packages are installed".to_owned());
    }
    Ok((all, warnings))
}

/// Checks what stands in the lock files, and installs nothing.
pub(super) fn check(manifest: &Manifest, folder: &Path) -> Result<Vec<String>> {
    wanted(manifest, folder).map(|(_, warnings)| warnings)
}

/// What its layers are for, in their order.
pub(super) fn kinds(manifest: &Manifest, folder: &Path) -> Result<Vec<Language>> {
    let (wanted, _) = wanted(manifest, folder)?;
    Ok(wanted.into_iter().map(|one| one.language).collect())
}

/// Installs what an artifact needs, unless it is there.
pub(super) async fn install(
    manifest: &Manifest,
    folder: &Path,
    staging: &Path,
    store: &dyn ArtifactStore,
    dependencies: &Dependencies,
) -> Result<(Vec<ContentDigest>, Vec<String>)> {
    let (wanted, warnings) = wanted(manifest, folder)?;
    let mut layers = Vec::with_capacity(wanted.len());
    for one in wanted {
        let work = tempfile::Builder::new().prefix("install-").tempdir_in(staging);
        let work = work.or_fail(Code::StoreUnavailable, "a temporary folder cannot be made")?;
        let interpreter = match one.language {
            Language::Python => python::interpreter(work.path(), dependencies).await?,
            _ => node::interpreter(work.path(), dependencies).await?,
        };
        let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
        let kind = match one.language {
            Language::Python => "python",
            _ => "node",
        };
        let made_of = listing::digest_of(&[
            b"layer 1",
            kind.as_bytes(),
            interpreter.as_bytes(),
            platform.as_bytes(),
            &one.lock,
        ]);
        if let Some(there) = store.layer(&made_of, None).await? {
            layers.push(there);
            continue;
        }
        tracing::info!(integration = manifest.name, kind, interpreter, "installing packages");
        let installed = match one.language {
            Language::Python => python::install(work.path(), &one.lock, dependencies).await?,
            _ => node::install(work.path(), folder, dependencies).await?,
        };
        let content = keep(work.path(), installed, store).await?;
        let kept = store.layer(&made_of, Some(&content)).await?;
        layers.push(kept.unwrap_or(content));
    }
    Ok((layers, warnings))
}

/// Through the same gate as everything that comes from outside.
async fn keep(work: &Path, installed: PathBuf, store: &dyn ArtifactStore) -> Result<ContentDigest> {
    let clean = work.join("clean");
    let into = clean.clone();
    let gathered = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&into).or_fail(Code::StoreUnavailable, "a folder cannot be made")?;
        gather::packages(&installed, &into)
    });
    gathered
        .await
        .or_fail(Code::Internal, "packages could not be gathered")??;
    store.put(&clean).await
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(Code::DependenciesFailed, message)
}
