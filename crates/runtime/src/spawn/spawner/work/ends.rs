//! The ends of runs: each is told when all of the run is dead, adopted processes too.

use super::{Running, Work};
use crate::spawn::{
    confined,
    spawner::Over,
    sys::{self, Reaped},
};
use rustix::{
    event::epoll,
    fd::AsFd,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    process::Signal,
};
use std::{collections::HashSet, time::Duration};
use tokio::time::Instant;

/// Who has not died after so long gets processor time to do so.
const SOON: Duration = Duration::from_millis(10);
/// So many looks at once at children that become more while they are killed.
const ROUNDS: usize = 64;

impl Work {
    /// On the task's thread, after its death: all its runs are told to die with it. Returns when they have.
    pub(in super::super) fn stop(&mut self) {
        for running in self.running.values() {
            rustix::process::pidfd_send_signal(&*running.pidfd, Signal::KILL).ok();
            sys::await_end_by(running.pidfd.as_fd());
        }
    }

    /// After that, when everybody has heard of the spawner's death: lets go of what the runs had.
    pub(in super::super) fn forget_runs(&mut self) {
        self.running.clear();
        self.ending.clear();
    }

    pub(super) fn ended(&mut self, run: u64) {
        let Some(running) = self.running.remove(&run) else {
            return;
        };
        let reaped = sys::reap(running.pid);
        self.finish(run, running, reaped.ok());
    }

    /// Says that a run is over when all of it is.
    pub(super) fn finish(&mut self, run: u64, running: Running, reaped: Option<Reaped>) {
        epoll::delete(&self.ends, &*running.pidfd).ok();
        if running.mark.is_some() {
            sys::kill_group(running.pidfd.as_fd()).ok();
            if self.ending.is_empty() {
                self.ending_since = Instant::now();
            }
            self.ending.insert(run, (running, reaped));
        } else {
            self.tell(running, reaped);
        }
    }

    fn tell(&self, running: Running, reaped: Option<Reaped>) {
        // Descriptors that a run has sent to itself go when the kernel next looks for such: when a socket is closed.
        drop(socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        ));
        drop(running.group);
        // Before anybody hears of the end and closes the files that are mounted there.
        let full = match (running.mounts, self.sweeper.upgrade()) {
            (Some(mounts), Some(sweeper)) => sweeper.keep(mounts, 0),
            (mounts, _) => mounts,
        };
        if let Some(reaped) = reaped {
            let id = running.id;
            running.end.send(Over { reaped, id }).ok();
        }
        drop(full);
    }

    /// Kills what runs without namespaces have left behind, and tells the ends of those of which nothing is left.
    ///
    /// A look at all processes of the machine would miss one that is born behind it of one that dies before it. Those that
    /// lost their parents are children of this task; whoever else lives of a run has such a one for an ancestor, and is adopted
    /// when that is dead. So a run is over when no child of this task carries its mark, and only then. A chain of processes,
    /// of which each starts the next and ends, is met in some look; it is looked for as fast as it goes on.
    pub(super) fn sweep(&mut self) {
        let patiently = !self.ending.is_empty() && self.ending_since.elapsed() > SOON;
        let mut struck = HashSet::new();
        for _ in 0..ROUNDS {
            let (mut left, mut more) = (HashSet::new(), false);
            if self.reap_adopted() {
                // What cannot be seen, for want of descriptors, say, is not over.
                let Ok(children) = confined::children() else { return };
                if children.is_empty() {
                    return;
                }
                // The newest last: of a chain all others are dead.
                for child in children.into_iter().rev() {
                    let Ok(run) = confined::run_of(child) else { return };
                    let Some(run) = run.filter(|run| !self.running.contains_key(run)) else {
                        continue;
                    };
                    confined::strike(child, patiently);
                    more |= struck.insert(child);
                    left.insert(run);
                }
            }
            let over: Vec<_> = self.ending.keys().filter(|run| !left.contains(run)).copied().collect();
            for run in over {
                if let Some((running, reaped)) = self.ending.remove(&run) {
                    self.tell(running, reaped);
                }
            }
            if !more {
                return;
            }
        }
    }

    /// Answers whether children are left.
    pub(super) fn reap_adopted(&mut self) -> bool {
        loop {
            let (pid, reaped) = match sys::reap_any() {
                Ok(Some(reaped)) => reaped,
                Ok(None) => return true,
                Err(_) => return false,
            };
            let run = self.running.iter().find(|(_, running)| running.pid == pid);
            let run = run.map(|(run, _)| *run);
            if let Some((run, running)) = run.and_then(|run| Some((run, self.running.remove(&run)?))) {
                self.finish(run, running, Some(reaped));
            }
        }
    }
}
