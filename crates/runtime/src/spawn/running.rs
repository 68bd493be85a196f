//! The host's side of a run: its streams, its end, and the ways to hasten that.

use super::{
    bubblewrap::Told,
    cgroup::Group,
    confined,
    guard::{Guard, Guards, Killer, Verdict},
    net::Lease,
    orders::Ends,
    rank::Back,
    spawner::{Over, Started, until},
    step::{Step, Trouble, io_step, step},
    tmpfs::Tmpfs,
    view::View,
};
use crosspoint_core::{Code, Error, Limits, Retry};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{Mode, OFlags, open, openat},
    process::{Signal, pidfd_send_signal},
};
use std::{
    net::TcpListener,
    os::unix::{fs::MetadataExt, process::ExitStatusExt},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::unix::pipe::{Receiver, Sender},
    sync::{oneshot, watch},
};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// It ended by itself: look at the status.
    Exited,
    /// A signal ended it that nobody here sent.
    Crashed,
    /// It was killed because it, or what it started, held more memory than its limit.
    OutOfMemory,
    /// The seccomp filter killed it: foreign system calls (32 bits, x32), loading kernel modules, restarting the machine.
    Forbidden,
    /// It was killed because it, or what it started, used more processor time than its limit.
    OutOfTime,
    /// [`Child::kill`] ended it.
    Killed,
}

/// The end of a run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Ended {
    /// As the system says it.
    pub status: ExitStatus,
    /// Why it ended.
    pub cause: Cause,
    /// Processor time of all its processes, as far as it was seen: of those that nobody has waited for, until the last look.
    pub cpu: Duration,
    /// The most memory that was resident at once, as far as it was seen, in bytes.
    pub peak_memory: u64,
}

/// Reaches a run from elsewhere. Without effect once it has ended.
#[derive(Debug, Clone)]
pub struct Reach {
    killer: Killer,
    /// `Sandboxed`: its own /proc, which lists its processes and no others.
    processes: Option<Arc<OwnedFd>>,
    /// The number of its PID namespace, if it was told.
    namespace: Option<u64>,
    killed: Arc<AtomicBool>,
}

impl Reach {
    /// Kills the run and all that it started.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        self.killer.kill();
    }

    /// Whether a process of this machine belongs to the run. Known at `Confined`, and of what bubblewrap has started.
    #[must_use]
    pub(crate) fn has(&self, pid: i32) -> bool {
        if let Some(mark) = self.killer.mark {
            return confined::carries(pid, mark);
        }
        let namespace = std::fs::metadata(format!("/proc/{pid}/ns/pid"));
        self.namespace.is_some() && namespace.ok().map(|found| found.ino()) == self.namespace
    }

    /// Asks the run to end: `SIGTERM`, if its first process has a handler for it. Without one it would not notice, being
    /// the first of its namespace; then it is killed at once. Answers whether it was asked.
    #[expect(clippy::must_use_candidate, reason = "most ask whatever comes of it")]
    pub fn ask(&self) -> bool {
        if self.killer.mark.is_some() || self.handles(Signal::TERM) {
            let asked = pidfd_send_signal(&*self.killer.pidfd, Signal::TERM).is_ok();
            pidfd_send_signal(&*self.killer.pidfd, Signal::CONT).ok();
            asked
        } else {
            self.kill();
            false
        }
    }

    /// Whether its first process catches a signal.
    fn handles(&self, signal: Signal) -> bool {
        let Some(processes) = &self.processes else { return false };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(status) = openat(processes.as_fd(), c"1/status", flags, Mode::empty()) else {
            return false;
        };
        let mut text = String::new();
        if std::io::Read::read_to_string(&mut std::fs::File::from(status), &mut text).is_err() {
            return false;
        }
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(0);
        let bit = u32::try_from(signal.as_raw()).unwrap_or(1) - 1;
        caught >> bit & 1 == 1
    }
}

/// A run. Dropping it kills the run and all that it started.
#[derive(Debug)]
pub struct Child {
    /// Its standard input, if that is a pipe.
    pub stdin: Option<Sender>,
    /// Its standard output.
    pub stdout: Option<Receiver>,
    /// Its standard error.
    pub stderr: Option<Receiver>,
    /// What comes out of descriptor 3, if asked for.
    pub messages: Option<Receiver>,
    /// The listener on port 8899 of its own loopback, if asked for. Not blocking.
    pub listener: Option<TcpListener>,
    /// `Sandboxed`: its `/w`, also after its end.
    pub folder: Option<Arc<Tmpfs>>,
    reach: Reach,
    guard: Guard,
    limits: Limits,
    network: Option<Lease>,
    group: Option<Arc<Group>>,
    end: oneshot::Receiver<Over>,
    gone: watch::Receiver<bool>,
    ended: Option<Ended>,
    /// Nobody can say how it ended.
    lost: bool,
    /// What bubblewrap says of it.
    told: Option<Told>,
    /// While it has stepped back.
    back: Option<Box<Back>>,
}

impl Child {
    pub(super) fn new(started: Started, ends: Ends, limits: Limits, guards: &Guards) -> Result<Self, Trouble> {
        let receiver = |fd| io_step(Step::Pipes, Receiver::from_owned_fd(fd));
        let mut unwatched = started.unwatched;
        let mut handed = started.handed.into_iter();
        let folder = handed
            .next()
            .map(|folder| Arc::new(Tmpfs::new(folder, started.sweeper)));
        let processes = handed.next().map(Arc::new);
        let killer = Killer {
            pidfd: started.pidfd,
            mark: started.mark,
        };
        let view = view(folder.clone(), processes.clone(), killer.mark).inspect_err(|_| killer.kill())?;
        let guard = guards.watch(view, limits, killer.clone());
        let mut child = Self {
            stdin: None,
            stdout: None,
            stderr: None,
            messages: None,
            folder,
            listener: handed.next().map(TcpListener::from),
            reach: Reach {
                killer,
                processes,
                namespace: None,
                killed: Arc::default(),
            },
            guard,
            limits,
            network: started.network,
            group: started.group,
            end: started.end,
            gone: started.gone,
            ended: None,
            lost: false,
            told: None,
            back: None,
        };
        // From here on a failure drops, and thus kills, the run.
        unwatched.0 = None;
        child.stdin = ends
            .stdin
            .map(|fd| io_step(Step::Pipes, Sender::from_owned_fd(fd)))
            .transpose()?;
        child.stdout = Some(receiver(ends.stdout)?);
        child.stderr = Some(receiver(ends.stderr)?);
        child.messages = ends.messages.map(receiver).transpose()?;
        Ok(child)
    }

    /// A run that bubblewrap has started, in the PID namespace of this number.
    pub(super) fn through(mut self, told: Told, namespace: Option<u64>) -> Self {
        self.told = Some(told);
        self.reach.namespace = namespace;
        self
    }

    /// Waits for the end of the run, and of all that it started. Can be dropped and called again.
    ///
    /// # Errors
    /// [`ScriptCrashed`](Code::ScriptCrashed), to be tried again, if nobody can say how it ended: the spawner was killed, and
    /// all of the run is dead.
    pub async fn wait(&mut self) -> crosspoint_core::Result<Ended> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        let over = if self.lost {
            None
        } else {
            tokio::select! {
                biased;
                over = &mut self.end => over.ok(),
                () = until(&mut self.gone) => None,
            }
        };
        let Some(Over { reaped, .. }) = over else {
            self.lost = true;
            let message = "the spawner was killed, and its runs with it; do not kill the host's helper processes";
            return Err(Error::new(Code::ScriptCrashed, message).with_retry(Retry::Backoff));
        };
        let status = match &mut self.told {
            Some(told) => told.status(reaped.status),
            None => ExitStatus::from_raw(reaped.status),
        };
        let ran_out = !status.success() && self.group.as_ref().is_some_and(|group| group.ran_out());
        let peak = self.group.as_ref().map_or(0, |group| group.peak());
        let cause = match status.signal() {
            _ if ran_out => Cause::OutOfMemory,
            None => Cause::Exited,
            Some(_) if self.guard.seen.verdict() == Verdict::Memory => Cause::OutOfMemory,
            Some(_) if self.guard.seen.verdict() == Verdict::Processor => Cause::OutOfTime,
            Some(_) if self.reach.killed.load(Ordering::Relaxed) => Cause::Killed,
            Some(libc::SIGKILL | libc::SIGXCPU) if reaped.cpu >= self.processor_limit() => Cause::OutOfTime,
            Some(libc::SIGSYS) => Cause::Forbidden,
            Some(_) => Cause::Crashed,
        };
        let ended = Ended {
            status,
            cause,
            cpu: self
                .guard
                .seen
                .total(reaped.cpu)
                .saturating_sub(self.guard.seen.before()),
            peak_memory: if peak > 0 { peak } else { self.guard.seen.peak() },
        };
        self.ended = Some(ended);
        Ok(ended)
    }

    /// Reaches the run from elsewhere.
    #[must_use]
    pub fn reach(&self) -> Reach {
        self.reach.clone()
    }

    /// Kills the run and all that it started.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.reach.kill();
        }
    }

    /// As [`Reach::ask`].
    pub fn ask(&mut self) -> bool {
        self.reach.ask()
    }

    /// From here on, processor time is the run's: its limit is `head_start` less than the job's, and what was used before
    /// does not count.
    pub(crate) fn begin(&mut self, head_start: Duration) {
        if let Some(back) = &mut self.back {
            back.look(&self.reach.killer);
        }
        self.guard
            .begin(Duration::from_millis(self.limits.cpu_ms).saturating_sub(head_start));
    }

    /// It gets less of the processors than others, where that can be undone, until it [comes forward](Self::come_forward).
    pub(crate) fn step_back(&mut self) {
        self.back = Back::step(&self.reach.killer).map(Box::new);
    }

    pub(crate) fn come_forward(&mut self) {
        if let Some(back) = self.back.take() {
            back.end();
        }
    }

    /// Processor time of the run and the most memory that was resident at once, as far as they can be seen by now.
    pub(crate) fn used(&self) -> (Duration, u64) {
        let cpu = self.guard.used().saturating_sub(self.guard.seen.before());
        (cpu, self.guard.seen.peak())
    }

    /// Bytes of memory that it holds; pages that its processes share count for each.
    pub(crate) fn held(&self) -> u64 {
        self.guard.held()
    }

    /// What one process may use, as the kernel counts it: whole seconds, looked at now and then.
    fn processor_limit(&self) -> Duration {
        Duration::from_secs(self.limits.cpu_ms.div_ceil(1000).max(1)).mul_f32(0.75)
    }
}

/// What the guard looks at.
fn view(files: Option<Arc<Tmpfs>>, processes: Option<Arc<OwnedFd>>, mark: Option<u64>) -> Result<View, Trouble> {
    let processes = if let Some(processes) = processes {
        processes
    } else {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Arc::new(step(Step::Pipes, open("/proc", flags, Mode::empty()))?)
    };
    Ok(View { processes, files, mark })
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() && !self.lost && self.end.try_recv().is_err() {
            self.kill();
        } else if let Some(network) = self.network.take() {
            drop(self.listener.take());
            network.give_back();
        }
    }
}
