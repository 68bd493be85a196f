//! How targets and single calls are treated.

use crate::{Limit, Policy};
use crosspoint_core::RetryPolicy;
use std::time::Duration;

/// Settings of one target.
///
/// ```
/// use crosspoint_gateway::{Settles, TargetConfig};
/// let service = TargetConfig::default().permits(16);
/// let flows = TargetConfig::default().settles(Settles::Handler);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TargetConfig {
    /// How the target is protected: above all how many calls run at once in this process, direct and queued together.
    /// `None`, the default: as a layer of the target has set it, else [`Policy::default`], and [`Policy::flows`] with
    /// [`Settles::Handler`].
    pub policy: Option<Policy>,
    /// Who writes results. Default: the gateway.
    pub settles: Settles,
    /// When an attempt that failed is made again. Its `max_attempts` is that of the envelopes made for diverted calls. Its
    /// total time (24 h unless set) also ends calls that the target goes on refusing without beginning them.
    pub retry: RetryPolicy,
}

impl Default for TargetConfig {
    fn default() -> Self {
        Self {
            policy: None,
            settles: Settles::Gateway,
            retry: RetryPolicy::default(),
        }
    }
}

impl TargetConfig {
    /// Sets how many calls run at once, always: [`Limit::Fixed`].
    #[must_use]
    pub fn permits(mut self, permits: u32) -> Self {
        let policy = self.policy.take().unwrap_or_default();
        self.policy = Some(policy.limit(Limit::Fixed(permits)));
        self
    }

    /// Sets how the target is protected.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Sets who writes results.
    #[must_use]
    pub const fn settles(mut self, settles: Settles) -> Self {
        self.settles = settles;
        self
    }

    /// Sets when failed attempts are made again.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }
}

/// Who writes the result of an attempt to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Settles {
    /// The gateway: `Ok` is the stored reply, an error is retried or becomes a dead letter as its verdict says.
    #[default]
    Gateway,
    /// The handler, in its own transaction (flows). The gateway only wakes whoever waits. If the handler fails with
    /// [`Code::ShuttingDown`](crosspoint_core::Code::ShuttingDown),
    /// [`Code::TargetSaturated`](crosspoint_core::Code::TargetSaturated) or
    /// [`Code::TargetUnavailable`](crosspoint_core::Code::TargetUnavailable), the attempt was not begun and its lease is
    /// given back; after any other error the gateway leaves the lease to the handler. An attempt that was told to stop
    /// keeps its lease until the handler has returned: nobody else begins work that may still be running.
    Handler,
}

/// How one call is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CallPolicy {
    /// How long the caller waits for the answer; `None` for the gateway's default.
    pub hold: Option<Duration>,
    /// Whether the call may be made again when nobody knows how it ended. Default false.
    pub repeatable: bool,
    /// What becomes of the call if the caller drops the future while the call waits in the queue. Default
    /// [`OnDisconnect::Cancel`].
    pub on_disconnect: OnDisconnect,
}

impl CallPolicy {
    /// Sets how long the caller waits.
    #[must_use]
    pub const fn hold(mut self, hold: Duration) -> Self {
        self.hold = Some(hold);
        self
    }

    /// Sets whether the call may be made again when nobody knows how it ended.
    #[must_use]
    pub const fn repeatable(mut self, repeatable: bool) -> Self {
        self.repeatable = repeatable;
        self
    }

    /// Sets what becomes of the call if its caller leaves while it waits.
    #[must_use]
    pub const fn on_disconnect(mut self, then: OnDisconnect) -> Self {
        self.on_disconnect = then;
        self
    }
}

/// What becomes of a held call whose client leaves before the call has begun.
///
/// A call with an idempotency key goes on in either case: its client may come back and ask for the answer with the key.
/// So does one that has begun.
///
/// ```
/// use crosspoint_gateway::{CallPolicy, OnDisconnect};
/// let policy = CallPolicy::default().on_disconnect(OnDisconnect::Continue);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnDisconnect {
    /// It is cancelled: nobody would read the answer, and others wait. If it begins at that very moment it is asked to
    /// stop, as a direct call would be.
    #[default]
    Cancel,
    /// It goes on, for its effects.
    Continue,
}

/// Which requests of a route may be stored when the target has no capacity.
///
/// ```
/// # use crosspoint_core::{Memory, SystemClock, TargetId};
/// # use crosspoint_gateway::{Config, Gateway};
/// # use std::sync::Arc;
/// use crosspoint_gateway::Eligible;
///
/// # let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
/// let layer = gateway.layer(TargetId::new("scan")?).eligible(Eligible::Repeatable);
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Eligible {
    /// All that can be replayed: not streams of events (`Accept: text/event-stream`), upgrades and CONNECT.
    #[default]
    Queueable,
    /// Of those, only the ones that may be made twice: with an idempotent method, with an `Idempotency-Key`, or on a
    /// route that says `repeatable(true)`.
    Repeatable,
}
