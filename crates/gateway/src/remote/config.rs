//! What can be set for a pool of replicas.

use super::SharedSecret;
use std::time::Duration;

/// Settings of an [`HttpTarget`](super::HttpTarget). Each time limit bounds one thing.
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
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RemoteConfig {
    /// The longest time to open a connection. A call whose connection was not opened was not started. Default 1 s.
    pub connect: Duration,
    /// The longest time from sending a call to the head of its response. What takes longer ends as unknown. Default 60 s.
    pub head: Duration,
    /// The longest time for a whole call, from its first attempt to the last byte of its response. Default 5 min.
    pub call: Duration,
    /// How long an idle connection is kept. Default 60 s; less than the replicas' own limit saves lost calls.
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
    pub eject_for: Duration,
    /// How long it takes until a replica that is new or returns gets its full share. Default 2 s; zero for at once.
    pub slow_start: Duration,
    /// Asks each replica regularly whether it is well. Default: no; only calls show it.
    pub check: Option<HealthCheck>,
    /// Proves to the replicas that calls come from this gateway. Default none.
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

/// Asking replicas whether they are well. A replica gets no calls until its first check has passed, and none from the
/// second failure in a row until one passes again.
///
/// ```
/// use crosspoint_gateway::remote::HealthCheck;
/// let check = HealthCheck::new("/health");
/// assert_eq!(check.interval.as_secs(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthCheck {
    /// What is asked for with `GET`; a status of 2xx means well.
    pub path: String,
    /// The pause between two checks of a replica. Default 1 s.
    pub interval: Duration,
    /// The longest time for one check, connecting included. Default 1 s.
    pub timeout: Duration,
}

impl HealthCheck {
    /// Checks this path every second.
    #[must_use]
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
        }
    }
}
