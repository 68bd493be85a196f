//! What a run's processes have used of the processors, those included that have ended.
//!
//! The kernel adds up what a process has used and what those of its children had used that it waited for. What nobody waits
//! for is forgotten: of a program that ignores the end of its children (`SIGCHLD`), at `confined` of what has lost its
//! parent. So the ledger remembers what each process had used when it was last seen, and keeps it if it has vanished and
//! nobody's children have become more expensive since.
//!
//! Children that live for less than a look are not seen at all. A program that ignores their ends is looked at more often,
//! and for those that are new and run at a look, and are gone by the next, it pays as if there had been such ones since the look
//! before, as far as the processors were free for them: what is seen at any one moment is the mean of what there was.

use super::sys;
use std::{collections::HashMap, time::Duration};

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) pid: i32,
    /// When it began; numbers are given out again.
    pub(super) start: u64,
    /// Its processor time, and that of those it has waited for, in ticks of the clock.
    pub(super) own: u64,
    pub(super) waited: u64,
    pub(super) runs: bool,
    /// Of its children nobody hears.
    pub(super) forgets: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The last look, by process.
    last: Vec<Used>,
    /// Ticks of vanished ones that nobody has paid for since, and of payments that met no debt. A look takes its time: either
    /// may be seen one look before the other.
    owed: u64,
    spare: u64,
    /// Ticks that were forgotten.
    lost: u64,
    /// An estimate of what was not seen at all, and what would be added for those of the last look that are gone by the next.
    unseen: Duration,
    charges: HashMap<(i32, u64), Duration>,
    forgets: bool,
}

impl Ledger {
    /// Enters a look, so long after the one before. `share` tells of a process how long it has run, and how long it has
    /// waited for a processor.
    pub(super) fn enter(
        &mut self,
        mut now: Vec<Used>,
        since: Duration,
        share: impl Fn(i32) -> Option<(Duration, Duration)>,
    ) {
        now.sort_unstable_by_key(Used::key);
        let before = |one: &Used| self.last.binary_search_by_key(&one.key(), Used::key).ok();
        let (mut paid, mut new) = (0, Vec::new());
        for one in &now {
            match before(one).and_then(|at| self.last.get(at)) {
                Some(old) => paid += one.waited.saturating_sub(old.waited),
                None => new.push(*one),
            }
        }
        let mut vanished = 0;
        for old in &self.last {
            if now.binary_search_by_key(&old.key(), Used::key).is_err() {
                vanished += old.own + old.waited;
                self.unseen += self.charges.remove(&old.key()).unwrap_or_default();
            }
        }
        self.charges.clear();
        let late = self.owed.min(paid);
        self.lost += self.owed - late;
        let due = vanished.saturating_sub(self.spare);
        self.owed = due.saturating_sub(paid - late);
        self.spare = (paid - late).saturating_sub(due);
        self.forgets |= now.iter().any(|one| one.forgets);
        if self.forgets {
            self.estimate(&new, since, share);
        }
        self.last = now;
    }

    fn estimate(&mut self, new: &[Used], since: Duration, share: impl Fn(i32) -> Option<(Duration, Duration)>) {
        for one in new.iter().filter(|one| one.runs) {
            if let Some((ran, waited)) = share(one.pid) {
                let free = ran.as_secs_f64() / (ran + waited).as_secs_f64().max(1e-9);
                // What it has used itself will be counted as any other's.
                let charge = since.mul_f64(free.min(1.0)).saturating_sub(ran);
                self.charges.insert(one.key(), charge);
            }
        }
    }

    /// What those have used that live no more and were not waited for.
    pub(super) fn forgotten(&self) -> Duration {
        ticks(self.lost) + self.unseen
    }

    /// Whether the end of a process may be the end of what is known of it.
    pub(super) fn forgets(&self) -> bool {
        self.forgets || self.lost > 0
    }
}

impl Used {
    fn key(&self) -> (i32, u64) {
        (self.pid, self.start)
    }
}

pub(super) fn ticks(number: u64) -> Duration {
    // Ticks are many to the second; a second of them is a Duration of its own.
    Duration::from_secs(number) / sys::ticks_per_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: Used = Used {
        pid: 1,
        start: 5,
        own: 3,
        waited: 0,
        runs: false,
        forgets: false,
    };

    fn parent(waited: u64) -> Used {
        Used { waited, ..PARENT }
    }

    fn child(pid: i32, own: u64) -> Used {
        Used { pid, own, ..PARENT }
    }

    fn after(looks: &[&[Used]]) -> Ledger {
        let mut ledger = Ledger::default();
        for look in looks {
            ledger.enter(look.to_vec(), Duration::from_millis(200), |_| None);
        }
        ledger
    }

    #[test]
    fn what_was_waited_for_is_counted_by_the_kernel() {
        let all: [&[&[Used]]; 4] = [
            // It went on after the look; others were never seen.
            &[&[parent(0), child(2, 7)], &[parent(30)], &[parent(30)], &[parent(30)]],
            // The parent was looked at before it waited, and the child when it was gone; and the other way round.
            &[&[parent(0), child(2, 7)], &[parent(0)], &[parent(8)], &[parent(8)]],
            &[
                &[parent(0), child(2, 7)],
                &[parent(8), child(2, 8)],
                &[parent(8)],
                &[parent(8)],
            ],
            // By way of somebody who is gone as well.
            &[
                &[parent(0), child(2, 7), child(3, 7)],
                &[
                    parent(0),
                    Used {
                        waited: 9,
                        ..child(2, 7)
                    },
                ],
                &[parent(20)],
                &[parent(20)],
            ],
        ];
        for looks in all {
            let ledger = after(looks);
            assert_eq!(ledger.forgotten(), Duration::ZERO, "{looks:?}");
            assert!(!ledger.forgets());
        }
    }

    #[test]
    fn what_nobody_waited_for_is_kept() {
        let again = Used {
            start: 6,
            ..child(2, 0)
        };
        let ledger = after(&[
            &[parent(0), child(2, 7), child(3, 5)],
            &[parent(2), again],
            &[parent(2)],
            &[parent(2)],
        ]);
        assert_eq!(ledger.forgotten(), ticks(10));
        assert!(ledger.forgets(), "it is looked at more closely");
    }

    #[test]
    fn those_that_are_seen_stand_for_those_that_are_not() {
        let mut ledger = Ledger::default();
        let parent = Used {
            forgets: true,
            ..PARENT
        };
        let share = |_| Some((Duration::from_millis(3), Duration::from_millis(1)));
        for pid in 2..13 {
            let short = Used {
                runs: true,
                ..child(pid, 0)
            };
            let sleeps = Used {
                runs: false,
                ..child(pid + 100, 0)
            };
            ledger.enter(vec![parent, short, sleeps], Duration::from_millis(20), share);
        }
        // Three quarters of the time, less what each is seen to have used itself. The last one may live on.
        assert_eq!(ledger.forgotten(), Duration::from_millis(10 * (15 - 3)));
    }
}
