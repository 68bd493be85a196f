//! Runs that nobody waits for yet step back on the processors, and come forward when somebody does.
//!
//! By their nice value, and by that of their session where the kernel groups sessions (see [`fair`](super::fair)). Only where
//! both can be taken back again: an ordinary user's cannot, and then a run stays where it is.

use super::{fair::for_each_thread, guard::Killer};
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, open},
    io::{Errno, write},
    process::{Pid, getpriority_process, setpriority_process},
};
use std::{fs::read_to_string, sync::OnceLock, thread::Builder};

/// By so much nicer: a tenth of the weight.
const BACK: i32 = 10;

/// A run that has stepped back.
#[derive(Debug)]
pub(super) struct Back {
    threads: Vec<Pid>,
    /// How nice it was: as nice as the host.
    before: i32,
    session: Option<OwnedFd>,
}

impl Back {
    /// Makes a run step back, if it can come forward again.
    pub(super) fn step(run: &Killer) -> Option<Self> {
        static CAN: OnceLock<bool> = OnceLock::new();
        if !CAN.get_or_init(|| {
            Builder::new()
                .spawn(can_come_forward)
                .is_ok_and(|tried| tried.join().unwrap_or(false))
        }) {
            return None;
        }
        let mut threads = Vec::new();
        for_each_thread(run, |thread| threads.push(thread));
        let first = *threads.first()?;
        let process = first.as_raw_nonzero().to_string();
        let own = Session::of(&process).filter(|own| Session::of("self").is_none_or(|hosts| hosts.name != own.name));
        let back = Self {
            threads,
            before: getpriority_process(Some(first)).ok()?,
            session: own.and_then(|_| place(&process).ok()),
        };
        back.set(back.before + BACK, BACK);
        Some(back)
    }

    /// Learns of what the run has started since: it has inherited its place.
    pub(super) fn look(&mut self, run: &Killer) {
        self.threads.clear();
        for_each_thread(run, |thread| self.threads.push(thread));
    }

    /// The run comes forward, with what it had started at the last look.
    pub(super) fn end(self) {
        self.set(self.before, 0);
    }

    fn set(&self, threads: i32, session: i32) {
        if let Some(file) = &self.session {
            write(file, session.to_string().as_bytes()).ok();
        }
        for thread in &self.threads {
            setpriority_process(Some(*thread), threads).ok();
        }
    }
}

/// What the kernel says of the session that a process is grouped by. Sessions are told apart by this, not by the number of
/// their leader: that is 0 for a host whose leader is outside its PID namespace.
struct Session {
    name: String,
    nice: String,
}

impl Session {
    /// `None` where sessions are not grouped, or this process is in no such group.
    fn of(process: &str) -> Option<Self> {
        let about = read_to_string(format!("/proc/{process}/autogroup")).ok()?;
        let (name, nice) = about.trim_end().split_once(" nice ")?;
        Some(Self {
            name: name.to_owned(),
            nice: nice.to_owned(),
        })
    }
}

/// Where the nice value of a process's session is written.
fn place(process: &str) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/{process}/autogroup");
    open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Whether the machine lets the host take a nice value back: its thread, which ends with this, tries it on itself. The
/// host's session gets the value that it has, twice: who may not do that at will is told to wait.
fn can_come_forward() -> bool {
    let thread = || -> Result<(), Errno> {
        let own = getpriority_process(None)?;
        setpriority_process(None, own + 1)?;
        setpriority_process(None, own)
    };
    let session = || -> Result<(), Errno> {
        let Some(own) = Session::of("self") else { return Ok(()) };
        let place = place("self")?;
        for _ in 0..2 {
            write(&place, own.nice.as_bytes())?;
        }
        Ok(())
    };
    thread().and_then(|()| session()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{PidfdFlags, pidfd_open};
    use std::{process::Command, sync::Arc};

    #[test]
    fn who_has_stepped_back_comes_forward_again_or_never_stepped_back() {
        let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let run = Killer {
            pidfd: Arc::new(pidfd_open(pid, PidfdFlags::empty()).unwrap()),
            mark: None,
        };
        let nice = || getpriority_process(Some(pid)).unwrap();
        let hosts = nice();
        for before in [hosts, hosts + 3] {
            setpriority_process(Some(pid), before).unwrap();
            match Back::step(&run) {
                Some(mut back) => {
                    assert_eq!(nice(), before + BACK);
                    back.look(&run);
                    back.end();
                }
                None => eprintln!("skipped: this user cannot raise the priority of a process again"),
            }
            assert_eq!(nice(), before);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
