//! What can be set for a pool of replicas.

use super::SharedSecret;
use crate::{control::checks::Checks, millis};
use crosspoint_core::Result;
use std::time::Duration;

/// Settings of an [`HttpTarget`](super::HttpTarget). Each time limit bounds one thing. As JSON every duration is a whole
/// number of milliseconds under a name that ends in `_ms`; what is left out has its default.
///
/// ```
/// use crosspoint_gateway::remote::{HealthCheck, RemoteConfig, SharedSecret};
/// use std::time::Duration;
///
/// let mut config = RemoteConfig::default();
/// config.secret = Some(SharedSecret::new("0123456789abcdef0123456789abcdef")?);
/// config.head = Duration::from_secs(20);
/// config.check = Some(HealthCheck::new("/health"));
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RemoteConfig {
    /// The longest time to open a connection. A call whose connection was not opened was not started. Default 1 s.
    #[serde(rename = "connect_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub connect: Duration,
    /// The longest time from sending a call to the head of its response. What takes longer ends as unknown. Default 60 s.
    #[serde(rename = "head_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub head: Duration,
    /// The longest time for a whole call, from its first attempt to the last byte of its response. Default 5 min.
    #[serde(rename = "call_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub call: Duration,
    /// How long an idle connection is kept. Default 60 s; less than the replicas' own limit saves lost calls.
    #[serde(rename = "idle_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub idle: Duration,
    /// How many bytes of a request's body are kept while the call lasts, so that it can be sent to another replica or
    /// given to the queue. A body of which more has passed is not sent again. Default 256 KiB.
    pub keep: usize,
    /// The largest reply to a queued call, in bytes, when the target is registered as a handler. Default 1 MiB.
    pub max_reply: usize,
    /// After how many failures in a row a replica is ejected. Default 5.
    pub eject_after: u32,
    /// For how long, times the number of its recent ejections. Default 5 s. At most half of the replicas are ejected at
    /// once, and never the only one.
    #[serde(rename = "eject_for_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub eject_for: Duration,
    /// How long it takes until a replica that is new or returns gets its full share. Default 2 s; zero for at once.
    #[serde(rename = "slow_start_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub slow_start: Duration,
    /// Asks each replica regularly whether it is well. Default: no; only calls show it.
    pub check: Option<HealthCheck>,
    /// Proves to the replicas that calls come from this gateway; never part of the JSON. Default none.
    #[serde(skip)]
    pub secret: Option<SharedSecret>,
    /// Whether metrics of single replicas carry their address as a label. Default false.
    pub label_replicas: bool,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            head: Duration::from_secs(60),
            call: Duration::from_secs(300),
            idle: Duration::from_secs(60),
            keep: 256 * 1024,
            max_reply: 1024 * 1024,
            eject_after: 5,
            eject_for: Duration::from_secs(5),
            slow_start: Duration::from_secs(2),
            check: None,
            secret: None,
            label_replicas: false,
        }
    }
}

impl RemoteConfig {
    /// Checks that the settings make sense; [`HttpTarget::new`](super::HttpTarget::new) does it too.
    ///
    /// ```
    /// use crosspoint_gateway::remote::{HealthCheck, RemoteConfig};
    ///
    /// let mut config = RemoteConfig::default();
    /// (config.eject_after, config.check) = (0, Some(HealthCheck::new("health")));
    /// let error = config.validate().unwrap_err();
    /// let pointers: Vec<_> = error.problems().iter().map(|problem| problem.pointer.as_str()).collect();
    /// assert_eq!(pointers, ["/eject_after", "/check/path"]);
    /// ```
    ///
    /// # Errors
    /// [`Code::SetupInvalid`](crosspoint_core::Code::SetupInvalid) with every problem, each with a JSON pointer.
    pub fn validate(&self) -> Result<()> {
        let mut checks = Checks::default();
        for (length, pointer) in [
            (self.connect, "/connect_ms"),
            (self.head, "/head_ms"),
            (self.call, "/call_ms"),
        ] {
            checks.check(length >= LEAST, pointer, "is at least 1: no call is made in no time");
        }
        checks.check(
            self.eject_after >= 1,
            "/eject_after",
            "is at least 1: with 0 replicas would be ejected for nothing",
        );
        if let Some(check) = &self.check {
            let path = check.path.parse::<http::uri::PathAndQuery>();
            checks.check(
                path.is_ok() && check.path.starts_with('/'),
                "/check/path",
                "is a path on the replica, such as /health",
            );
            let message = "is at least 1: replicas are asked again and again";
            checks.check(check.interval >= LEAST, "/check/interval_ms", message);
            let message = "is at least 1: no replica answers in no time";
            checks.check(check.timeout >= LEAST, "/check/timeout_ms", message);
        }
        checks.finish("the configuration of the pool of replicas is not usable")
    }
}

const LEAST: Duration = Duration::from_millis(1);

/// Asking replicas whether they are well. A replica gets no calls until its first check has passed, and none from the
/// second failure in a row until one passes again.
///
/// ```
/// use crosspoint_gateway::remote::HealthCheck;
/// let check = HealthCheck::new("/health");
/// assert_eq!(check.interval.as_secs(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HealthCheck {
    /// What is asked for with `GET`; a status of 2xx means well.
    pub path: String,
    /// The pause between two checks of a replica. Default 1 s.
    #[serde(rename = "interval_ms", with = "millis", default = "second")]
    #[schemars(with = "u64")]
    pub interval: Duration,
    /// The longest time for one check, connecting included. Default 1 s.
    #[serde(rename = "timeout_ms", with = "millis", default = "second")]
    #[schemars(with = "u64")]
    pub timeout: Duration,
}

impl HealthCheck {
    /// Checks this path every second.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            interval: second(),
            timeout: second(),
        }
    }
}

const fn second() -> Duration {
    Duration::from_secs(1)
}
