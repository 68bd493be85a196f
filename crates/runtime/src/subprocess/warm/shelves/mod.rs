//! Which interpreters wait, which are to be made next, and which have to go.

use super::{WarmOptions, WarmStats, demand::Demand};
use crosspoint_core::CustomerId;
use std::{cmp::Reverse, collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// Scripts whose use is remembered.
const KNOWN: usize = 512;

/// A script gives its interpreters up for one that was used so much later, and for no other: else two would take them from
/// each other again and again.
const BUSY: Duration = Duration::from_secs(10);

/// What an interpreter is taken to hold before the first one was measured.
const GUESS: u64 = 16 << 20;

/// After this many interpreters of a script failed one after another, it is left alone for the longest time.
const LONGEST: u32 = 6;

/// The interpreters of one script and customer.
#[derive(Debug)]
struct Shelf<K, W> {
    id: u64,
    key: K,
    customer: CustomerId,
    demand: Demand,
    /// The oldest first, each with its memory.
    ready: VecDeque<(W, u64)>,
    warming: usize,
    /// Bytes that the last one held.
    held: u64,
    /// Failures since the last success, and when to try again.
    failures: u32,
    not_before: Option<Instant>,
}

impl<K, W> Shelf<K, W> {
    fn count(&self) -> usize {
        self.ready.len() + self.warming
    }

    /// With those that are being made.
    fn memory(&self) -> u64 {
        let warming = u64::try_from(self.warming)
            .unwrap_or(u64::MAX)
            .saturating_mul(self.held);
        self.ready
            .iter()
            .map(|(_, held)| held)
            .sum::<u64>()
            .saturating_add(warming)
    }
}

/// Keys `K` and interpreters `W`.
#[derive(Debug)]
pub(super) struct Shelves<K, W> {
    options: WarmOptions,
    shelves: Vec<Shelf<K, W>>,
    next: u64,
    hits: u64,
    misses: u64,
    lost: u64,
}

impl<K: Clone + PartialEq, W> Shelves<K, W> {
    pub(super) const fn new(options: WarmOptions) -> Self {
        Self {
            options,
            shelves: Vec::new(),
            next: 0,
            hits: 0,
            misses: 0,
            lost: 0,
        }
    }

    pub(super) const fn options(&self) -> WarmOptions {
        self.options
    }

    /// A script is used: the oldest of its interpreters that lives, and those that turned out to be dead.
    pub(super) fn take(
        &mut self,
        key: &K,
        customer: &CustomerId,
        now: Instant,
        mut lives: impl FnMut(&mut W) -> bool,
    ) -> (Option<W>, Vec<W>) {
        let mut dead = Vec::new();
        let options = self.options;
        if let Some(shelf) = self.shelves.iter_mut().find(|shelf| shelf.key == *key) {
            shelf.demand.used(now, options.idle, options.per_script);
            while let Some((mut worker, _)) = shelf.ready.pop_front() {
                if lives(&mut worker) {
                    self.hits += 1;
                    return (Some(worker), dead);
                }
                dead.push(worker);
            }
        } else {
            self.learn(key, customer, now);
        }
        self.misses += 1;
        (None, dead)
    }

    fn learn(&mut self, key: &K, customer: &CustomerId, now: Instant) {
        if self.shelves.len() >= KNOWN {
            let bare = self.shelves.iter().enumerate().filter(|(_, shelf)| shelf.count() == 0);
            let Some((oldest, _)) = bare.min_by_key(|(_, shelf)| shelf.demand.last()) else {
                return;
            };
            self.shelves.swap_remove(oldest);
        }
        self.next += 1;
        self.shelves.push(Shelf {
            id: self.next,
            key: key.clone(),
            customer: customer.clone(),
            demand: Demand::new(now),
            ready: VecDeque::new(),
            warming: 0,
            held: GUESS,
            failures: 0,
            not_before: None,
        });
    }

    /// A run was handed to an interpreter that ended before it began. Another one may still be found for it.
    pub(super) fn lost(&mut self, key: &K, now: Instant) {
        self.lost += 1;
        self.hits = self.hits.saturating_sub(1);
        if let Some(shelf) = self.shelves.iter_mut().find(|shelf| shelf.key == *key) {
            shelf.fail(now);
        }
    }

    /// What is to be made next, if anything: the number of its shelf, and its key; and what has to go for it. It counts as
    /// being made until [`put`](Self::put) or [`failed`](Self::failed). Answers no more than `most` at a time, and beyond
    /// the first only if a script has less than half of what it needs.
    pub(super) fn next(&mut self, now: Instant, most: usize) -> (Option<(u64, K)>, Vec<W>) {
        let options = self.options;
        let warming: usize = self.shelves.iter().map(|shelf| shelf.warming).sum();
        if warming >= most {
            return (None, Vec::new());
        }
        let mut needy: Vec<_> = Vec::new();
        for (index, shelf) in self.shelves.iter_mut().enumerate() {
            let wanted = shelf.demand.wanted(now, options.idle, options.per_script);
            let have = shelf.count();
            let urgent = have * 2 < wanted;
            let patient = shelf.not_before.is_some_and(|at| now < at);
            if have < wanted && !patient && (warming == 0 || urgent) {
                needy.push((have * 1000 / wanted, Reverse(shelf.demand.last()), index));
            }
        }
        needy.sort_unstable();
        for (_, _, index) in needy {
            let mut gone = Vec::new();
            if self.room(index, &mut gone)
                && let Some(shelf) = self.shelves.get_mut(index)
            {
                shelf.warming += 1;
                return (Some((shelf.id, shelf.key.clone())), gone);
            }
            if !gone.is_empty() {
                return (None, gone);
            }
        }
        (None, Vec::new())
    }

    /// Whether there is room for one more on this shelf, now that those in `gone` are not there any more.
    fn room(&mut self, index: usize, gone: &mut Vec<W>) -> bool {
        let Some(shelf) = self.shelves.get(index) else {
            return false;
        };
        let (customer, held, used) = (shelf.customer.clone(), shelf.held, shelf.demand.last());
        loop {
            let own = |shelf: &&Shelf<K, W>| shelf.customer == customer;
            let of_customer: usize = self.shelves.iter().filter(own).map(Shelf::count).sum();
            let all: usize = self.shelves.iter().map(Shelf::count).sum();
            let memory: u64 = self.shelves.iter().map(Shelf::memory).sum();
            let crowded = of_customer >= self.options.per_customer;
            if !crowded && all < self.options.total && memory.saturating_add(held) <= self.options.memory {
                return true;
            }
            let idle = self.shelves.iter_mut().enumerate().filter(|(other, shelf)| {
                *other != index
                    && !shelf.ready.is_empty()
                    && (!crowded || shelf.customer == customer)
                    && used.saturating_duration_since(shelf.demand.last()) >= BUSY
            });
            let Some((_, oldest)) = idle.min_by_key(|(_, shelf)| shelf.demand.last()) else {
                return false;
            };
            oldest.demand.forget();
            gone.extend(oldest.ready.drain(..).map(|(worker, _)| worker));
        }
    }

    /// One is ready. Answers it if nobody wants it any more.
    pub(super) fn put(&mut self, id: u64, worker: W, held: u64) -> Option<W> {
        let Some(shelf) = self.shelves.iter_mut().find(|shelf| shelf.id == id) else {
            return Some(worker);
        };
        shelf.warming = shelf.warming.saturating_sub(1);
        (shelf.held, shelf.failures, shelf.not_before) = (held, 0, None);
        shelf.ready.push_back((worker, held));
        None
    }

    /// One could not be made.
    pub(super) fn failed(&mut self, id: u64, now: Instant) {
        if let Some(shelf) = self.shelves.iter_mut().find(|shelf| shelf.id == id) {
            shelf.warming = shelf.warming.saturating_sub(1);
            shelf.fail(now);
        }
    }

    /// Those that are dead, idle or too many, and no longer there; at most one that lives at a time.
    pub(super) fn tidy(&mut self, now: Instant, mut lives: impl FnMut(&mut W) -> bool) -> Vec<W> {
        let options = self.options;
        let mut gone = Vec::new();
        let mut reaped = false;
        for shelf in &mut self.shelves {
            let mut kept = VecDeque::with_capacity(shelf.ready.len());
            while let Some((mut worker, held)) = shelf.ready.pop_front() {
                if lives(&mut worker) {
                    kept.push_back((worker, held));
                } else {
                    gone.push(worker);
                    shelf.fail(now);
                }
            }
            shelf.ready = kept;
            let wanted = shelf.demand.wanted(now, options.idle, options.per_script);
            if !reaped && shelf.ready.len() > wanted {
                gone.extend(shelf.ready.pop_front().map(|(worker, _)| worker));
                reaped = true;
            }
        }
        self.shelves
            .retain(|s| s.count() > 0 || now.saturating_duration_since(s.demand.last()) < options.idle);
        gone
    }

    /// Whether there is anything to look after.
    pub(super) const fn is_empty(&self) -> bool {
        self.shelves.is_empty()
    }

    pub(super) fn stats(&self) -> WarmStats {
        WarmStats {
            ready: self.shelves.iter().map(|shelf| shelf.ready.len()).sum(),
            warming: self.shelves.iter().map(|shelf| shelf.warming).sum(),
            memory: self.shelves.iter().flat_map(|s| &s.ready).map(|(_, held)| held).sum(),
            hits: self.hits,
            misses: self.misses,
            lost: self.lost,
        }
    }
}

impl<K, W> Shelf<K, W> {
    /// The next one is made later, the more of them failed.
    fn fail(&mut self, now: Instant) {
        self.failures = (self.failures + 1).min(LONGEST);
        self.not_before = Some(now + Duration::from_secs(1 << self.failures) / 2);
    }
}

#[cfg(test)]
mod tests;
