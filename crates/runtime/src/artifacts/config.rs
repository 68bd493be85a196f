//! Where artifacts are kept, and what authors are granted.

use super::{ArtifactLimits, ArtifactStore, AuthorPolicy, Dependencies, FolderArtifacts};
use crosspoint_core::{Clock, Result};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Where artifacts are kept, and what their authors are granted.
///
/// ```
/// use crosspoint_runtime::artifacts::{ArtifactsConfig, Dependencies};
/// let config = ArtifactsConfig::folder("artifacts").dependencies(Dependencies::new().inherit(["HTTPS_PROXY"]));
/// let short: ArtifactsConfig = "artifacts".into();
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ArtifactsConfig {
    place: Place,
    pub(super) policy: AuthorPolicy,
    pub(super) limits: ArtifactLimits,
    pub(super) dependencies: Dependencies,
    pub(super) interval: Duration,
}

#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    Store(Arc<dyn ArtifactStore>, PathBuf),
}

impl ArtifactsConfig {
    /// In a folder, by [`FolderArtifacts`]. Processes that share the folder offer the same.
    pub fn folder(root: impl Into<PathBuf>) -> Self {
        Self::new(Place::Folder(root.into()))
    }

    /// In a store of one's own. `local` is a folder of this machine for what is being prepared.
    pub fn store(store: Arc<dyn ArtifactStore>, local: impl Into<PathBuf>) -> Self {
        Self::new(Place::Store(store, local.into()))
    }

    fn new(place: Place) -> Self {
        Self {
            place,
            policy: AuthorPolicy::new(),
            limits: ArtifactLimits::default(),
            dependencies: Dependencies::new(),
            interval: Duration::from_secs(3),
        }
    }

    /// What authors are granted.
    pub fn authors(mut self, policy: AuthorPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// How large artifacts may be.
    pub const fn limits(mut self, limits: ArtifactLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How packages are installed.
    pub fn dependencies(mut self, dependencies: Dependencies) -> Self {
        self.dependencies = dependencies;
        self
    }

    /// How often a process looks for what others have published; 3 s unless set. A version that somebody has installed
    /// meanwhile is looked for at once.
    pub const fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The store, and the folder for what is being prepared.
    pub(super) fn place(&self, clock: &Arc<dyn Clock>) -> Result<(Arc<dyn ArtifactStore>, PathBuf)> {
        match &self.place {
            Place::Store(store, local) => Ok((Arc::clone(store), local.clone())),
            Place::Folder(root) => {
                let store = FolderArtifacts::open(root)?.clock(Arc::clone(clock));
                Ok((
                    Arc::new(store),
                    std::path::absolute(root).unwrap_or_else(|_| root.clone()),
                ))
            }
        }
    }
}

impl From<&str> for ArtifactsConfig {
    fn from(root: &str) -> Self {
        Self::folder(root)
    }
}

impl From<&Path> for ArtifactsConfig {
    fn from(root: &Path) -> Self {
        Self::folder(root)
    }
}

impl From<PathBuf> for ArtifactsConfig {
    fn from(root: PathBuf) -> Self {
        Self::folder(root)
    }
}
