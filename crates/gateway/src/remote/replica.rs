//! One replica: how busy it is, and whether it may be trusted with the next call.

use super::RemoteConfig;
use crate::wait::after;
use http::Uri;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// The smallest share of a replica that is warming up: a tenth.
const COLDEST: f64 = 0.1;

/// For how long a failure makes a replica less attractive, so that one that refuses at once, and is therefore always
/// the least loaded, does not draw all calls.
const WARY: Duration = Duration::from_secs(1);

/// After so long in service one ejection is forgotten.
const FORGIVEN: Duration = Duration::from_secs(30);

/// One replica of a pool.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) base: Uri,
    in_flight: AtomicU32,
    health: Mutex<Health>,
}

#[derive(Debug, Clone, Copy)]
struct Health {
    /// Since when its share grows.
    since: Instant,
    /// What the checks say; `None`: it was never checked.
    checked: Option<bool>,
    /// Whether checks decide at all.
    must_pass: bool,
    failed_checks: u32,
    failures: u32,
    failed_at: Instant,
    ejections: u32,
    ejected_until: Option<Instant>,
}

/// How a replica stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReplicaState {
    /// It gets calls.
    Serving,
    /// It failed too often in a row and gets none for a while.
    Ejected,
    /// Its health check fails, or has not passed yet.
    Down,
}

impl ReplicaState {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Serving, Self::Ejected, Self::Down];

    /// As in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Ejected => "ejected",
            Self::Down => "down",
        }
    }
}

impl Replica {
    pub(super) fn new(base: Uri, must_pass: bool) -> Self {
        let now = Instant::now();
        Self {
            base,
            in_flight: AtomicU32::new(0),
            health: Mutex::new(Health {
                since: now,
                checked: None,
                must_pass,
                failed_checks: 0,
                failures: 0,
                failed_at: now,
                ejections: 0,
                ejected_until: None,
            }),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self, now: Instant) -> ReplicaState {
        self.health().state(now)
    }

    /// How unattractive it is: calls in flight over its share, and recent failures. `None` if it gets no calls.
    pub(super) fn cost(&self, now: Instant, slow_start: Duration) -> Option<f64> {
        let health = self.health();
        if health.state(now) != ReplicaState::Serving {
            return None;
        }
        let wary = health.failures > 0 && now.saturating_duration_since(health.failed_at) < WARY;
        let doubt = if wary {
            f64::from(1_u32 << health.failures.min(6))
        } else {
            0.0
        };
        let share = health.share(now, slow_start);
        Some((f64::from(self.in_flight()) + 1.0 + doubt) / share)
    }

    /// Counts a call until the ticket is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Ticket {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Ticket(Arc::clone(self))
    }

    pub(super) fn succeeded(&self) {
        self.health().failures = 0;
    }

    /// Counts a failure; answers whether the replica is due to be ejected.
    pub(super) fn failed(&self, config: &RemoteConfig) -> bool {
        let mut health = self.health();
        health.failures = health.failures.saturating_add(1);
        health.failed_at = Instant::now();
        health.failures >= config.eject_after.max(1) && health.state(health.failed_at) == ReplicaState::Serving
    }

    /// Ejects it, for longer the more often that had to be done of late.
    pub(super) fn eject(&self, config: &RemoteConfig) -> Duration {
        let mut health = self.health();
        let now = Instant::now();
        let served = now.saturating_duration_since(health.since);
        let forgiven = u32::try_from(served.as_secs() / FORGIVEN.as_secs()).unwrap_or(u32::MAX);
        health.ejections = health.ejections.saturating_sub(forgiven).saturating_add(1);
        let length = config.eject_for.saturating_mul(health.ejections);
        let until = after(now, length);
        health.ejected_until = Some(until);
        health.failures = 0;
        // Its share begins to grow when it is back.
        health.since = until;
        length
    }

    /// Notes a health check; answers the new verdict if it has changed.
    pub(super) fn checked(&self, well: bool) -> Option<bool> {
        let mut health = self.health();
        health.failed_checks = if well {
            0
        } else {
            health.failed_checks.saturating_add(1)
        };
        let verdict = well || (health.checked == Some(true) && health.failed_checks < 2);
        let changed = health.checked != Some(verdict);
        health.checked = Some(verdict);
        if changed && verdict {
            health.since = Instant::now();
        }
        changed.then_some(verdict)
    }
}

impl Health {
    fn state(&self, now: Instant) -> ReplicaState {
        if self.must_pass && self.checked != Some(true) {
            ReplicaState::Down
        } else if self.ejected_until.is_some_and(|until| now < until) {
            ReplicaState::Ejected
        } else {
            ReplicaState::Serving
        }
    }

    fn share(&self, now: Instant, slow_start: Duration) -> f64 {
        let age = now.saturating_duration_since(self.since);
        if age >= slow_start {
            return 1.0;
        }
        (age.as_secs_f64() / slow_start.as_secs_f64()).max(COLDEST)
    }
}

/// A call in flight at a replica.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Replica>);

impl Ticket {
    pub(super) fn replica(&self) -> &Arc<Replica> {
        &self.0
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
