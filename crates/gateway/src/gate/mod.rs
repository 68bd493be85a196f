//! The admission state of one target.
//!
//! A gate is two words: the mode (state, generation) and the packed limit, calls in flight and waiters. A direct call reads
//! the one and changes the other once when it begins and once when it ends; it takes no lock and allocates nothing.
//! Everything that decides *what* limit and state should be works off the hot path and only writes these words. The one
//! exception is the trip: when calls cannot be started, the call that shows it begins the cool-off at once.

mod admission;
mod calls;
mod customers;
mod histogram;
mod left_over;
#[cfg(all(test, crosspoint_loom))]
mod loom_tests;
mod mode;
mod permit;
mod queued;
mod recorder;
mod state;
mod steering;
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

use admission::Admission;
use mode::Mode;
use recorder::Recorder;
use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64},
    },
};
use tokio::sync::Notify;
pub(crate) use word::MAX_LIMIT;

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

    /// The class of a route, by its path text. To be asked once, when the route is made.
    pub(crate) fn class(&self, name: &str) -> RouteClass {
        self.recorder.class(name)
    }

    /// Has customers told apart in the same way in every run. To be set before any is watched.
    pub(crate) fn seed(&self, seed: u64) {
        self.customers.seed(seed);
    }

    /// The names of the route classes by their numbers.
    pub(crate) fn class_names(&self) -> Vec<Arc<str>> {
        self.recorder.names()
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
        let (limit, left_over) = self.admission.permits();
        Snapshot {
            state: mode.state(),
            available: mode.is_available(),
            generation: mode.generation(),
            limit,
            in_flight: word.in_flight(),
            left_over,
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
