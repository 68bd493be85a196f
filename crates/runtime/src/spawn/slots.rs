//! The numbers under which children find their descriptors.
//!
//! A child that had a copy of the host's whole table would start the later the more connections the host holds, and what the
//! host closes meanwhile would be closed by that child, in its time. So a child shares the table at first, and its first call
//! gives it one of its own with the lowest numbers alone. What it needs is put there, into slots that its spawner has taken
//! when it began: before there were many connections, if the host has asked for a run or for a report early.

use rustix::{
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec},
};
use std::sync::{
    Arc,
    atomic::{AtomicI32, Ordering},
};

/// Above what a child puts in places of its own: its streams, and what bubblewrap is told by.
pub(super) const FIRST: RawFd = 32;

/// What a run needs as a rule. Where one needs more, there are more from then on.
const COUNT: usize = 16;

/// The kernel copies numbers in groups of so many.
const GROUP: RawFd = 64;

/// Below it lies what children of any level copy.
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

    /// Another descriptor of the same, there.
    pub(super) fn another(&self, fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        fcntl_dupfd_cloexec(fd, self.0.load(Ordering::Relaxed))
    }
}

/// The numbers of one spawner's children, who are born one after the other.
#[derive(Debug)]
pub(super) struct Slots {
    free: Vec<OwnedFd>,
    /// Lies in those that are free.
    nothing: OwnedFd,
    end: RawFd,
    floor: Floor,
}

impl Slots {
    /// `nothing`: what lies in free ones. Every child has copies of it until it executes its program.
    pub(super) fn new(nothing: BorrowedFd<'_>, floor: &Floor) -> Result<Self, Errno> {
        let mut slots = Self {
            free: Vec::with_capacity(COUNT),
            nothing: fcntl_dupfd_cloexec(nothing, FIRST)?,
            end: 0,
            floor: floor.clone(),
        };
        for _ in 0..COUNT {
            let slot = fcntl_dupfd_cloexec(nothing, FIRST)?;
            slots.reach(slot.as_raw_fd());
            slots.free.push(slot);
        }
        Ok(slots)
    }

    /// A child needs this number too.
    pub(super) fn reach(&mut self, number: RawFd) {
        if number >= self.end {
            self.end = number + 1;
            self.floor.0.fetch_max((number | (GROUP - 1)) + 1, Ordering::Relaxed);
        }
    }

    /// What a child needs lies below it.
    pub(super) const fn end(&self) -> RawFd {
        self.end
    }

    /// Moves a descriptor into a slot.
    pub(super) fn put(&mut self, fd: &mut OwnedFd) -> Result<(), Errno> {
        let slot = if let Some(mut slot) = self.free.pop() {
            if let Err(errno) = dup3(&*fd, &mut slot, DupFlags::CLOEXEC) {
                self.free.push(slot);
                return Err(errno);
            }
            slot
        } else {
            let slot = fcntl_dupfd_cloexec(&*fd, FIRST)?;
            self.reach(slot.as_raw_fd());
            slot
        };
        drop(std::mem::replace(fd, slot));
        Ok(())
    }

    /// Empties a slot.
    pub(super) fn take_back(&mut self, mut slot: OwnedFd) {
        if (FIRST..self.end).contains(&slot.as_raw_fd()) && dup3(&self.nothing, &mut slot, DupFlags::CLOEXEC).is_ok() {
            self.free.push(slot);
        }
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

    #[test]
    fn what_was_put_there_is_closed_when_it_is_taken_back_and_the_numbers_stay() {
        let floor = Floor::default();
        let mut slots = slots(&floor);
        for round in 0..3 {
            let (readers, mut put): (Vec<_>, Vec<_>) =
                (0..2 * COUNT).map(|_| pipe_with(PipeFlags::CLOEXEC).unwrap()).collect();
            for fd in &mut put {
                slots.put(fd).unwrap();
                assert!((FIRST..slots.end()).contains(&fd.as_raw_fd()));
            }
            let end = slots.end();
            for fd in put {
                slots.take_back(fd);
            }
            for reader in &readers {
                poll(&mut [PollFd::new(reader, PollFlags::empty())], None).unwrap();
            }
            assert_eq!(slots.end(), end);
            assert_eq!(slots.free.len(), 2 * COUNT, "in round {round}");
        }
    }

    #[test]
    fn what_is_lifted_lies_above_all_slots() {
        let floor = Floor::default();
        let (_one, other) = (slots(&floor), slots(&floor));
        let lifted = floor.lift(eventfd(0, EventfdFlags::CLOEXEC).unwrap());
        assert!(lifted.as_raw_fd() >= other.end());
        assert!(
            lifted.as_raw_fd() / GROUP > (other.end() - 1) / GROUP,
            "nor is it copied with them"
        );
        let number = lifted.as_raw_fd();
        assert_eq!(floor.lift(lifted).as_raw_fd(), number, "it lies there");
    }
}
