//! One target as this process sees it.

use crate::{
    HoldOrder, Policy, Settles, TargetConfig,
    backlog::Backlog,
    control::Control,
    gate::{Drain, Gate},
    worker::Lull,
};
use crosspoint_core::{Handler, RetryBudget, RetryPolicy, TargetId, retry::BudgetConfig};
use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// A target with its gate and, once it is served here, its handler.
pub(crate) struct Target {
    pub(crate) id: TargetId,
    pub(crate) gate: Arc<Gate>,
    pub(crate) control: Control,
    /// Told when this process has queued a call that somebody waits for.
    pub(crate) held: Notify,
    /// Told when this process has queued anything else.
    pub(crate) sideline: Notify,
    /// The held calls that this process has queued.
    pub(crate) backlog: Arc<Backlog>,
    /// When its queues may be drained, if the gate lets them.
    pub(crate) lull: Lull,
    /// How often queued calls that a service has carried out and failed may be made again.
    pub(crate) budget: RetryBudget,
    /// The routes whose queued calls are made again after a 5xx, by their class.
    again_on_5xx: RwLock<HashSet<Arc<str>>>,
    served: OnceLock<Served>,
    layered: AtomicBool,
    /// Whether somebody was told that nothing of it can be queued here.
    missed: AtomicBool,
}

/// How this process handles a target's calls.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) settles: Settles,
    pub(crate) retry: RetryPolicy,
}

impl Target {
    pub(crate) fn new(id: TargetId) -> Self {
        let policy = Policy::default();
        Self {
            id,
            gate: Arc::new(Gate::new(policy.limit.initial())),
            control: Control::new(policy),
            held: Notify::new(),
            sideline: Notify::new(),
            backlog: Arc::default(),
            lull: Lull::default(),
            budget: budget(),
            again_on_5xx: RwLock::default(),
            served: OnceLock::new(),
            layered: AtomicBool::new(false),
            missed: AtomicBool::new(false),
        }
    }

    /// The handler, if the target is served by this process.
    pub(crate) fn served(&self) -> Option<&Served> {
        self.served.get()
    }

    /// Whether the target was not served before.
    pub(crate) fn serve(&self, handler: Arc<dyn Handler>, config: TargetConfig) -> bool {
        let served = Served {
            handler,
            settles: config.settles,
            retry: config.retry,
        };
        self.served.set(served).is_ok()
    }

    /// Replaces how the target is protected; nothing changes if it was set so before.
    pub(crate) fn set_policy(&self, policy: Policy) {
        if let Some(seed) = policy.seed {
            self.gate.seed(seed);
        }
        if *self.control.policy() != policy {
            self.gate.set_limit(policy.limit.initial());
            self.control.set_policy(policy);
        }
    }

    /// Notes that a layer dispatches to the target.
    pub(crate) fn mark_layered(&self) {
        self.layered.store(true, Ordering::Relaxed);
    }

    /// Says once that the target's calls cannot be queued, because nobody here would take them out again.
    pub(crate) fn warn_unserved(&self) {
        if !self.missed.swap(true, Ordering::Relaxed) {
            tracing::warn!(target = %self.id, "not served: call `serve_queued`, or nothing can be queued");
        }
    }

    pub(crate) fn is_layered(&self) -> bool {
        self.layered.load(Ordering::Relaxed)
    }

    /// The wake-up of one of the two queues.
    pub(crate) const fn queue(&self, which: Drain) -> &Notify {
        match which {
            Drain::Held => &self.held,
            Drain::Sideline => &self.sideline,
        }
    }

    /// How long a direct call waits in memory for a permit.
    pub(crate) fn patience(&self) -> Duration {
        self.control.policy().patience
    }

    /// Whether a call with so many before it will probably be answered within `hold`. The other orders do not ask.
    pub(crate) fn may_hold(&self, ahead: usize, hold: Duration) -> bool {
        self.control.policy().hold != HoldOrder::Predictive || self.control.forecast().may_hold(ahead, hold)
    }

    /// Whether the held call that came last goes first.
    pub(crate) fn newest_first(&self) -> bool {
        self.control.policy().hold == HoldOrder::Lifo
    }

    /// Says that something was queued.
    pub(crate) fn announce(&self, which: Drain) {
        self.queue(which).notify_one();
    }

    /// Sets whether a route's queued calls are made again after a 5xx.
    pub(crate) fn set_again_on_5xx(&self, route: &str, again: bool) {
        if self.is_again_on_5xx(route) == again {
            return;
        }
        let mut routes = self.again_on_5xx.write().unwrap_or_else(PoisonError::into_inner);
        if again {
            routes.insert(Arc::from(route));
        } else {
            routes.remove(route);
        }
    }

    /// Whether one more queued call of a route may be made again after a 5xx; takes it from the budget.
    pub(crate) fn again_on_5xx(&self, route: &str) -> bool {
        self.is_again_on_5xx(route) && self.budget.withdraw()
    }

    fn is_again_on_5xx(&self, route: &str) -> bool {
        let routes = self.again_on_5xx.read().unwrap_or_else(PoisonError::into_inner);
        routes.contains(route)
    }

    /// How often work for this target is attempted at most.
    pub(crate) fn max_attempts(&self) -> u32 {
        self.served().map_or_else(
            || RetryPolicy::default().max_attempts,
            |served| served.retry.max_attempts,
        )
    }
}

/// One repeat for ten calls, and one a second besides, so that quiet targets have any at all.
fn budget() -> RetryBudget {
    RetryBudget::new(&BudgetConfig::default().with_percent(10).with_min_per_sec(1)).unwrap_or_default()
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("id", &self.id)
            .field("gate", &self.gate)
            .field("served", &self.served())
            .finish_non_exhaustive()
    }
}
