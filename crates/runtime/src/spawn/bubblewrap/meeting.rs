//! Meeting a run before its program starts: bubblewrap has built everything, and waits.
//!
//! The last thing that it does for the root is to read a file to its end, which is a pipe of ours. That it has begun to is
//! told by the pipe, which holds one packet and has room again. Until the pipe is closed it waits, and the host takes a hold of
//! the run: by its first process, by its folder and by its own `/proc`; and sets its limits, which bubblewrap does not know.

use super::super::{
    blocking, confined,
    filter::Kind,
    guard::Killer,
    job::Job,
    orders::{both, limits},
    step::{Step, Trouble, io_step, step},
};
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, fstatfs, open},
    io::Errno,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    process::{Gid, Pid, PidfdFlags, Resource, Uid, pidfd_open, prlimit},
    thread::{set_thread_res_gid, set_thread_res_uid},
};
use std::{os::unix::process::ExitStatusExt, process::ExitStatus, sync::Arc, thread::Builder};
use tokio::net::unix::pipe::{Receiver, Sender};

/// The mark of a file system in memory.
const TMPFS: u64 = 0x0102_1994;

/// Both ends of the pipe on which it waits, as a file with this content: its own end and ours.
pub(super) fn rendezvous(content: &str) -> Result<(OwnedFd, OwnedFd), Trouble> {
    let (read, write) = step(Step::Pipes, pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT))?;
    // One page holds one packet, however short.
    step(Step::Pipes, fcntl_setpipe_size(&write, 4096))?;
    step(Step::Pipes, rustix::io::write(&write, content.as_bytes()))?;
    Ok((read, write))
}

/// A run that waits to be let go.
pub(super) struct Met {
    pub(super) first: Arc<OwnedFd>,
    pub(super) folder: OwnedFd,
    pub(super) processes: OwnedFd,
    /// The number of its PID namespace.
    pub(super) namespace: Option<u64>,
}

/// Waits until it waits. `None`: it has ended, and has said why to its standard error.
pub(super) async fn meet(
    killer: &Killer,
    told: &mut Told,
    ready: &Sender,
    job: &Job,
    customer: Option<u32>,
) -> Result<Option<Met>, Trouble> {
    let Some(begin) = told.begin().await else {
        return Ok(None);
    };
    let Some(pid) = Pid::from_raw(begin.first) else {
        return Ok(None);
    };
    let Ok(first) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(None);
    };
    // Whose number it is by now, if it has ended.
    if !killer.mark.is_some_and(|mark| confined::carries(begin.first, mark)) {
        return Ok(None);
    }
    if ready.writable().await.is_err() {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let look = |name: &str| {
        open(
            format!("/proc/{}/root/newroot/{name}", begin.first),
            flags,
            Mode::empty(),
        )
    };
    let folder = match look("w") {
        // There is room in the pipe, because nobody is left to read it.
        Err(Errno::NOENT | Errno::SRCH) => return Ok(None),
        folder => step(Step::HandOut, folder)?,
    };
    let kind = step(Step::Tmpfs, fstatfs(&folder))?.f_type;
    if u64::try_from(kind) != Ok(TMPFS) {
        return Err(Trouble {
            step: Step::Tmpfs,
            errno: Errno::INVAL,
        });
    }
    let processes = step(Step::HandOut, look("proc"))?;
    let limits = limits(&job.limits, Kind::Sandboxed, None);
    blocking(move || limit(pid, limits, customer)).await?;
    Ok(Some(Met {
        first: Arc::new(first),
        folder,
        processes,
        namespace: begin.namespace,
    }))
}

/// Sets the limits of a process. Those of another user's are for who has `CAP_SYS_RESOURCE`, which root in a container often has
/// not, or for who is that user: a thread of its own is, for the purpose, and where there is no other way. As long as it is, that
/// user may send it signals.
fn limit(pid: Pid, limits: Vec<(Resource, u64)>, customer: Option<u32>) -> Result<(), Trouble> {
    let set = move || {
        let mut limits = limits.iter();
        limits
            .try_for_each(|(resource, limit)| step(Step::Limits, prlimit(Some(pid), *resource, both(*limit)).map(drop)))
    };
    let as_host = set();
    let Some(customer) = customer.filter(|_| as_host.is_err_and(|trouble| trouble.errno == Errno::PERM)) else {
        return as_host;
    };
    let as_customer = move || {
        // The real ids alone: a change of the others would mark the host's memory as not to be dumped.
        let (user, group) = (Uid::from_raw(customer), Gid::from_raw(customer));
        step(Step::Identity, set_thread_res_gid(group, None, None))?;
        step(Step::Identity, set_thread_res_uid(user, None, None))?;
        set()
    };
    let thread = io_step(
        Step::Thread,
        Builder::new().name("crosspoint-limits".to_owned()).spawn(as_customer),
    )?;
    thread.join().unwrap_or(Err(Trouble {
        step: Step::Thread,
        errno: Errno::CANCELED,
    }))
}

/// What bubblewrap says of a run: one JSON document when its namespaces are there, and another one when the program has ended.
#[derive(Debug)]
pub(in super::super) struct Told {
    pipe: Receiver,
    text: Vec<u8>,
}

struct Begin {
    first: i32,
    namespace: Option<u64>,
}

/// It says less than that.
const MOST: usize = 16 * 1024;

impl Told {
    pub(super) const fn new(pipe: Receiver) -> Self {
        Self { pipe, text: Vec::new() }
    }

    async fn begin(&mut self) -> Option<Begin> {
        loop {
            let mut documents = serde_json::Deserializer::from_slice(&self.text).into_iter::<serde_json::Value>();
            if let Some(Ok(document)) = documents.next() {
                let first = document.get("child-pid")?.as_i64()?;
                return Some(Begin {
                    first: i32::try_from(first).ok()?,
                    namespace: document.get("pid-namespace").and_then(serde_json::Value::as_u64),
                });
            }
            self.pipe.readable().await.ok()?;
            if !self.read()? {
                return None;
            }
        }
    }

    /// Reads what is there. Answers whether there may be more; `None` if it cannot be read.
    fn read(&mut self) -> Option<bool> {
        let mut part = [0_u8; 1024];
        match self.pipe.try_read(&mut part) {
            Ok(0) => Some(false),
            Ok(read) => {
                self.text.extend_from_slice(part.get(..read)?);
                (self.text.len() < MOST).then_some(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(true),
            Err(_) => None,
        }
    }

    /// How the program ended, by how bubblewrap did. Called after its end.
    pub(in super::super) fn status(&mut self, raw: i32) -> ExitStatus {
        let mut before = usize::MAX;
        while before != self.text.len() && self.read() == Some(true) {
            before = self.text.len();
        }
        let ended = String::from_utf8_lossy(&self.text).contains("\"exit-code\"");
        interpret(raw, ended)
    }
}

/// Bubblewrap tells a signal as an exit code above 128, as shells do. Of a first process, which the kernel shields from all others,
/// it can only be one of these: faults of its own, the filter's, and what comes from outside.
const SIGNALS: [i32; 7] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGKILL,
    libc::SIGSEGV,
    libc::SIGSYS,
];

/// What it says of a program that could not be executed.
const NOT_FOUND: i32 = 127 << 8;

fn interpret(raw: i32, ended: bool) -> ExitStatus {
    let status = ExitStatus::from_raw(raw);
    match status.code() {
        Some(code) if SIGNALS.contains(&(code - 128)) => ExitStatus::from_raw(code - 128),
        Some(1) if !ended => ExitStatus::from_raw(NOT_FOUND),
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_the_programs_own() {
        let of = |code: i32, ended| interpret(code << 8, ended);
        assert_eq!(
            (of(0, true).code(), of(1, true).code(), of(75, true).code()),
            (Some(0), Some(1), Some(75))
        );
        assert_eq!(of(1, false).code(), Some(127), "bubblewrap's own failure");
        assert_eq!((of(137, true).signal(), of(159, true).signal()), (Some(9), Some(31)));
        for code in [128, 130, 143, 255] {
            assert_eq!(of(code, true).code(), Some(code));
        }
        assert_eq!(interpret(9, false).signal(), Some(9), "bubblewrap itself was killed");
    }
}
