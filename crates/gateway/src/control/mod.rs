//! What decides, off the hot path, how a target's gate stands.
//!
//! Every 100 ms the tick of a target takes what its gate has seen and writes back a limit, a state, a reserve and the
//! treatment of single customers. The parts are pure: they take numbers and times and return them.
//!
//! - `limit`: how many calls may run at once, by one of several algorithms over a window of observations.
//! - `forecast`: when a queued call will have its turn, for whoever holds a client.
//! - `demand`: how much concurrency the target would need, for whoever scales it.
//! - `policy`: what can be set about all this.

mod checks;
mod demand;
mod forecast;
mod limit;
mod policy;

pub use limit::{Aimd, Custom, Gradient2, Knee, Limit, LimitAlgorithm, Vegas, Window};
pub use policy::{CoolOff, HoldOrder, Policy, Sticky};

pub(crate) use demand::Backlog;
pub(crate) use forecast::Forecast;

use demand::Demand;
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock, atomic::AtomicBool},
};

/// The control of one target, as the rest of the gateway sees it.
pub(crate) struct Control {
    policy: RwLock<Arc<Policy>>,
    forecast: Forecast,
    backlog: Backlog,
    demand: Demand,
    ticking: AtomicBool,
}

impl Control {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            forecast: Forecast::new(policy.limit.initial()),
            policy: RwLock::new(Arc::new(policy)),
            backlog: Backlog::default(),
            demand: Demand::default(),
            ticking: AtomicBool::new(false),
        }
    }

    /// What is set for the target. Not for the hot path: the lock is free unless the policy is being replaced.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// When queued calls will have their turn.
    pub(crate) const fn forecast(&self) -> &Forecast {
        &self.forecast
    }

    /// This process's share of the target's queue. Whoever stores calls or takes them out says so here.
    pub(crate) const fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// How many calls at once would answer everything; see [`Gateway::demand`](crate::Gateway::demand).
    pub(crate) fn demand(&self) -> f64 {
        self.demand.get()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("policy", &self.policy())
            .field("forecast", &self.forecast)
            .finish_non_exhaustive()
    }
}
