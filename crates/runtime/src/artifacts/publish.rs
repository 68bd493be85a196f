//! Publishing: from a folder or an archive to a release that is offered.
//!
//! Every step but the last makes something that nobody looks at. The last one, the tag, is a single write: a process that
//! dies before it has published nothing, and one that dies after it has published all of it.

use super::{
    Artifact, Artifacts, Inner, Manifest, check, folder::conflict, gather, invalid, layers, listing, load, store::Over,
};
use crosspoint_core::{
    Code, ContentDigest, Error, ErrorExt, Incoming, Kind, Problem, Publish, PublishOptions, Published, Release, Result,
    Timestamp, Work,
};
use semver::Version;
use std::{collections::BTreeSet, path::Path};
use tempfile::TempDir;

/// What was taken apart and checked, and is not kept yet.
struct Ready {
    folder: TempDir,
    digest: ContentDigest,
    manifest: Manifest,
    left_out: BTreeSet<String>,
}

impl Artifacts {
    /// Publishes a folder or an archive: checks it, installs its packages, keeps it, and offers it. New installations get
    /// it at once in this process, and within some seconds in others; what is installed stays at its version.
    ///
    /// Publishing the same content again changes nothing, and offers it again if it had been withdrawn.
    ///
    /// # Errors
    /// [`Code::ArtifactInvalid`] with every problem; [`Code::DependenciesFailed`] with the package manager's output;
    /// [`Code::Conflict`] if the version was published with other content, or the name is that of an integration compiled
    /// into the host; whatever the store meets. Nothing was published then.
    pub async fn publish(&self, source: impl AsRef<Path>, options: &PublishOptions) -> Result<Published> {
        let inner = &*self.inner;
        let ready = Box::pin(inner.ready(source.as_ref(), options)).await?;
        let there = inner.there(&ready, options).await?;
        let mut warnings = gather::told(&ready.left_out);
        if options.check {
            warnings.extend(layers::check(&ready.manifest, ready.folder.path())?);
            let release = ready.release(Vec::new(), inner.clock.now(), options);
            return Ok(Published::new(&release, false, warnings));
        }
        let (packages, more) = Box::pin(layers::install(
            &ready.manifest,
            ready.folder.path(),
            &inner.staging,
            &*inner.store,
            &inner.dependencies,
        ))
        .await?;
        warnings.extend(more);
        let kept = inner.store.put(ready.folder.path()).await?;
        if kept != ready.digest {
            return Err(Error::new(
                Code::StoreUnavailable,
                "the store kept something else than it was given",
            ));
        }
        let over = if options.replace { Over::Any } else { Over::Same };
        let release = inner
            .store
            .tag(ready.release(packages, inner.clock.now(), options), over)
            .await?;
        let new = there.is_none_or(|there| there.digest != release.digest || there.withdrawn.is_some());
        tracing::info!(integration = release.name, version = release.version, digest = %release.digest, new, "published");
        if let Err(error) = self.refresh().await {
            // It is published all the same; the next look puts it into the registry.
            tracing::warn!(error = ?error, "what was published could not be looked at yet");
        }
        Ok(Published::new(&release, new, warnings))
    }

    /// Every version that was published, by name and version, withdrawn ones included.
    ///
    /// # Errors
    /// Whatever the store meets.
    pub async fn releases(&self) -> Result<Vec<Release>> {
        self.inner.store.list().await
    }

    /// Takes a version off the catalogue. The newest of the others is offered in its place, if there is one; whoever has
    /// installed it keeps it.
    ///
    /// # Errors
    /// [`Code::NotFound`] if it was never published; whatever the store meets.
    pub async fn withdraw(&self, name: &str, version: &str) -> Result<Release> {
        let releases = self.releases().await?;
        let found = releases
            .into_iter()
            .find(|release| release.name == name && release.version == version);
        let mut release = found.ok_or_else(|| Error::new(Code::NotFound, "there is no such version"))?;
        if release.withdrawn.is_none() {
            release.withdrawn = Some(self.inner.clock.now());
            release = self.inner.store.tag(release, Over::Same).await?;
            self.refresh().await?;
        }
        Ok(release)
    }
}

impl Ready {
    fn release(&self, layers: Vec<ContentDigest>, now: Timestamp, options: &PublishOptions) -> Release {
        let (name, version) = (&self.manifest.name, &self.manifest.version);
        let mut release = Release::new(name, version, self.digest, layers, now);
        release.author.clone_from(&options.author);
        release
    }
}

impl Inner {
    /// Takes it apart and checks all that can be checked without anybody else.
    async fn ready(&self, source: &Path, options: &PublishOptions) -> Result<Ready> {
        let folder = tempfile::Builder::new().prefix("publish-").tempdir_in(&self.staging);
        let folder = folder.or_fail(Code::StoreUnavailable, "a temporary folder cannot be made")?;
        let (source, into, limits) = (source.to_owned(), folder.path().to_owned(), self.limits);
        let gathered = tokio::task::spawn_blocking(move || {
            let left_out = gather::from(&source, &into, &limits)?;
            Ok::<_, Error>((left_out, listing::digest(&into)?))
        });
        let (left_out, digest) = gathered
            .await
            .or_fail(Code::Internal, "an artifact could not be taken apart")??;
        if let Some(expected) = options.digest.filter(|expected| *expected != digest) {
            let message = "the content is not what the digest says: it was changed or cut off on the way";
            return Err(invalid(message).with("expected", expected).with("found", digest));
        }
        let manifest = check::read(folder.path(), &self.policy, &*self.schemas, self.clock.now())?;
        let artifact = Artifact {
            digest,
            manifest,
            folder: folder.path().to_owned(),
            layers: Vec::new(),
            python: None,
            assembly: None,
        };
        self.acceptable(&artifact).await?;
        Ok(Ready {
            folder,
            digest,
            manifest: artifact.manifest,
            left_out,
        })
    }

    /// Whether this host could run and offer it; every reason why not.
    async fn acceptable(&self, artifact: &Artifact) -> Result<()> {
        let told = |error: Error, at: &str| -> Vec<Problem> {
            if error.problems().is_empty() {
                return vec![Problem::new(at, error.message())];
            }
            let problems = error.problems().iter();
            problems
                .map(|p| Problem::new(at, format!("{}: {}", p.pointer, p.message)))
                .collect()
        };
        let integration = load::integration(artifact, &self.policy, &*self.schemas);
        let integration =
            integration.map_err(|e| invalid("crosspoint.json has problems").with_problems(told(e, "/config")))?;
        let mut problems = Vec::new();
        if let Err(error) = self.registry.check(&integration) {
            problems.extend(error.problems().iter().cloned());
        }
        if let Err(error) = self.schemas.offerable(&self.registry, &integration) {
            problems.extend(told(error, "/config"));
        }
        for (index, flow) in integration.flows.iter().enumerate() {
            let Work::Script(_) = &flow.work else { continue };
            match self.prepare(&flow.work).await {
                Ok(()) => {}
                Err(e) if e.kind() == Kind::Isolation => problems.extend(told(e, &format!("/flows/{index}/isolation"))),
                Err(e) => problems.extend(told(e, &format!("/flows/{index}/language"))),
            }
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(invalid("this host cannot take the integration").with_problems(problems)),
        }
    }

    /// The release of the same name and version, if there is one and it may stay or be replaced. Looked at before packages
    /// are installed; the tag looks again.
    async fn there(&self, ready: &Ready, options: &PublishOptions) -> Result<Option<Release>> {
        let (name, version) = (&ready.manifest.name, &ready.manifest.version);
        if self.compiled.contains(name) {
            let message = "an integration of this name is compiled into the host: choose another name";
            return Err(Error::new(Code::Conflict, message).with("integration", name));
        }
        let preliminary = Version::parse(version).is_ok_and(|version| !version.pre.is_empty());
        if options.replace && !preliminary {
            let message = "only a pre-release such as 1.2.0-dev can be replaced: raise the version";
            return Err(Error::new(Code::Conflict, message)
                .with("integration", name)
                .with("version", version));
        }
        let releases = self.store.list().await?;
        let there = releases
            .into_iter()
            .find(|one| one.name == *name && one.version == *version);
        match there {
            Some(there) if there.digest != ready.digest && !options.replace => Err(conflict(&there, &ready.digest)),
            there => Ok(there),
        }
    }
}

#[async_trait::async_trait]
impl Publish for Artifacts {
    fn largest(&self) -> u64 {
        self.inner.limits.archive
    }
    async fn receive(&self) -> Result<Box<dyn Incoming>> {
        Ok(Box::new(super::receive::Upload::begin(self).await?))
    }
    async fn releases(&self) -> Result<Vec<Release>> {
        Self::releases(self).await
    }
    async fn withdraw(&self, name: &str, version: &str) -> Result<Release> {
        Self::withdraw(self, name, version).await
    }
}
