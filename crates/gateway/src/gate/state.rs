//! What a gate can be, and what it answers.

use crate::outcome::Outcome;

/// What a gate does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls go straight to the target while there are permits.
    Direct,
    /// The target could not take calls: every call is diverted and the drain rests.
    CoolOff,
    /// Queued work tries whether the target is back. A direct call passes only when nothing else runs or waits.
    Probing,
    /// The target is back and its limit grows again.
    Ramping,
}

impl State {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Direct, Self::CoolOff, Self::Probing, Self::Ramping];

    /// As in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::CoolOff => "cool-off",
            Self::Probing => "probing",
            Self::Ramping => "ramping",
        }
    }
}

/// Why a gate did not admit a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Every permit is in use, or queued work is waiting for the next one.
    Saturated,
    /// The state is [`State::CoolOff`], or [`State::Probing`] with a probe under way.
    CoolOff,
    /// The operator has closed the direct way.
    Unavailable,
    /// The customer has its share of the permits.
    CustomerShare,
}

impl Refusal {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Saturated, Self::CoolOff, Self::Unavailable, Self::CustomerShare];

    /// As in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Saturated => "saturated",
            Self::CoolOff => "cool-off",
            Self::Unavailable => "unavailable",
            Self::CustomerShare => "customer-share",
        }
    }
}

/// For which of the two queues a permit is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Work that a client is kept waiting for.
    Held,
    /// Work whose client has been told to ask later.
    Sideline,
}

/// The hot path has put the gate into [`State::CoolOff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trip {
    /// How the last call ended.
    pub(crate) outcome: Outcome,
}

/// How a gate stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What the gate does with calls.
    pub state: State,
    /// Whether the operator leaves the direct way open.
    pub available: bool,
    /// Rises with every change of the two; permits carry it, so that a late result cannot speak for a later state.
    pub generation: u64,
    /// How many calls may be in flight besides those that are left over.
    pub limit: u32,
    /// How many are, direct and drained together, with those that are left over.
    pub in_flight: u32,
    /// How many of these were not answered before a cool-off. They do not count against the limit.
    pub left_over: u32,
    /// How many pieces of queued work wait for a permit.
    pub waiting: u32,
    /// How many direct calls were admitted since the start.
    pub admitted: u64,
}

impl Snapshot {
    /// How many calls are in flight that count against the limit.
    pub(crate) const fn counted(&self) -> u32 {
        self.in_flight.saturating_sub(self.left_over)
    }
}
