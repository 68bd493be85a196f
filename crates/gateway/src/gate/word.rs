//! The packed word of a gate: limit, calls in flight and waiting drains in one atomic, so that every decision is one
//! compare-and-set and no two of the three can disagree.

#[cfg(crosspoint_loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(crosspoint_loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Low 24 bits: the limit. Next 24: calls in flight. High 16: drains that wait for a permit.
const LIMIT: u64 = (1 << 24) - 1;
const CALL: u64 = 1 << 24;
const WAITER: u64 = 1 << 48;

/// The largest limit that fits.
pub(super) const MAX_LIMIT: u32 = (1 << 24) - 1;

#[derive(Debug)]
pub(super) struct Word(AtomicU64);

/// One reading of the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) limit: u32,
    pub(super) in_flight: u32,
    pub(super) waiting: u32,
}

const fn read(word: u64) -> Reading {
    Reading {
        limit: (word & LIMIT) as u32,
        in_flight: ((word / CALL) & LIMIT) as u32,
        waiting: (word / WAITER) as u32,
    }
}

impl Reading {
    const fn has_room(self) -> bool {
        self.in_flight < self.limit
    }
}

impl Word {
    pub(super) fn new(limit: u32) -> Self {
        Self(AtomicU64::new(u64::from(limit.min(MAX_LIMIT))))
    }

    pub(super) fn read(&self) -> Reading {
        read(self.0.load(Ordering::Relaxed))
    }

    /// A permit for a direct call: refused while a drain waits, because queued work goes first.
    pub(super) fn try_direct(&self) -> bool {
        self.change(|now, word| (now.waiting == 0 && now.has_room()).then(|| word + CALL))
    }

    /// A permit for queued work that does not wait.
    pub(super) fn try_drain(&self) -> bool {
        self.change(|now, word| now.has_room().then(|| word + CALL))
    }

    /// A permit for a registered waiter, which is then no longer one.
    pub(super) fn try_waiter(&self) -> bool {
        self.change(|now, word| now.has_room().then(|| word + CALL - WAITER))
    }

    /// Gives a permit back; answers whether a waiter has to be woken.
    pub(super) fn release(&self) -> bool {
        let before = read(self.0.fetch_sub(CALL, Ordering::Release));
        before.waiting > 0 && before.in_flight <= before.limit
    }

    /// From now on releases wake somebody and direct calls stand back.
    pub(super) fn register(&self) {
        self.0.fetch_add(WAITER, Ordering::AcqRel);
    }

    /// The waiter gave up; answers whether another one has to be woken in its place.
    pub(super) fn unregister(&self) -> bool {
        let before = read(self.0.fetch_sub(WAITER, Ordering::AcqRel));
        before.waiting > 1 && before.has_room()
    }

    /// Sets the limit. Calls in flight above it go on; no new one enters until they have ended.
    pub(super) fn set_limit(&self, limit: u32) {
        let limit = u64::from(limit.min(MAX_LIMIT));
        self.change(|_, word| Some((word & !LIMIT) | limit));
    }

    fn change(&self, to: impl Fn(Reading, u64) -> Option<u64>) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while let Some(next) = to(read(word), word) {
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }
}

#[cfg(all(test, not(crosspoint_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_parts_do_not_run_into_each_other() {
        let word = Word::new(MAX_LIMIT);
        assert!(word.try_direct());
        word.register();
        word.set_limit(1);
        let expected = Reading {
            limit: 1,
            in_flight: 1,
            waiting: 1,
        };
        assert_eq!(word.read(), expected);
        assert!(!word.try_direct());
        assert!(word.release(), "somebody waits");
        assert!(!word.try_direct(), "queued work goes first");
        assert!(word.try_waiter());
        assert_eq!(word.read().waiting, 0);
    }

    #[test]
    fn above_a_lowered_limit_a_release_frees_nothing() {
        let word = Word::new(3);
        assert!(word.try_direct() && word.try_direct() && word.try_direct());
        word.set_limit(1);
        word.register();
        assert!(!word.release());
        assert!(!word.release(), "one call is left, and one is the limit");
        assert!(word.release());
    }
}

#[cfg(all(test, crosspoint_loom))]
mod loom_tests {
    use super::*;
    use loom::{
        sync::{Arc, Notify, atomic::AtomicUsize},
        thread,
    };

    #[test]
    fn never_more_in_flight_than_the_limit() {
        // Three threads: unbounded, this alone takes minutes.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let word = Arc::new(Word::new(1));
            let inside = Arc::new(AtomicUsize::new(0));
            let call = |word: Arc<Word>, inside: Arc<AtomicUsize>, drain: bool| {
                move || {
                    let entered = if drain { word.try_drain() } else { word.try_direct() };
                    if entered {
                        assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                        inside.fetch_sub(1, Ordering::Relaxed);
                        word.release();
                    }
                }
            };
            let first = thread::spawn(call(word.clone(), inside.clone(), false));
            let second = thread::spawn(call(word.clone(), inside.clone(), true));
            call(word.clone(), inside, false)();
            first.join().unwrap();
            second.join().unwrap();
            assert_eq!(word.read().in_flight, 0);
        });
    }

    /// The hand-off: a waiter that found no room is woken by the release that makes some.
    #[test]
    fn a_registered_waiter_is_never_forgotten() {
        loom::model(|| {
            let word = Arc::new(Word::new(1));
            let freed = Arc::new(Notify::new());
            assert!(word.try_direct());
            let releaser = {
                let (word, freed) = (word.clone(), freed.clone());
                thread::spawn(move || {
                    if word.release() {
                        freed.notify();
                    }
                })
            };
            word.register();
            while !word.try_waiter() {
                freed.wait();
            }
            releaser.join().unwrap();
            let expected = Reading {
                limit: 1,
                in_flight: 1,
                waiting: 0,
            };
            assert_eq!(word.read(), expected);
        });
    }

    #[test]
    fn a_changed_limit_loses_no_call_and_no_waiter() {
        loom::model(|| {
            let word = Arc::new(Word::new(2));
            assert!(word.try_direct());
            let other = {
                let word = word.clone();
                thread::spawn(move || {
                    word.register();
                    word.release();
                    word.unregister();
                })
            };
            word.set_limit(5);
            other.join().unwrap();
            let expected = Reading {
                limit: 5,
                in_flight: 0,
                waiting: 0,
            };
            assert_eq!(word.read(), expected);
        });
    }
}
