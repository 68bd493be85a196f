//! What can be set, with the defaults.

mod calls;

pub use calls::{CallPolicy, Eligible, OnDisconnect, Settles, TargetConfig};

use crate::{control::checks::Checks, millis};
use crosspoint_core::{Result, WorkerId};
use std::time::Duration;

/// Settings of a [`Gateway`](crate::Gateway).
///
/// As JSON every duration is a whole number of milliseconds under a name that ends in `_ms`; what is left out has its
/// default. Settings that make no sense are refused by [`Gateway::register`](crate::Gateway::register) and all that serves
/// a target; [`Config::validate`] tells beforehand.
///
/// ```
/// use crosspoint_gateway::Config;
/// use std::time::Duration;
///
/// let mut config = Config::default();
/// config.hold = Duration::from_secs(5);
/// config.requests_path = "/api/requests".into();
/// let read = r#"{ "hold_ms": 5000, "requests_path": "/api/requests" }"#;
/// let mut same: Config = serde_json::from_str(read).unwrap();
/// same.worker = config.worker.clone(); // another one per start
/// assert_eq!(same, config);
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The name under which this process leases work. Default: unique per start.
    pub worker: WorkerId,
    /// How long a lease lasts unless a heartbeat, sent three times as often, extends it. Default 30 s.
    #[serde(rename = "lease_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub lease: Duration,
    /// How many envelopes are leased at once. Default 32.
    pub lease_batch: usize,
    /// How often work that other processes have stored, or that was delayed, is looked for. Default 1 s.
    #[serde(rename = "poll_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub poll: Duration,
    /// How long a client is kept waiting for a queued answer, unless its route or its request says less. Default 10 s.
    #[serde(rename = "hold_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub hold: Duration,
    /// How many clients are kept waiting at once; further ones get 202 at once. Default 20 000.
    pub max_held: usize,
    /// How many clients of one customer are kept waiting at once; further ones get 202 at once. Default 10 000.
    pub max_held_per_customer: usize,
    /// How long the store may take to acknowledge a call that is diverted, or recorded before it is tried, before its
    /// client is refused with 503. After three failures in a row calls are refused at once for a second. Default 2 s, a
    /// fifth of the hold: a store that works answers within milliseconds, but a shared disk may need a quarter of a second
    /// for a sync, and with several processes on one SQLite file a call waits for a sync of each of them. Neither a write nor
    /// a lease keeps permits for longer.
    #[serde(rename = "enqueue_timeout_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub enqueue_timeout: Duration,
    /// How long the body of a diverted call may take to arrive before its client is refused with 408. Direct calls are
    /// not limited. Default 10 s.
    #[serde(rename = "body_timeout_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub body_timeout: Duration,
    /// How many bytes of bodies are read at once of calls that are about to be queued, in all; further calls are refused
    /// with 503. Bodies without a length count as the longest that their route takes. Default 64 MiB.
    pub max_buffered: usize,
    /// How many bytes of one customer's bodies are read at once; further calls of it are refused with 429. Default 16 MiB.
    pub max_buffered_per_customer: usize,
    /// How many calls of one customer may wait in the queue of one target, over all processes; further ones are refused with
    /// 429. The store is asked at most once a second for each customer, and not at all while fewer calls wait in all, as far
    /// as this process knows: what other processes have stored since the last count (every 15 s) may pass it. Calls that run
    /// directly, and what [`Submit`](crosspoint_core::Submit)
    /// stores, are not refused. Default 100 000.
    pub max_queued_per_customer: u64,
    /// How many bytes the requests of one customer that wait for one target may take up, in the same way. Default 1 GiB.
    pub max_queued_bytes_per_customer: u64,
    /// When a client with 202 should ask for the first time. Default 2 s.
    #[serde(rename = "retry_after_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub retry_after: Duration,
    /// After so many lost leases a queued call is suspected of taking its workers down: it is not begun again but becomes a
    /// dead letter with the code `workers-lost`, though attempts are left. The store counts a lease as lost when nobody
    /// extended it in time after the work had begun; it cannot tell a worker that died from one that was cut off from the
    /// store for that long. Calls that may not be repeated end as `outcome-unknown` at the first loss anyway. Flows are
    /// not concerned: their attempts are the limit. Default 2; `u32::MAX` leaves it to the attempts.
    pub suspect_losses: u32,
    /// The largest reply of a queued call that is stored, in bytes. Default 1 MiB.
    pub max_reply: usize,
    /// How long an attempt that was told to stop may take before it is dropped. Default 15 s. Attempts of targets that
    /// settle by themselves ([`Settles::Handler`]) are never dropped for this: they may take until their lease is lost.
    #[serde(rename = "stop_grace_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub stop_grace: Duration,
    /// How long ended calls are kept, as far as clients are told: an unknown id that is older is answered 410 instead of 404.
    /// Whoever purges the store keeps calls at least as long. Default 24 h.
    #[serde(rename = "retention_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub retention: Duration,
    /// Whether this gateway purges the store: every ten minutes it deletes what ended longer than [`Config::retention`] ago,
    /// whatever target it was for, a hundred at a time. Turn it off where something else does. Default true.
    pub purge: bool,
    /// For how long an `Idempotency-Key` is recognised. Default 48 h.
    #[serde(rename = "key_retention_ms", with = "millis")]
    #[schemars(with = "u64")]
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
            max_buffered_per_customer: 16 * 1024 * 1024,
            max_queued_per_customer: 100_000,
            max_queued_bytes_per_customer: 1024 * 1024 * 1024,
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
    /// Checks that the settings make sense together.
    ///
    /// ```
    /// use crosspoint_gateway::Config;
    ///
    /// let mut config = Config::default();
    /// (config.lease_batch, config.requests_path) = (0, "requests".into());
    /// let error = config.validate().unwrap_err();
    /// let pointers: Vec<_> = error.problems().iter().map(|problem| problem.pointer.as_str()).collect();
    /// assert_eq!(pointers, ["/lease_batch", "/requests_path"]);
    /// ```
    ///
    /// # Errors
    /// [`Code::SetupInvalid`](crosspoint_core::Code::SetupInvalid) with every problem, each with a JSON pointer.
    pub fn validate(&self) -> Result<()> {
        let mut checks = Checks::default();
        for (length, pointer, message) in [
            (
                self.lease,
                "/lease_ms",
                "is at least 1: a lease that has ended is nobody's",
            ),
            (
                self.poll,
                "/poll_ms",
                "is at least 1: without a pause the loops only spin",
            ),
            (
                self.enqueue_timeout,
                "/enqueue_timeout_ms",
                "is at least 1: no store answers in no time",
            ),
            (
                self.body_timeout,
                "/body_timeout_ms",
                "is at least 1: no body arrives in no time",
            ),
            (
                self.key_retention,
                "/key_retention_ms",
                "is at least 1: a key has to be recognised",
            ),
        ] {
            checks.check(length >= Duration::from_millis(1), pointer, message);
        }
        for (count, pointer) in [
            (size(self.lease_batch), "/lease_batch"),
            (size(self.max_buffered), "/max_buffered"),
            (size(self.max_buffered_per_customer), "/max_buffered_per_customer"),
            (self.max_queued_per_customer, "/max_queued_per_customer"),
            (self.max_queued_bytes_per_customer, "/max_queued_bytes_per_customer"),
            (self.suspect_losses.into(), "/suspect_losses"),
            (size(self.max_reply), "/max_reply"),
        ] {
            checks.check(
                count >= 1,
                pointer,
                "is at least 1: with 0 nothing that is queued is ever answered",
            );
        }
        checks.check(
            self.retention >= self.hold,
            "/retention_ms",
            "is at least hold_ms: answers are kept while their clients wait",
        );
        let path = self.requests_path.parse::<http::uri::PathAndQuery>();
        let plain = path.is_ok_and(|path| path.as_str() == self.requests_path && path.query().is_none());
        checks.check(
            plain && self.requests_path.starts_with('/'),
            "/requests_path",
            "is the path at which `Gateway::requests` is mounted, such as /requests",
        );
        checks.finish("the gateway's configuration is not usable")
    }

    /// How much of a lease is kept in reserve: an attempt is told to stop this long before its lease can end.
    pub(crate) fn margin(&self) -> Duration {
        self.lease / 10
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        self.lease / 3
    }
}

fn size(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

#[expect(clippy::expect_used, reason = "the text is 44 visible characters")]
fn unique_worker() -> WorkerId {
    WorkerId::new(format!("gateway-{}", uuid::Uuid::new_v4())).expect("a valid id")
}
