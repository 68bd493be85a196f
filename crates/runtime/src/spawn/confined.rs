//! Runs without namespaces: what they may reach, and how all their processes are found.
//!
//! Each process of such a run carries a mark, the run's number in a resource limit that means nothing otherwise
//! (`RLIMIT_RTTIME`, microseconds of real-time processor time). Children inherit it, and the seccomp filter refuses to
//! change it, so that a process cannot leave its run: neither by another session nor by losing its parents. The spawner
//! adopts what loses its parent, and a run is over when none of its children carries its mark (`Work::sweep`). When the host
//! dies, the spawner outlives it for as long as it takes to kill every process that carries one of its marks.

use super::{
    landlock::Access,
    paths::Visible,
    step::{Step, Trouble, io_step, step},
    sys,
};
use crate::stat::Stat;
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags, RawDir, open},
    io::Errno,
    process::{Pid, Signal, kill_process, setpriority_process},
    thread::{Timespec, nanosleep, sched_getaffinity, sched_setaffinity},
};
use std::{
    ffi::CStr,
    fs, io,
    io::Write,
    mem::MaybeUninit,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The number of the limit that carries the mark.
pub(super) const MARK_NUMBER: u32 = 15;

/// A file or folder that a run may reach.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) path: OwnedFd,
    pub(super) access: Access,
    pub(super) folder: bool,
}

impl Ground {
    pub(super) fn new(of: Step, path: &Path, access: Access) -> Result<Self, Trouble> {
        let found = step(of, open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))?;
        let kind = step(of, rustix::fs::fstat(&found))?.st_mode;
        Ok(Self {
            path: found,
            access,
            folder: rustix::fs::FileType::from_raw_mode(kind) == rustix::fs::FileType::Directory,
        })
    }
}

/// What a confined run stands on.
#[derive(Debug)]
pub(super) struct Grounds {
    /// What all runs may reach.
    pub(super) shared: Arc<Vec<Ground>>,
    /// What this one may reach besides.
    pub(super) own: Vec<Ground>,
    /// Processes that the user has anyway and that count against the limit.
    pub(super) others: u64,
}

/// The system's files, and the devices that have nothing of the machine's in them.
pub(super) fn shared_grounds(visible: &Visible) -> Vec<Ground> {
    let mut grounds = Vec::new();
    let mut add = |path: &Path, access| grounds.extend(Ground::new(Step::Landlock, path, access));
    // Each rule makes every start slower; what of /etc only network clients read is of no use here.
    let useful = |tree: &Path| {
        let inside = tree.strip_prefix("/etc").ok().and_then(Path::to_str);
        let useful = [
            "ld.so.cache",
            "ssl/",
            "pki/",
            "crypto-policies",
            "alternatives",
            "localtime",
            "java-",
            "perl",
        ];
        inside.is_none_or(|name| useful.iter().any(|start| name.starts_with(start)))
    };
    for tree in visible.trees.iter().filter(|tree| useful(tree)) {
        add(tree, Access::Read);
    }
    for path in ["/proc", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf"] {
        add(Path::new(path), Access::Read);
    }
    for device in ["null", "zero", "random", "urandom"] {
        add(&Path::new("/dev").join(device), Access::Device);
    }
    grounds
}

/// How many threads this user has. Without a user namespace a limit of processes counts all of them.
#[derive(Debug, Default)]
pub(super) struct Others(Mutex<Option<(Instant, u64)>>);

impl Others {
    /// As of the last two seconds: counting reads all of /proc.
    pub(super) fn count(&self) -> Result<u64, Trouble> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((when, count)) if when.elapsed() < Duration::from_secs(2) => Ok(count),
            _ => {
                let count = io_step(Step::Limits, threads_of(rustix::process::getuid().as_raw()))?;
                *known = Some((Instant::now(), count));
                Ok(count)
            }
        }
    }
}

/// Whether there was too little of something to look.
fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| [Errno::MFILE, Errno::NFILE, Errno::NOMEM].contains(&errno))
}

fn threads_of(user: u32) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let process = name
            .to_str()
            .is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()));
        if !process || entry.metadata().is_ok_and(|found| found.uid() != user) {
            continue;
        }
        // Its name may be of any bytes. It may have ended.
        let stat = match fs::read(entry.path().join("stat")) {
            Err(error) if is_shortage(&error) => return Err(error),
            stat => stat.unwrap_or_default(),
        };
        let stat = Stat::parse(&String::from_utf8_lossy(&stat));
        count += stat.map_or(1, |stat| u64::from(stat.threads));
    }
    Ok(count)
}

/// Gives the host's folder and all in it to the customer's user.
pub(super) fn give_folder(folder: &Path, id: u32) -> Result<(), Trouble> {
    let mut rest = vec![folder.to_owned()];
    while let Some(path) = rest.pop() {
        let found = io_step(Step::Folder, fs::symlink_metadata(&path))?;
        io_step(Step::Folder, std::os::unix::fs::lchown(&path, Some(id), Some(id)))?;
        if found.is_dir() {
            for entry in io_step(Step::Folder, fs::read_dir(&path))? {
                rest.push(io_step(Step::Folder, entry)?.path());
            }
        }
    }
    Ok(())
}

/// The signal that tells a spawner of the host's death.
const HOST_DIED: i32 = libc::SIGUSR1;

/// Makes this task, a spawner, the parent of whoever loses its own, and the one that cleans up after the host.
pub(super) fn outlive_host() -> Result<(), Trouble> {
    step(
        Step::Session,
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())),
    )?;
    // Its own mark tells the handler, which can be told nothing else, whose runs it is to end. A run's mark is lower.
    let own = super::orders::both(marks() | RUN);
    step(
        Step::Limits,
        rustix::process::setrlimit(rustix::process::Resource::Rttime, own),
    )?;
    step(Step::ParentWatch, sys::handle(HOST_DIED, host_died))?;
    step(Step::ParentWatch, sys::unblock_only(HOST_DIED))?;
    let signal = Signal::from_named_raw(HOST_DIED);
    step(
        Step::ParentWatch,
        rustix::process::set_parent_process_death_signal(signal),
    )
}

/// Runs in a spawner, at whatever point it is, when the host is no more. The host's memory is still there, but its locks
/// may be held for ever, the allocator's too: so system calls only.
extern "C" fn host_died(_: i32) {
    let own = rustix::process::getpid();
    let mark = sys::hard_limit(own, MARK_NUMBER).unwrap_or(0);
    kill_all(mark & !RUN);
    // Whoever lives nevertheless is adopted when its parent is dead. One that cannot die is left to the machine.
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 2_000_000,
    };
    for _ in 0..5_000 {
        match sys::reap_any() {
            Ok(Some(_)) => {}
            Ok(None) => {
                let struck = for_each_child(|child| {
                    kill_process(child, Signal::KILL).ok();
                });
                if struck.is_err() {
                    break;
                }
                drop(nanosleep(&pause));
            }
            Err(_) => break,
        }
    }
    sys::end();
}

/// What the marks of all runs of this task, a spawner, have in common: a bit that nobody uses, and its own number.
pub(super) fn marks() -> u64 {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    (1 << 62) | (u64::from(pid.unsigned_abs()) << 32)
}

/// The mark of this spawner's run of a number.
pub(super) fn mark(run: u64) -> u64 {
    marks() | run & RUN
}

const RUN: u64 = 0xFFFF_FFFF;

/// Which processes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    Run(u64),
    /// All of a spawner's.
    Spawner(u64),
}

impl Marked {
    const fn meets(self, mark: u64) -> bool {
        match self {
            Self::Run(run) => mark == run,
            Self::Spawner(marks) => mark & !RUN == marks,
        }
    }
}

/// Calls `each` for every process that carries the mark. Allocates nothing; the spawner uses it after the host's death.
pub(super) fn for_each(marked: Marked, mut each: impl FnMut(Pid)) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let processes = open(c"/proc", flags, Mode::empty())?;
    let mut space = [MaybeUninit::<u8>::uninit(); 4096];
    let mut entries = RawDir::new(processes.as_fd(), &mut space);
    while let Some(entry) = entries.next() {
        let mut number = 0_i32;
        for digit in entry?.file_name().to_bytes() {
            if !digit.is_ascii_digit() {
                number = 0;
                break;
            }
            number = number.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
        }
        let Some(pid) = Pid::from_raw(number).filter(|_| number > 0) else {
            continue;
        };
        if mark_of(pid).is_some_and(|mark| marked.meets(mark)) {
            each(pid);
        }
    }
    Ok(())
}

/// Whether a process carries the mark of a run.
pub(super) fn carries(pid: i32, mark: u64) -> bool {
    let pid = Pid::from_raw(pid).filter(|_| pid > 0);
    pid.and_then(mark_of) == Some(mark)
}

/// The mark of a process. The system call answers about other users' processes only if this one has `CAP_SYS_RESOURCE`,
/// which root in a container often has not; the file tells everybody.
fn mark_of(pid: Pid) -> Option<u64> {
    match sys::hard_limit(pid, MARK_NUMBER) {
        Err(Errno::PERM) => {}
        answer => return answer.ok(),
    }
    let mut path = [0_u8; 32];
    let mut rest = &mut path[..];
    // Writing into a slice allocates nothing; the last byte stays zero.
    write!(rest, "/proc/{}/limits", pid.as_raw_nonzero()).ok()?;
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0_u8; 4096];
    let len = rustix::io::read(file, &mut text).ok()?;
    let text = std::str::from_utf8(text.get(..len)?).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Max realtime timeout"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Kills all that a spawner has started, when it is dead itself, until three looks in a row find nobody.
pub(super) fn kill_all(marks: u64) {
    let mut quiet = 0;
    for _ in 0..10_000 {
        let mut found = false;
        let looked = for_each(Marked::Spawner(marks), |pid| {
            if pid == rustix::process::getpid() {
                return;
            }
            // One that has ended and waits for its parent carries its mark still.
            found |= !sys::has_ended(pid);
            kill_process(pid, Signal::KILL).ok();
        });
        quiet = if looked.is_ok() && !found { quiet + 1 } else { 0 };
        if quiet == 3 {
            return;
        }
        rustix::thread::sched_yield();
    }
}

/// The run of this task, a spawner, whose mark a child of it carries; an error if that cannot be seen now.
pub(super) fn run_of(child: Pid) -> Result<Option<u64>, Errno> {
    let mark = mark_of(child).ok_or(Errno::AGAIN)?;
    Ok((mark & !RUN == marks()).then_some(mark & RUN))
}

/// Kills a process. One that takes its time to die may have seen to it that it gets none: `patiently`, it gets some.
pub(super) fn strike(process: Pid, patiently: bool) {
    kill_process(process, Signal::KILL).ok();
    if patiently && let Ok(all) = sched_getaffinity(None) {
        super::fair::threads(process.as_raw_nonzero().get(), &mut |thread| {
            sys::make_usual(thread).ok();
            setpriority_process(Some(thread), 0).ok();
            sched_setaffinity(Some(thread), &all).ok();
        });
    }
}

/// The children of this task, a spawner, the newest last; an error if they cannot be seen now.
pub(super) fn children() -> Result<Vec<Pid>, Errno> {
    let mut children = Vec::new();
    match for_each_child(|pid| children.push(pid)) {
        // A kernel that does not list them.
        Err(Errno::NOENT) => for_each(Marked::Spawner(marks()), |pid| children.push(pid))?,
        listed => listed?,
    }
    Ok(children)
}

/// Calls `each` for every child of this task. Allocates nothing.
fn for_each_child(mut each: impl FnMut(Pid)) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let list = open(c"/proc/thread-self/children", flags, Mode::empty())?;
    let (mut text, mut number) = ([0_u8; 4096], 0_i32);
    loop {
        let len = rustix::io::read(&list, &mut text)?;
        for byte in text.get(..len).unwrap_or_default() {
            if byte.is_ascii_digit() {
                number = number.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
            } else if let Some(pid) = Pid::from_raw(std::mem::take(&mut number)) {
                each(pid);
            }
        }
        if len == 0 {
            return Ok(());
        }
    }
}
