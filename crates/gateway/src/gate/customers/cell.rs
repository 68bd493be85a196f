//! What is known of one customer while customers are watched.

use super::{Flags, nanos};
use std::{
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// How much of a ratio is the latest call's.
const LATEST: f32 = 0.2;
/// The most that one call counts for, in baselines, unless its customer is known to be slow: a quick call that met a pause
/// says little.
const OUTLIER: f32 = 10.0;
/// Beyond this multiple of the baseline a customer's calls prove it slow.
const PROVEN: f32 = 5.0;
/// Below this ratio a customer is worth no memory.
const ORDINARY: f32 = 1.5;
/// Its customer is in the table of names.
const NAMED: u8 = 128;
/// The unit in which allowances are kept, and their growth in a scan: twice as many in a second.
const ALLOWANCE: u32 = 16;
/// An allowance beyond so many calls is none any more.
const UNBOUND: u32 = 512 * ALLOWANCE;
/// The pauses after trials, in times that a customer may be silent: after the first, and after each later one.
const PAUSES: (u64, u64) = (16, 64);

#[derive(Default)]
pub(super) struct Cell {
    /// Whose it is: never 0, which is nobody.
    owner: AtomicU64,
    /// Low 32 bits: how many calls of an epoch are in flight. High 32: the epoch. Calls of earlier ones are left over and
    /// no longer counted.
    in_flight: AtomicU64,
    /// Bits of an `f32`: EWMA of latency by baseline; 0 before the first sample.
    ratio: AtomicU32,
    /// Nanoseconds after the origin: the last end of a call, or the begin of the only one.
    mark: AtomicU64,
    busy: AtomicU64,
    flags: AtomicU8,
    /// How many calls it may have in flight, in parts of [`ALLOWANCE`], after it was slow; 0: no bound.
    allowed: AtomicU32,
    /// Before this no call goes beyond the cap to see whether the customer is quick again.
    /// 0: there was none since a call was quick.
    next_trial: AtomicU64,
}

impl Cell {
    pub(super) fn is_owned_by(&self, owner: u64) -> bool {
        self.owner.load(Ordering::Relaxed) == owner
    }

    /// Takes a cell that is nobody's. Answers whether it is `owner`'s now.
    pub(super) fn claim(&self, owner: u64) -> bool {
        let taken = self
            .owner
            .compare_exchange(0, owner, Ordering::Relaxed, Ordering::Relaxed);
        taken.is_ok() || taken == Err(owner)
    }

    /// Gives the cell of a customer without calls back, unless there is something to remember of it, or it had one since.
    /// A call that begins in this moment counts for whoever has the cell next, which is what sharing one would do.
    pub(super) fn give_back(&self, epoch: u32, unless_since: u64) -> bool {
        let owned = self.owner.load(Ordering::Relaxed) != 0;
        let long_ago = self.mark.load(Ordering::Relaxed) <= unless_since;
        let worthless = owned
            && long_ago
            && self.in_flight(epoch) == 0
            && self.flags() == Flags::default()
            && self.ratio() < ORDINARY;
        if worthless {
            self.owner.store(0, Ordering::Relaxed);
            self.ratio.store(0, Ordering::Relaxed);
            self.allowed.store(0, Ordering::Relaxed);
            self.end_trials();
        }
        worthless
    }

    pub(super) fn flags(&self) -> Flags {
        Flags::of(self.flags.load(Ordering::Relaxed))
    }

    pub(super) fn set_flags(&self, flags: Flags) {
        let set = |bits: u8| Some((bits & NAMED) | flags.bits());
        self.flags.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set).ok();
    }

    pub(super) fn is_named(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & NAMED != 0
    }

    pub(super) fn set_named(&self, named: bool) {
        if named {
            self.flags.fetch_or(NAMED, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!NAMED, Ordering::Relaxed);
        }
    }

    /// How many calls are in flight that are not left over from before an epoch.
    pub(super) fn in_flight(&self, epoch: u32) -> u32 {
        let (of, calls) = unpack(self.in_flight.load(Ordering::Relaxed));
        if of < epoch { 0 } else { calls }
    }

    pub(super) fn ratio(&self) -> f32 {
        f32::from_bits(self.ratio.load(Ordering::Relaxed))
    }

    /// For how long none of the calls in flight has ended; nothing without any.
    pub(super) fn silent(&self, epoch: u32, now: u64) -> u64 {
        if self.in_flight(epoch) == 0 {
            return 0;
        }
        now.saturating_sub(self.mark.load(Ordering::Relaxed))
    }

    /// The time that calls took since this was last asked.
    pub(super) fn take_busy(&self) -> u64 {
        if self.busy.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.busy.swap(0, Ordering::Relaxed)
    }

    /// Whether the customer has only few places, so that a lease of several calls might exceed them.
    pub(super) fn is_narrow(&self) -> bool {
        self.flags().slow || self.allowed().is_some()
    }

    /// How many calls a customer that was slow may have in flight until it has shown that it no longer is.
    pub(super) fn allowed(&self) -> Option<u32> {
        match self.allowed.load(Ordering::Relaxed) {
            0 => None,
            parts => Some(parts / ALLOWANCE),
        }
    }

    /// Allows a little more, after a scan's time in which calls ended.
    pub(super) fn allow_more(&self) {
        let parts = self.allowed.load(Ordering::Relaxed);
        if parts > 0 {
            let more = parts + parts.div_ceil(ALLOWANCE);
            let more = if more > UNBOUND { 0 } else { more };
            self.allowed.store(more, Ordering::Relaxed);
        }
    }

    /// Counts a call in if `may` says so of those that are in flight. Answers the epoch of which it is one.
    pub(super) fn enter(&self, epoch: u32, now: u64, may: impl Fn(u32) -> bool) -> Option<u32> {
        let one_more = |word: u64| {
            let (of, calls) = unpack(word);
            let (of, own) = if of < epoch { (epoch, 0) } else { (of, calls) };
            may(own).then(|| pack(of, own.saturating_add(1)))
        };
        let before = self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        let (of, calls) = unpack(before);
        if calls == 0 || of < epoch {
            self.mark.store(now, Ordering::Relaxed);
        }
        Some(of.max(epoch))
    }

    /// Counts a call in that goes beyond the cap because a trial is due; `overdue` is for how long the calls may be silent.
    pub(super) fn try_out(&self, epoch: u32, now: u64, overdue: u64) -> Option<u32> {
        let due = self.next_trial.load(Ordering::Relaxed);
        // Who is known to be slow has nothing to show.
        if now < due || self.silent(epoch, now) <= overdue || self.ratio() > PROVEN {
            return None;
        }
        let times = if due == 0 { PAUSES.0 } else { PAUSES.1 };
        let next = now.saturating_add(overdue.saturating_mul(times));
        let first = self
            .next_trial
            .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        first.ok().and_then(|_| self.enter(epoch, now, |_| true))
    }

    fn end_trials(&self) {
        if self.next_trial.load(Ordering::Relaxed) > 0 {
            self.next_trial.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a call of an epoch out. `latency` is that of a call that says something about its customer, with the baseline.
    pub(super) fn leave(
        &self,
        epoch: u32,
        now: u64,
        took: Duration,
        latency: Option<(Duration, Duration)>,
        overdue: u64,
    ) {
        if self.undo(epoch) {
            self.learn(now, took, latency, overdue);
        }
    }

    fn learn(&self, now: u64, took: Duration, latency: Option<(Duration, Duration)>, overdue: u64) {
        self.mark.store(now, Ordering::Relaxed);
        self.busy.fetch_add(nanos(took), Ordering::Relaxed);
        if let Some((latency, baseline)) = latency {
            let slow = self.flags().slow;
            let most = if slow { f32::MAX } else { OUTLIER };
            let latest = (latency.as_secs_f32() / baseline.as_secs_f32().max(1e-6)).min(most);
            let blend = |bits: u32| {
                let old = f32::from_bits(bits);
                let new = if old > 0.0 {
                    old + LATEST * (latest - old)
                } else {
                    latest
                };
                Some(new.to_bits())
            };
            self.ratio
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, blend)
                .ok();
            if slow && latest > PROVEN {
                self.allowed.store(ALLOWANCE, Ordering::Relaxed);
            }
            if nanos(took) <= overdue {
                self.end_trials();
            }
        }
    }

    /// Takes an entry back. Answers whether it counted: one of an earlier epoch does not, and says nothing of its customer.
    pub(super) fn undo(&self, epoch: u32) -> bool {
        let one_less = |word: u64| {
            let (of, calls) = unpack(word);
            (of == epoch).then(|| pack(of, calls.saturating_sub(1)))
        };
        let undone = self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        undone.is_ok()
    }

    /// Lets the ratio of a customer that has no calls go back to 1 by so much of what is left: nothing else would ever
    /// clear what is known of somebody who does not come back.
    pub(super) fn fade(&self, left: f32) {
        let ratio = self.ratio();
        if ratio > 0.0 && (ratio - 1.0).abs() > 0.01 {
            let faded = 1.0 + (ratio - 1.0) * left;
            // A lost race against the end of a call is as good as a scan without a fade.
            self.ratio.store(faded.to_bits(), Ordering::Relaxed);
        }
    }
}

const fn pack(epoch: u32, calls: u32) -> u64 {
    ((epoch as u64) << 32) | calls as u64
}

#[expect(clippy::cast_possible_truncation, reason = "each half has 32 bits")]
const fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}
