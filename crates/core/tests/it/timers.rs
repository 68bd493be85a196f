//! Waiting workers under paused time: the store's own timers wake them.

#![cfg(test)]

use crosspoint_core::{Clock, Enqueue, LeaseRequest, LeaseTerms, Memory, Store, TargetId, WorkerId};
use crosspoint_testkit::{LEASE, VirtualClock, envelope};
use std::{sync::Arc, time::Duration};

fn virtual_store() -> (Store, Arc<VirtualClock>) {
    let clock = Arc::new(VirtualClock::new());
    (Memory::with_clock(clock.clone()).into(), clock)
}

fn patient() -> LeaseRequest {
    let terms = LeaseTerms::new(WorkerId::new("patient").unwrap(), LEASE);
    let mut request = LeaseRequest::new(TargetId::new("target").unwrap(), terms, 1);
    request.wait = Duration::from_secs(3600);
    request
}

#[tokio::test(start_paused = true)]
async fn a_waiting_worker_gets_a_delayed_call_when_it_is_due() {
    let (store, clock) = virtual_store();
    let due = clock.now().plus(Duration::from_secs(600));
    let mut call = envelope::service(&*clock, "target", "acme");
    call.not_before = Some(due);
    store.dispatch.enqueue(vec![Enqueue::queued(call)]).await.unwrap();
    let leases = store.dispatch.lease(patient()).await.unwrap();
    assert_eq!(leases.len(), 1);
    assert!(
        clock.now().since(due) < Duration::from_secs(1),
        "not later than it must be"
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_worker_takes_over_when_a_lease_is_lost() {
    let (store, clock) = virtual_store();
    let flow = envelope::flow(&*clock, "target", "acme");
    let lost = LeaseTerms::new(WorkerId::new("lost").unwrap(), LEASE);
    store.dispatch.enqueue(vec![Enqueue::leased(flow, lost)]).await.unwrap();
    let start = clock.now();
    let leases = store.dispatch.lease(patient()).await.unwrap();
    assert_eq!(leases.first().map(|lease| lease.attempt), Some(2));
    let waited = clock.now().since(start);
    assert!(waited >= LEASE && waited < LEASE * 2, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_it_said() {
    let (store, clock) = virtual_store();
    let start = clock.now();
    assert!(store.dispatch.lease(patient()).await.unwrap().is_empty());
    assert_eq!(clock.now().since(start), Duration::from_secs(3600));
}
