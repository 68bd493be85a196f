//! What a target is asked for: how many calls at once would be needed to answer everything, and the backlog soon.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Over how many seconds the arrival rate is averaged.
const RATE_TAU: f64 = 3.0;
/// Within how many seconds the backlog should be worked off.
const BACKLOG_SECONDS: f64 = 30.0;

/// Concurrency that the arrivals (per second) and the backlog (calls) need at a service time (seconds).
pub(super) fn concurrency(arrival_rate: f64, backlog: f64, service: f64) -> f64 {
    (arrival_rate + backlog / BACKLOG_SECONDS).max(0.0) * service
}

/// An average of arrivals per second.
#[derive(Debug, Default)]
pub(super) struct ArrivalRate(f64);

impl ArrivalRate {
    /// The rate after `arrived` more calls within `seconds`.
    pub(super) fn update(&mut self, arrived: u64, seconds: f64) -> f64 {
        if seconds > 0.0 {
            let follow = 1.0 - (-seconds / RATE_TAU).exp();
            self.0 += follow * (arrived as f64 / seconds - self.0);
        }
        self.0
    }
}

/// This process's share of a target's queue, such that the sum over all processes is the queue.
///
/// It counts what this process stored minus what it started, which is negative in a process that works off what others
/// stored. Counts of the store, which come rarely, set it right: a share is never above the whole queue, never below
/// nothing, and an empty queue has no shares. What is queued when a process starts is taken for its own, so that
/// nothing is forgotten after a restart; when several processes start over one backlog, each asks for it until the queue
/// has been empty once.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    own: AtomicI64,
    /// All that this process has stored since its start.
    total: AtomicU64,
    counted: AtomicBool,
}

impl Backlog {
    /// This process has put calls into the queue.
    pub(crate) fn stored(&self, calls: usize) {
        self.total
            .fetch_add(u64::try_from(calls).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.own
            .fetch_add(i64::try_from(calls).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// This process has taken calls out of the queue.
    pub(crate) fn started(&self, calls: usize) {
        self.own
            .fetch_sub(i64::try_from(calls).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// The store has counted the queue. Calls stored or started since the count are wrong by as much until the next.
    pub(crate) fn counted(&self, queue: u64) {
        let queue = i64::try_from(queue).unwrap_or(i64::MAX);
        if self.counted.swap(true, Ordering::Relaxed) {
            // A lost race against `stored` or `started` is put right by the next count.
            self.own.store(self.own().clamp(0, queue), Ordering::Relaxed);
        } else {
            self.own.store(queue, Ordering::Relaxed);
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(crate) fn own(&self) -> i64 {
        self.own.load(Ordering::Relaxed)
    }
}

/// The published figure.
#[derive(Debug, Default)]
pub(super) struct Demand(AtomicU64);

impl Demand {
    pub(super) fn set(&self, concurrency: f64) {
        self.0.store(concurrency.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small positive numbers of a test"
)]
mod tests {
    use super::*;

    #[test]
    fn demand_is_a_concurrency() {
        for (rate, backlog, service, wanted) in [
            (160.0, 0.0, 0.05, 8.0),
            (160.0, 3000.0, 0.05, 13.0),
            (1.0, 30.0, 10.0, 20.0),
            (1.0, -900.0, 10.0, 0.0),
        ] {
            let demand = concurrency(rate, backlog, service);
            assert!((demand - wanted).abs() < 1e-9, "{rate} {backlog} {service}: {demand}");
        }
    }

    #[test]
    fn the_rate_follows_whatever_the_tick_was() {
        for seconds in [0.05, 0.1, 1.0] {
            let mut rate = ArrivalRate::default();
            let steps = (6.0 / seconds) as u32;
            let last = (0..steps).fold(0.0, |_, _| rate.update((100.0 * seconds) as u64, seconds));
            assert!(
                (last - 86.5).abs() < 0.2,
                "after two time constants at {seconds}: {last}"
            );
        }
    }

    #[test]
    fn shares_add_up_to_the_queue() {
        let (gateway, worker) = (Backlog::default(), Backlog::default());
        gateway.counted(0);
        worker.counted(0);
        gateway.stored(1000);
        worker.started(400);
        assert_eq!(gateway.own() + worker.own(), 600);
        assert_eq!((gateway.total(), worker.total()), (1000, 0));
        gateway.counted(600);
        worker.counted(600);
        assert_eq!((gateway.own(), worker.own()), (600, 0));
        worker.started(600);
        gateway.counted(0);
        worker.counted(0);
        assert_eq!((gateway.own(), worker.own()), (0, 0));
    }

    #[test]
    fn what_was_queued_before_a_start_is_not_forgotten() {
        let backlog = Backlog::default();
        backlog.counted(5000);
        assert_eq!(backlog.own(), 5000);
        backlog.started(200);
        backlog.counted(7000);
        assert_eq!(backlog.own(), 4800, "what others have stored is theirs");
    }
}
