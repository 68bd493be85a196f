//! Taking turns between processes.
//!
//! SQLite's own busy handler sleeps and tries again, which lets a busy process starve the others for seconds, and a
//! single `flock` goes back to whoever released it. With two files whoever waits for `main` holds `next`, so that the
//! last writer cannot overtake: the wait is bounded by one group of each other process.

use crosspoint_core::{Code, Error, Result};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
};

/// Two lock files beside the database.
#[derive(Debug)]
pub(crate) struct Turnstile {
    next: File,
    main: File,
}

/// The right to write, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a File);

impl Turnstile {
    /// Opens the lock files of a database, and makes them if there are none.
    pub(crate) fn open(database: &Path) -> Result<Self> {
        Ok(Self {
            next: lock_file(&beside(database, "-cp-next"))?,
            main: lock_file(&beside(database, "-cp-lock"))?,
        })
    }

    /// Waits until it is this process's turn to write.
    pub(crate) fn enter(&self) -> Result<Turn<'_>> {
        lock(&self.next)?;
        let turn = lock(&self.main).map(|()| Turn(&self.main));
        unlock(&self.next);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        unlock(self.0);
    }
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn lock_file(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| {
            Error::new(
                Code::StoreReadOnly,
                "the lock file beside the database cannot be written",
            )
            .with("path", path.display())
            .caused_by(e)
        })
}

fn lock(file: &File) -> Result<()> {
    loop {
        match flock(file, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                return Err(Error::new(Code::StoreUnavailable, "the lock file cannot be locked").caused_by(e));
            }
        }
    }
}

fn unlock(file: &File) {
    if let Err(error) = flock(file, FlockOperation::Unlock) {
        tracing::error!(%error, "a lock file could not be unlocked");
    }
}
