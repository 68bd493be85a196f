//! Permits for queued work: when it may run, and whose it may be.

use super::{Drain, ForLease, Gate, Mode, Permit, RouteClass, Ticket, word::Class};
use crosspoint_core::CustomerId;
use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};
use tokio::time::Instant;

impl Gate {
    /// A permit for queued work, if one is free now.
    pub(crate) fn try_drain(self: &Arc<Self>, which: Drain) -> Option<Permit> {
        let mode = self.admission.try_drain(which.into())?;
        Some(self.drained(mode))
    }

    /// Waits for a permit for queued work. While held work waits, no direct call overtakes. May be dropped at any time.
    pub(crate) async fn drain(self: &Arc<Self>, which: Drain) -> Permit {
        loop {
            // Drains are never told to go away.
            if let Ok(mode) = self.admission.wait(which.into()).await {
                return self.drained(mode);
            }
        }
    }

    /// Sets whether held calls are known to wait in the store: then the sideline gets no more than its turn, also in the
    /// moments in which the drain of held calls is not asking.
    pub(crate) fn expect_held(&self, expected: bool) {
        self.admission.expect_held(expected);
    }

    fn drained(self: &Arc<Self>, mode: Mode) -> Permit {
        self.drains.fetch_add(1, Ordering::Relaxed);
        let mut ticket = Ticket::new(mode.generation(), RouteClass::default());
        ticket.drained = true;
        self.permit(ticket)
    }

    /// A permit has found its call.
    pub(super) fn carry(&self, ticket: &mut Ticket, class: RouteClass, customer: &CustomerId) {
        ticket.class = class;
        ticket.start = Some(Instant::now());
        ticket.weight = 1;
        if ticket.entry.is_none() && self.admission.mode().read().is_watched() {
            let cell = self.customers.cell(customer);
            ticket.entry = cell.and_then(|cell| self.customers.enter(cell, None));
        }
    }

    /// The customers that a lease has to treat in a special way: at their cap, or slow. Only a scout brings calls of slow
    /// ones.
    pub(crate) fn customer_terms(&self, may_scout: bool) -> ForLease<'_> {
        self.customers.terms(self.admission.present(), may_scout)
    }

    /// Whether a customer has not yet its share of the calls in flight.
    pub(crate) fn may_begin(&self, customer: &CustomerId) -> bool {
        let watched = self.admission.mode().read().is_watched();
        !watched || self.customers.may_begin(customer, self.admission.present())
    }

    /// Whether queued work may run.
    pub(crate) fn may_drain(&self) -> bool {
        self.admission.mode().read().may_drain()
    }

    /// Resolves when queued work may run.
    pub(crate) async fn available(&self) {
        loop {
            // Enabled before looking: a change between the look and the wait must not be missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.may_drain() {
                return;
            }
            changed.await;
        }
    }
}

impl From<Drain> for Class {
    fn from(which: Drain) -> Self {
        match which {
            Drain::Held => Self::Held,
            Drain::Sideline => Self::Sideline,
        }
    }
}
