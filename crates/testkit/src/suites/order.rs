//! Who goes first: lanes of customers, priorities, ordering keys.

use super::T;
use crate::{Harness, envelope, harness};
use crosspoint_core::{CallState, CustomerId, Enqueue, InvocationId, Settle, Settled};
use std::{collections::HashMap, time::Duration};

async fn served(h: &Harness, n: usize) -> HashMap<CustomerId, usize> {
    let mut served = HashMap::new();
    for _ in 0..n {
        let lease = h.take(T).await;
        *served.entry(lease.envelope.customer().clone()).or_default() += 1;
        h.complete(lease.reference, "ok").await;
    }
    served
}

fn of(served: &HashMap<CustomerId, usize>, customer: &str) -> usize {
    served.get(&CustomerId::new(customer).unwrap()).copied().unwrap_or(0)
}

async fn fill(h: &Harness, customer: &str, n: usize) {
    for _ in 0..n {
        h.queue(h.service(T, customer)).await;
    }
}

/// Within a lane calls go in the order in which they were stored.
pub async fn a_lane_is_served_in_order(h: &Harness) {
    let mut stored = Vec::new();
    for _ in 0..5 {
        stored.push(h.queue(h.service(T, "acme")).await);
    }
    let mut taken = Vec::new();
    for _ in 0..5 {
        taken.push(h.take(T).await.envelope.id());
    }
    assert_eq!(taken, stored);
}

/// A customer with little work does not wait behind one with much.
pub async fn customers_take_turns(h: &Harness) {
    if !h.store.dispatch.capabilities().fairness {
        return;
    }
    fill(h, "acme", 20).await;
    fill(h, "globex", 4).await;
    let served = served(h, 8).await;
    assert_eq!((of(&served, "acme"), of(&served, "globex")), (4, 4));
}

/// A batch is shared out as single leases are.
pub async fn a_batch_is_shared_between_customers(h: &Harness) {
    if !h.store.dispatch.capabilities().fairness {
        return;
    }
    fill(h, "acme", 20).await;
    fill(h, "globex", 20).await;
    let leases = h.lease(T, 16).await;
    let acme = leases
        .iter()
        .filter(|l| l.envelope.customer().as_str() == "acme")
        .count();
    assert!((4..=12).contains(&acme), "{acme} of 16 for one of two customers");
}

/// A customer that was idle saves nothing up: it gets its share from now on, not a burst.
pub async fn an_idle_customer_saves_nothing_up(h: &Harness) {
    if !h.store.dispatch.capabilities().fairness {
        return;
    }
    fill(h, "globex", 1).await;
    served(h, 1).await;
    fill(h, "acme", 60).await;
    served(h, 30).await;
    fill(h, "globex", 30).await;
    let served = served(h, 10).await;
    let globex = of(&served, "globex");
    assert!((4..=6).contains(&globex), "{globex} of 10 for the one that was idle");
}

/// A lease is charged when it is made: work that takes long or fails costs its customer's turn as well.
pub async fn turns_are_charged_at_the_lease(h: &Harness) {
    if !h.store.dispatch.capabilities().fairness {
        return;
    }
    fill(h, "acme", 10).await;
    fill(h, "globex", 10).await;
    let mut acme = 0;
    for _ in 0..8 {
        let lease = h.take(T).await;
        if lease.envelope.customer().as_str() == "acme" {
            acme += 1;
            h.retry(lease.reference, Duration::ZERO).await;
        }
    }
    assert_eq!(acme, 4);
}

/// Calls that are leased as they are stored are charged like all others.
pub async fn starts_are_charged(h: &Harness) {
    if !h.store.dispatch.capabilities().fairness {
        return;
    }
    fill(h, "globex", 20).await;
    served(h, 1).await;
    for _ in 0..4 {
        let lease = h.start(h.service(T, "acme")).await;
        h.complete(lease.reference, "ok").await;
    }
    fill(h, "acme", 20).await;
    let served = served(h, 4).await;
    assert!(of(&served, "globex") >= 2, "acme has had its turns: {served:?}");
}

/// Higher priorities go first within a customer, and only there.
pub async fn priority_counts_within_a_customer(h: &Harness) {
    if !h.store.dispatch.capabilities().priority {
        return;
    }
    let low = h.queue(envelope::urgent(h.service(T, "acme"), -1)).await;
    let plain = h.queue(h.service(T, "acme")).await;
    let high = h.queue(envelope::urgent(h.service(T, "acme"), 5)).await;
    let other = h.queue(h.service(T, "globex")).await;
    let mut taken: Vec<InvocationId> = Vec::new();
    for _ in 0..4 {
        taken.push(h.take(T).await.envelope.id());
    }
    let place = |id| taken.iter().position(|t| *t == id).expect("taken");
    assert!(place(high) < place(plain) && place(plain) < place(low), "{taken:?}");
    if h.store.dispatch.capabilities().fairness {
        assert!(place(other) < 2, "a priority does not reach over to other customers");
    }
}

/// With an ordering key one call runs at a time, in the order of the store, over all customers of the target.
pub async fn an_ordering_key_runs_one_at_a_time(h: &Harness) {
    let mut ids = Vec::new();
    for customer in ["acme", "globex", "acme"] {
        ids.push(h.queue(envelope::ordered(h.service(T, customer), "k")).await);
    }
    let free = h.queue(h.service(T, "initech")).await;
    let elsewhere = h.queue(envelope::ordered(h.service("elsewhere", "acme"), "k")).await;
    let first: Vec<_> = h.lease(T, 9).await;
    let taken: Vec<_> = first.iter().map(|lease| lease.envelope.id()).collect();
    assert!(
        taken.len() == 2 && taken.contains(&ids[0]) && taken.contains(&free),
        "{taken:?}"
    );
    assert_eq!(h.take("elsewhere").await.envelope.id(), elsewhere);
    let mut lease = first
        .iter()
        .find(|l| l.envelope.id() == ids[0])
        .expect("checked")
        .reference;
    for next in &ids[1..] {
        assert_eq!(h.status(*next).await.state, CallState::Queued);
        assert_eq!(h.complete(lease, "ok").await, Settled::Applied);
        let got = h.lease(T, 9).await;
        assert_eq!(got.len(), 1, "only the next");
        assert_eq!(got[0].envelope.id(), *next);
        lease = got[0].reference;
    }
}

/// A head that waits for its next attempt keeps its place: nothing of the same order goes past it.
pub async fn a_retrying_head_keeps_its_place(h: &Harness) {
    let head = h.queue(envelope::ordered(h.service(T, "acme"), "k")).await;
    let second = h.queue(envelope::ordered(h.service(T, "acme"), "k")).await;
    let lease = h.take(T).await.reference;
    h.retry(lease, Duration::from_secs(60)).await;
    assert!(h.try_take(T).await.is_none(), "the second waits");
    h.advance(Duration::from_secs(60));
    let lease = h.take(T).await;
    assert_eq!(lease.envelope.id(), head);
    let lease = lease.reference;
    h.settle(Settle::Release { lease }).await;
    let lease = h.take(T).await;
    assert_eq!(lease.envelope.id(), head, "after a release as well");
    h.complete(lease.reference, "ok").await;
    assert_eq!(h.take(T).await.envelope.id(), second);
}

/// A head whose worker is lost keeps its place too, and a delayed call is not overtaken in its order.
pub async fn a_lost_head_keeps_its_place(h: &Harness) {
    let mut head = envelope::ordered(h.flow(T, "acme"), "k");
    head.not_before = Some(h.now().plus(Duration::from_secs(1)));
    let head = h.queue(head).await;
    h.queue(envelope::ordered(h.flow(T, "acme"), "k")).await;
    assert!(h.try_take(T).await.is_none(), "the head is not due yet");
    h.advance(Duration::from_secs(1));
    assert_eq!(h.take(T).await.envelope.id(), head);
    h.expire_leases();
    let again = h.lease(T, 9).await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].envelope.id(), head);
}

/// However a head ends, the next one moves up.
pub async fn every_end_of_a_head_frees_its_order(h: &Harness) {
    let mut ids = Vec::new();
    for n in 0..6 {
        let mut call = envelope::ordered(h.service(T, "acme"), "k");
        if n == 3 {
            call.expires = Some(h.now().plus(Duration::from_secs(1)));
        }
        ids.push(h.queue(call).await);
    }
    let lease = h.take(T).await.reference;
    let failure = harness::failure("dead");
    h.settle(Settle::Dead { lease, failure }).await;
    let lost = h.take(T).await;
    assert_eq!(lost.envelope.id(), ids[1]);
    h.expire_leases();
    assert_eq!(h.status(ids[1]).await.state, CallState::Unknown);
    h.cancel(ids[2]).await;
    let lease = h.take(T).await;
    assert_eq!(
        lease.envelope.id(),
        ids[4],
        "the cancelled and the expired one are passed over"
    );
    assert_eq!(h.status(ids[3]).await.state, CallState::Expired);
    h.cancel(ids[5]).await;
    h.complete(lease.reference, "ok").await;
    assert!(h.try_take(T).await.is_none());
    let next = h.start(envelope::ordered(h.service(T, "acme"), "k")).await;
    assert_eq!(next.attempt, 1, "an empty order is free");
}

/// The next of an order is not lost when its head is found to have expired by a worker who asked for more than there was.
pub async fn a_head_that_expires_at_the_lease_frees_the_next(h: &Harness) {
    let mut head = envelope::ordered(h.service(T, "acme"), "k");
    head.expires = Some(h.now().plus(Duration::from_secs(1)));
    h.queue(head).await;
    let next = h.queue(envelope::ordered(h.service(T, "acme"), "k")).await;
    h.advance(Duration::from_secs(2));
    let mut leased = h.lease(T, 5).await;
    leased.extend(h.lease(T, 5).await);
    let ids: Vec<_> = leased.iter().map(|lease| lease.envelope.id()).collect();
    assert_eq!(ids, [next]);
}

/// A key that is busy does not keep an adopted call out: it is already running.
pub async fn an_adopted_call_does_not_wait_for_its_order(h: &Harness) {
    drop(h.start(envelope::ordered(h.service(T, "acme"), "k")).await);
    let running = envelope::ordered(h.service(T, "acme"), "k");
    let adopted = h.enqueue(Enqueue::adopted(running, harness::terms("gateway"))).await;
    assert!(
        matches!(adopted, crosspoint_core::Enqueued::New(Some(_))),
        "{adopted:?}"
    );
}
