//! The admission state of one target.
//!
//! A gate is two words: the mode (with its generation) and the packed limit, calls in flight and waiting drains. A
//! direct call costs one load and two atomic changes; it takes no lock and allocates nothing. Everything that decides
//! *what* the limit and the mode should be works off the hot path and only writes these words.

mod customers;
mod permit;
mod recorder;
mod state;
mod word;

#[expect(unused_imports, reason = "for the controller")]
pub(crate) use customers::{CustomerReading, Customers, Flags};
pub use permit::Permit;
pub(crate) use permit::Ticket;
#[expect(unused_imports, reason = "for the controller")]
pub(crate) use recorder::{ClassReading, Readings, RouteClass};
pub(crate) use state::{Drain, Trip};
pub use state::{Refusal, Snapshot, State};

use crate::outcome::Outcome;
use crosspoint_core::{CustomerId, CustomerTerms};
#[cfg(crosspoint_loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(crosspoint_loom))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, future::pending, pin::pin, sync::Arc, time::Duration};
use tokio::sync::Notify;
use word::Word;

/// Keeps a word off its neighbours' cache lines (two of them, because of the adjacent-line prefetcher).
#[repr(align(128))]
struct Line<T>(T);

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
    mode: Line<AtomicU64>,
    word: Line<Hot>,
    freed: Notify,
    customers: Customers,
}

/// What every direct call writes.
struct Hot {
    word: Word,
    admitted: AtomicU64,
}

const STATE: u64 = 3;
const UNAVAILABLE: u64 = 4;
const GENERATION: u64 = 8;

impl Gate {
    /// A gate in state [`State::Direct`] with `limit` permits (at most 16 777 215).
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            mode: Line(AtomicU64::new(0)),
            word: Line(Hot {
                word: Word::new(limit),
                admitted: AtomicU64::new(0),
            }),
            freed: Notify::new(),
            customers: Customers::default(),
        }
    }

    /// Admits one direct call, or says why not. Queued work that waits for a permit goes first.
    ///
    /// # Errors
    /// The reason to divert the call.
    #[inline]
    pub fn enter(self: &Arc<Self>) -> Result<Permit, Refusal> {
        let ticket = self.admit(RouteClass::default(), || None)?;
        Ok(self.permit(ticket))
    }

    /// The class of a route, by its path text.
    #[expect(clippy::unused_self, reason = "classes belong to a gate")]
    pub(crate) fn class(&self, _name: &str) -> RouteClass {
        RouteClass::default()
    }

    /// Admits one direct call; it ends with [`Gate::leave`]. `customer` is asked only while customers are watched.
    #[inline]
    pub(crate) fn admit(
        &self,
        class: RouteClass,
        _customer: impl FnOnce() -> Option<CustomerId>,
    ) -> Result<Ticket, Refusal> {
        let mode = self.mode.0.load(Ordering::Acquire);
        if mode & UNAVAILABLE != 0 {
            return Err(Refusal::Unavailable);
        }
        if matches!(state_of(mode), State::CoolOff | State::Probing) {
            return Err(Refusal::CoolOff);
        }
        if !self.word.0.word.try_direct() {
            return Err(Refusal::Saturated);
        }
        self.word.0.admitted.fetch_add(1, Ordering::Relaxed);
        Ok(Ticket {
            generation: mode / GENERATION,
            class,
        })
    }

    /// Gives back what [`Gate::admit`] has given, and says how the call ended.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is given back once")]
    pub(crate) fn leave(&self, _ticket: Ticket, _outcome: Outcome) {
        if self.word.0.word.release() {
            self.freed.notify_one();
        }
    }

    /// A permit for what [`Gate::admit`] has given.
    pub(crate) fn permit(self: &Arc<Self>, ticket: Ticket) -> Permit {
        Permit::new(Arc::clone(self), ticket)
    }

    /// Admits one direct call, and waits up to `patience` in memory if permits have run out.
    #[expect(clippy::unused_async, reason = "it will wait")]
    pub(crate) async fn admit_within(
        self: &Arc<Self>,
        class: RouteClass,
        customer: Option<&CustomerId>,
        _patience: Duration,
    ) -> Result<Permit, Refusal> {
        let ticket = self.admit(class, || customer.cloned())?;
        Ok(self.permit(ticket))
    }

    /// A permit for queued work, if one is free now.
    pub(crate) fn try_drain(self: &Arc<Self>, _which: Drain) -> Option<Permit> {
        let mode = self.mode.0.load(Ordering::Acquire);
        (may_drain(mode) && self.word.0.word.try_drain()).then(|| self.drained(mode))
    }

    /// Waits for a permit for queued work. While held work waits, no direct call overtakes. May be dropped at any time.
    pub(crate) async fn drain(self: &Arc<Self>, _which: Drain) -> Permit {
        let mut waiting = Waiting::new(self);
        loop {
            // Enabled before looking: two releases between the look and the wait must wake two waiters.
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            let mode = self.mode.0.load(Ordering::Acquire);
            if may_drain(mode) && self.word.0.word.try_waiter() {
                waiting.registered = false;
                return self.drained(mode);
            }
            freed.await;
        }
    }

    /// Counts a call that was diverted, and runs the cool-off down.
    #[expect(clippy::unused_self, reason = "it will count")]
    pub(crate) fn note_divert(&self, _why: Refusal) {}

    /// The customers that a lease has to treat in a special way.
    #[expect(clippy::unused_self, reason = "it will look")]
    pub(crate) fn customer_terms(&self) -> Arc<[CustomerTerms]> {
        Arc::default()
    }

    /// Takes what was seen since the last time.
    pub(crate) fn readings(&self) -> Readings {
        let word = self.word.0.word.read();
        Readings {
            in_flight: word.in_flight,
            waiting_held: word.waiting,
            ..Readings::default()
        }
    }

    /// Keeps permits free of sideline work.
    #[expect(clippy::unused_self, reason = "it will keep them")]
    pub(crate) fn set_reserve(&self, _permits: u32) {}

    /// The latency of an idle target, with which customers are compared.
    #[expect(clippy::unused_self, reason = "it will compare")]
    pub(crate) fn set_baseline(&self, _class: RouteClass, _latency: Duration) {}

    /// Whether customers are tracked on the hot path.
    #[expect(clippy::unused_self, reason = "it will track")]
    pub(crate) fn set_watch(&self, _on: bool) {}

    /// After how many diverted calls a cool-off is over; set anew with each. `None`: only time ends it.
    #[expect(clippy::unused_self, reason = "it will count")]
    pub(crate) fn set_cool_off_calls(&self, _calls: Option<u32>) {}

    /// Resolves when so many calls were diverted in the present cool-off.
    pub(crate) async fn cooled(&self) {
        pending().await
    }

    /// Resolves when a call on the hot path has put the gate into [`State::CoolOff`]. For one listener.
    pub(crate) async fn tripped(&self) -> Trip {
        pending().await
    }

    /// The customers of this gate.
    pub(crate) const fn customers(&self) -> &Customers {
        &self.customers
    }

    /// Sets how many calls may be in flight at once. Those above a lowered limit go on.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.word.0.word.set_limit(limit);
        self.wake_all();
    }

    /// Changes the state. Starts a new generation if that is a change.
    pub(crate) fn set_state(&self, state: State) {
        self.set_mode(STATE, state as u64);
    }

    /// Opens or closes the way to the target, whatever the state is; the operator's switch.
    pub(crate) fn set_available(&self, available: bool) -> bool {
        self.set_mode(UNAVAILABLE, if available { 0 } else { UNAVAILABLE })
    }

    fn set_mode(&self, mask: u64, bits: u64) -> bool {
        let change = |word: u64| (word & mask != bits).then(|| ((word & !mask) | bits).wrapping_add(GENERATION));
        let mut word = self.mode.0.load(Ordering::Acquire);
        while let Some(next) = change(word) {
            match self
                .mode
                .0
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => {
                    self.wake_all();
                    return true;
                }
                Err(now) => word = now,
            }
        }
        false
    }

    /// How the gate stands now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let word = self.word.0.word.read();
        let mode = self.mode.0.load(Ordering::Acquire);
        Snapshot {
            state: state_of(mode),
            available: mode & UNAVAILABLE == 0,
            generation: mode / GENERATION,
            limit: word.limit,
            in_flight: word.in_flight,
            waiting: word.waiting,
            admitted: self.word.0.admitted.load(Ordering::Relaxed),
        }
    }

    /// Resolves when queued work may run.
    pub(crate) async fn available(&self) {
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if may_drain(self.mode.0.load(Ordering::Acquire)) {
                // The notification may have been meant for somebody who waits for a permit.
                self.freed.notify_one();
                return;
            }
            freed.await;
        }
    }

    fn drained(self: &Arc<Self>, mode: u64) -> Permit {
        self.permit(Ticket {
            generation: mode / GENERATION,
            class: RouteClass::default(),
        })
    }

    fn wake_all(&self) {
        self.freed.notify_waiters();
        self.freed.notify_one();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

const fn state_of(mode: u64) -> State {
    match mode & STATE {
        0 => State::Direct,
        1 => State::CoolOff,
        2 => State::Probing,
        _ => State::Ramping,
    }
}

/// Whether queued work may run.
fn may_drain(mode: u64) -> bool {
    mode & UNAVAILABLE == 0 && state_of(mode) != State::CoolOff
}

/// A registered waiter; gives its place up when dropped.
struct Waiting<'a> {
    gate: &'a Gate,
    registered: bool,
}

impl<'a> Waiting<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.word.0.word.register();
        Self { gate, registered: true }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.registered && self.gate.word.0.word.unregister() {
            self.gate.freed.notify_one();
        }
    }
}

#[cfg(all(test, not(crosspoint_loom)))]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_released_permit_goes_to_the_waiting_drain_first() {
        let gate = Arc::new(Gate::new(1));
        let permit = gate.enter().unwrap();
        let drain = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.drain(Drain::Held).await }
        });
        while gate.snapshot().waiting == 0 {
            tokio::task::yield_now().await;
        }
        drop(permit);
        assert_eq!(gate.enter().unwrap_err(), Refusal::Saturated, "no overtaking");
        let drained = drain.await.unwrap();
        assert_eq!(gate.snapshot().waiting, 0);
        drop(drained);
        assert!(gate.enter().is_ok());
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_no_trace() {
        let gate = Arc::new(Gate::new(1));
        let permit = gate.enter().unwrap();
        {
            let mut drain = std::pin::pin!(gate.drain(Drain::Held));
            assert!(drain.as_mut().now_or_never().is_none());
            assert_eq!(gate.snapshot().waiting, 1);
        }
        assert_eq!(gate.snapshot().waiting, 0);
        drop(permit);
        assert!(gate.enter().is_ok());
    }

    #[tokio::test]
    async fn an_unavailable_target_admits_nobody_until_it_is_back() {
        let gate = Arc::new(Gate::new(2));
        gate.set_available(false);
        assert_eq!(gate.enter().unwrap_err(), Refusal::Unavailable);
        assert!(gate.try_drain(Drain::Held).is_none());
        let mut drain = std::pin::pin!(gate.drain(Drain::Held));
        assert!(drain.as_mut().now_or_never().is_none());
        gate.set_available(false);
        assert_eq!(gate.snapshot().generation, 1, "no change, no generation");
        gate.set_available(true);
        assert_eq!(drain.await.generation(), 2);
    }

    #[tokio::test]
    async fn a_raised_limit_wakes_every_waiter() {
        let gate = Arc::new(Gate::new(0));
        let drains: Vec<_> = (0..3)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move { gate.drain(Drain::Held).await })
            })
            .collect();
        while gate.snapshot().waiting < 3 {
            tokio::task::yield_now().await;
        }
        gate.set_limit(3);
        for drain in drains {
            drop(drain.await.unwrap());
        }
        assert_eq!(gate.snapshot().in_flight, 0);
    }
}
