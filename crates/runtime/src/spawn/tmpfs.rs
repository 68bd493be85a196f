//! A run's folder in memory.

use super::sweeper::Sweeper;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::fstatfs,
};
use std::sync::Weak;

/// What the kernel frees in a fraction of a millisecond.
const LITTLE: u64 = 1 << 20;

/// A run's folder in memory: `/w`. It is there until the run has ended and this is dropped. Open what is in it beneath this
/// descriptor only: names in it are the run's.
///
/// ```
/// use crosspoint_core::{CustomerId, Isolation, Result};
/// use crosspoint_runtime::bare::{Job, Sandbox, SandboxOptions};
/// use std::os::fd::AsFd;
///
/// # async fn example() -> Result<()> {
/// let sandbox = Sandbox::new(SandboxOptions::default());
/// let mut job = Job::new("/bin/sh");
/// job.args = vec!["-c".into(), "echo done > result".into()];
/// let mut child = sandbox.launch(Isolation::Sandboxed, job, &CustomerId::new("acme")?).await?;
/// child.wait().await?;
/// let folder = child.folder.as_ref().map(AsFd::as_fd);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Tmpfs {
    folder: OwnedFd,
    sweeper: Weak<Sweeper>,
}

/// What lies in a tmpfs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lying {
    pub(super) bytes: u64,
    /// How many files and folders.
    pub(super) inodes: u64,
}

impl Tmpfs {
    pub(super) fn new(folder: OwnedFd, sweeper: Weak<Sweeper>) -> Self {
        let folder = match sweeper.upgrade() {
            Some(sweeper) => sweeper.floor.lift(folder),
            None => folder,
        };
        Self { folder, sweeper }
    }

    /// What lies in it.
    pub(super) fn lying(&self) -> Lying {
        fstatfs(&self.folder).map_or_else(
            |_| Lying::default(),
            |found| Lying {
                bytes: found.f_blocks.saturating_sub(found.f_bfree) * u64::try_from(found.f_bsize).unwrap_or(0),
                inodes: found.f_files.saturating_sub(found.f_ffree),
            },
        )
    }
}

impl AsFd for Tmpfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

impl Drop for Tmpfs {
    /// Much is freed by the sweeper: its descriptor is the last.
    fn drop(&mut self) {
        let bytes = self.lying().bytes;
        if bytes > LITTLE
            && let Some(sweeper) = self.sweeper.upgrade()
            && let Ok(last) = sweeper.floor.another(self.folder.as_fd())
        {
            drop(sweeper.keep(last, bytes));
        }
    }
}
