//! A lock that somebody may kill a task with.
//!
//! A task that is killed takes the locks that it holds with it, and whoever waits for one then waits for ever. So the host does
//! not wait here: it tries again until it has the lock, or hears that the task is dead. The task's own wait is a usual one,
//! since nobody kills a thread.

use super::step::{Step, Trouble};
use rustix::io::Errno;
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Somebody has killed the task that was to do it.
pub(super) const GONE: Trouble = Trouble {
    step: Step::Gone,
    errno: Errno::SRCH,
};

/// What the host shares with one task.
#[derive(Debug, Default)]
pub(super) struct Frail<T: Default> {
    shared: Mutex<T>,
    killed: AtomicBool,
}

/// So often the host gives way before it sleeps: who holds the lock may wait for this very processor.
const TURNS: u32 = 100;
const NAP: Duration = Duration::from_micros(50);

impl<T: Default> Frail<T> {
    /// In the task.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In the host. It is held for an instant, by whomever.
    pub(super) fn lock_from_host(&self) -> Result<MutexGuard<'_, T>, Trouble> {
        let mut turns = 0;
        loop {
            if self.was_killed() {
                return Err(GONE);
            }
            match self.shared.try_lock() {
                Ok(held) => return Ok(held),
                Err(TryLockError::Poisoned(held)) => return Ok(held.into_inner()),
                Err(TryLockError::WouldBlock) if turns < TURNS => {
                    turns += 1;
                    std::thread::yield_now();
                }
                Err(TryLockError::WouldBlock) => std::thread::park_timeout(NAP),
            }
        }
    }

    /// Somebody has killed the task.
    pub(super) fn give_up(&self) {
        self.killed.store(true, Ordering::Release);
    }

    pub(super) fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }
}

impl<T: Default> Drop for Frail<T> {
    /// What a task was killed with in its hands may be half changed: it is left where it is.
    #[expect(clippy::mem_forget, reason = "nobody knows what of it is still there")]
    fn drop(&mut self) {
        if matches!(self.shared.try_lock(), Err(TryLockError::WouldBlock)) {
            let shared = self.shared.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(std::mem::take(shared));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nobody_waits_for_a_lock_that_died_with_its_task() {
        let frail = Arc::new(Frail::<u8>::default());
        *frail.lock_from_host().unwrap() += 1;
        let held = frail.lock();
        let other = Arc::clone(&frail);
        let waiting = std::thread::spawn(move || other.lock_from_host().map(|held| *held));
        // The guard is not dropped before the other one has given up: so it is if the task is killed.
        frail.give_up();
        assert_eq!(waiting.join().unwrap().unwrap_err(), GONE);
        drop(held);
        assert_eq!(frail.lock_from_host().map(drop).unwrap_err(), GONE);
    }

    #[test]
    #[expect(clippy::mem_forget, reason = "so it is if the task is killed")]
    fn what_a_killed_task_had_in_its_hands_is_left_alone() {
        for killed_with_it in [false, true] {
            let (frail, one) = (Frail::<Vec<Arc<()>>>::default(), Arc::new(()));
            frail.lock().push(Arc::clone(&one));
            if killed_with_it {
                std::mem::forget(frail.lock());
            }
            frail.give_up();
            drop(frail);
            assert_eq!(Arc::strong_count(&one), 1 + usize::from(killed_with_it));
        }
    }

    #[test]
    fn one_at_a_time() {
        let frail = Arc::new(Frail::<u64>::default());
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let frail = Arc::clone(&frail);
                std::thread::spawn(move || {
                    for _ in 0..1000 {
                        let mut held = if n == 0 {
                            frail.lock()
                        } else {
                            frail.lock_from_host().unwrap()
                        };
                        let seen = *held;
                        std::thread::yield_now();
                        *held = seen + 1;
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*frail.lock(), 4000);
    }
}
