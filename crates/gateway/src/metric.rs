//! The metrics of dispatch, through the `metrics` facade: the host chooses the exporter. No label names a customer.

use crate::{
    gate::{Readings, State},
    gateway::Inner,
};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::{sync::Weak, time::Duration};

const REQUESTS: &str = "crosspoint_dispatch_requests_total";
const DURATION: &str = "crosspoint_dispatch_duration_seconds";
const IN_FLIGHT: &str = "crosspoint_dispatch_in_flight_requests";
const LIMIT: &str = "crosspoint_dispatch_concurrency_limit";
const UTILIZATION: &str = "crosspoint_dispatch_utilization_ratio";
const MESSAGES: &str = "crosspoint_dispatch_queue_messages";
const BYTES: &str = "crosspoint_dispatch_queue_bytes";
const OLDEST: &str = "crosspoint_dispatch_queue_oldest_age_seconds";
const WAIT: &str = "crosspoint_dispatch_queue_wait_seconds";
const HELD: &str = "crosspoint_dispatch_held_connections";
const GATE: &str = "crosspoint_dispatch_gate_state";
const TRANSITIONS: &str = "crosspoint_dispatch_gate_transitions_total";
const COOL_OFFS: &str = "crosspoint_dispatch_cooloff_entries_total";
const DEMAND: &str = "crosspoint_dispatch_demand_concurrency";
const DEGRADED: &str = "crosspoint_dispatch_degraded";
const REDELIVERIES: &str = "crosspoint_dispatch_redeliveries_total";
const DUPLICATES: &str = "crosspoint_dispatch_duplicate_completions_total";

/// How often the gauges of the gates are brought up to date.
const PERIOD: Duration = Duration::from_secs(1);

/// How often the store is asked to count: it may have to read every call that it keeps.
const COUNT_PERIOD: Duration = Duration::from_secs(15);

/// How a call was answered, as in the label `path`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Path {
    Queued,
    Accepted,
    Rejected,
    Unknown,
}

impl Path {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }
}

pub(crate) fn describe() {
    describe_counter!(
        REQUESTS,
        Unit::Count,
        "Calls by how they were answered and why they were diverted."
    );
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Time to the answer: of direct calls that succeeded the time at the target, of diverted ones the time since they came."
    );
    describe_gauge!(
        IN_FLIGHT,
        Unit::Count,
        "Calls that run now, direct and queued together."
    );
    describe_gauge!(LIMIT, Unit::Count, "Calls that may run at once.");
    describe_gauge!(UTILIZATION, "Calls that run, as a share of the limit.");
    describe_gauge!(
        MESSAGES,
        Unit::Count,
        "Stored calls: held and sideline wait for a worker."
    );
    describe_gauge!(
        BYTES,
        Unit::Bytes,
        "Size of the stored requests that wait for a worker."
    );
    describe_gauge!(OLDEST, Unit::Seconds, "Age of the oldest call that is ready.");
    describe_histogram!(WAIT, Unit::Seconds, "Time from being ready to being leased.");
    describe_gauge!(HELD, Unit::Count, "Clients that are kept waiting for a queued answer.");
    describe_gauge!(GATE, "1 for the state that the gate is in.");
    describe_counter!(TRANSITIONS, Unit::Count, "Changes of a gate's state, with the reason.");
    describe_counter!(
        COOL_OFFS,
        Unit::Count,
        "Times that a target was left alone, with the reason."
    );
    describe_gauge!(
        DEMAND,
        Unit::Count,
        "Calls at once that would answer all arrivals and work the backlog off within 30 s."
    );
    describe_gauge!(
        DEGRADED,
        "1 while a target is far slower than normal and more calls at once bring nothing."
    );
    describe_counter!(
        REDELIVERIES,
        Unit::Count,
        "Leases that were not the first of their call."
    );
    describe_counter!(DUPLICATES, Unit::Count, "Results that came too late to be stored.");
}

/// Counts a call that did not go the direct way.
pub(crate) fn answered(target: &str, path: Path, reason: &'static str, after: Duration) {
    let target = target.to_owned();
    counter!(REQUESTS, "target" => target.clone(), "path" => path.as_str(), "reason" => reason).increment(1);
    histogram!(DURATION, "target" => target, "path" => path.as_str()).record(after.as_secs_f64());
}

/// Records the latencies of direct calls that the gate has seen since the last time.
pub(crate) fn direct(target: &str, seen: &Readings) {
    let direct = direct_latencies(seen);
    if direct.is_empty() {
        return;
    }
    let histogram = histogram!(DURATION, "target" => target.to_owned(), "path" => "direct");
    for (seconds, count) in direct {
        histogram.record_many(seconds, usize::try_from(count).unwrap_or(usize::MAX));
    }
}

/// All latencies without those of calls from the queue, which are timed from their arrival instead.
fn direct_latencies(seen: &Readings) -> Vec<(f64, u32)> {
    let mut all: Vec<(f64, u32)> = Vec::new();
    for (seconds, count) in seen.classes.iter().flat_map(|class| &class.buckets) {
        match all.iter_mut().find(|(known, _)| known == seconds) {
            Some((_, sum)) => *sum = sum.saturating_add(*count),
            None => all.push((*seconds, *count)),
        }
    }
    for (seconds, drained) in &seen.drained_latencies {
        if let Some((_, sum)) = all.iter_mut().find(|(known, _)| known == seconds) {
            *sum = sum.saturating_sub(*drained);
        }
    }
    all.retain(|(_, count)| *count > 0);
    all
}

/// Counts a lease that arrived.
pub(crate) fn leased(target: &str, attempt: u32, waited: Duration) {
    histogram!(WAIT, "target" => target.to_owned()).record(waited.as_secs_f64());
    if attempt > 1 {
        counter!(REDELIVERIES, "target" => target.to_owned()).increment(1);
    }
}

/// Counts a change of a gate's state.
pub(crate) fn transition(target: &str, from: State, to: State, reason: &'static str) {
    let target = target.to_owned();
    let (from, entered) = (from.as_str(), to.as_str());
    counter!(TRANSITIONS, "target" => target.clone(), "from" => from, "to" => entered, "reason" => reason).increment(1);
    if to == State::CoolOff {
        counter!(COOL_OFFS, "target" => target, "reason" => reason).increment(1);
    }
}

/// Says whether a target is far too slow.
pub(crate) fn degraded(target: &str, degraded: bool) {
    gauge!(DEGRADED, "target" => target.to_owned()).set(f64::from(u8::from(degraded)));
}

/// Counts a result that the store refused as stale.
pub(crate) fn stale(target: &str) {
    counter!(DUPLICATES, "target" => target.to_owned()).increment(1);
}

/// Brings the gauges of the gates up to date until the gateway is gone.
pub(crate) async fn publish_always(gateway: Weak<Inner>) {
    if let Some(inner) = gateway.upgrade() {
        inner.publish();
    }
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(inner) = gateway.upgrade() else { return };
        inner.publish();
    }
}

/// Brings the gauges of the queues up to date until the gateway is gone.
pub(crate) async fn count_always(gateway: Weak<Inner>) {
    let mut pause = Duration::ZERO;
    loop {
        tokio::time::sleep(pause).await;
        pause = COUNT_PERIOD;
        let Some(inner) = gateway.upgrade() else { return };
        let store = std::sync::Arc::clone(&inner.store);
        let now = inner.clock.now();
        drop(inner);
        let Some(admin) = store.admin() else { continue };
        let Ok(stats) = admin.stats().await else { continue };
        let Some(inner) = gateway.upgrade() else { return };
        for target in inner.all() {
            let own = stats.iter().find(|stat| stat.target == target.id);
            target.control.backlog().counted(own.map_or(0, |stat| stat.ready));
        }
        inner.waiting.counted(&stats);
        drop(inner);
        for stat in stats {
            let target = stat.target.as_str().to_owned();
            for (queue, count) in [
                ("held", stat.held),
                ("sideline", stat.ready.saturating_sub(stat.held)),
                ("delayed", stat.delayed),
                ("leased", stat.leased),
                ("dead", stat.dead),
            ] {
                gauge!(MESSAGES, "target" => target.clone(), "queue" => queue).set(exact(count));
            }
            gauge!(BYTES, "target" => target.clone()).set(large(stat.bytes));
            let age = stat.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
            gauge!(OLDEST, "target" => target).set(age.as_secs_f64());
        }
    }
}

impl Inner {
    /// Publishes what the gates say; the hot path itself never touches a metric.
    pub(crate) fn publish(&self) {
        gauge!(HELD).set(exact(self.seats.taken() as u64));
        for target in self.all() {
            let name = || target.id.as_str().to_owned();
            let gate = target.gate.snapshot();
            counter!(REQUESTS, "target" => name(), "path" => "direct", "reason" => "").absolute(gate.admitted);
            gauge!(IN_FLIGHT, "target" => name()).set(f64::from(gate.in_flight));
            gauge!(LIMIT, "target" => name()).set(f64::from(gate.limit));
            gauge!(UTILIZATION, "target" => name()).set(f64::from(gate.counted()) / f64::from(gate.limit.max(1)));
            gauge!(DEMAND, "target" => name()).set(target.control.demand());
            for state in State::ALL {
                let on = f64::from(u8::from(*state == gate.state));
                gauge!(GATE, "target" => name(), "state" => state.as_str()).set(on);
            }
            gauge!(GATE, "target" => name(), "state" => "unavailable").set(f64::from(u8::from(!gate.available)));
        }
    }
}

/// A count as a gauge; above 2^32 the figure is no longer of interest.
fn exact(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Bytes as a gauge, exact up to 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge; beyond nine petabytes the last digits are of no interest"
)]
const fn large(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{ClassReading, RouteClass};
    use std::collections::BTreeSet;

    #[test]
    fn direct_latencies_are_those_that_did_not_come_from_the_queue() {
        let class = |id, buckets: &[(f64, u32)]| ClassReading {
            class: RouteClass::at(id),
            count: 0,
            sum: 0.0,
            buckets: buckets.to_vec(),
        };
        let mut seen = Readings::default();
        assert!(direct_latencies(&seen).is_empty());
        seen.classes = vec![class(0, &[(0.1, 3), (0.2, 1)]), class(2, &[(0.1, 2), (0.4, 16)])];
        assert_eq!(direct_latencies(&seen), [(0.1, 5), (0.2, 1), (0.4, 16)]);
        seen.drained_latencies = vec![(0.1, 4), (0.2, 1)];
        assert_eq!(direct_latencies(&seen), [(0.1, 1), (0.4, 16)]);
    }

    /// All names that follow the prefix somewhere in a text.
    fn names(text: &str) -> BTreeSet<&str> {
        let after = text.split("crosspoint_dispatch_").skip(1);
        let names = after.filter_map(|rest| rest.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).next());
        names.filter(|name| !name.is_empty()).collect()
    }

    #[test]
    fn the_guide_names_every_metric_and_no_other() {
        let sources = concat!(include_str!("metric.rs"), include_str!("remote/metric.rs"));
        let declared = sources.lines().filter(|line| line.starts_with("const "));
        let declared: String = declared.collect();
        assert!(names(&declared).len() > 20);
        assert_eq!(names(&declared), names(include_str!("../GUIDE.md")));
    }
}
