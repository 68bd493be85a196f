//! Artifacts in a folder of this machine, or of a file system that several machines share.
//!
//! ```text
//! lock                        held for a moment by whoever changes releases or removes content
//! content/<digest>/           what was put; read-only
//! layers/<digest>             the text of the digest of the layer's content
//! releases/<name>/<version>   a release as JSON
//! staging/                    what is not there yet, and what is not there any more
//! ```
//!
//! Whatever appears outside of `staging` was written there first, is on disk, and is renamed into place: a process that
//! dies at any moment leaves something in `staging` and nothing else.

use super::{
    disk::{AWAY, LEFT_BEHIND, failed, names, older, protect, remove, sweep, sync_below, sync_folder},
    listing,
    store::{ArtifactStore, Over},
};
use async_trait::async_trait;
use crosspoint_core::{Clock, Code, ContentDigest, Error, ErrorExt, Release, Result, SystemClock, Timestamp};
use rustix::fs::{FlockOperation, flock};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const CONTENT: &str = "content";
const LAYERS: &str = "layers";
const RELEASES: &str = "releases";
const STAGING: &str = "staging";

/// Artifacts in a folder. Any number of processes may share it.
///
/// ```
/// use crosspoint_runtime::artifacts::{ArtifactStore, FolderArtifacts};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let temporary = tempfile::tempdir()?; let folder = temporary.path();
/// let artifacts = FolderArtifacts::open(folder.join("artifacts"))?;
/// assert!(artifacts.list().await?.is_empty());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct FolderArtifacts {
    root: Arc<Path>,
    clock: Arc<dyn Clock>,
}

impl FolderArtifacts {
    /// Artifacts in this folder, which is made if need be.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`] if it cannot be made or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root: PathBuf = root.into();
        for folder in [CONTENT, LAYERS, RELEASES, STAGING] {
            fs::create_dir_all(root.join(folder)).map_err(|e| failed("the folder cannot be made", &root, e))?;
        }
        let root = root
            .canonicalize()
            .map_err(|e| failed("the folder cannot be found", &root, e))?;
        File::create(root.join("lock")).map_err(|e| failed("the folder cannot be written", &root, e))?;
        Ok(Self {
            root: root.into(),
            clock: Arc::new(SystemClock::new()),
        })
    }

    /// Tells the age of content by this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where folders that are about to be put are best made: on the same file system they are moved and not copied.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.root.join(STAGING)
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.or_fail(Code::Internal, "work on the artifacts' folder ended without an answer")?
    }

    fn content(&self, digest: &ContentDigest) -> PathBuf {
        self.root.join(CONTENT).join(digest.to_string())
    }

    fn release(&self, name: &str, version: &str) -> PathBuf {
        self.root.join(RELEASES).join(name).join(version)
    }

    /// Held until the file is closed; the system lets go of it when a process dies.
    fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let file = OpenOptions::new().write(true).open(&path);
        let file = file.map_err(|e| failed("the lock cannot be opened", &path, e))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| failed("the lock cannot be had", &path, e.into()))?;
        Ok(file)
    }

    fn keep(&self, folder: &Path) -> Result<ContentDigest> {
        let staged = self.bring_near(folder)?;
        let staged = staged.as_deref().unwrap_or(folder);
        let digest = listing::digest(staged)?;
        sync_below(staged)?;
        let target = self.content(&digest);
        let lock = self.lock()?;
        if target.exists() {
            if listing::digest(&target).is_ok_and(|found| found == digest) {
                self.touch(&target)?;
                drop(lock);
                return remove(staged).map(|()| digest);
            }
            tracing::warn!(%digest, "content was damaged and is replaced by what was put now");
            self.put_away(&target)?;
        }
        fs::rename(staged, &target).map_err(|e| failed("content cannot be moved into place", &target, e))?;
        self.touch(&target)?;
        sync_folder(&self.root.join(CONTENT))?;
        drop(lock);
        protect(&target)?;
        Ok(digest)
    }

    /// On another file system nothing can be renamed to here.
    fn bring_near(&self, folder: &Path) -> Result<Option<PathBuf>> {
        use std::os::unix::fs::MetadataExt;
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev());
        let here = device(&self.root).map_err(|e| failed("the folder cannot be looked at", &self.root, e))?;
        let there = device(folder).map_err(|e| failed("what is to be put cannot be looked at", folder, e))?;
        if here == there {
            return Ok(None);
        }
        let near = self.stage()?;
        for listed in listing::list(folder)? {
            let target = near.join(&listed.path);
            let copied = target.parent().map_or(Ok(()), fs::create_dir_all);
            let copied = copied.and_then(|()| fs::copy(folder.join(&listed.path), &target).map(drop));
            copied.map_err(|e| failed("content cannot be copied", &target, e))?;
        }
        remove(folder)?;
        Ok(Some(near))
    }

    fn stage(&self) -> Result<PathBuf> {
        let staged = tempfile::Builder::new().prefix("put-").tempdir_in(self.staging());
        let staged = staged.map_err(|e| failed("a folder cannot be made", &self.root, e))?;
        Ok(staged.keep())
    }

    /// Notes that it was put now.
    fn touch(&self, content: &Path) -> Result<()> {
        let since = Duration::from_millis(u64::try_from(self.clock.now().as_millis()).unwrap_or(0));
        let touched = File::open(content).and_then(|folder| folder.set_modified(std::time::UNIX_EPOCH + since));
        touched.map_err(|e| failed("content cannot be dated", content, e))
    }

    fn read(&self, digest: &ContentDigest) -> Result<PathBuf> {
        let path = self.content(digest);
        if !path.is_dir() {
            return Err(Error::new(Code::StoreCorrupt, "the content of an artifact is missing").with("digest", digest));
        }
        let found = listing::digest(&path)?;
        if found != *digest {
            let message = "the content of an artifact is not what its digest says: somebody or something changed it. \
                           Publish it again to put it right";
            return Err(Error::new(Code::StoreCorrupt, message)
                .with("digest", digest)
                .with("found", found));
        }
        Ok(path)
    }

    fn releases(&self) -> Result<Vec<Release>> {
        let mut all = Vec::new();
        for name in names(&self.root.join(RELEASES))? {
            for version in names(&self.root.join(RELEASES).join(&name))? {
                // Gone since, when it was collected.
                all.extend(self.find(&name, &version)?);
            }
        }
        Ok(all)
    }

    fn find(&self, name: &str, version: &str) -> Result<Option<Release>> {
        let path = self.release(name, version);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(failed("a release cannot be read", &path, e)),
        };
        let release: Release = serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(Code::StoreCorrupt, "a release cannot be read")
                .with("path", path.display())
                .caused_by(e)
        })?;
        Ok(Some(release))
    }

    fn write(&self, mut release: Release, over: Over) -> Result<Release> {
        let _lock = self.lock()?;
        if let Some(found) = self.find(&release.name, &release.version)? {
            if found.digest != release.digest && over == Over::Same {
                return Err(conflict(&found, &release.digest));
            }
            if found.digest == release.digest && over == Over::Same {
                release.published = found.published;
                release.author = found.author;
            }
        }
        for digest in std::iter::once(&release.digest).chain(&release.layers) {
            if !self.content(digest).is_dir() {
                let message = "what was put was removed again before the release was complete: publish once more";
                return Err(Error::new(Code::StoreUnavailable, message).with("digest", digest));
            }
        }
        let bytes = serde_json::to_vec_pretty(&release).or_fail(Code::Internal, "a release does not serialise")?;
        self.replace(&self.release(&release.name, &release.version), &bytes)?;
        Ok(release)
    }

    /// The file is there whole, with its old content or with the new.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        let written = (|| {
            if !folder.is_dir() {
                fs::create_dir_all(folder)?;
                folder.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())?;
            }
            let mut file = tempfile::NamedTempFile::new_in(self.staging())?;
            file.write_all(bytes)?;
            file.as_file().set_permissions(Permissions::from_mode(0o644))?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|e| e.error)?;
            File::open(folder)?.sync_all()
        })();
        written.map_err(|e| failed("a file cannot be written", path, e))
    }

    fn note_layer(&self, made_of: &ContentDigest, content: Option<&ContentDigest>) -> Result<Option<ContentDigest>> {
        let path = self.root.join(LAYERS).join(made_of.to_string());
        let _lock = self.lock()?;
        let found = fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.parse::<ContentDigest>().ok());
        let kept = found.filter(|digest| self.content(digest).is_dir());
        if let Some(digest) = kept {
            self.touch(&self.content(&digest))?;
            return Ok(Some(digest));
        }
        if let Some(content) = content {
            self.replace(&path, content.to_string().as_bytes())?;
        }
        Ok(content.copied())
    }

    fn sweep(&self, releases: &[Release], before: Timestamp) -> Result<Vec<ContentDigest>> {
        let lock = self.lock()?;
        for release in releases {
            let path = self.release(&release.name, &release.version);
            if self.find(&release.name, &release.version)?.as_ref() == Some(release) {
                fs::remove_file(&path).map_err(|e| failed("a release cannot be removed", &path, e))?;
                // Not if there are other versions.
                drop(path.parent().map(fs::remove_dir));
            }
        }
        let mut named = BTreeSet::new();
        for release in self.releases()? {
            named.insert(release.digest);
            named.extend(release.layers);
        }
        let mut removed = Vec::new();
        for name in names(&self.root.join(CONTENT))? {
            let Ok(digest) = name.parse::<ContentDigest>() else {
                continue;
            };
            if !named.contains(&digest) && older(&self.content(&digest), before) {
                self.put_away(&self.content(&digest))?;
                removed.push(digest);
            }
        }
        for name in names(&self.root.join(LAYERS))? {
            let path = self.root.join(LAYERS).join(name);
            let content = fs::read_to_string(&path).ok().and_then(|text| text.parse().ok());
            if content.is_some_and(|digest| removed.contains(&digest)) {
                fs::remove_file(&path).map_err(|e| failed("a layer cannot be removed", &path, e))?;
            }
        }
        drop(lock);
        sweep(&self.staging(), self.clock.now().minus(LEFT_BEHIND))?;
        Ok(removed)
    }

    /// Out of sight at once; removing a large folder takes a while.
    fn put_away(&self, path: &Path) -> Result<()> {
        let away = tempfile::Builder::new().prefix(AWAY).tempdir_in(self.staging());
        let away = away
            .map_err(|e| failed("a folder cannot be made", &self.root, e))?
            .keep();
        // A folder that cannot be written cannot be moved either.
        let moved = fs::set_permissions(path, Permissions::from_mode(0o755));
        let moved = moved.and_then(|()| fs::rename(path, away.join("content")));
        moved.map_err(|e| failed("content cannot be removed", path, e))
    }
}

#[async_trait]
impl ArtifactStore for FolderArtifacts {
    async fn put(&self, folder: &Path) -> Result<ContentDigest> {
        let folder = folder.to_owned();
        self.blocking(move |this| this.keep(&folder)).await
    }
    async fn get(&self, digest: &ContentDigest) -> Result<PathBuf> {
        let digest = *digest;
        self.blocking(move |this| this.read(&digest)).await
    }
    async fn list(&self) -> Result<Vec<Release>> {
        self.blocking(Self::releases).await
    }
    async fn tag(&self, release: Release, over: Over) -> Result<Release> {
        self.blocking(move |this| this.write(release, over)).await
    }
    async fn layer(&self, made_of: &ContentDigest, content: Option<&ContentDigest>) -> Result<Option<ContentDigest>> {
        let (made_of, content) = (*made_of, content.copied());
        self.blocking(move |this| this.note_layer(&made_of, content.as_ref()))
            .await
    }
    async fn collect(&self, releases: &[Release], before: Timestamp) -> Result<Vec<ContentDigest>> {
        let releases = releases.to_vec();
        self.blocking(move |this| this.sweep(&releases, before)).await
    }
}

pub(super) fn conflict(found: &Release, wanted: &ContentDigest) -> Error {
    let message = "this version was published before with other content: raise the version in crosspoint.json and publish \
                   again. (A pre-release such as 1.2.0-dev can be replaced, if that is asked for)";
    Error::new(Code::Conflict, message)
        .with("integration", &found.name)
        .with("version", &found.version)
        .with("published", found.digest)
        .with("given", wanted)
}
