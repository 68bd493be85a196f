//! What a lease is told of customers.

use super::{Cell, Customers, Reading, Table};
use crosspoint_core::CustomerTerms;
use std::sync::{Arc, atomic::Ordering};

/// The most turns that one call of a slow customer costs.
const MOST_TURNS: f32 = 32.0;

/// The right to lease calls of slow customers: one lease at a time has it, so that none of them takes the last place of
/// such a customer a second time.
#[derive(Debug)]
pub(crate) struct Scout<'a>(&'a Customers);

impl Drop for Scout<'_> {
    fn drop(&mut self) {
        self.0.scouting.store(false, Ordering::Release);
    }
}

/// What a lease is told.
#[derive(Debug)]
pub(crate) struct ForLease<'a> {
    pub(crate) customers: Arc<[CustomerTerms]>,
    /// The lease is to be for one call, and this to be kept until that call is counted: a slow customer's may come.
    pub(crate) scout: Option<Scout<'a>>,
}

impl Customers {
    /// What a lease has to know: who has its share already, and whose calls are charged for more than one turn.
    ///
    /// A lease may bring several calls of one customer, as one that was passed over for long is the next several times.
    /// So slow customers, whose few places that would exceed, are only leased by a scout.
    pub(in crate::gate) fn terms(&self, gate: Reading, may_scout: bool) -> ForLease<'_> {
        let names = self.names();
        let now = self.table.get().map_or(0, Table::now);
        let has_place = |id: u16, cell: &Cell| {
            let own = self.in_flight(cell);
            own < self.cap(id, cell, own, gate, now)
        };
        let place = may_scout
            && names
                .keys()
                .filter_map(|id| Some((*id, self.at(*id)?)))
                .any(|(id, cell)| cell.is_narrow() && has_place(id, cell));
        let scout = place.then(|| self.scout()).flatten();
        let terms = names.iter().filter_map(|(id, customer)| {
            let cell = self.at(*id)?;
            let skip = !has_place(*id, cell) || (cell.is_narrow() && scout.is_none());
            let turns = turns(cell.ratio());
            if !skip && turns == 1 {
                return None;
            }
            let terms = CustomerTerms::new(customer.clone()).charged(turns);
            Some(if skip { terms.skipped() } else { terms })
        });
        let customers = terms.collect();
        ForLease { customers, scout }
    }

    fn scout(&self) -> Option<Scout<'_>> {
        (!self.scouting.swap(true, Ordering::Acquire)).then_some(Scout(self))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 1..=32"
)]
fn turns(ratio: f32) -> u32 {
    ratio.round().clamp(1.0, MOST_TURNS) as u32
}
