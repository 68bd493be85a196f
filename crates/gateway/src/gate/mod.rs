//! The admission state of one target.
//!
//! A gate is two words: the mode (state, generation) and the packed limit, calls in flight and waiters. A direct call reads
//! the one and changes the other once when it begins and once when it ends; it takes no lock and allocates nothing.
//! Everything that decides *what* limit and state should be works off the hot path and only writes these words. The one
//! exception is the trip: when calls cannot be started, the call that shows it begins the cool-off at once.

#![cfg_attr(
    not(test),
    expect(dead_code, reason = "read and steered by the controller, which is made next")
)]

mod admission;
mod customers;
mod histogram;
mod left_over;
#[cfg(all(test, crosspoint_loom))]
mod loom_tests;
mod mode;
mod permit;
mod recorder;
mod state;
mod sync;
#[cfg(all(test, not(crosspoint_loom)))]
mod tests;
mod waiters;
mod word;

pub(crate) use customers::{CustomerReading, Customers, Flags, ForLease};
pub use permit::Permit;
pub(crate) use permit::Ticket;
#[cfg(test)]
pub(crate) use recorder::ClassReading;
pub(crate) use recorder::{Readings, RouteClass};
pub(crate) use state::{Drain, Trip};
pub use state::{Refusal, Snapshot, State};

use crate::outcome::Outcome;
use admission::{Admission, refusal};
use crosspoint_core::CustomerId;
use mode::Mode;
use recorder::{Ended, Recorder, Totals};
use std::{
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use word::{COUNT, Class, Reading};

/// One direct call in so many is timed although it never waits.
const SAMPLED: u8 = 16;

/// The admission state of one target in this process: who may call it now.
///
/// ```
/// use crosspoint_gateway::gate::{Gate, Refusal};
/// use std::sync::Arc;
///
/// let gate = Arc::new(Gate::new(1));
/// let permit = gate.enter().unwrap();
/// assert_eq!(gate.enter().unwrap_err(), Refusal::Saturated);
/// drop(permit);
/// assert!(gate.enter().is_ok());
/// ```
pub struct Gate {
    admission: Admission,
    recorder: Recorder,
    customers: Customers,
    /// Whether permits ran out since the last reading.
    ran_out: AtomicBool,
    /// All admissions that the word has counted.
    admissions: AtomicU64,
    /// Of these, permits for queued work.
    drains: AtomicU64,
    diverted: AtomicU64,
    /// Calls that are still to be diverted before the cool-off is over; [`NEVER`] if only time ends it.
    cool_off: AtomicU32,
    cooled: Notify,
    trip: Mutex<Option<Trip>>,
    tripped: Notify,
    /// Told when the mode has changed.
    changed: Notify,
}

const NEVER: u32 = u32::MAX;

impl Gate {
    /// A gate in state [`State::Direct`] with `limit` permits (at most 262 143).
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            admission: Admission::new(limit),
            recorder: Recorder::new(),
            customers: Customers::new(),
            ran_out: AtomicBool::new(false),
            admissions: AtomicU64::new(0),
            drains: AtomicU64::new(0),
            diverted: AtomicU64::new(0),
            cool_off: AtomicU32::new(NEVER),
            cooled: Notify::new(),
            trip: Mutex::new(None),
            tripped: Notify::new(),
            changed: Notify::new(),
        }
    }

    /// Admits one direct call, or says why not. Queued work that a client waits for goes first.
    ///
    /// # Errors
    /// The reason to divert the call.
    #[inline]
    pub fn enter(self: &Arc<Self>) -> Result<Permit, Refusal> {
        let ticket = self.admit(RouteClass::default(), || None)?;
        Ok(self.permit(ticket))
    }

    /// The class of a route, by its path text. To be asked once, when the route is made.
    pub(crate) fn class(&self, name: &str) -> RouteClass {
        self.recorder.class(name)
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
        if cell.is_some_and(|cell| !self.customers.enter(cell, Some(word.read()))) {
            return Err(Refusal::CustomerShare);
        }
        let admitted = if probing {
            word.try_alone(self.admission.permits().1)
        } else {
            word.try_direct()
        };
        let Some(word) = admitted else {
            cell.inspect(|cell| self.customers.undo(*cell));
            return Err(if probing { Refusal::CoolOff } else { self.run_out() });
        };
        let mut ticket = self.ticket(mode, class, word);
        if mode.is_watched() {
            ticket.start.get_or_insert_with(Instant::now);
            ticket.weight = 1;
        }
        ticket.cell = cell;
        Ok(ticket)
    }

    /// How many calls of a customer may run while permits are scarce.
    pub(crate) fn share(&self, customer: &CustomerId) -> u32 {
        self.customers.share(customer, self.admission.word().read())
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
        let unmarked = ticket.start.is_none() && ticket.cell.is_none() && !ticket.drained;
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
            self.admission.release();
        } else {
            self.admission.release_old(ticket.generation);
        }
    }

    #[inline(never)]
    fn note_closely(&self, ticket: &Ticket, outcome: Outcome, mode: Mode) {
        let fresh = mode.generation() == ticket.generation;
        let ended = if fresh { Ended::of(outcome) } else { Some(Ended::Stale) };
        self.recorder.count(ended, ticket.drained && fresh);
        let took = ticket.start.map(|start| start.elapsed());
        if let Some(cell) = ticket.cell {
            let telling = fresh && matches!(outcome, Outcome::Success | Outcome::Failed);
            let latency = took.filter(|_| telling).zip(self.recorder.baseline(ticket.class));
            self.customers.leave(cell, took.unwrap_or_default(), latency);
        }
        if !fresh {
            return;
        }
        match outcome {
            Outcome::Success => {
                let excluded = ticket.cell.is_some_and(|cell| self.customers.is_excluded(cell));
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
            let trip = Trip {
                from: mode.state(),
                outcome,
                generation: ticket.generation + 1,
            };
            *self.trip.lock().unwrap_or_else(PoisonError::into_inner) = Some(trip);
            self.tripped.notify_one();
        }
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
    fn carry(&self, ticket: &mut Ticket, class: RouteClass, customer: &CustomerId) {
        ticket.class = class;
        ticket.start = Some(Instant::now());
        ticket.weight = 1;
        if ticket.cell.is_none() && self.admission.mode().read().is_watched() {
            ticket.cell = self.customers.cell(customer);
            if let Some(cell) = ticket.cell {
                self.customers.enter(cell, None);
            }
        }
    }

    /// Counts a call that was diverted, and runs the cool-off down.
    pub(crate) fn note_divert(&self, why: Refusal) {
        self.diverted.fetch_add(1, Ordering::Relaxed);
        if why == Refusal::CoolOff {
            let down = |left| (left != NEVER && left > 0).then(|| left - 1);
            if self.cool_off.fetch_update(Ordering::AcqRel, Ordering::Acquire, down) == Ok(1) {
                self.cooled.notify_one();
            }
        }
    }

    /// The customers that a lease has to treat in a special way: at their cap, or slow. Only a scout brings calls of slow
    /// ones.
    pub(crate) fn customer_terms(&self, may_scout: bool) -> ForLease<'_> {
        self.customers.terms(self.admission.word().read(), may_scout)
    }

    /// Whether a customer has not yet its share of the calls in flight.
    pub(crate) fn may_begin(&self, customer: &CustomerId) -> bool {
        let watched = self.admission.mode().read().is_watched();
        !watched || self.customers.may_begin(customer, self.admission.word().read())
    }

    /// Takes what was seen since the last time.
    pub(crate) fn readings(&self) -> Readings {
        let (word, held, _, totals) = self.totals();
        Readings {
            saturated: self.ran_out.swap(false, Ordering::Relaxed),
            in_flight: word.in_flight().saturating_sub(self.admission.permits().1),
            waiting_held: u32::try_from(held).unwrap_or(u32::MAX),
            ..self.recorder.take(totals)
        }
    }

    fn totals(&self) -> (Reading, usize, usize, Totals) {
        let (all, word) = self.admissions();
        let (held, sideline, abandoned) = self.admission.look();
        let direct = self.direct(all, abandoned);
        let diverted = self.diverted.load(Ordering::Relaxed);
        let totals = Totals {
            completed: all.saturating_sub(u64::from(word.in_flight()) + abandoned),
            arrived: direct + diverted,
            diverted,
            ..Totals::default()
        };
        (word, held, sideline, totals)
    }

    fn direct(&self, all: u64, abandoned: u64) -> u64 {
        all.saturating_sub(self.drains.load(Ordering::Relaxed) + abandoned)
    }

    /// All admissions so far, from the part of their count that is in the word.
    fn admissions(&self) -> (u64, Reading) {
        let mut before = self.admissions.load(Ordering::Acquire);
        loop {
            // Read after the total, which therefore never runs ahead of it.
            let word = self.admission.word().read();
            let all = before + (word.count().wrapping_sub(before) & COUNT);
            match self
                .admissions
                .compare_exchange(before, all, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return (all, word),
                Err(now) => before = now,
            }
        }
    }

    /// Sets how many calls may be in flight at once, besides those that are left over from before a cool-off. Those above
    /// a lowered limit go on.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.admission.set_limit(limit);
    }

    /// Keeps permits free of sideline work, but for its turn of one permit in fifty; an idle target takes some always.
    pub(crate) fn set_reserve(&self, permits: u32) {
        self.admission.set_reserve(permits);
    }

    /// Changes the state. Starts a new generation if that is a change.
    pub(crate) fn set_state(&self, state: State) {
        if self.admission.set_state(state) {
            self.changed.notify_waiters();
        }
    }

    /// Opens or closes the way to the target, whatever the state is; the operator's switch. Answers whether that is a
    /// change.
    pub(crate) fn set_available(&self, available: bool) -> bool {
        let changed = self.admission.set_available(available);
        if changed {
            self.changed.notify_waiters();
        }
        changed
    }

    /// Whether queued work may run even in a cool-off: the one of a target that is in good order. Not a new generation.
    pub(crate) fn set_drained_in_cool_off(&self, drained: bool) {
        if self.admission.set_drained_in_cool_off(drained) {
            self.changed.notify_waiters();
        }
    }

    /// Has customers told apart in the same way in every run. To be set before any is watched.
    pub(crate) fn seed(&self, seed: u64) {
        self.customers.seed(seed);
    }

    /// The names of the route classes by their numbers.
    pub(crate) fn class_names(&self) -> Vec<Arc<str>> {
        self.recorder.names()
    }

    /// The latency of an idle target, with which customers are compared.
    pub(crate) fn set_baseline(&self, class: RouteClass, latency: Duration) {
        self.recorder.set_baseline(class, latency);
    }

    /// Whether customers are tracked on the hot path. Every call is then timed from its admission.
    pub(crate) fn set_watch(&self, on: bool) {
        if on {
            self.customers.watch(true);
            self.admission.mode().set_watched(true);
        } else if self.admission.mode().set_watched(false) {
            self.customers.watch(false);
        }
    }

    /// After how many calls that were diverted because of it a cool-off is over; to be set for each. `None`, the default:
    /// only time ends it.
    pub(crate) fn set_cool_off_calls(&self, calls: Option<u32>) {
        self.cool_off.store(calls.unwrap_or(NEVER), Ordering::Release);
        self.cooled.notify_one();
    }

    /// Resolves when so many calls were diverted. For one listener.
    pub(crate) async fn cooled(&self) {
        while self.cool_off.load(Ordering::Acquire) != 0 {
            self.cooled.notified().await;
        }
    }

    /// Resolves when a call on the hot path has put the gate into [`State::CoolOff`]. For one listener.
    pub(crate) async fn tripped(&self) -> Trip {
        loop {
            if let Some(trip) = self.trip.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return trip;
            }
            self.tripped.notified().await;
        }
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

    /// The customers of this gate.
    pub(crate) const fn customers(&self) -> &Customers {
        &self.customers
    }

    /// How the gate stands now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let (all, word) = self.admissions();
        let (held, sideline, abandoned) = self.admission.look();
        let mode = self.admission.mode().read();
        Snapshot {
            state: mode.state(),
            available: mode.is_available(),
            generation: mode.generation(),
            limit: self.admission.permits().0,
            in_flight: word.in_flight(),
            waiting: u32::try_from(held + sideline).unwrap_or(u32::MAX),
            admitted: self.direct(all, abandoned),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
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

/// Scatters the sampled calls, so that a pattern in the traffic does not always meet them with the same kind of call.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are as good as all")]
const fn is_sampled(count: u64) -> bool {
    (count as u32).wrapping_mul(0x9e37_79b9) < u32::MAX / SAMPLED as u32
}
