//! What a script leaves behind, read without trusting any name below its folder.

use super::folder::Folder;
use crosspoint_core::{Code, Error, ErrorExt, Result};
use rustix::{
    fs::{AtFlags, Mode, OFlags, statat},
    io::Errno,
};
use std::{
    fmt,
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    sync::Arc,
};

pub(super) const RESULT: &str = "result.json";
pub(super) const STATE_OUT: &str = "state-out.json";

/// Bytes of a file that are read and understood in the time that it takes to hand it to another thread.
const QUICK: u64 = 16 * 1024;

/// A folder that is open.
pub(crate) trait Root: AsFd + fmt::Debug + Send + Sync {}

impl<T: AsFd + fmt::Debug + Send + Sync> Root for T {}

/// The private folder after the run.
#[derive(Debug)]
pub(crate) enum Files {
    /// On the host, removed when this is dropped.
    Folder(Folder),
    /// In memory, on a file system that only the run could see; it lives as long as this.
    Descriptor(Arc<dyn Root>),
}

impl Files {
    pub(super) const fn of(folder: Folder) -> Self {
        Self::Folder(folder)
    }

    fn root(&self) -> BorrowedFd<'_> {
        match self {
            Self::Folder(folder) => folder.handle(),
            Self::Descriptor(descriptor) => descriptor.as_fd(),
        }
    }

    /// Whether what the script left can be read and understood on the spot: it is in memory, and little.
    pub(super) fn are_quick(&self) -> bool {
        let little = |name| {
            let about = statat(self.root(), name, AtFlags::SYMLINK_NOFOLLOW);
            about.map_or(true, |about| {
                u64::try_from(about.st_size).is_ok_and(|size| size <= QUICK)
            })
        };
        matches!(self, Self::Descriptor(_)) && [RESULT, STATE_OUT].into_iter().all(little)
    }

    /// What the script left under this name: `None` if it left nothing. Only a regular file with one name is read, no
    /// link is followed, and the name cannot lead out of the folder. Blocks.
    pub(super) fn read(&self, name: &'static str, limit: u64) -> Result<Option<Vec<u8>>> {
        let bad = |message: &str| Error::new(Code::ScriptOutputInvalid, message).with("file", name);
        let mut file = match open(self.root(), name) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(bad("the script left a symbolic link in place of its output")),
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
}

/// A FIFO without a writer would block the open; `NONBLOCK` makes it return at once.
fn open(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::ResolveFlags;
        let below = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(root, name, flags, Mode::empty(), below) {
            // Before Linux 5.6, or refused by a filter that is older than the system call.
            Err(Errno::NOSYS | Errno::PERM) => {}
            answer => return answer,
        }
    }
    rustix::fs::openat(root, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::{super::folder::Folders, *};
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn only_plain_files_are_read_back() {
        let folder = Folders::below(std::env::temp_dir()).make().unwrap();
        let path = folder.path().to_owned();
        let (result, other) = (path.join(RESULT), path.join("other"));
        let files = Files::of(folder);
        assert!(files.read(RESULT, 10).unwrap().is_none());
        fs::write(&result, "12345").unwrap();
        assert_eq!(files.read(RESULT, 5).unwrap().unwrap(), b"12345");
        assert_eq!(files.read(RESULT, 4).unwrap_err().code(), Code::ScriptOutputInvalid);
        fs::hard_link(&result, &other).unwrap();
        assert!(files.read(RESULT, 5).is_err(), "a second name");
        fs::remove_file(&result).unwrap();
        symlink(&other, &result).unwrap();
        assert!(files.read(RESULT, 5).is_err(), "a link");
        fs::remove_file(&result).unwrap();
        fs::create_dir(&result).unwrap();
        assert!(files.read(RESULT, 5).is_err(), "a folder");
    }

    #[test]
    fn a_descriptor_serves_as_well_as_a_folder() {
        let folder = Folders::below(std::env::temp_dir()).make().unwrap();
        fs::write(folder.path().join(RESULT), "1").unwrap();
        let files = Files::Descriptor(Arc::new(folder.handle().try_clone_to_owned().unwrap()));
        assert_eq!(files.read(RESULT, 5).unwrap().unwrap(), b"1");
        for outside in ["/etc/hostname", "../", "/proc/self/root"] {
            assert!(files.read(outside, 5).is_err(), "{outside}");
        }
    }
}
