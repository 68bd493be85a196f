//! Control groups: one fresh group per run, where the host may make some. They limit the memory of a whole run at once,
//! which nothing else does.
//!
//! Version 2 where a group is delegated to the host, version 1 for root. Where there is neither, or the machine refuses a
//! run's entry, the guard's looks are the limit.

use crosspoint_core::Limits;
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Mode, OFlags, mkdirat, open, openat, unlinkat},
};
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// What this host's groups are called, before its number.
const NAME: &str = "crosspoint-";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where groups are made.
#[derive(Debug)]
pub(super) struct Groups {
    version: Version,
    home: PathBuf,
    /// The same. Spawners have no path to it.
    handle: Arc<OwnedFd>,
    next: AtomicU64,
    refused: AtomicBool,
}

/// A run's group. Removed when this is dropped, after the run's end.
#[derive(Debug)]
pub(super) struct Group {
    version: Version,
    home: Arc<OwnedFd>,
    name: String,
}

impl Groups {
    /// Looks for a place, and proves it by making a group there.
    pub(super) fn find(chosen: Option<&Path>) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path_of = |controller: &str| {
            let mut lines = own.lines().map(|line| line.splitn(3, ':'));
            lines.find_map(|mut parts| {
                let (_, names, path) = (parts.next()?, parts.next()?, parts.next()?);
                names
                    .split(',')
                    .any(|name| name == controller)
                    .then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mount_of = |kind: &str, option: &str| {
            mounts.lines().find_map(|line| {
                let mut words = line.split(' ').skip(1);
                let (at, found, options) = (words.next()?, words.next()?, words.next()?);
                let fits = found == kind && (option.is_empty() || options.split(',').any(|o| o == option));
                fits.then(|| PathBuf::from(at))
            })
        };
        let two = chosen
            .map(Path::to_owned)
            .or_else(|| Some(mount_of("cgroup2", "")?.join(path_of("")?)));
        let one = || Some(mount_of("cgroup", "memory")?.join(path_of("memory")?));
        two.and_then(|parent| Self::at(Version::Two, &parent))
            .or_else(|| Self::at(Version::One, &one()?))
    }

    fn at(version: Version, parent: &Path) -> Option<Self> {
        sweep(parent);
        if version == Version::Two {
            // Refused where it is done already or by somebody else; the trial tells.
            fs::write(parent.join("cgroup.subtree_control"), "+memory +pids").ok();
        }
        let home = match version {
            // A group with controllers for its children holds no processes itself, so that one level is enough.
            Version::Two => parent.to_owned(),
            Version::One => parent.join(format!("{NAME}{}", std::process::id())),
        };
        if version == Version::One {
            made(fs::create_dir(&home)).ok()?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let groups = Self {
            version,
            handle: Arc::new(open(&home, flags, Mode::empty()).ok()?),
            home,
            next: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        };
        groups.make(&Limits::default()).map(drop)?;
        Some(groups)
    }

    pub(super) const fn describe(&self) -> &'static str {
        match self.version {
            Version::One => "memory-limit:control-group-v1",
            Version::Two => "memory-limit:control-group-v2",
        }
    }

    /// A group for a run, and the file by which it enters; `None` where they turned out not to work.
    pub(super) fn enter(&self, limits: &Limits) -> Option<(Group, OwnedFd)> {
        if self.refused() {
            return None;
        }
        let group = self.make(limits)?;
        let entry = group.open("cgroup.procs", OFlags::WRONLY)?;
        Some((group, entry))
    }

    /// A run could not enter: from here on there are no groups.
    pub(super) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn make(&self, limits: &Limits) -> Option<Group> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = match self.version {
            Version::Two => format!("{NAME}{}-{number}", std::process::id()),
            Version::One => number.to_string(),
        };
        let mode = Mode::from_raw_mode(0o755);
        made(mkdirat(&*self.handle, &name, mode).map_err(io::Error::from)).ok()?;
        let group = Group {
            version: self.version,
            home: Arc::clone(&self.handle),
            name,
        };
        let memory = limits.memory.to_string();
        match self.version {
            Version::One => {
                group.set("memory.limit_in_bytes", &memory)?;
                group.set("memory.memsw.limit_in_bytes", &memory);
            }
            Version::Two => {
                group.set("memory.max", &memory)?;
                group.set("memory.swap.max", "0");
                group.set("memory.oom.group", "1");
                group.set("pids.max", &limits.processes.to_string());
            }
        }
        Some(group)
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        if self.version == Version::One {
            fs::remove_dir(&self.home).ok();
        }
    }
}

/// A group that is there already serves as well.
fn made(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes empty groups of hosts that were killed. Those that are in use stay: the kernel refuses.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(NAME)?.split('-').next());
        let Some(number) = number.filter(|number| !Path::new("/proc").join(number).exists()) else {
            continue;
        };
        debug_assert!(!number.is_empty(), "the name of a group has a number");
        for run in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            if run.path().is_dir() {
                fs::remove_dir(run.path()).ok();
            }
        }
        fs::remove_dir(entry.path()).ok();
    }
}

impl Group {
    fn open(&self, file: &str, flags: OFlags) -> Option<OwnedFd> {
        openat(
            &*self.home,
            format!("{}/{file}", self.name),
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()
    }

    fn set(&self, file: &str, value: &str) -> Option<()> {
        let file = self.open(file, OFlags::WRONLY)?;
        rustix::io::write(file, value.as_bytes()).ok().map(drop)
    }

    fn number(&self, file: &str, line: &str) -> u64 {
        let mut text = String::new();
        if let Some(file) = self.open(file, OFlags::RDONLY) {
            fs::File::from(file).read_to_string(&mut text).ok();
        }
        let found = text.lines().find_map(|found| found.strip_prefix(line));
        found.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    }

    /// Whether the kernel killed something in it for want of memory.
    pub(super) fn ran_out(&self) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        self.number(file, "oom_kill ") > 0
    }

    /// The most memory that it held at once, in bytes; zero where the kernel does not say.
    pub(super) fn peak(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        };
        self.number(file, "")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        unlinkat(&*self.home, &self.name, AtFlags::REMOVEDIR).ok();
    }
}
