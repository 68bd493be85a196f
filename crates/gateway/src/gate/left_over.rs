//! Calls that are left over from before a cool-off.
//!
//! A target that is tried again, or that is back, often has nothing to do with the calls that hung when it went: they
//! wait for connections that are dead. Counted against the few permits of probes and ramp they would keep everybody out
//! until the last of them has timed out. So each of them has a permit beside the limit, which ends with it.

use super::word::Reading;

/// How many calls are left over, and the limit without them.
#[derive(Debug)]
pub(super) struct LeftOver {
    calls: u32,
    /// Calls of earlier generations than this one are left over.
    before: u64,
    /// The word when they were counted.
    counted: Option<Reading>,
    permits: u32,
}

impl LeftOver {
    pub(super) const fn new(permits: u32) -> Self {
        Self {
            calls: 0,
            before: 0,
            counted: None,
            permits,
        }
    }

    pub(super) const fn calls(&self) -> u32 {
        self.calls
    }

    pub(super) const fn permits(&self) -> u32 {
        self.permits
    }

    /// The limit that the word is to have.
    pub(super) const fn limit(&self) -> u32 {
        self.permits.saturating_add(self.calls)
    }

    /// Sets the limit without those that are left over; there are never more of them than calls `in_flight`.
    pub(super) fn set_permits(&mut self, permits: u32, in_flight: u32) {
        self.permits = permits;
        self.calls = self.calls.min(in_flight);
    }

    /// So many calls of earlier generations than one were in flight when the word was `now`.
    pub(super) const fn count(&mut self, calls: u32, before: u64, now: Reading) {
        self.calls = calls;
        self.before = before;
        self.counted = Some(now);
    }

    /// A call of a generation has given its permit back, after which the word was `now`, and only then learnt that it may
    /// have been counted. Answers whether it was.
    pub(super) fn end_late(&mut self, generation: u64, now: Reading) -> bool {
        let counted = self.counted.is_some_and(|counted| now.is_released_after(counted));
        counted && self.end(generation)
    }

    /// A call of a generation ends. Answers whether its permit is to end with it.
    pub(super) const fn end(&mut self, generation: u64) -> bool {
        let one = generation < self.before && self.calls > 0;
        if one {
            self.calls -= 1;
        }
        one
    }
}
