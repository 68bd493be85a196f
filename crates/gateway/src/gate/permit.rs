//! The right to one concurrent call.

use super::{Gate, RouteClass};
use crate::outcome::Outcome;
use crosspoint_core::CustomerId;
use std::{fmt, sync::Arc};

/// What a direct call carries from [`Gate::admit`] to [`Gate::leave`]. Not giving it back loses a permit for ever; wrap it
/// in a [`Permit`] when nobody else sees to that.
#[must_use = "give it to `Gate::leave`"]
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) generation: u64,
    pub(super) class: RouteClass,
}

impl Ticket {
    /// The generation of the gate that admitted the call.
    pub(crate) const fn generation(&self) -> u64 {
        self.generation
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
    pub(crate) fn carries(&mut self, class: RouteClass, _customer: &CustomerId) {
        if let Some(ticket) = &mut self.ticket {
            ticket.class = class;
        }
    }

    /// Gives the permit back and says how the call ended.
    pub fn finish(mut self, outcome: Outcome) {
        self.end(outcome);
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
