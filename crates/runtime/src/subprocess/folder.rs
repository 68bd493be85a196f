//! The private folder of a run: what the script reads, and what it leaves behind.

use crosspoint_core::{Code, Error, ErrorExt, Result};
use rustix::fs::{Mode, OFlags, openat};
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};
use tempfile::TempDir;

pub(super) const RESULT: &str = "result.json";
pub(super) const STATE_OUT: &str = "state-out.json";

/// A folder that only the host's user can enter, removed with everything in it at the end of the run.
#[derive(Debug)]
pub(super) struct Folder {
    dir: Option<TempDir>,
    /// Names are looked up below this descriptor, so that renaming the folder leads nowhere.
    handle: OwnedFd,
    path: PathBuf,
}

fn failed(error: impl Into<crosspoint_core::BoxError>) -> Error {
    Error::new(
        Code::ScriptNotStarted,
        "the private folder of the run could not be made",
    )
    .with_retry(crosspoint_core::Retry::Backoff)
    .caused_by(error)
}

impl Folder {
    pub(super) fn make(parent: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("xp-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(failed)?;
        let path = fs::canonicalize(dir.path()).map_err(failed)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let handle = rustix::fs::open(&path, flags, Mode::empty()).map_err(failed)?;
        Ok(Self {
            dir: Some(dir),
            handle,
            path,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(path)
    }

    pub(super) fn write(&self, name: &str, content: &[u8], mode: u32) -> Result<PathBuf> {
        let path = self.path(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        file.and_then(|mut file| file.write_all(content)).map_err(failed)?;
        Ok(path)
    }

    /// What the script left under this name: `None` if it left nothing. Only a regular file with one name is read, and
    /// no link is followed.
    pub(super) fn read(&self, name: &'static str, limit: u64) -> Result<Option<Vec<u8>>> {
        let bad = |message: &str| Error::new(Code::ScriptOutputInvalid, message).with("file", name);
        // A FIFO without a writer would block the open; NONBLOCK makes it return at once.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = match openat(&self.handle, name, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => return Err(bad("the script left a symbolic link in place of its output")),
            Err(errno) => return Err(bad("the script's output cannot be opened").caused_by(errno)),
        };
        let about = file
            .metadata()
            .or_fail(Code::ScriptOutputInvalid, "the script's output cannot be read")?;
        if !about.is_file() || about.nlink() != 1 {
            return Err(bad("the script's output is not a regular file of its own"));
        }
        let mut content = Vec::new();
        let read = (&mut file).take(limit.saturating_add(1)).read_to_end(&mut content);
        let read = read.or_fail(Code::ScriptOutputInvalid, "the script's output cannot be read")?;
        if u64::try_from(read).unwrap_or(u64::MAX) > limit {
            return Err(bad("the script's output is larger than the limit").with("limit_bytes", limit));
        }
        Ok(Some(content))
    }

    /// Removes the folder, also when the script took permissions away from parts of it.
    pub(super) fn remove(mut self) {
        let Some(dir) = self.dir.take() else { return };
        let path = dir.keep();
        let mut removed = fs::remove_dir_all(&path);
        if removed.as_ref().is_err_and(|e| e.kind() == ErrorKind::PermissionDenied) {
            open_up(&path);
            removed = fs::remove_dir_all(&path);
        }
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "the private folder of a run could not be removed");
        }
    }
}

fn open_up(folder: &Path) {
    drop(fs::set_permissions(folder, fs::Permissions::from_mode(0o700)));
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        // `file_type` does not follow links.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder() -> Folder {
        Folder::make(&std::env::temp_dir()).unwrap()
    }

    #[test]
    fn only_plain_files_are_read_back() {
        let folder = folder();
        assert!(folder.read(RESULT, 10).unwrap().is_none());
        folder.write(RESULT, b"12345", 0o600).unwrap();
        assert_eq!(folder.read(RESULT, 5).unwrap().unwrap(), b"12345");
        assert_eq!(folder.read(RESULT, 4).unwrap_err().code(), Code::ScriptOutputInvalid);
        fs::hard_link(folder.path(RESULT), folder.path("other")).unwrap();
        assert!(folder.read(RESULT, 5).is_err(), "a second name");
        fs::remove_file(folder.path(RESULT)).unwrap();
        symlink(folder.path("other"), folder.path(RESULT)).unwrap();
        assert!(folder.read(RESULT, 5).is_err(), "a link");
        fs::remove_file(folder.path(RESULT)).unwrap();
        folder.folder(RESULT).unwrap();
        assert!(folder.read(RESULT, 5).is_err(), "a folder");
        folder.remove();
    }

    #[test]
    fn nothing_is_left_and_nobody_else_can_look() {
        let folder = folder();
        let path = folder.path("");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let locked = folder.folder("locked").unwrap();
        fs::write(locked.join("x"), "x").unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o0)).unwrap();
        folder.remove();
        assert!(!path.exists());
    }
}
