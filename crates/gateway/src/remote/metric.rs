//! Metrics of pools.

use super::{pool::Pool, replica::ReplicaState};
use crosspoint_core::TargetId;
use http::Uri;
use metrics::{counter, gauge};

const REPLICAS: &str = "crosspoint_dispatch_replicas";
const IN_FLIGHT: &str = "crosspoint_dispatch_replica_in_flight_requests";
const CALLS: &str = "crosspoint_dispatch_replica_calls_total";
const RETRIES: &str = "crosspoint_dispatch_replica_retries_total";
const EJECTIONS: &str = "crosspoint_dispatch_replica_ejections_total";

pub(super) fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge};
    describe_gauge!(REPLICAS, Unit::Count, "Replicas of a target by state.");
    describe_gauge!(
        IN_FLIGHT,
        Unit::Count,
        "Calls in flight at a replica, where replicas are labelled."
    );
    describe_counter!(CALLS, Unit::Count, "Attempts at replicas by how they ended.");
    describe_counter!(
        RETRIES,
        Unit::Count,
        "Calls that one replica had not started and another got."
    );
    describe_counter!(EJECTIONS, Unit::Count, "Replicas that were ejected for failing.");
}

/// Counts an attempt at a replica.
pub(super) fn called(pool: &Pool, replica: &Uri, outcome: &'static str) {
    let target = pool.target.as_str().to_owned();
    if pool.config.label_replicas {
        counter!(CALLS, "target" => target, "replica" => replica.to_string(), "outcome" => outcome).increment(1);
    } else {
        counter!(CALLS, "target" => target, "outcome" => outcome).increment(1);
    }
}

pub(super) fn retried(target: &TargetId) {
    counter!(RETRIES, "target" => target.as_str().to_owned()).increment(1);
}

pub(super) fn ejected(target: &TargetId) {
    counter!(EJECTIONS, "target" => target.as_str().to_owned()).increment(1);
}

/// Brings the gauges of a pool up to date.
pub(super) fn publish(pool: &Pool) {
    let target = || pool.target.as_str().to_owned();
    for state in ReplicaState::ALL {
        let count = u32::try_from(pool.count(*state)).unwrap_or(u32::MAX);
        gauge!(REPLICAS, "target" => target(), "state" => state.as_str()).set(f64::from(count));
    }
    if pool.config.label_replicas {
        for replica in pool.replicas().iter() {
            let gauge = gauge!(IN_FLIGHT, "target" => target(), "replica" => replica.base.to_string());
            gauge.set(f64::from(replica.in_flight()));
        }
    }
}
