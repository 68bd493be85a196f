//! Who has copies of the host's descriptors.
//!
//! A child has them from its birth until it executes its program. What the host closes meanwhile is closed by that child, and
//! what the kernel then does is done in its time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::park_timeout,
    time::Duration,
};

/// The kernel says that a program is executed an instant before the copies are closed.
const INSTANT: Duration = Duration::from_millis(1);

/// The children of all levels that have copies.
#[derive(Debug, Clone, Default)]
pub(super) struct Copies(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    there: AtomicUsize,
    ever: AtomicU64,
}

impl Copies {
    /// For one that makes children one after the other.
    pub(super) fn copier(&self) -> Copier {
        Copier {
            copies: self.clone(),
            now: AtomicBool::new(false),
        }
    }

    /// Waits until there have been none for an instant; for so many instants at most.
    pub(super) fn await_none(&self, most: usize) {
        for _ in 0..most {
            let ever = self.0.ever.load(Ordering::SeqCst);
            let there = self.0.there.load(Ordering::SeqCst);
            park_timeout(INSTANT);
            if there == 0 && self.0.ever.load(Ordering::SeqCst) == ever {
                return;
            }
        }
    }
}

/// One whose children have copies.
#[derive(Debug)]
pub(super) struct Copier {
    copies: Copies,
    now: AtomicBool,
}

impl Copier {
    /// A child is born, and has executed its program or died when this returns.
    pub(super) fn during<T>(&self, birth: impl FnOnce() -> T) -> T {
        self.copies.0.ever.fetch_add(1, Ordering::SeqCst);
        self.copies.0.there.fetch_add(1, Ordering::SeqCst);
        self.now.store(true, Ordering::SeqCst);
        let born = birth();
        self.end();
        born
    }

    /// Also of one that was killed in a birth.
    pub(super) fn end(&self) {
        if self.now.swap(false, Ordering::SeqCst) {
            self.copies.0.there.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_copies_that_are_gone_or_whose_maker_is_dead() {
        let copies = Copies::default();
        let (one, other) = (copies.copier(), copies.copier());
        let there = || copies.0.there.load(Ordering::SeqCst);
        other.during(|| one.during(|| assert_eq!(there(), 2)));
        assert_eq!(there(), 0);
        // It unwinds, as if it had been killed there.
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one.during(|| panic!("killed"))));
        assert!(killed.is_err());
        assert_eq!(there(), 1);
        one.end();
        one.end();
        assert_eq!(there(), 0);
        copies.await_none(usize::MAX);
        other.during(|| copies.await_none(3));
    }

    #[test]
    fn who_waits_long_enough_hears_of_the_end_of_the_last_copy() {
        let copies = Copies::default();
        let (one, ended) = (copies.copier(), AtomicBool::new(false));
        let (go_on, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (begun, born) = std::sync::mpsc::channel();
            let ended = &ended;
            scope.spawn(move || {
                one.during(|| {
                    begun.send(()).unwrap();
                    told.recv().unwrap();
                    ended.store(true, Ordering::SeqCst);
                });
            });
            born.recv().unwrap();
            copies.await_none(2);
            go_on.send(()).unwrap();
            copies.await_none(usize::MAX);
            assert!(ended.load(Ordering::SeqCst));
        });
    }
}
