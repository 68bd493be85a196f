//! What decides, off the hot path, how a target's gate stands.
//!
//! Every 100 ms the tick of a target takes what its gate has seen and writes back a limit, a state, a reserve and the
//! treatment of single customers. The parts are pure: they take numbers and times and return them.
//!
//! - `tick` carries between the gate and the `brain`, which puts the others together.
//! - `baseline`, `gather`: what latency is normal, and windows of observations that say how far from it calls are.
//! - `limit`: how many calls may run at once, by one of several algorithms; `ceiling` and `startup` bound and doubt it.
//! - `state`: when the target is left alone, and how it comes back. `degraded`: a sign that something is wrong with it.
//! - `customers`: who is treated apart from the others.
//! - `note`: what the next process should know.
//! - `forecast`: when a queued call will have its turn, for whoever holds a client.
//! - `demand`: how much concurrency the target would need, for whoever scales it.
//! - `policy`: what can be set about all this.

mod baseline;
mod brain;
mod ceiling;
pub(crate) mod checks;
mod customers;
mod degraded;
mod demand;
mod forecast;
mod gather;
mod limit;
mod note;
mod policy;
mod random;
mod startup;
mod state;
mod tail;
mod tick;

pub use limit::{Aimd, Custom, Gradient2, Knee, Limit, LimitAlgorithm, Vegas, Window};
pub use policy::{CoolOff, HoldOrder, Policy, Sticky};

pub(crate) use demand::Backlog;
pub(crate) use forecast::Forecast;
pub(crate) use tick::{Running, remember, run};

use demand::Demand;
use note::Note;
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{sync::Notify, time::Instant};

/// The control of one target, as the rest of the gateway sees it.
pub(crate) struct Control {
    policy: RwLock<Arc<Policy>>,
    changed: Notify,
    forecast: Forecast,
    backlog: Backlog,
    demand: Demand,
    ticking: AtomicBool,
    memory: Mutex<Memory>,
}

/// What was learnt, and what of it is in the store.
#[derive(Debug)]
struct Memory {
    learnt: Option<Note>,
    written: Option<Note>,
    /// When that was last tried.
    tried: Instant,
}

impl Control {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            forecast: Forecast::new(policy.limit.initial()),
            policy: RwLock::new(Arc::new(policy)),
            changed: Notify::new(),
            backlog: Backlog::default(),
            demand: Demand::default(),
            ticking: AtomicBool::new(false),
            memory: Mutex::new(Memory {
                learnt: None,
                written: None,
                tried: Instant::now(),
            }),
        }
    }

    /// What is set for the target. Not for the hot path: the lock is free unless the policy is being replaced.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces what is set. The limit is learnt anew; what is known of latencies stays.
    pub(crate) fn set_policy(&self, policy: Policy) {
        self.forecast.set_limit(f64::from(policy.limit.initial()));
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
        self.changed.notify_one();
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

    /// Whether the caller is to start the tick: nobody has before.
    fn start(&self) -> bool {
        !self.ticking.swap(true, Ordering::AcqRel)
    }

    fn stopped(&self) {
        self.ticking.store(false, Ordering::Release);
    }

    /// Resolves when [`Control::set_policy`] was called. For one listener.
    async fn policy_changed(&self) {
        self.changed.notified().await;
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learnt(&self, note: Note) {
        self.memory().learnt = Some(note);
    }

    /// What was learnt and is worth writing down.
    fn unwritten(&self) -> Option<Note> {
        let memory = self.memory();
        let learnt = memory.learnt.as_ref()?;
        let news = memory.written.as_ref().is_none_or(|written| learnt.differs(written));
        news.then(|| learnt.clone())
    }

    fn wrote(&self, note: Note) {
        self.memory().written = Some(note);
    }

    /// Whether it is `after` since this was last true.
    fn is_due(&self, after: std::time::Duration) -> bool {
        let mut memory = self.memory();
        let due = memory.tried.elapsed() >= after;
        if due {
            memory.tried = Instant::now();
        }
        due
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
