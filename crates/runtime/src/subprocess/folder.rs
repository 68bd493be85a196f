//! The private folder of a run on the host's disk.
//!
//! It holds what the script is given, secrets too, and is removed at the run's end. A host that is killed removes nothing. So
//! each folder is locked by its host, the kernel opens the lock when the host and its helper tasks are gone, and other hosts
//! remove what they find unlocked, the next one at its first folder. A script at `process` may live on, and loses its folder.

use super::launch::{Content, Input};
use crosspoint_core::{Code, Error, Result};
use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, chmodat, fchmod, flock, openat, renameat, unlinkat},
    io::Errno,
};
use std::{
    ffi::CStr,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{net::unix::pipe, time::Instant};

/// A folder that only the host's user can enter, removed with everything in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
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

/// How the names of all private folders begin.
const NAME: &str = "crosspoint-run-";

/// So many tries to make a folder that another host does not take for an abandoned one.
const TRIES: u32 = 16;

/// Where private folders are made.
#[derive(Debug, Clone)]
pub(crate) struct Folders {
    parent: Arc<Path>,
    /// When abandoned ones were last looked for.
    swept: Arc<Mutex<Option<Instant>>>,
}

/// A host that has just been killed may hold its locks for an instant longer, and another one may be killed at any time.
const SWEEP_AGAIN: Duration = Duration::from_secs(600);

impl Folders {
    pub(super) fn below(parent: impl Into<PathBuf>) -> Self {
        Self {
            parent: parent.into().into(),
            swept: Arc::default(),
        }
    }

    /// Makes one. The first time, and now and then, what hosts have left behind that are no more is removed meanwhile.
    pub(super) fn make(&self) -> Result<Folder> {
        if self.is_time() {
            let parent = Arc::clone(&self.parent);
            let sweeper = std::thread::Builder::new().name("crosspoint-folders".to_owned());
            if let Err(error) = sweeper.spawn(move || sweep(&parent)) {
                tracing::warn!(%error, "private folders of earlier hosts are not looked for");
            }
        }
        for _ in 0..TRIES {
            if let Some(folder) = self.try_make()? {
                return Ok(folder);
            }
        }
        Err(failed(Errno::AGAIN))
    }

    fn is_time(&self) -> bool {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let due = swept.is_none_or(|when| when.elapsed() >= SWEEP_AGAIN);
        if due {
            *swept = Some(Instant::now());
        }
        due
    }

    /// `None` if somebody else has removed it again.
    fn try_make(&self) -> Result<Option<Folder>> {
        let dir = tempfile::Builder::new()
            .prefix(NAME)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&self.parent)
            .map_err(failed)?;
        let handle = match open(dir.path()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        // Between the two it looks like an abandoned one. Where there are no locks, nobody removes any.
        let locked = flock(&handle, FlockOperation::NonBlockingLockExclusive);
        if locked == Err(Errno::WOULDBLOCK) || matches!(open(dir.path()), Err(Errno::NOENT)) {
            return Ok(None);
        }
        let path = fs::canonicalize(dir.path()).map_err(failed)?;
        Ok(Some(Folder {
            dir: Some(dir),
            handle,
            path,
        }))
    }
}

const FOLDER: OFlags = OFlags::DIRECTORY
    .union(OFlags::RDONLY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, FOLDER, Mode::empty())
}

/// Removes the private folders that no living host has locked.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().starts_with(NAME.as_bytes()) {
            continue;
        }
        let path = entry.path();
        // Other users' folders cannot be opened, except by root, whose runs give theirs to other users.
        let Ok(handle) = open(&path) else { continue };
        if flock(&handle, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        match remove(handle.as_fd(), &path) {
            Ok(()) => {
                tracing::info!(path = %path.display(), "removed the private folder of a run whose host is no more");
            }
            // Somebody was faster.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a private folder is left, whose host is no more");
            }
        }
    }
}

fn remove(handle: BorrowedFd<'_>, path: &Path) -> std::io::Result<()> {
    empty(handle)?;
    fs::remove_dir(path)
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Puts in what the script will find.
    pub(super) fn fill(&self, inputs: &[Input]) -> Result<()> {
        inputs.iter().try_for_each(|input| self.put(input)).map_err(failed)
    }

    fn put(&self, input: &Input) -> std::io::Result<()> {
        let path = self.path.join(&input.name);
        match &input.content {
            Content::Folder => fs::DirBuilder::new().mode(input.mode).create(path),
            Content::File(content) => {
                let mut options = OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(input.mode).open(path)?;
                file.write_all(content)
            }
        }
    }

    /// Makes a pipe with a name, which may be opened for writing again and again. Answers the end to read from, and an end
    /// to write to: while that is open the reader waits, however often the script opens and closes its own.
    pub(super) fn pipe(&self, name: &str) -> Result<(pipe::Receiver, OwnedFd)> {
        let path = self.path.join(name);
        fifo(&self.handle, name).map_err(failed)?;
        let reader = pipe::OpenOptions::new().open_receiver(&path).map_err(failed)?;
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let writer = openat(&self.handle, name, flags, Mode::empty()).map_err(failed)?;
        Ok((reader, writer))
    }
}

#[cfg(not(target_vendor = "apple"))]
fn fifo(folder: &OwnedFd, name: &str) -> std::io::Result<()> {
    Ok(rustix::fs::mkfifoat(folder, name, Mode::RUSR | Mode::WUSR)?)
}

#[cfg(target_vendor = "apple")]
fn fifo(_: &OwnedFd, _: &str) -> std::io::Result<()> {
    Err(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        "the framed binding needs pipes with names, which are not made here on this system",
    ))
}

impl Drop for Folder {
    /// Removes the folder, also when the script took permissions away from parts of it.
    fn drop(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        let path = dir.keep();
        if let Err(error) = remove(self.handle.as_fd(), &path) {
            tracing::warn!(path = %path.display(), %error, "the private folder of a run could not be removed");
        }
    }
}

/// More than any script has time to make. Only one that lives on, which can be at `process`, could add more meanwhile.
const ROUNDS: u32 = 10_000_000;

/// Removes what is in a folder, however deep it goes: by recursion a script could choose how much stack and how many
/// descriptors its host needs. Folders inside folders are moved up to `root` until none is left.
fn empty(root: BorrowedFd<'_>) -> Result<(), Errno> {
    fchmod(root, Mode::RWXU)?;
    let mut moved = 0_u64;
    for _ in 0..ROUNDS {
        let mut full = false;
        for entry in Dir::read_from(root)? {
            let entry = entry?;
            if !removed(root, entry.file_name())? {
                full = true;
                flatten(root, entry.file_name(), &mut moved)?;
            }
        }
        if !full {
            return Ok(());
        }
    }
    Err(Errno::NOTEMPTY)
}

/// Removes what is in `root/name` and moves the full folders in it to `root`.
fn flatten(root: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> Result<(), Errno> {
    let folder = enter(root, name)?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if removed(folder.as_fd(), name)? {
            continue;
        }
        // One that gets another parent has to be writable itself.
        drop(enter(folder.as_fd(), name)?);
        loop {
            *moved += 1;
            match renameat(&folder, name, root, format!(".{moved}")) {
                // The script has used this name.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                renamed => break renamed?,
            }
        }
    }
    removed(root, name).map(drop)
}

/// Opens a folder, and lets this user do everything in it. Whoever owns it may put a link in its place at any time.
fn enter(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let open = || openat(parent, name, FOLDER, Mode::empty());
    let folder = match open() {
        Err(Errno::ACCESS) => {
            // This follows links, and is not for root, to whom nothing is closed: it changes what is this user's own.
            chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            open()?
        }
        opened => opened?,
    };
    fchmod(&folder, Mode::RWXU)?;
    Ok(folder)
}

/// Removes it, unless it is a folder with something in it.
fn removed(folder: BorrowedFd<'_>, name: &CStr) -> Result<bool, Errno> {
    if matches!(name.to_bytes(), b"." | b"..") {
        return Ok(true);
    }
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn nothing_is_left_and_nobody_else_can_look() {
        let folder = Folders::below(std::env::temp_dir()).make().unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let locked = path.join("locked");
        fs::create_dir(&locked).unwrap();
        fs::write(locked.join("x"), "x").unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o0)).unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_host_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let ours = Folders::below(parent.path()).try_make().unwrap().unwrap();
        let link = path("crosspoint-run-link");
        for folder in ["crosspoint-run-a1b2c3/secrets", "crosspoint-other/secrets"] {
            fs::create_dir_all(path(folder)).unwrap();
            fs::write(path(folder).join("token"), "x").unwrap();
        }
        std::os::unix::fs::symlink(path("crosspoint-other"), &link).unwrap();
        fs::write(path("crosspoint-run-file"), "x").unwrap();
        sweep(parent.path());
        assert!(!path("crosspoint-run-a1b2c3").exists());
        assert!(ours.path().exists(), "it is locked");
        assert!(link.is_symlink() && path("crosspoint-other/secrets/token").exists());
        assert!(path("crosspoint-run-file").exists());
    }

    #[test]
    fn what_is_abandoned_is_looked_for_now_and_then() {
        let folders = Folders::below(std::env::temp_dir());
        assert!(folders.is_time() && !folders.is_time());
        let long_ago = Instant::now().checked_sub(SWEEP_AGAIN);
        *folders.swept.lock().unwrap() = Some(long_ago.unwrap());
        assert!(folders.is_time() && !folders.is_time());
    }

    /// By somebody who changes them meanwhile, so that root would be led elsewhere.
    #[test]
    fn links_in_place_of_folders_lead_nowhere() {
        let (parent, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::set_permissions(other.path(), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(other.path(), parent.path().join("link")).unwrap();
        let root = open(parent.path()).unwrap();
        assert!(enter(root.as_fd(), c"link").is_err());
        assert_eq!(fs::metadata(other.path()).unwrap().mode() & 0o777, 0o755);
    }

    #[test]
    fn a_folder_that_is_being_made_is_nobodys_prey() {
        let parent = tempfile::tempdir().unwrap();
        let folders = Folders::below(parent.path());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    sweep(parent.path());
                }
            });
            let made: Result<Vec<_>> = (0..500).map(|_| folders.make()).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            for folder in made.unwrap() {
                assert!(folder.path().exists());
                fs::write(folder.path().join("input.json"), "1").unwrap();
            }
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    /// Removed by recursion, it took the whole host with it.
    #[test]
    fn depth_costs_neither_stack_nor_descriptors() {
        let folder = Folders::below(std::env::temp_dir()).make().unwrap();
        let path = folder.path().to_owned();
        let mut at = folder.handle().try_clone_to_owned().unwrap();
        for n in 0..3000 {
            let name = if n % 2 == 0 { format!(".{n}") } else { "n".repeat(255) };
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            at = openat(&at, &name, flags, Mode::empty()).unwrap();
            // The names that the removal itself uses.
            rustix::fs::mkdirat(&at, ".1", Mode::RWXU).unwrap();
        }
        fchmod(&at, Mode::empty()).unwrap();
        drop(at);
        let small = std::thread::Builder::new().stack_size(128 << 10);
        small.spawn(|| drop(folder)).unwrap().join().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn inputs_are_as_they_were_ordered() {
        let folder = Folders::below(std::env::temp_dir()).make().unwrap();
        let input = |name: &str, content, mode| Input {
            name: name.to_owned(),
            content,
            mode,
        };
        let inputs = [
            input("secrets", Content::Folder, 0o700),
            input("secrets/a", Content::File(b"x".to_vec()), 0o400),
        ];
        folder.fill(&inputs).unwrap();
        let file = folder.path().join("secrets/a");
        assert_eq!(fs::read(&file).unwrap(), b"x");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o400);
        assert!(folder.fill(&inputs).is_err(), "nothing is replaced");
    }
}
