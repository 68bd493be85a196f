//! Where a call stands in its queue: a guess from the length of the queue and the age of its oldest call.
//!
//! Exact positions would mean reading the whole queue, and would still be wrong a moment later: customers take turns. If
//! calls arrive evenly, a call that has waited a third as long as the oldest one has two thirds of the queue before it, and
//! the rest of the oldest one's wait ahead of it.

use crate::{gateway::Inner, target::Target};
use crosspoint_core::{DispatchStore, TargetId, TargetStats, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{sync::Mutex, time::Instant};

/// Counts older than this are taken anew.
const FRESH: Duration = Duration::from_secs(1);

/// A guess; answers mark it as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Estimate {
    /// 1 for the next.
    position: u64,
    begins_in: Duration,
}

impl Estimate {
    /// For a call that was accepted at `created` and has not begun.
    pub(crate) fn of(stats: &TargetStats, created: Timestamp, now: Timestamp) -> Option<Self> {
        let oldest = now.since(stats.oldest?);
        let begins_in = oldest.saturating_sub(now.since(created));
        let others = stats.ready.checked_sub(1)?;
        // Whole numbers throughout: a queue has fewer than 2^64 calls, and an age fewer than 2^64 milliseconds.
        let share = |of: u64| u128::from(of) * begins_in.as_millis() / oldest.as_millis().max(1);
        Some(Self {
            position: u64::try_from(share(others)).unwrap_or(others).saturating_add(1),
            begins_in,
        })
    }

    /// How many are before it.
    pub(crate) fn ahead(self) -> usize {
        usize::try_from(self.position.saturating_sub(1)).unwrap_or(usize::MAX)
    }

    pub(crate) fn to_json(self) -> Value {
        let seconds = self.begins_in.as_millis().div_ceil(1000).max(1);
        json!({ "position": self.position, "seconds": u64::try_from(seconds).unwrap_or(u64::MAX) })
    }
}

/// No client is told to stay away for longer: capacity grows in a spike.
const LONGEST: Duration = Duration::from_secs(60);

impl Inner {
    /// When a client with 202 should ask: when a call with `ahead` others before it will probably have been answered. While
    /// nothing is known of the target, the configured time.
    pub(crate) fn ask_after(&self, target: &Target, ahead: usize) -> Duration {
        let forecast = target.control.forecast();
        let service = forecast.service_time();
        if service.is_zero() {
            return self.retry_after();
        }
        let answered = forecast.wait(ahead).saturating_add(service);
        answered.clamp(Duration::from_secs(1), LONGEST)
    }
}

/// The counts of the store, taken at most once in a second however many clients ask.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Option<(Instant, Vec<TargetStats>)>>);

impl Counts {
    /// `None` if the store has none, or cannot be asked.
    pub(crate) async fn of(&self, store: &dyn DispatchStore, target: &TargetId) -> Option<TargetStats> {
        let admin = store.admin()?;
        let mut kept = self.0.lock().await;
        let counts = match kept.take().filter(|(taken, _)| taken.elapsed() < FRESH) {
            Some(counts) => counts,
            None => (Instant::now(), admin.stats().await.ok()?),
        };
        let found = counts.1.iter().find(|stats| stats.target == *target).cloned();
        *kept = Some(counts);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(ready: u64, oldest: u64, waited: u64) -> Option<Value> {
        let now = Timestamp::from_millis(1_000_000);
        let mut stats = TargetStats::new(TargetId::new("scan").unwrap());
        stats.ready = ready;
        stats.oldest = Some(now.minus(Duration::from_secs(oldest)));
        let created = now.minus(Duration::from_secs(waited));
        Estimate::of(&stats, created, now).map(Estimate::to_json)
    }

    #[test]
    fn the_longer_it_has_waited_the_fewer_are_before_it() {
        assert_eq!(estimate(31, 60, 0), Some(json!({ "position": 31, "seconds": 60 })));
        assert_eq!(estimate(31, 60, 20), Some(json!({ "position": 21, "seconds": 40 })));
        assert_eq!(estimate(31, 60, 60), Some(json!({ "position": 1, "seconds": 1 })));
        assert_eq!(estimate(1, 0, 0), Some(json!({ "position": 1, "seconds": 1 })));
        assert_eq!(estimate(0, 0, 0), None, "it has begun meanwhile");
    }
}
