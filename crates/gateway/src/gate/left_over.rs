//! Calls that are left over from before a cool-off.
//!
//! A target that is tried again, or that is back, often has nothing to do with the calls that hung when it went: they
//! wait for connections that are dead. Counted against the few permits of probes and ramp they would keep everybody out
//! until the last of them has timed out. So each of them has a permit beside the limit, which ends with it.

/// How many calls are left over, and the limit without them.
#[derive(Debug)]
pub(super) struct LeftOver {
    calls: u32,
    /// Calls of earlier generations than this one are left over.
    before: u64,
    permits: u32,
}

impl LeftOver {
    pub(super) const fn new(permits: u32) -> Self {
        Self {
            calls: 0,
            before: 0,
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

    /// All that were in flight before a generation are left over.
    pub(super) const fn count(&mut self, in_flight: u32, before: u64) {
        self.calls = in_flight;
        self.before = before;
    }

    /// A call of a generation has ended. Answers whether its permit is to end with it.
    pub(super) const fn end(&mut self, generation: u64) -> bool {
        let one = generation < self.before && self.calls > 0;
        if one {
            self.calls -= 1;
        }
        one
    }
}
