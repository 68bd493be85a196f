//! Where artifacts are kept.

use async_trait::async_trait;
use crosspoint_core::{ContentDigest, Release, Result, Timestamp};
use std::{
    fmt::Debug,
    path::{Path, PathBuf},
};

/// What a release may take the place of, if there is one of the same name and version already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Over {
    /// Of the same content: that one stays as it is, but is offered again if it had been withdrawn.
    Same,
    /// Of any content.
    Any,
}

/// Keeps what was published: content by its digest, releases by name and version, layers by what they were made of.
///
/// [`FolderArtifacts`](super::FolderArtifacts) is the usual one. For another one (an object store, a database):
///
/// - Content is a folder of plain files. It never changes, and the same digest is kept once however often it is put. After
///   [`ArtifactStore::put`] has answered, it is there even if the power fails.
/// - [`ArtifactStore::get`] answers a local folder, fetched and cached if need be, and looks whether the digest is right
///   whenever it is called. It is called when a process first learns of a release, not at each run.
/// - A release is there or not: [`ArtifactStore::tag`] is one atomic, durable, conditional write, whoever else publishes at
///   the same time in other processes. It is the last step of publishing, and the only one that others can see.
/// - Nothing is removed but by [`ArtifactStore::collect`], which must not take what a publisher has put a moment ago and is
///   about to tag.
///
/// Failures of the store itself are `store-unavailable`; content that is not what its digest says is `store-corrupt`.
#[async_trait]
pub trait ArtifactStore: Send + Sync + Debug + 'static {
    /// Keeps a folder under its digest. The folder belongs to the store from now on: it is moved or copied, and gone
    /// afterwards. It has nothing in it but plain files and folders.
    async fn put(&self, folder: &Path) -> Result<ContentDigest>;

    /// The local folder with this content. Nobody writes to it.
    async fn get(&self, digest: &ContentDigest) -> Result<PathBuf>;

    /// Every release, withdrawn ones included, by name and version.
    async fn list(&self) -> Result<Vec<Release>>;

    /// Makes a release known, or changes one. Its content and layers have to be kept already. Answers the release as it is
    /// kept now.
    ///
    /// Fails with `conflict` if there is one of the same name and version that [`Over`] does not cover.
    async fn tag(&self, release: Release, over: Over) -> Result<Release>;

    /// The layer that was made of something: `made_of` is the digest of a lock file, an interpreter and a platform. With
    /// `content` it is noted unless there is one, and the first one stays. What is answered is kept as if it had just been
    /// put.
    async fn layer(&self, made_of: &ContentDigest, content: Option<&ContentDigest>) -> Result<Option<ContentDigest>>;

    /// Removes these releases, and then all content that no release names and that was last put before `before`. Answers
    /// what content was removed.
    async fn collect(&self, releases: &[Release], before: Timestamp) -> Result<Vec<ContentDigest>>;
}
