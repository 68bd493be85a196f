//! Takes mount namespaces of ended runs down, one by one and in idle moments.
//!
//! The kernel does it when the last descriptor is closed, and waits a grace period for it: half a millisecond and more
//! that would otherwise stand between a run's end and the word of it.

use rustix::fd::OwnedFd;
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::Builder,
    time::Duration,
};

/// More are not held, however busy it is.
const MOST: usize = 64;
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<OwnedFd>,
    closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Sweeper {
    state: Mutex<State>,
    work: Condvar,
}

impl Sweeper {
    pub(super) fn start() -> std::io::Result<Arc<Self>> {
        let sweeper = Arc::new(Self::default());
        let mine = Arc::clone(&sweeper);
        let thread = Builder::new()
            .name("crosspoint-sweep".to_owned())
            .stack_size(128 * 1024);
        thread.spawn(move || mine.run())?;
        Ok(sweeper)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one over. With too many kept already it is closed at once.
    pub(super) fn keep(&self, namespace: OwnedFd) {
        let mut state = self.lock();
        if state.kept.len() < MOST {
            state.kept.push_back(namespace);
            self.work.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if state.closed {
                return;
            }
            if state.kept.is_empty() {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // A pause after each, so that they do not come in bursts.
            let paused = self.work.wait_timeout(state, PAUSE);
            state = paused.unwrap_or_else(PoisonError::into_inner).0;
            let one = state.kept.pop_front();
            drop(state);
            drop(one);
            state = self.lock();
        }
    }
}
