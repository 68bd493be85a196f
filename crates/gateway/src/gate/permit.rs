//! The right to one concurrent call.

use super::{Gate, RouteClass, customers::Entry};
use crate::outcome::Outcome;
use crosspoint_core::CustomerId;
use std::{fmt, sync::Arc};
use tokio::time::Instant;

/// What a direct call carries from [`Gate::admit`] to [`Gate::leave`]. Not giving it back loses a permit for ever; wrap it
/// in a [`Permit`] when nobody else sees to that.
#[must_use = "give it to `Gate::leave`"]
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) generation: u64,
    /// When the clock was started, if it was.
    pub(super) start: Option<Instant>,
    /// Of its customer, while customers are watched.
    pub(super) entry: Option<Entry>,
    pub(super) class: RouteClass,
    pub(super) drained: bool,
    /// For how many calls its latency stands.
    pub(super) weight: u8,
}

impl Ticket {
    pub(super) const fn new(generation: u64, class: RouteClass) -> Self {
        Self {
            generation,
            start: None,
            entry: None,
            class,
            drained: false,
            weight: 1,
        }
    }

    /// The call was polled and is not ready: from here on it is timed. Answers since when.
    ///
    /// One call in thirty-two has been timed from its admission. The others lack what they did before they first waited, as
    /// the baseline they are compared with does; a call that never waits is timed one time in thirty-two.
    #[inline]
    pub(crate) fn waits(&mut self) -> Instant {
        self.weight = 1;
        *self.start.get_or_insert_with(Instant::now)
    }
}

/// The right to one concurrent call. Dropping it gives it back, as a call that was given up.
#[must_use = "a permit that is dropped is given back"]
pub struct Permit {
    gate: Arc<Gate>,
    ticket: Option<Ticket>,
    generation: u64,
}

impl Permit {
    pub(super) const fn new(gate: Arc<Gate>, ticket: Ticket) -> Self {
        Self {
            generation: ticket.generation,
            gate,
            ticket: Some(ticket),
        }
    }

    /// The generation of the gate that admitted the call.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Says whose call the permit is used for; its clock starts now.
    pub(crate) fn carries(&mut self, class: RouteClass, customer: &CustomerId) {
        if let Some(ticket) = &mut self.ticket {
            self.gate.carry(ticket, class, customer);
        }
    }

    /// Gives the permit back and says how the call ended.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
    }

    /// The ticket, for somebody who keeps the gate alive by other means.
    pub(crate) fn into_ticket(mut self) -> Option<Ticket> {
        self.ticket.take()
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(ticket) = self.ticket.take() {
            self.gate.leave(ticket, outcome);
        }
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit(generation {})", self.generation)
    }
}
