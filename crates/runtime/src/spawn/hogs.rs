//! Starts runs at once beside others that never let go of a processor.
//!
//! The kernel looks for the least used processor for a new process, and again for the program that it executes. Where all are
//! in use, the new one waits there for the next tick of the clock, each time: 4 ms at 250 Hz, twice as long as the whole
//! start. A spawner sleeps while its child gets ready, so that its own processor has a place that is free at once. While
//! runs use processors without pause, it keeps the child there until the program is there, which may see for that instant
//! that it has a single processor. With nothing in the way, the kernel knows better.

use super::{fair::for_each_thread, guard::Killer};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many runs use a processor without pause.
#[derive(Debug, Clone, Default)]
pub(super) struct Hogs(Arc<AtomicUsize>);

impl Hogs {
    /// Counts one, until what is answered is dropped.
    pub(super) fn one(&self) -> Hog {
        self.0.fetch_add(1, Ordering::Relaxed);
        Hog(self.clone())
    }

    /// Keeps this task where it is, and its children with it, if there are any.
    pub(super) fn stay(&self) -> Option<Stay> {
        if self.0.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let before = sched_getaffinity(None).ok()?;
        let mut here = CpuSet::new();
        here.set(sched_getcpu());
        sched_setaffinity(None, &here).ok()?;
        Some(Stay { before })
    }

    /// What a run has started before it was released has stayed where it was born: all of it may use what this thread may.
    pub(super) fn release_all(&self, run: &Killer) {
        if self.0.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Ok(all) = sched_getaffinity(None) else { return };
        for_each_thread(run, |thread| {
            if sched_getaffinity(Some(thread)).is_ok_and(|now| now.count() < all.count()) {
                sched_setaffinity(Some(thread), &all).ok();
            }
        });
    }
}

/// One that is counted.
#[derive(Debug)]
pub(super) struct Hog(Hogs);

impl Drop for Hog {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// This task keeps to one processor until this is dropped.
pub(super) struct Stay {
    /// Which ones it may use.
    before: CpuSet,
}

impl Stay {
    /// A child may use all processors that this task could.
    pub(super) fn release(&self, child: Pid) {
        sched_setaffinity(Some(child), &self.before).ok();
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        sched_setaffinity(None, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open};
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };

    #[test]
    fn who_stays_keeps_to_one_processor_while_there_is_a_hog() {
        let hogs = Hogs::default();
        let processors = || sched_getaffinity(None).unwrap().count();
        let all = processors();
        assert!(hogs.stay().is_none());
        let (first, second) = (hogs.one(), hogs.one());
        let stay = hogs.stay().unwrap();
        assert_eq!(processors(), 1);
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert_eq!(sched_getaffinity(Some(pid)).unwrap().count(), 1);
        stay.release(pid);
        assert_eq!(sched_getaffinity(Some(pid)).unwrap().count(), all);
        drop((stay, first));
        assert_eq!(processors(), all);
        assert!(hogs.stay().is_some(), "one is left");
        drop(second);
        assert!(hogs.stay().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_was_started_before_the_release_is_released_at_the_next_look() {
        let hogs = Hogs::default();
        let (hog, all) = (hogs.one(), sched_getaffinity(None).unwrap().count());
        let stay = hogs.stay().unwrap();
        let mut command = std::process::Command::new("/bin/sh");
        let command = command.args(["-c", "sleep 60 & echo $!; wait"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let below = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        drop(stay);
        let run = Killer {
            pidfd: Arc::new(pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap()),
            mark: None,
        };
        let processors = || sched_getaffinity(Some(below)).unwrap().count();
        assert_eq!(processors(), 1);
        hogs.release_all(&run);
        assert_eq!(processors(), all);
        drop(hog);
        kill_process(below, Signal::KILL).unwrap();
        child.wait().unwrap();
    }
}
