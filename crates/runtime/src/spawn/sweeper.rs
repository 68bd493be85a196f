//! Closes what ended runs have left behind where that takes the kernel long, one by one and in idle moments.
//!
//! It takes a mount namespace down when the last descriptor is closed, and waits a grace period for it: half a millisecond and
//! more that would otherwise stand between a run's end and the word of it. And it frees a tmpfs in whoever closes that one last,
//! a millisecond for 4 MiB. That is no work for a thread that others wait for, and least of all for a neighbour's child, which has
//! copies of some of the host's descriptors while it is born: so this one lies where none has ([`slots`](super::slots)).
//!
//! It is done by a task in a session of its own. Where the kernel shares processors out among sessions, what it takes is not taken
//! from the host.
//!
//! They are handed over by number, through a pipe: the descriptors are the same everywhere in this process, and a spawner that
//! somebody kills leaves no lock behind that others of its crew would wait for.

use super::{
    slots::Floor,
    step::{Step, Trouble, step},
    sys,
    task::{self, Place, die_with_parent},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{IntoRawFd, OwnedFd},
    io::{Errno, ioctl_fionread},
    pipe::{PipeFlags, pipe_with},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// More are not held, however busy it is.
const MOST: u64 = 64;
/// Nor more in files.
const MOST_MIB: u64 = 1024;
const PAUSE: Duration = Duration::from_millis(1);

/// In the place of a number: no more will come.
const CLOSED: i32 = -1;

/// What the task is told: the number, and how much hangs on it, in MiB.
const WORD: usize = 8;

/// The hand that gives to the task, which ends with it.
#[derive(Debug)]
pub(super) struct Sweeper {
    given: OwnedFd,
    work: Arc<Work>,
    pub(super) floor: Floor,
}

/// The task's side.
#[derive(Debug)]
struct Work {
    taken: OwnedFd,
    /// In files, MiB.
    held: AtomicU64,
    /// Somebody has killed the task.
    killed: AtomicBool,
}

impl Sweeper {
    pub(super) fn start(floor: Floor) -> Result<Arc<Self>, Trouble> {
        let (taken, given) = step(Step::Pipes, pipe_with(PipeFlags::CLOEXEC))?;
        let work = Arc::new(Work {
            taken,
            held: AtomicU64::new(0),
            killed: AtomicBool::new(false),
        });
        task::start(
            "crosspoint-sweep",
            Place::Host,
            Arc::clone(&work),
            Work::run,
            Work::clean_up,
        )?;
        Ok(Arc::new(Self { given, work, floor }))
    }

    /// Whether somebody has killed the task.
    pub(super) fn was_killed(&self) -> bool {
        self.work.killed.load(Ordering::Acquire)
    }

    /// Takes a descriptor over, the last one of so many bytes of files, unless too much is kept already.
    pub(super) fn keep(&self, descriptor: OwnedFd, bytes: u64) -> Option<OwnedFd> {
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let room = !self.was_killed()
            && ioctl_fionread(&self.given).is_ok_and(|left| left < MOST * WORD as u64)
            && self.work.held.load(Ordering::Relaxed) + u64::from(mib) <= MOST_MIB;
        if !room {
            return Some(descriptor);
        }
        self.work.held.fetch_add(u64::from(mib), Ordering::Relaxed);
        self.give(descriptor.into_raw_fd(), mib);
        None
    }

    /// There is room, and a word is written whole.
    fn give(&self, number: i32, mib: u32) {
        let word = u64::from(mib) << 32 | u64::from(number.cast_unsigned());
        rustix::io::write(&self.given, &word.to_ne_bytes()).ok();
    }
}

impl Drop for Sweeper {
    /// Not only by the end of the pipe: a host that forks has a copy of it.
    fn drop(&mut self) {
        self.give(CLOSED, 0);
    }
}

impl Drop for Work {
    /// What was given while the task was being killed.
    fn drop(&mut self) {
        self.close_all();
    }
}

impl Work {
    fn run(&self, begun: Result<(), Trouble>) {
        // If there is no task, the thread that was to make it does the work.
        if begun.and_then(|()| die_with_parent()).is_ok() {
            rustix::process::setsid().ok();
        }
        while let Some((number, mib)) = self.next() {
            // A pause before each, so that they do not come in bursts.
            std::thread::park_timeout(PAUSE);
            // SAFETY: it was given up by whoever gave it.
            drop(unsafe { sys::take_over(number) });
            self.held.fetch_sub(mib, Ordering::Relaxed);
        }
    }

    /// On the task's thread, after its death. What it had in hand is lost: nobody knows whether it was closed.
    fn clean_up(&self) {
        self.killed.store(true, Ordering::Release);
        self.close_all();
    }

    /// Closes what lies in the pipe.
    fn close_all(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while matches!(poll(&mut [PollFd::new(&self.taken, PollFlags::IN)], Some(&now)), Ok(1)) {
            let Some((number, _)) = self.next() else { return };
            // SAFETY: it was given up by whoever gave it.
            drop(unsafe { sys::take_over(number) });
        }
    }

    /// Waits for a number, and how much hangs on it.
    #[expect(clippy::cast_possible_truncation, reason = "both halves of a word")]
    fn next(&self) -> Option<(i32, u64)> {
        let mut word = [0; WORD];
        loop {
            match rustix::io::read(&self.taken, &mut word) {
                Ok(WORD) => break,
                Err(Errno::INTR) => {}
                _ => return None,
            }
        }
        let word = u64::from_ne_bytes(word);
        let number = (word as u32).cast_signed();
        (number != CLOSED).then_some((number, word >> 32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    /// Waits until the other end of a pipe is closed.
    fn closed(reader: &OwnedFd) {
        poll(&mut [PollFd::new(reader, PollFlags::empty())], None).unwrap();
    }

    #[test]
    fn what_is_kept_is_closed_in_the_end() {
        let sweeper = Sweeper::start(Floor::default()).unwrap();
        let (readers, kept): (Vec<_>, Vec<_>) = (0..3 * MOST).map(|_| pipe_with(PipeFlags::CLOEXEC).unwrap()).collect();
        for one in kept {
            drop(sweeper.keep(one, 0));
        }
        readers.iter().for_each(closed);
        // Those that were given last are closed even so.
        let (reader, last) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert!(sweeper.keep(last, 0).is_none());
        drop(sweeper);
        closed(&reader);
    }
}
