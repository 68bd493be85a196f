//! What the control reads of a gate, and what it sets.

use super::{
    Gate, NEVER, Readings, Refusal, RouteClass, State, Trip,
    recorder::Totals,
    word::{COUNT, Reading},
};
use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

impl Gate {
    /// Counts a call that was diverted, and runs the cool-off down.
    pub(crate) fn note_divert(&self, why: Refusal) {
        self.diverted.fetch_add(1, Ordering::Relaxed);
        if why == Refusal::CoolOff {
            let down = |left| (left != NEVER && left > 0).then(|| left - 1);
            if self.cool_off.fetch_update(Ordering::AcqRel, Ordering::Acquire, down) == Ok(1) {
                self.cooled.notify_one();
            }
        }
    }

    /// Takes what was seen since the last time.
    pub(crate) fn readings(&self) -> Readings {
        let (word, held, _, totals) = self.totals();
        Readings {
            saturated: self.ran_out.swap(false, Ordering::Relaxed),
            in_flight: word.in_flight().saturating_sub(self.admission.permits().1),
            waiting_held: u32::try_from(held).unwrap_or(u32::MAX),
            ..self.recorder.take(totals)
        }
    }

    pub(super) fn totals(&self) -> (Reading, usize, usize, Totals) {
        let (all, word) = self.admissions();
        let (held, sideline, abandoned) = self.admission.look();
        let direct = self.direct(all, abandoned);
        let diverted = self.diverted.load(Ordering::Relaxed);
        let totals = Totals {
            completed: all.saturating_sub(u64::from(word.in_flight()) + abandoned),
            arrived: direct + diverted,
            diverted,
            ..Totals::default()
        };
        (word, held, sideline, totals)
    }

    pub(super) fn direct(&self, all: u64, abandoned: u64) -> u64 {
        all.saturating_sub(self.drains.load(Ordering::Relaxed) + abandoned)
    }

    /// All admissions so far, from the part of their count that is in the word.
    pub(super) fn admissions(&self) -> (u64, Reading) {
        let mut before = self.admissions.load(Ordering::Acquire);
        loop {
            // Read after the total, which therefore never runs ahead of it.
            let word = self.admission.word().read();
            let all = before + (word.count().wrapping_sub(before) & COUNT);
            match self
                .admissions
                .compare_exchange(before, all, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return (all, word),
                Err(now) => before = now,
            }
        }
    }

    /// Sets how many calls may be in flight at once, besides those that are left over from before a cool-off. Those above
    /// a lowered limit go on.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.admission.set_limit(limit);
    }

    /// Keeps permits free of sideline work, but for its turn of one permit in fifty; an idle target takes some always.
    pub(crate) fn set_reserve(&self, permits: u32) {
        self.admission.set_reserve(permits);
    }

    /// Changes the state. Starts a new generation if that is a change.
    pub(crate) fn set_state(&self, state: State) {
        if self.admission.set_state(state) {
            if matches!(state, State::Probing | State::Ramping) {
                self.customers.leave_over();
            }
            self.changed.notify_waiters();
        }
    }

    /// Opens or closes the way to the target, whatever the state is; the operator's switch. Answers whether that is a
    /// change.
    pub(crate) fn set_available(&self, available: bool) -> bool {
        let changed = self.admission.set_available(available);
        if changed {
            self.changed.notify_waiters();
        }
        changed
    }

    /// Whether queued work may run even in a cool-off: the one of a target that is in good order. Not a new generation.
    pub(crate) fn set_drained_in_cool_off(&self, drained: bool) {
        if self.admission.set_drained_in_cool_off(drained) {
            self.changed.notify_waiters();
        }
    }

    /// The latency of an idle target, with which customers are compared.
    pub(crate) fn set_baseline(&self, class: RouteClass, latency: Duration) {
        self.recorder.set_baseline(class, latency);
    }

    /// Whether customers are tracked on the hot path. Every call is then timed from its admission.
    pub(crate) fn set_watch(&self, on: bool) {
        if on {
            self.customers.watch(true);
            self.admission.mode().set_watched(true);
        } else if self.admission.mode().set_watched(false) {
            self.customers.watch(false);
        }
    }

    /// After how many calls that were diverted because of it a cool-off is over; to be set for each. `None`, the default:
    /// only time ends it.
    pub(crate) fn set_cool_off_calls(&self, calls: Option<u32>) {
        self.cool_off.store(calls.unwrap_or(NEVER), Ordering::Release);
        self.cooled.notify_one();
    }

    /// Resolves when so many calls were diverted. For one listener.
    pub(crate) async fn cooled(&self) {
        while self.cool_off.load(Ordering::Acquire) != 0 {
            self.cooled.notified().await;
        }
    }

    /// Resolves when a call on the hot path has put the gate into [`State::CoolOff`]. For one listener.
    pub(crate) async fn tripped(&self) -> Trip {
        loop {
            if let Some(trip) = self.trip.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return trip;
            }
            self.tripped.notified().await;
        }
    }
}
