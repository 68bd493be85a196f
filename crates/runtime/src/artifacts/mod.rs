//! Artifacts: integrations written as scripts, published without rebuilding or restarting the host.
//!
//! An artifact is a folder, or an archive of one, with a [`Manifest`] in `crosspoint.json`. `gather` takes it apart,
//! `check` says what is wrong with it, `layers` installs the packages that it needs, an [`ArtifactStore`] keeps it by its
//! digest, and `watch` puts what is published into the [`Registry`], here and in every other process that shares the store.
//! How an author writes one stands in `docs/artifacts.md`.

mod archive;
mod check;
mod config;
mod disk;
mod folder;
mod gather;
mod inspect;
mod language;
mod layers;
mod limits;
mod listing;
mod load;
mod manifest;
mod policy;
mod publish;
mod receive;
mod sink;
mod store;
mod watch;

pub use archive::pack;
pub use config::ArtifactsConfig;
pub use folder::FolderArtifacts;
pub use inspect::{Inspected, inspect};
pub use language::Language;
pub use layers::Dependencies;
pub use limits::ArtifactLimits;
pub use manifest::{Entry, FlowManifest, MANIFEST, Manifest, RateManifest, Slot, TriggerManifest, WarmManifest};
pub use policy::AuthorPolicy;
pub use store::{ArtifactStore, Over};
pub use watch::Looked;

use crosspoint_core::{
    AnyIntegration, Clock, Code, ContentDigest, Error, ErrorExt, Registry, Release, Result, Runner, Schemas, Supply,
    Work,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

/// A published version as this process runs it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Artifact {
    /// Its content.
    pub digest: ContentDigest,
    /// What it says about itself.
    pub manifest: Manifest,
    /// Where its files are; nobody writes there.
    pub folder: PathBuf,
    /// Further folders that it reads: its packages.
    pub layers: Vec<PathBuf>,
    /// Where Python finds packages.
    python: Option<PathBuf>,
    /// The folder of its files and of what Node looks for above them.
    assembly: Option<PathBuf>,
}

/// Publishes artifacts, and keeps the registry at what is published. Cheap to clone.
///
/// ```
/// use crosspoint_core::{Memory, PublishOptions, Registry, Result, Runner, Schemas, SystemClock};
/// use crosspoint_runtime::{Runners, artifacts::{Artifacts, ArtifactsConfig}};
/// use std::{path::Path, sync::Arc};
///
/// // `schemas` is the marketplace's; the facade wires all this for `Platform::builder().artifacts(folder)`.
/// async fn demo(registry: Arc<Registry>, schemas: Arc<dyn Schemas>, folder: &Path) -> Result<()> {
///     let clock = Arc::new(SystemClock::new());
///     let runners = Arc::new(Runners::standard(clock.clone()));
///     let artifacts = Artifacts::open(ArtifactsConfig::folder("artifacts"), registry, schemas, runners, clock)?;
///     let published = artifacts.publish(folder, &PublishOptions::default()).await?;
///     println!("{} {} is offered", published.name, published.version);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Artifacts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ArtifactStore>,
    /// Where things are prepared.
    staging: PathBuf,
    /// Folders of programs with their packages.
    assemblies: PathBuf,
    registry: Arc<Registry>,
    schemas: Arc<dyn Schemas>,
    runners: Arc<dyn Runner>,
    clock: Arc<dyn Clock>,
    policy: AuthorPolicy,
    limits: ArtifactLimits,
    dependencies: Dependencies,
    interval: Duration,
    /// Names that are taken by integrations compiled into the host.
    compiled: BTreeSet<String>,
    /// What this process has put into the registry. Who looks holds it, so that one looks at a time.
    loaded: tokio::sync::Mutex<watch::Loaded>,
    /// Versions that somebody asked for and that were not there. Not looked for again before the next regular look.
    missed: Mutex<BTreeSet<(String, String)>>,
}

impl Artifacts {
    /// The artifacts of a host. Versions that were published are in the registry after the first
    /// [`Artifacts::refresh`]; integrations that are in there now keep their names.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`] if the folder cannot be made or written.
    pub fn open(
        config: ArtifactsConfig,
        registry: Arc<Registry>,
        schemas: Arc<dyn Schemas>,
        runners: Arc<dyn Runner>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let (store, local) = config.place(&clock)?;
        let local = std::fs::create_dir_all(&local).and_then(|()| local.canonicalize());
        let local = local.or_fail(Code::StoreUnavailable, "the artifacts' folder cannot be made")?;
        let (staging, assemblies) = (local.join("staging"), local.join("assemblies"));
        for folder in [&staging, &assemblies] {
            std::fs::create_dir_all(folder).or_fail(Code::StoreUnavailable, "a folder cannot be made")?;
        }
        let compiled = registry.integrations().iter().map(|one| one.name.clone()).collect();
        let inner = Arc::new(Inner {
            store,
            staging,
            assemblies,
            registry,
            schemas,
            runners,
            clock,
            policy: config.policy,
            limits: config.limits,
            dependencies: config.dependencies,
            interval: config.interval,
            compiled,
            loaded: tokio::sync::Mutex::default(),
            missed: Mutex::default(),
        });
        let supply: Arc<dyn Supply> = inner.clone();
        inner.registry.supplied_by(&supply);
        Ok(Self { inner })
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ArtifactStore> {
        &self.inner.store
    }
}

impl Inner {
    /// The artifact of a release, its digests looked at.
    async fn load(&self, release: &Release) -> Result<(Artifact, AnyIntegration)> {
        let content = self.store.get(&release.digest).await?;
        let manifest = check::parse(&content, &*self.schemas)?;
        if (&manifest.name, &manifest.version) != (&release.name, &release.version) {
            let message = "the content of a release is another integration than it says";
            return Err(Error::new(Code::StoreCorrupt, message).with("digest", release.digest));
        }
        let kinds = layers::kinds(&manifest, &content)?;
        if kinds.len() != release.layers.len() {
            let message = "a release has not the layers that its content asks for: publish it again";
            return Err(Error::new(Code::StoreCorrupt, message).with("digest", release.digest));
        }
        let mut artifact = Artifact {
            digest: release.digest,
            manifest,
            folder: content.clone(),
            layers: Vec::new(),
            python: None,
            assembly: None,
        };
        for (kind, layer) in kinds.into_iter().zip(&release.layers) {
            let packages = self.store.get(layer).await?;
            if kind == Language::Python {
                artifact.python = Some(packages.clone());
            } else {
                let assembly = self
                    .assemble(release.digest, content.clone(), *layer, packages.clone())
                    .await?;
                artifact.folder = assembly.join(layers::APP);
                artifact.assembly = Some(assembly);
            }
            artifact.layers.push(packages);
        }
        let mut integration = load::integration(&artifact, &self.policy, &*self.schemas)?;
        integration.author.clone_from(&release.author);
        Ok((artifact, integration))
    }

    async fn assemble(
        &self,
        of: ContentDigest,
        content: PathBuf,
        layer: ContentDigest,
        packages: PathBuf,
    ) -> Result<PathBuf> {
        let (assemblies, staging) = (self.assemblies.clone(), self.staging.clone());
        let made = tokio::task::spawn_blocking(move || {
            layers::assemble(&assemblies, &staging, (&of, &content), (&layer, &packages))
        });
        made.await
            .or_fail(Code::Internal, "a folder for a program could not be made")?
    }

    /// Whether everything that an integration needs is here: connectors, interpreters, isolation, a form.
    async fn fits(&self, integration: &AnyIntegration) -> Result<()> {
        self.registry.check(integration)?;
        self.schemas.offerable(&self.registry, integration)?;
        for flow in &integration.flows {
            self.prepare(&flow.work)
                .await
                .map_err(|error| error.with("flow", &flow.name))?;
        }
        Ok(())
    }

    async fn prepare(&self, work: &Work) -> Result<()> {
        let require = match work {
            Work::Script(script) => script.required_isolation(),
            _ => crosspoint_core::Isolation::Trusted,
        };
        self.runners.prepare(work, require).await
    }
}

/// The refusal of what somebody wants to publish.
fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::ArtifactInvalid, message)
}

/// Releases by name and version.
type ByVersion<T> = BTreeMap<(String, String), T>;
