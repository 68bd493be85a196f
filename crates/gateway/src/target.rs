//! One target as this process sees it.

use crate::{Policy, Settles, TargetConfig, control::Control, gate::Gate};
use crosspoint_core::{Handler, RetryPolicy, TargetId};
use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::Notify;

/// A target with its gate and, once it is served here, its handler.
pub(crate) struct Target {
    pub(crate) id: TargetId,
    pub(crate) gate: Arc<Gate>,
    pub(crate) control: Control,
    /// Told when this process has queued something for the target.
    pub(crate) queued: Notify,
    served: OnceLock<Served>,
    layered: AtomicBool,
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
            queued: Notify::new(),
            served: OnceLock::new(),
            layered: AtomicBool::new(false),
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
        if *self.control.policy() != policy {
            self.gate.set_limit(policy.limit.initial());
            self.control.set_policy(policy);
        }
    }

    /// Notes that a layer dispatches to the target.
    pub(crate) fn mark_layered(&self) {
        self.layered.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_layered(&self) -> bool {
        self.layered.load(Ordering::Relaxed)
    }

    /// How often work for this target is attempted at most.
    pub(crate) fn max_attempts(&self) -> u32 {
        self.served().map_or_else(
            || RetryPolicy::default().max_attempts,
            |served| served.retry.max_attempts,
        )
    }
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
