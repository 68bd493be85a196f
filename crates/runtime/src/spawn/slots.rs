//! The numbers under which children find their descriptors.
//!
//! A child that had a copy of the host's whole table would start the later the more connections the host holds, and what the
//! host closes meanwhile would be closed by that child, in its time. So a child shares the table at first, and one of its first
//! calls gives it a table of its own with the lowest numbers alone. What it needs is put there, into slots that its spawner has
//! taken when it began: before there were many connections, if the host has asked for a run or for a report early.

use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec},
};
use std::{
    cmp::Reverse,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

/// Above the streams that a child fills, and above the first of what bubblewrap is told by.
const FIRST: RawFd = 32;

/// What a run needs as a rule.
const COUNT: usize = 24;

/// The kernel copies numbers in groups of so many.
const GROUP: RawFd = 64;

/// Another descriptor of the same, not below that number.
fn from(fd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd, Errno> {
    fcntl_dupfd_cloexec(fd, number).map_err(|errno| match errno {
        // So the kernel says that there are no such numbers.
        Errno::INVAL => Errno::MFILE,
        other => other,
    })
}

/// The end of the group that holds a number.
const fn end_of_group(number: RawFd) -> RawFd {
    (number | (GROUP - 1)).saturating_add(1)
}

/// Below it lies what children of any level copy, unless they need very much. Nothing that keeps a run's files in memory should
/// lie there.
#[derive(Debug, Clone, Default)]
pub(super) struct Floor(Arc<AtomicI32>);

impl Floor {
    /// Moves a descriptor to where no child has a copy of it, if there is room.
    pub(super) fn lift(&self, fd: OwnedFd) -> OwnedFd {
        if fd.as_raw_fd() >= self.0.load(Ordering::Relaxed) {
            return fd;
        }
        self.another(fd.as_fd()).unwrap_or(fd)
    }

    /// Another descriptor of the same, there if there is room.
    pub(super) fn another(&self, fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        fcntl_dupfd_cloexec(fd, self.0.load(Ordering::Relaxed)).or_else(|_| fcntl_dupfd_cloexec(fd, 0))
    }
}

/// The numbers of one spawner's children, who are born one after the other.
#[derive(Debug)]
pub(super) struct Slots {
    /// The highest first: they are filled from the lowest on.
    free: Vec<OwnedFd>,
    /// The numbers of those that are filled.
    filled: Vec<RawFd>,
    /// Lies in those that are free.
    filler: OwnedFd,
    /// All of them lie below it, and what every child needs.
    base: RawFd,
    /// What the next child needs lies below it.
    end: RawFd,
    floor: Floor,
}

impl Slots {
    /// `filler`: what lies in free ones. Every child has copies of it until it executes its program.
    pub(super) fn new(filler: BorrowedFd<'_>, floor: &Floor) -> Result<Self, Errno> {
        let mut slots = Self {
            free: Vec::with_capacity(COUNT),
            filled: Vec::with_capacity(COUNT),
            filler: from(filler, FIRST)?,
            base: 0,
            end: 0,
            floor: floor.clone(),
        };
        for _ in 0..COUNT {
            slots.free.push(from(filler, FIRST)?);
        }
        slots.sort();
        let highest = slots.free.first().map_or(FIRST, AsRawFd::as_raw_fd);
        slots.reach(highest.max(slots.filler.as_raw_fd()));
        Ok(slots)
    }

    fn sort(&mut self) {
        self.free.sort_unstable_by_key(|slot| Reverse(slot.as_raw_fd()));
    }

    /// What lies in free ones: every child has it.
    pub(super) fn filler(&self) -> BorrowedFd<'_> {
        self.filler.as_fd()
    }

    /// What keeps files in memory lies above it.
    pub(super) const fn floor(&self) -> &Floor {
        &self.floor
    }

    /// Every child needs this number too.
    pub(super) fn reach(&mut self, number: RawFd) {
        if number >= self.base {
            self.base = end_of_group(number);
            self.end = self.end.max(self.base);
            self.floor.0.fetch_max(self.base, Ordering::Relaxed);
        }
    }

    /// What the next child needs lies below it.
    pub(super) const fn end(&self) -> RawFd {
        self.end
    }

    /// Moves descriptors to where the next child finds them: in the given order to numbers that rise, into slots first. Where
    /// there are more, the child copies more.
    pub(super) fn fill<'a>(&mut self, descriptors: impl Iterator<Item = &'a mut OwnedFd>) -> Result<(), Errno> {
        let mut above = FIRST;
        for fd in descriptors {
            let moved = if let Some(mut slot) = self.free.pop() {
                if let Err(errno) = dup3(&*fd, &mut slot, DupFlags::CLOEXEC) {
                    self.free.push(slot);
                    return Err(errno);
                }
                self.filled.push(slot.as_raw_fd());
                slot
            } else {
                let another = from(fd.as_fd(), above)?;
                self.end = self.end.max(end_of_group(another.as_raw_fd()));
                another
            };
            above = moved.as_raw_fd() + 1;
            drop(std::mem::replace(fd, moved));
        }
        Ok(())
    }

    /// Empties the slots: of these descriptors, those that are slots are kept.
    pub(super) fn empty(&mut self, descriptors: impl Iterator<Item = OwnedFd>) {
        for mut fd in descriptors {
            let is_slot = self.filled.contains(&fd.as_raw_fd());
            if is_slot && dup3(&self.filler, &mut fd, DupFlags::CLOEXEC).is_ok() {
                self.free.push(fd);
            }
        }
        self.filled.clear();
        self.sort();
        self.end = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::{
        event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
        pipe::{PipeFlags, pipe_with},
    };

    fn slots(floor: &Floor) -> Slots {
        Slots::new(eventfd(0, EventfdFlags::CLOEXEC).unwrap().as_fd(), floor).unwrap()
    }

    fn pipes(count: usize) -> (Vec<OwnedFd>, Vec<OwnedFd>) {
        (0..count).map(|_| pipe_with(PipeFlags::CLOEXEC).unwrap()).collect()
    }

    #[test]
    fn what_was_filled_in_is_closed_when_it_is_taken_out_and_the_slots_stay() {
        let mut slots = slots(&Floor::default());
        let base = slots.end();
        // More than there are slots, fewer, and some that were never moved.
        for count in [2 * COUNT, COUNT / 2, 2 * COUNT, 3] {
            let (readers, mut put) = pipes(count);
            let (others, unmoved) = pipes(3);
            slots.fill(put.iter_mut()).unwrap();
            let numbers: Vec<_> = put.iter().map(AsRawFd::as_raw_fd).collect();
            assert!(
                numbers.is_sorted(),
                "what is filled in from the first on overwrites nothing"
            );
            assert!(numbers.iter().all(|number| (FIRST..slots.end()).contains(number)));
            slots.empty(put.into_iter().chain(unmoved));
            for reader in readers.iter().chain(&others) {
                poll(&mut [PollFd::new(reader, PollFlags::empty())], None).unwrap();
            }
            assert_eq!((slots.end(), slots.free.len()), (base, COUNT), "after {count}");
        }
    }

    #[test]
    fn what_is_lifted_lies_above_all_slots() {
        let floor = Floor::default();
        let (_one, other) = (slots(&floor), slots(&floor));
        let lifted = floor.lift(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        let number = lifted.as_raw_fd();
        assert!(number >= other.end());
        assert_eq!(floor.lift(lifted).as_raw_fd(), number, "it lies there");
    }
}
