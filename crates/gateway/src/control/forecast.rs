//! When a queued call will have its turn.
//!
//! The estimate is the limit over the baseline service time, and not a rate of completions: such a rate sees what
//! arrived before a spike and lags behind the growth of the target.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// The share of permits that the sideline has even while held calls wait.
const SIDELINE: f64 = 0.02;
/// What an estimated wait is multiplied with before it is compared: below 1 because capacity grows in a spike.
const SAFETY: f64 = 0.9;
/// How much of its hold a call needs for itself, in service times, until more is known.
const MARGIN: f64 = 2.0;

/// What the control of a target expects, written by its tick and read by whoever holds a call. Reads take no lock.
#[derive(Debug)]
pub(crate) struct Forecast {
    began: Instant,
    /// Seconds, as bits of an `f64`; 0 while nothing is known.
    service: AtomicU64,
    /// How many service times a slow call takes.
    tail: AtomicU64,
    /// The limit that a backlog is worked off with: the present one, or the last good one while the target recovers.
    limit: AtomicU64,
    /// When the cool-off ends, in nanoseconds since `began`; 0 outside of one.
    closed_until: AtomicU64,
}

impl Forecast {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            began: Instant::now(),
            service: AtomicU64::new(0),
            tail: AtomicU64::new(MARGIN.to_bits()),
            limit: AtomicU64::new(f64::from(limit.max(1)).to_bits()),
            closed_until: AtomicU64::new(0),
        }
    }

    /// The baseline service time of the present mix of calls; zero while nothing is known.
    pub(crate) fn service_time(&self) -> Duration {
        Duration::try_from_secs_f64(self.service()).unwrap_or_default()
    }

    /// What a call needs for itself before its hold ends: nearly all calls take less now. Whatever has less left is
    /// hopeless.
    pub(crate) fn margin(&self) -> Duration {
        Duration::try_from_secs_f64(self.margin_seconds()).unwrap_or_default()
    }

    fn margin_seconds(&self) -> f64 {
        f64::from_bits(self.tail.load(Ordering::Relaxed)) * self.service()
    }

    /// How long a call with `ahead` others before it will wait for its turn. Zero while nothing is known.
    pub(crate) fn wait(&self, ahead: usize) -> Duration {
        let service = self.service();
        let limit = f64::from_bits(self.limit.load(Ordering::Relaxed)).max(1.0);
        let turn = (ahead as f64 + 1.0) * service / limit / (1.0 - SIDELINE);
        let closed = match self.closed_until.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            until => Duration::from_nanos(until).saturating_sub(self.began.elapsed()),
        };
        Duration::try_from_secs_f64(turn)
            .unwrap_or(Duration::MAX)
            .saturating_add(closed)
    }

    /// Whether a call with `ahead` others before it will be answered within `left`. With
    /// [`HoldOrder::Predictive`](crate::HoldOrder::Predictive) a call for which this is false is answered 202 at once;
    /// the other orders do not ask.
    pub(crate) fn may_hold(&self, ahead: usize, left: Duration) -> bool {
        let needed = self.wait(ahead).as_secs_f64() * SAFETY + self.margin_seconds();
        needed <= left.as_secs_f64()
    }

    fn service(&self) -> f64 {
        f64::from_bits(self.service.load(Ordering::Relaxed))
    }

    pub(super) fn set_service(&self, seconds: f64) {
        self.service.store(seconds.max(0.0).to_bits(), Ordering::Relaxed);
    }

    pub(super) fn set_tail(&self, service_times: f64) {
        self.tail.store(service_times.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn set_limit(&self, limit: f64) {
        self.limit.store(limit.to_bits(), Ordering::Relaxed);
    }

    /// `None` outside of a cool-off.
    pub(super) fn set_closed_until(&self, until: Option<Instant>) {
        let nanos = until.map_or(0, |until| {
            let since = until.saturating_duration_since(self.began).as_nanos();
            u64::try_from(since).unwrap_or(u64::MAX).max(1)
        });
        self.closed_until.store(nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(service: f64, limit: f64) -> Forecast {
        let forecast = Forecast::new(20);
        forecast.set_service(service);
        forecast.set_limit(limit);
        forecast
    }

    #[tokio::test(start_paused = true)]
    async fn waits_follow_from_limit_and_service_time() {
        for (ahead, service, limit, wanted) in [
            (0, 0.05, 16.0, 0.003_189),
            (319, 0.05, 16.0, 1.020_408),
            (319, 0.05, 32.0, 0.510_204),
            (9, 2.0, 2.0, 10.204_081),
            (1000, 0.0, 16.0, 0.0),
        ] {
            let wait = forecast(service, limit).wait(ahead).as_secs_f64();
            assert!((wait - wanted).abs() < 1e-5, "{ahead} {service} {limit}: {wait}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_held_if_its_turn_and_its_own_time_fit() {
        let forecast = forecast(0.05, 16.0);
        let left = Duration::from_secs(10);
        // (n + 1) × 0.05 / 16 / 0.98 × 0.9 + 0.1 = 10
        assert!(forecast.may_hold(3448, left));
        assert!(!forecast.may_hold(3449, left));
        assert!(
            !forecast.may_hold(0, Duration::from_millis(90)),
            "no time for the call itself"
        );
        forecast.set_tail(4.0);
        assert!(!forecast.may_hold(3448, left), "calls take longer now");
        assert_eq!(forecast.margin(), Duration::from_millis(200));
        assert!(
            Forecast::new(20).may_hold(100_000, left),
            "nothing is known: the hold itself will tell"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_a_cool_off_counts() {
        let forecast = forecast(0.05, 16.0);
        forecast.set_closed_until(Some(Instant::now() + Duration::from_secs(1)));
        assert!(forecast.wait(0) > Duration::from_secs(1));
        tokio::time::advance(Duration::from_millis(600)).await;
        assert!(forecast.wait(0) < Duration::from_millis(410));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(forecast.wait(0) < Duration::from_millis(10));
        forecast.set_closed_until(None);
        assert!(forecast.wait(0) < Duration::from_millis(10));
    }
}
