//! The packed word of a gate: limit, calls in flight, who waits and how many were admitted in one atomic, so that every
//! decision is one compare-and-set and no two of its parts can disagree.

use super::sync::{AtomicU64, Ordering};

/// The largest limit that fits.
pub(crate) const MAX_LIMIT: u32 = (1 << 18) - 1;

/// Low 18 bits: the limit. Next 18: calls in flight. Then one bit for each class of waiters. High 25: a running count of
/// admissions, which costs nothing here and an atomic change of its own anywhere else.
const LIMIT: u64 = MAX_LIMIT as u64;
const CALL: u64 = 1 << 18;
const HELD: u64 = 1 << 36;
const PATIENT: u64 = 1 << 37;
const SIDELINE: u64 = 1 << 38;
const WAITERS: u64 = HELD | PATIENT | SIDELINE;
const ADMISSION: u64 = 1 << 39;

/// The part of a count of admissions that fits into the word.
pub(super) const COUNT: u64 = (1 << 25) - 1;

/// Who waits for permits, in the order in which they get them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Held,
    /// Direct calls that wait in memory.
    Patient,
    Sideline,
}

impl Class {
    const fn bit(self) -> u64 {
        match self {
            Self::Held => HELD,
            Self::Patient => PATIENT,
            Self::Sideline => SIDELINE,
        }
    }
}

#[derive(Debug)]
pub(super) struct Word(AtomicU64);

/// One reading of the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading(u64);

impl Reading {
    pub(super) const fn limit(self) -> u32 {
        (self.0 & LIMIT) as u32
    }

    pub(super) const fn in_flight(self) -> u32 {
        ((self.0 / CALL) & LIMIT) as u32
    }

    /// The same gate without so many calls that are in flight beside the limit.
    pub(super) const fn without(self, calls: u32) -> Self {
        let limit = self.limit().saturating_sub(calls) as u64;
        let in_flight = self.in_flight().saturating_sub(calls) as u64;
        Self((self.0 & !(LIMIT | (LIMIT * CALL))) | limit | (in_flight * CALL))
    }

    pub(super) const fn count(self) -> u64 {
        self.0 / ADMISSION
    }

    /// How many permits were given back or handed on so far, as far as that fits: of two readings it tells the later one.
    const fn released(self) -> u64 {
        self.count().wrapping_sub(self.in_flight() as u64) & COUNT
    }

    /// Whether permits were given back between an earlier reading and this one.
    pub(super) const fn is_released_after(self, earlier: Self) -> bool {
        let more = self.released().wrapping_sub(earlier.released()) & COUNT;
        more > 0 && more <= COUNT / 2
    }

    /// Of the calls in flight those that were at an earlier reading, if all that came since still are.
    pub(super) fn older_than(self, earlier: Self) -> u32 {
        let came = self.count().wrapping_sub(earlier.count()) & COUNT;
        self.in_flight().saturating_sub(u32::try_from(came).unwrap_or(u32::MAX))
    }

    /// Whether somebody waits to whom a new direct call would have to give way.
    const fn is_behind(self) -> bool {
        self.0 & (HELD | PATIENT) != 0
    }

    const fn has_waiters(self) -> bool {
        self.0 & WAITERS != 0
    }

    const fn has_room(self) -> bool {
        self.in_flight() < self.limit()
    }

    pub(super) const fn is_full(self) -> bool {
        !self.has_room()
    }
}

/// Whether one more call fits beside `in_flight` others while `spare` permits stay free. An idle target always takes one.
pub(super) const fn fits(in_flight: u32, limit: u32, spare: u32) -> bool {
    limit > 0 && (in_flight == 0 || in_flight.saturating_add(spare) < limit)
}

impl Word {
    pub(super) fn new(limit: u32) -> Self {
        Self(AtomicU64::new(u64::from(limit.min(MAX_LIMIT))))
    }

    #[inline]
    pub(super) fn read(&self) -> Reading {
        Reading(self.0.load(Ordering::Acquire))
    }

    /// A permit for a direct call; refused while somebody waits who goes first. Answers the word after it.
    #[inline]
    pub(super) fn try_direct(&self) -> Option<Reading> {
        self.take(|now| !now.is_behind() && now.has_room())
    }

    /// A permit for a direct call that may only run alone, but for `left_over` calls that do not matter.
    pub(super) fn try_alone(&self, left_over: u32) -> Option<Reading> {
        self.take(|now| now.in_flight() <= left_over && !now.has_waiters() && now.has_room())
    }

    /// A permit for somebody who need not look at waiters, with `spare` permits left over.
    pub(super) fn try_take(&self, spare: u32) -> bool {
        self.take(|now| fits(now.in_flight(), now.limit(), spare)).is_some()
    }

    /// Gives a permit back, unless somebody waits: then it is still the caller's, who hands it on. Answers the word after it.
    #[inline]
    pub(super) fn try_release(&self) -> Option<Reading> {
        self.change(|now| (!now.has_waiters()).then(|| now.0 - CALL))
    }

    /// Gives a permit back whoever waits. Answers the word after it.
    pub(super) fn release(&self) -> Reading {
        Reading(self.0.fetch_sub(CALL, Ordering::AcqRel).wrapping_sub(CALL))
    }

    /// Gives a permit back that ends with it: the limit is one less as well, unless that is nothing already.
    pub(super) fn try_shrink(&self) -> bool {
        self.change(|now| (now.limit() > 0).then(|| now.0 - CALL - 1)).is_some()
    }

    /// Counts the admission of a call that goes on under the permit of one that ended. Answers the word after it.
    pub(super) fn pass_on(&self) -> Reading {
        Reading(self.0.fetch_add(ADMISSION, Ordering::AcqRel).wrapping_add(ADMISSION))
    }

    /// Notes whether anybody of a class waits.
    pub(super) fn set_waiting(&self, class: Class, waiting: bool) {
        if waiting {
            self.0.fetch_or(class.bit(), Ordering::AcqRel);
        } else {
            self.0.fetch_and(!class.bit(), Ordering::AcqRel);
        }
    }

    /// Sets the limit. Calls in flight above it go on; no new one enters until they have ended.
    pub(super) fn set_limit(&self, limit: u32) {
        let limit = u64::from(limit.min(MAX_LIMIT));
        self.change(|now| Some((now.0 & !LIMIT) | limit));
    }

    /// Sets the limit to so many permits besides the calls that have been in flight since an earlier reading. Answers the
    /// word after it.
    pub(super) fn leave_over(&self, permits: u32, earlier: Reading) -> Reading {
        let limit = |now: Reading| permits.saturating_add(now.older_than(earlier)).min(MAX_LIMIT);
        let set = self.change(|now| Some((now.0 & !LIMIT) | u64::from(limit(now))));
        set.unwrap_or(earlier)
    }

    #[inline]
    fn take(&self, may: impl Fn(Reading) -> bool) -> Option<Reading> {
        // The count is the highest part: it wraps without touching the others.
        self.change(|now| may(now).then(|| now.0.wrapping_add(CALL + ADMISSION)))
    }

    #[inline]
    fn change(&self, to: impl Fn(Reading) -> Option<u64>) -> Option<Reading> {
        let mut word = self.0.load(Ordering::Relaxed);
        while let Some(next) = to(Reading(word)) {
            match self
                .0
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return Some(Reading(next)),
                Err(now) => word = now,
            }
        }
        None
    }
}

#[cfg(all(test, not(crosspoint_loom)))]
mod tests {
    use super::*;

    fn parts(word: &Word) -> (u32, u32, u64) {
        let now = word.read();
        (now.limit(), now.in_flight(), now.count())
    }

    #[test]
    fn the_parts_do_not_run_into_each_other() {
        let word = Word(AtomicU64::new(LIMIT | (COUNT * ADMISSION)));
        assert!(word.try_direct().is_some());
        assert_eq!(parts(&word), (MAX_LIMIT, 1, 0), "the count has wrapped");
        for class in [Class::Held, Class::Patient, Class::Sideline] {
            word.set_waiting(class, true);
            assert!(word.try_release().is_none(), "{class:?}");
            assert_eq!(parts(&word), (MAX_LIMIT, 1, 0));
            word.set_waiting(class, false);
        }
        word.set_limit(u32::MAX);
        assert!(word.try_release().is_some());
        assert_eq!(parts(&word), (MAX_LIMIT, 0, 0));
    }

    #[test]
    fn direct_calls_stand_behind_held_and_patient_ones_but_not_behind_the_sideline() {
        let word = Word::new(2);
        word.set_waiting(Class::Sideline, true);
        assert!(word.try_direct().is_some());
        word.set_waiting(Class::Held, true);
        assert!(word.try_direct().is_none());
        word.set_waiting(Class::Held, false);
        word.set_waiting(Class::Patient, true);
        assert!(word.try_direct().is_none());
        assert!(word.try_take(0));
        assert!(!word.try_take(0), "the limit");
    }

    #[test]
    fn a_lone_call_needs_an_idle_target_without_waiters() {
        let word = Word::new(2);
        word.set_waiting(Class::Sideline, true);
        assert!(word.try_alone(0).is_none());
        word.set_waiting(Class::Sideline, false);
        assert!(word.try_alone(0).is_some());
        assert!(word.try_alone(0).is_none());
        assert!(word.try_alone(1).is_some(), "the other one does not matter");
    }

    #[test]
    fn spare_permits_are_left_over_except_on_an_idle_target() {
        assert!(fits(0, 1, 5), "an idle target takes one");
        assert!(fits(3, 6, 2) && !fits(4, 6, 2));
        assert!(!fits(0, 0, 0), "a limit of nothing");
        assert!(!fits(4, 3, 0), "above a lowered limit");
    }
}
