//! The customers of a gate.

use std::time::Duration;

/// How a customer is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    /// Its calls take far longer than those of others: it gets 5 % of the limit at most.
    pub(crate) slow: bool,
    /// Its calls say nothing about the target: they reach no histogram.
    pub(crate) excluded: bool,
    /// It takes more than its share.
    pub(crate) noisy: bool,
}

/// One cell: a customer, or several whose ids fall together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CustomerReading {
    pub(crate) cell: u16,
    pub(crate) in_flight: u32,
    /// EWMA (0.2) of latency by baseline; 0 before the first sample.
    pub(crate) ratio: f64,
    /// How long calls have been in flight without one of them ending: no call in flight that is the oldest is younger.
    pub(crate) stalled: Duration,
    /// Time that its calls took since the last scan.
    pub(crate) busy: Duration,
    pub(crate) flags: Flags,
}

/// The cells of the customers of one gate.
#[derive(Debug, Default)]
pub(crate) struct Customers {}

impl Customers {
    /// The cells that were in use since the last scan or are flagged.
    pub(crate) fn scan(&self) -> Vec<CustomerReading> {
        Vec::new()
    }

    /// Sets how the customers of a cell are treated.
    pub(crate) fn flag(&self, _cell: u16, _flags: Flags) {}
}
