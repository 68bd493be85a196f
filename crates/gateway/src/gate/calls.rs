//! How direct calls begin and end.

use super::{
    Gate, Mode, Permit, Refusal, RouteClass, State, Ticket, Trip,
    admission::refusal,
    recorder::Ended,
    word::{Class, Reading},
};
use crate::outcome::Outcome;
use crosspoint_core::CustomerId;
use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// One direct call in so many is timed although it never waits.
const SAMPLED: u8 = 32;

impl Gate {
    /// Admits one direct call, or says why not. Queued work that a client waits for goes first.
    ///
    /// # Errors
    /// The reason to divert the call.
    #[inline]
    pub fn enter(self: &Arc<Self>) -> Result<Permit, Refusal> {
        let ticket = self.admit(RouteClass::default(), || None)?;
        Ok(self.permit(ticket))
    }

    /// Admits one direct call; it ends with [`Gate::leave`]. `customer` is asked only while customers are watched.
    #[inline]
    pub(crate) fn admit(
        &self,
        class: RouteClass,
        customer: impl FnOnce() -> Option<CustomerId>,
    ) -> Result<Ticket, Refusal> {
        match self.admit_plain(class) {
            Some(ticket) => Ok(ticket),
            None if self.admission.mode().read().is_cooling() => Err(Refusal::CoolOff),
            None => self.admit_unusual(class, customer),
        }
    }

    /// The common case of [`Gate::admit`]: a target in good order with a free permit, and nobody watched. `None` only means
    /// that this is another case.
    #[inline(always)]
    pub(crate) fn admit_plain(&self, class: RouteClass) -> Option<Ticket> {
        let mode = self.admission.mode().read();
        if !mode.is_plain() {
            return None;
        }
        let word = self.admission.word().try_direct()?;
        Some(self.ticket(mode, class, word))
    }

    #[inline(always)]
    fn ticket(&self, mode: Mode, class: RouteClass, word: Reading) -> Ticket {
        let mut ticket = Ticket::new(mode.generation(), class);
        if word.is_full() {
            self.run_out();
        }
        if is_sampled(word.count()) {
            ticket.start = Some(Instant::now());
            ticket.weight = SAMPLED;
        }
        ticket
    }

    fn run_out(&self) -> Refusal {
        if !self.ran_out.load(Ordering::Relaxed) {
            self.ran_out.store(true, Ordering::Relaxed);
        }
        Refusal::Saturated
    }

    #[inline(never)]
    fn admit_unusual(
        &self,
        class: RouteClass,
        customer: impl FnOnce() -> Option<CustomerId>,
    ) -> Result<Ticket, Refusal> {
        let mode = self.admission.mode().read();
        let probing = mode.state() == State::Probing;
        match refusal(mode) {
            Some(Refusal::CoolOff) if probing => {}
            Some(refusal) => return Err(refusal),
            None => {}
        }
        let word = self.admission.word();
        let customer = if mode.is_watched() { customer() } else { None };
        let cell = customer.and_then(|customer| self.customers.cell(&customer));
        let entry = match cell.map(|cell| self.customers.enter(cell, Some(self.admission.present()))) {
            Some(None) => return Err(Refusal::CustomerShare),
            entered => entered.flatten(),
        };
        let admitted = if probing {
            word.try_alone(self.admission.permits().1)
        } else {
            word.try_direct()
        };
        let Some(word) = admitted else {
            entry.inspect(|entry| self.customers.undo(*entry));
            return Err(if probing { Refusal::CoolOff } else { self.run_out() });
        };
        let mut ticket = self.ticket(mode, class, word);
        if mode.is_watched() {
            ticket.start.get_or_insert_with(Instant::now);
            ticket.weight = 1;
        }
        ticket.entry = entry;
        Ok(ticket)
    }

    /// A permit for what [`Gate::admit`] has given.
    pub(crate) fn permit(self: &Arc<Self>, ticket: Ticket) -> Permit {
        Permit::new(Arc::clone(self), ticket)
    }

    /// Admits one direct call, and waits up to `patience` in memory if permits have run out. May be dropped at any time.
    pub(crate) async fn admit_within(
        self: &Arc<Self>,
        class: RouteClass,
        customer: Option<&CustomerId>,
        patience: Duration,
    ) -> Result<Permit, Refusal> {
        match self.admit(class, || customer.cloned()) {
            Ok(ticket) => return Ok(self.permit(ticket)),
            Err(Refusal::Saturated) if !patience.is_zero() => {}
            Err(refusal) => return Err(refusal),
        }
        let waited = timeout(patience, self.admission.wait(Class::Patient)).await;
        let mode = waited.unwrap_or(Err(Refusal::Saturated))?;
        let mut ticket = Ticket::new(mode.generation(), class);
        if let (true, Some(customer)) = (mode.is_watched(), customer) {
            // Others of the same customer may have waited beside it.
            if !self.may_begin(customer) {
                drop(self.permit(ticket));
                return Err(Refusal::CustomerShare);
            }
            self.carry(&mut ticket, class, customer);
        }
        Ok(self.permit(ticket))
    }

    /// How many calls of a customer may run while permits are scarce.
    pub(crate) fn share(&self, customer: &CustomerId) -> u32 {
        self.customers.share(customer, self.admission.present())
    }

    /// Gives back what [`Gate::admit`] has given, and says how the call ended.
    #[inline]
    pub(crate) fn leave(&self, ticket: Ticket, outcome: Outcome) {
        self.note(&ticket, outcome);
        self.give_back(ticket);
    }

    /// Notes how a call ended, before its permit goes to the next one. Of a success outside the sample there is nothing
    /// to note.
    #[inline]
    pub(crate) fn note(&self, ticket: &Ticket, outcome: Outcome) {
        let mode = self.admission.mode();
        let now = mode.read();
        let unmarked = ticket.start.is_none() && ticket.entry.is_none() && !ticket.drained;
        let fresh = now.generation() == ticket.generation;
        if !(unmarked && fresh && matches!(outcome, Outcome::Success) && !mode.has_streak()) {
            self.note_closely(ticket, outcome, now);
        }
    }

    /// Gives a permit back whose call has been noted.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is given back once")]
    pub(crate) fn give_back(&self, ticket: Ticket) {
        if ticket.generation == self.admission.mode().read().generation() {
            self.admission.release(ticket.generation);
        } else {
            self.admission.release_old(ticket.generation);
        }
    }

    #[inline(never)]
    fn note_closely(&self, ticket: &Ticket, outcome: Outcome, mode: Mode) {
        let fresh = mode.generation() == ticket.generation;
        let ended = if fresh { Ended::of(outcome) } else { Some(Ended::Stale) };
        self.recorder.count(ended);
        let took = ticket.start.map(|start| start.elapsed());
        if let Some(entry) = ticket.entry {
            let telling = fresh && matches!(outcome, Outcome::Success | Outcome::Failed);
            let latency = took.filter(|_| telling).zip(self.recorder.baseline(ticket.class));
            self.customers.leave(entry, took.unwrap_or_default(), latency);
        }
        if !fresh {
            return;
        }
        match outcome {
            Outcome::Success => {
                let excluded = ticket.entry.is_some_and(|entry| self.customers.is_excluded(entry.cell));
                if let Some(took) = took.filter(|_| !excluded) {
                    self.recorder.sample(ticket.class, took, u32::from(ticket.weight));
                    if ticket.drained {
                        self.recorder.sample_drained(took, u32::from(ticket.weight));
                    }
                }
                self.admission.mode().end_streak(ticket.generation);
            }
            Outcome::Failed => self.admission.mode().end_streak(ticket.generation),
            // A target that says it is busy is there.
            Outcome::Cancelled | Outcome::Overloaded { .. } => {}
            _ => self.consider_trip(ticket, outcome, mode),
        }
    }

    fn consider_trip(&self, ticket: &Ticket, outcome: Outcome, mode: Mode) {
        let too_many = match mode.state() {
            State::Probing => true,
            // A lost connection may be one replica's death; the others go on.
            State::Direct | State::Ramping => {
                outcome.is_not_started() && self.admission.mode().lengthen(ticket.generation)
            }
            State::CoolOff => false,
        };
        if too_many && self.admission.trip(ticket.generation) {
            *self.trip.lock().unwrap_or_else(PoisonError::into_inner) = Some(Trip { outcome });
            self.tripped.notify_one();
        }
    }
}

/// Scatters the sampled calls, so that a pattern in the traffic does not always meet them with the same kind of call.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are as good as all")]
const fn is_sampled(count: u64) -> bool {
    (count as u32).wrapping_mul(0x9e37_79b9) < u32::MAX / SAMPLED as u32
}
