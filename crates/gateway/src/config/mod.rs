//! What can be set, with the defaults.

use crate::{Limit, Policy};
use crosspoint_core::{RetryPolicy, WorkerId};
use std::time::Duration;

/// Settings of a [`Gateway`](crate::Gateway).
///
/// ```
/// use crosspoint_gateway::Config;
/// use std::time::Duration;
///
/// let mut config = Config::default();
/// config.hold = Duration::from_secs(5);
/// config.requests_path = "/api/requests".into();
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The name under which this process leases work. Default: unique per start.
    pub worker: WorkerId,
    /// How long a lease lasts unless a heartbeat, sent three times as often, extends it. Default 30 s, at least 1 ms.
    pub lease: Duration,
    /// How many envelopes are leased at once. Default 32.
    pub lease_batch: usize,
    /// How often work that other processes have stored, or that was delayed, is looked for. Default 1 s, at least 1 ms.
    pub poll: Duration,
    /// How long a client is kept waiting for a queued answer, unless its route or its request says less. Default 10 s.
    pub hold: Duration,
    /// How many clients are kept waiting at once; further ones get 202 at once. Default 20 000.
    pub max_held: usize,
    /// How many clients of one customer are kept waiting at once; further ones get 202 at once. Default 10 000.
    pub max_held_per_customer: usize,
    /// How long the store may take to acknowledge a diverted call before its client is refused with 503. After three
    /// failures in a row calls are refused at once for a second. Default 2 s, a fifth of the hold: a store that works answers
    /// within milliseconds, but a shared disk may need a quarter of a second for a sync, and with several processes on one
    /// SQLite file a call waits for a sync of each of them.
    pub enqueue_timeout: Duration,
    /// How long the body of a diverted call may take to arrive before its client is refused with 408. Direct calls are
    /// not limited. Default 10 s.
    pub body_timeout: Duration,
    /// How many bytes of bodies are read at once of calls that are about to be queued, in all; further calls are refused
    /// with 503. Bodies without a length count as the longest that their route takes. Default 64 MiB.
    pub max_buffered: usize,
    /// When a client with 202 should ask for the first time. Default 2 s.
    pub retry_after: Duration,
    /// After so many lost leases a queued call is suspected of taking its workers down: it is not begun again but becomes a
    /// dead letter with the code `lease-stale`, though attempts are left. The store counts a lease as lost when nobody
    /// extended it in time after the work had begun; it cannot tell a worker that died from one that was cut off from the
    /// store for that long. Calls that may not be repeated end as `outcome-unknown` at the first loss anyway. Flows are
    /// not concerned: their attempts are the limit. Default 2; `u32::MAX` leaves it to the attempts.
    pub suspect_losses: u32,
    /// The largest reply of a queued call that is stored, in bytes. Default 1 MiB.
    pub max_reply: usize,
    /// How long an attempt that was told to stop may take before it is dropped. Default 15 s. Attempts of targets that
    /// settle by themselves ([`Settles::Handler`]) are never dropped for this: they may take until their lease is lost.
    pub stop_grace: Duration,
    /// How long ended calls are kept, as far as clients are told: an unknown id that is older is answered 410 instead of 404.
    /// Whoever purges the store keeps calls at least as long. Default 24 h.
    pub retention: Duration,
    /// Whether this gateway purges the store: every ten minutes it deletes what ended longer than [`Config::retention`] ago,
    /// whatever target it was for, a hundred at a time. Turn it off where something else does. Default true.
    pub purge: bool,
    /// For how long an `Idempotency-Key` is recognised. Default 48 h.
    pub key_retention: Duration,
    /// Where [`Gateway::requests`](crate::Gateway::requests) is mounted, for `Location`. Default `/requests`.
    pub requests_path: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            worker: unique_worker(),
            lease: Duration::from_secs(30),
            lease_batch: 32,
            poll: Duration::from_secs(1),
            hold: Duration::from_secs(10),
            max_held: 20_000,
            max_held_per_customer: 10_000,
            enqueue_timeout: Duration::from_secs(2),
            body_timeout: Duration::from_secs(10),
            max_buffered: 64 * 1024 * 1024,
            retry_after: Duration::from_secs(2),
            suspect_losses: 2,
            max_reply: 1024 * 1024,
            stop_grace: Duration::from_secs(15),
            retention: Duration::from_secs(24 * 60 * 60),
            purge: true,
            key_retention: Duration::from_secs(48 * 60 * 60),
            requests_path: "/requests".to_owned(),
        }
    }
}

impl Config {
    /// How much of a lease is kept in reserve: an attempt is told to stop this long before its lease can end.
    pub(crate) fn margin(&self) -> Duration {
        self.lease / 10
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        self.lease / 3
    }
}

#[expect(clippy::expect_used, reason = "the text is 44 visible characters")]
fn unique_worker() -> WorkerId {
    WorkerId::new(format!("gateway-{}", uuid::Uuid::new_v4())).expect("a valid id")
}

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
    /// When an attempt that failed is made again. Its `max_attempts` is that of the envelopes made for diverted calls.
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
