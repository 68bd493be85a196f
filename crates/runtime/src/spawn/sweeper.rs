//! Takes mount namespaces of ended runs down, one by one and in idle moments.
//!
//! The kernel does it when the last descriptor is closed, and waits a grace period for it: half a millisecond and more
//! that would otherwise stand between a run's end and the word of it.
//!
//! They are handed over by number, through a pipe: the descriptors are the same everywhere in this process, and a spawner that
//! somebody kills leaves no lock behind that others of its crew would wait for.

use super::sys;
use rustix::{
    fd::{IntoRawFd, OwnedFd},
    io::{Errno, ioctl_fionread},
    pipe::{PipeFlags, pipe_with},
};
use std::{sync::Arc, thread::Builder, time::Duration};

/// More are not held, however busy it is.
const MOST: u64 = 64;
const PAUSE: Duration = Duration::from_millis(1);

/// In the place of a number: no more will come.
const CLOSED: i32 = -1;

/// The hand that gives to the thread, which ends with it.
#[derive(Debug)]
pub(super) struct Sweeper(OwnedFd);

impl Sweeper {
    pub(super) fn start() -> std::io::Result<Arc<Self>> {
        let (taken, given) = pipe_with(PipeFlags::CLOEXEC)?;
        let thread = Builder::new()
            .name("crosspoint-sweep".to_owned())
            .stack_size(128 * 1024);
        thread.spawn(move || sweep(&taken))?;
        Ok(Arc::new(Self(given)))
    }

    /// Takes one over. With too many kept already it is closed at once.
    pub(super) fn keep(&self, namespace: OwnedFd) {
        if ioctl_fionread(&self.0).is_ok_and(|left| left < MOST * 4) {
            self.give(namespace.into_raw_fd());
        }
    }

    /// There is room, and four bytes are written whole.
    fn give(&self, number: i32) {
        rustix::io::write(&self.0, &number.to_ne_bytes()).ok();
    }
}

impl Drop for Sweeper {
    /// Not only by the end of the pipe: a host that forks has a copy of it.
    fn drop(&mut self) {
        self.give(CLOSED);
    }
}

fn sweep(taken: &OwnedFd) {
    loop {
        let mut number = [0; 4];
        match rustix::io::read(taken, &mut number) {
            Ok(4) => {}
            Err(Errno::INTR) => continue,
            _ => return,
        }
        let number = i32::from_ne_bytes(number);
        if number == CLOSED {
            return;
        }
        // A pause before each, so that they do not come in bursts.
        std::thread::park_timeout(PAUSE);
        // SAFETY: `keep` has given it up.
        drop(unsafe { sys::take_over(number) });
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
        let sweeper = Sweeper::start().unwrap();
        let (readers, kept): (Vec<_>, Vec<_>) = (0..3 * MOST).map(|_| pipe_with(PipeFlags::CLOEXEC).unwrap()).collect();
        for one in kept {
            sweeper.keep(one);
        }
        readers.iter().for_each(closed);
        // Those that were given last are closed even so.
        let (reader, last) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        sweeper.keep(last);
        drop(sweeper);
        closed(&reader);
    }
}
