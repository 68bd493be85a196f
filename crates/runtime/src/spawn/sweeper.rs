//! What would otherwise stand in a spawner's way when a run ends, on a thread of its own.
//!
//! **Mount namespaces** of ended runs are taken down one by one and in idle moments. The kernel does it when the last descriptor
//! is closed, and waits a grace period for it: half a millisecond and more that would otherwise stand between a run's end and
//! the word of it.
//!
//! **Processes** that a run without a namespace for them has left behind are found and killed: with a crowd, that takes until
//! a look at all of /proc finds none of them.

use super::{
    confined::{self, Marked},
    sys,
};
use rustix::fd::OwnedFd;
use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::Builder,
    time::Duration,
};

/// More namespaces are not held, however busy it is.
const MOST: usize = 64;
const PAUSE: Duration = Duration::from_millis(1);

/// A run whose processes are to be killed: their mark, its number, and where to say that it is done.
#[derive(Debug)]
struct Left {
    mark: u64,
    run: u64,
    swept: Arc<Swept>,
}

/// Runs of a spawner of which nothing is left.
#[derive(Debug)]
pub(super) struct Swept {
    runs: Mutex<Vec<u64>>,
    wake: OwnedFd,
}

impl Swept {
    /// Wakes a spawner by this `eventfd`.
    pub(super) fn new(wake: OwnedFd) -> Self {
        let runs = Mutex::default();
        Self { runs, wake }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, run: u64) {
        self.lock().push(run);
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
    }

    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.lock())
    }
}

#[derive(Debug, Default)]
struct State {
    kept: VecDeque<OwnedFd>,
    left: VecDeque<Left>,
    closed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Sweeper {
    state: Mutex<State>,
    work: Condvar,
}

impl Sweeper {
    /// `kills`: its runs leave processes behind. Against a crowd of them it would have one share among hundreds.
    pub(super) fn start(kills: bool) -> std::io::Result<Arc<Self>> {
        let sweeper = Arc::new(Self::default());
        let mine = Arc::clone(&sweeper);
        let thread = Builder::new()
            .name("crosspoint-sweep".to_owned())
            .stack_size(128 * 1024);
        thread.spawn(move || {
            if kills {
                sys::be_prompt().ok();
                rustix::process::setpriority_process(None, -10).ok();
            }
            mine.run();
        })?;
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

    /// Kills what a run has left behind, and then adds it to those. Answers whether it will: after its own end it does not.
    pub(super) fn kill(&self, mark: u64, run: u64, swept: &Arc<Swept>) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        let swept = Arc::clone(swept);
        state.left.push_back(Left { mark, run, swept });
        self.work.notify_one();
        true
    }

    /// Ends the thread when everything is killed that it was told to kill.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_one();
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(Left { mark, run, swept }) = state.left.pop_front() {
                drop(state);
                confined::kill(Marked::Run(mark));
                swept.add(run);
                state = self.lock();
                continue;
            }
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
