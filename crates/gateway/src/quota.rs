//! What one customer may take of what all share, and how an answer says that it has taken it.
//!
//! Calls that wait are counted by the store, for all processes together. Asking it for every diverted call would cost a read
//! each, so it is asked only about customers who could have reached their quota: while everything that waits for a target
//! is less than one customer may have, nobody has. What this process has stored since the last count is added. What others
//! have is seen with the next count of all (every 15 s) or, once a customer is asked about, within a second: by so much a quota
//! may be passed.

use crate::{gateway::Inner, http::whole_seconds};
use crosspoint_core::{Code, CustomerId, Error, LaneStats, Result, TargetId, TargetStats};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{
    collections::HashMap,
    error::Error as StdError,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How long a count of one customer's calls is believed.
const FRESH: Duration = Duration::from_secs(1);

/// How long a call waits for a count: it is a precaution, and the call has its own wait for the store before it.
const PATIENCE: Duration = Duration::from_millis(250);

/// More counts than this are looked through for old ones.
const MANY: usize = 1024;

/// A quota that a customer has used up: the cause of an error with [`Code::RateLimited`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    name: &'static str,
    unit: &'static str,
    limit: u64,
    message: &'static str,
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.name, self.limit, self.unit)
    }
}

impl StdError for Quota {}

impl Quota {
    const fn queued_calls(limit: u64) -> Self {
        Self {
            name: "queued-calls",
            unit: "requests",
            limit,
            message: "as many of the customer's calls wait as may; send it again when some of them have been answered",
        }
    }

    const fn queued_bytes(limit: u64) -> Self {
        Self {
            name: "queued-bytes",
            unit: "content-bytes",
            limit,
            message: "the customer's waiting calls take up as much as they may; send it again when some have been answered",
        }
    }

    pub(crate) const fn buffered(limit: u64) -> Self {
        Self {
            name: "buffered-bytes",
            unit: "content-bytes",
            limit,
            message: "too many of the customer's bodies are being read and stored; try again in a moment",
        }
    }

    pub(crate) const fn share(limit: u64) -> Self {
        Self {
            name: "share",
            unit: "concurrent-requests",
            limit,
            message: "the customer has its share of a busy target, and this call cannot wait in the queue",
        }
    }

    pub(crate) fn used_up(self) -> Error {
        let error = Error::new(Code::RateLimited, self.message);
        error.with("quota", self.name).with("limit", self.limit).caused_by(self)
    }

    /// The quota that an error is about.
    pub(crate) fn behind(error: &Error) -> Option<&Self> {
        StdError::source(error)?.downcast_ref()
    }

    /// Says in an answer what the quota is, and that nothing is left of it for so long.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, after: Duration) {
        let Self { name, unit, limit, .. } = self;
        let policy = format!("\"{name}\";q={limit};qu=\"{unit}\"");
        let left = format!("\"{name}\";r=0;t={}", whole_seconds(after));
        for (field, value) in [("ratelimit-policy", policy), ("ratelimit", left)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(field), value);
            }
        }
    }
}

/// What waits, as far as it is known.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashMap<TargetId, Line>>);

/// What waits for one target.
#[derive(Debug, Default)]
struct Line {
    all: LaneStats,
    customers: HashMap<CustomerId, Seen>,
}

/// What waited of one customer's.
#[derive(Debug)]
struct Seen {
    at: Instant,
    waits: LaneStats,
}

/// What is known about one more call.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    Fits,
    Full(Quota),
    /// Only the store can tell.
    Ask,
}

/// How much one customer may have waiting for a target.
#[derive(Debug, Clone, Copy)]
struct Most {
    calls: u64,
    bytes: u64,
}

impl Most {
    const fn quota(self, waits: LaneStats) -> Option<Quota> {
        if waits.ready >= self.calls {
            return Some(Quota::queued_calls(self.calls));
        }
        if waits.bytes >= self.bytes {
            return Some(Quota::queued_bytes(self.bytes));
        }
        None
    }

    const fn known(self, waits: LaneStats) -> Known {
        match self.quota(waits) {
            Some(quota) => Known::Full(quota),
            None => Known::Fits,
        }
    }
}

const fn and(waits: LaneStats, calls: u64, bytes: u64) -> LaneStats {
    LaneStats::new(waits.ready.saturating_add(calls), waits.bytes.saturating_add(bytes))
}

impl Waiting {
    /// The store has counted everything.
    pub(crate) fn counted(&self, stats: &[TargetStats]) {
        let mut lines = self.lock();
        for (target, line) in lines.iter_mut() {
            let counted = stats.iter().find(|stats| stats.target == *target);
            line.all = counted.map_or_else(LaneStats::default, |stats| LaneStats::new(stats.ready, stats.bytes));
        }
        for stats in stats {
            if !lines.contains_key(&stats.target) {
                let all = LaneStats::new(stats.ready, stats.bytes);
                let customers = HashMap::new();
                lines.insert(stats.target.clone(), Line { all, customers });
            }
        }
    }

    /// A call is about to be stored.
    pub(crate) fn comes(&self, target: &TargetId, customer: &CustomerId, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut lines = self.lock();
        if !lines.contains_key(target) {
            lines.insert(target.clone(), Line::default());
        }
        let Some(line) = lines.get_mut(target) else { return };
        line.all = and(line.all, 1, bytes);
        if let Some(seen) = line.customers.get_mut(customer) {
            seen.waits = and(seen.waits, 1, bytes);
        }
    }

    fn look(&self, target: &TargetId, customer: &CustomerId, most: Most) -> Known {
        let mut lines = self.lock();
        let Some(line) = lines.get_mut(target).filter(|line| most.quota(line.all).is_some()) else {
            return Known::Fits;
        };
        let now = Instant::now();
        if let Some(seen) = line.customers.get_mut(customer) {
            if now - seen.at < FRESH {
                return most.known(seen.waits);
            }
            // One call asks; those that come meanwhile go by what was known before.
            seen.at = now;
            return Known::Ask;
        }
        if line.customers.len() >= MANY {
            line.customers.retain(|_, seen| now - seen.at < FRESH);
        }
        let waits = LaneStats::default();
        line.customers.insert(customer.clone(), Seen { at: now, waits });
        Known::Ask
    }

    fn saw(&self, target: &TargetId, customer: &CustomerId, waits: LaneStats) {
        let mut lines = self.lock();
        let seen = lines.get_mut(target).and_then(|line| line.customers.get_mut(customer));
        if let Some(seen) = seen {
            seen.waits = waits;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TargetId, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether one more call of a customer may wait for a target.
    ///
    /// # Errors
    /// [`Code::RateLimited`], caused by a [`Quota`].
    pub(crate) async fn may_wait(&self, target: &TargetId, customer: &CustomerId) -> Result<()> {
        let most = Most {
            calls: self.config.max_queued_per_customer,
            bytes: self.config.max_queued_bytes_per_customer,
        };
        let known = match self.waiting.look(target, customer, most) {
            Known::Ask => {
                // A store without that side cannot count, and one that is in trouble says so when it is to take the call.
                let Some(admin) = self.store.admin() else { return Ok(()) };
                let counted = timeout(PATIENCE, admin.lane(target, customer)).await;
                let Ok(Ok(waits)) = counted else { return Ok(()) };
                self.waiting.saw(target, customer, waits);
                most.known(waits)
            }
            known => known,
        };
        match known {
            Known::Full(quota) => Err(quota.used_up().with("customer", customer)),
            Known::Fits | Known::Ask => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { calls: 3, bytes: 1000 };

    fn names() -> (TargetId, CustomerId) {
        (TargetId::new("scan").unwrap(), CustomerId::new("acme").unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_store_is_asked_once_a_second_about_whoever_could_be_full() {
        let (waiting, (target, customer)) = (Waiting::default(), names());
        for _ in 0..3 {
            assert_eq!(waiting.look(&target, &customer, MOST), Known::Fits);
            waiting.comes(&target, &customer, 10);
        }
        assert_eq!(waiting.look(&target, &customer, MOST), Known::Ask);
        assert_eq!(
            waiting.look(&target, &customer, MOST),
            Known::Fits,
            "while somebody asks"
        );
        waiting.saw(&target, &customer, LaneStats::new(2, 20));
        waiting.comes(&target, &customer, 10);
        let full = Known::Full(Quota::queued_calls(3));
        assert_eq!(waiting.look(&target, &customer, MOST), full);
        tokio::time::advance(FRESH).await;
        assert_eq!(waiting.look(&target, &customer, MOST), Known::Ask);
        assert_eq!(waiting.look(&target, &customer, MOST), full);
        waiting.counted(&[]);
        assert_eq!(
            waiting.look(&target, &customer, MOST),
            Known::Fits,
            "nothing waits at all"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_count_too_and_old_counts_are_forgotten() {
        let (waiting, (target, customer)) = (Waiting::default(), names());
        let mut stats = TargetStats::new(target.clone());
        stats.bytes = 5000;
        waiting.counted(&[stats]);
        for n in 0..MANY {
            let other = CustomerId::new(format!("c{n}")).unwrap();
            assert_eq!(waiting.look(&target, &other, MOST), Known::Ask);
        }
        tokio::time::advance(FRESH).await;
        assert_eq!(waiting.look(&target, &customer, MOST), Known::Ask);
        assert_eq!(waiting.lock()[&target].customers.len(), 1);
        waiting.saw(&target, &customer, LaneStats::new(1, 1000));
        assert_eq!(
            waiting.look(&target, &customer, MOST),
            Known::Full(Quota::queued_bytes(1000))
        );
    }

    #[test]
    fn an_answer_names_the_quota() {
        let error = Quota::queued_calls(7).used_up();
        let mut headers = HeaderMap::new();
        Quota::behind(&error)
            .unwrap()
            .tell(&mut headers, Duration::from_millis(1500));
        assert_eq!(headers["ratelimit-policy"], "\"queued-calls\";q=7;qu=\"requests\"");
        assert_eq!(headers["ratelimit"], "\"queued-calls\";r=0;t=2");
        assert!(Quota::behind(&Error::new(Code::RateLimited, "another")).is_none());
    }
}
