//! Whose turn it is, in the held queue and in the sideline: fairness, customers that are passed over, dear calls.

use super::{
    T,
    held::{HOLD, from, held, leased, name},
};
use crate::Harness;
use crosspoint_core::{Cancel, CustomerId, CustomerTerms, Enqueue, Envelope, LeaseRequest, Queue};
use std::{collections::HashMap, time::Duration};

const BOTH: [Queue; 2] = [Queue::Held, Queue::Sideline];

/// A call for this queue.
fn of(h: &Harness, queue: Queue, customer: &str) -> Envelope {
    match queue {
        Queue::Held => held(h, customer, HOLD),
        _ => h.service(T, customer),
    }
}

/// Leases one by one and says how many each customer got.
async fn shares(h: &Harness, request: &LeaseRequest, n: usize) -> HashMap<CustomerId, usize> {
    let mut shares = HashMap::new();
    for _ in 0..n {
        for lease in h.store.dispatch.lease(request.clone()).await.unwrap() {
            *shares.entry(lease.envelope.customer().clone()).or_default() += 1;
            h.complete(lease.reference, "ok").await;
        }
    }
    shares
}

fn share(shares: &HashMap<CustomerId, usize>, customer: &str) -> usize {
    shares.get(&name(customer)).copied().unwrap_or(0)
}

fn fair(h: &Harness) -> bool {
    h.store.dispatch.capabilities().fairness
}

/// Moving to the sideline is no turn: it costs nothing.
pub async fn a_hopeless_call_costs_no_turn(h: &Harness) {
    if !fair(h) {
        return;
    }
    for _ in 0..4 {
        h.queue(held(h, "acme", Duration::from_secs(1))).await;
    }
    for customer in ["globex", "acme", "globex", "acme"] {
        h.queue(held(h, customer, HOLD)).await;
    }
    let mut request = from(Queue::Held, 1);
    request.hopeless = Duration::from_secs(5);
    let shares = shares(h, &request, 2).await;
    assert_eq!((share(&shares, "acme"), share(&shares, "globex")), (1, 1));
}

/// A customer can be passed over. It is not charged for that, in either queue.
pub async fn a_skipped_customer_is_passed_over(h: &Harness) {
    for queue in BOTH {
        for customer in ["acme", "globex", "acme", "globex"] {
            h.queue(of(h, queue, customer)).await;
        }
        let mut request = from(queue, 9);
        request.customers = [
            CustomerTerms::new(name("acme")).skipped(),
            CustomerTerms::new(name("unknown")).skipped(),
        ]
        .into();
        let got = shares(h, &request, 2).await;
        assert_eq!((share(&got, "acme"), share(&got, "globex")), (0, 2), "{queue:?}");
        h.queue(of(h, queue, "globex")).await;
        let got = shares(h, &from(queue, 1), 2).await;
        assert_eq!(
            share(&got, "acme"),
            if fair(h) { 2 } else { share(&got, "acme") },
            "{queue:?}"
        );
        shares(h, &from(queue, 9), 2).await;
    }
}

/// When all that wait are passed over, there is nothing.
pub async fn only_skipped_customers_are_no_work(h: &Harness) {
    h.queue(held(h, "acme", HOLD)).await;
    let sidelined = h.queue(h.service(T, "globex")).await;
    let mut request = from(Queue::HeldFirst, 9);
    request.customers = [CustomerTerms::new(name("acme")).skipped()].into();
    assert_eq!(leased(h, request.clone()).await, [sidelined]);
    assert_eq!(leased(h, request).await, []);
    assert_eq!(leased(h, from(Queue::Held, 9)).await.len(), 1);
}

/// A customer whose calls take long pays more turns for each, in either queue, one by one and in batches.
pub async fn a_dear_call_costs_more_turns(h: &Harness) {
    if !fair(h) {
        return;
    }
    for (queue, max) in [
        (Queue::Held, 1),
        (Queue::Sideline, 1),
        (Queue::Held, 4),
        (Queue::Sideline, 4),
    ] {
        for _ in 0..16 {
            h.queue(of(h, queue, "acme")).await;
            h.queue(of(h, queue, "globex")).await;
        }
        let mut request = from(queue, max);
        request.customers = [CustomerTerms::new(name("acme")).charged(3)].into();
        let got = shares(h, &request, 16 / max).await;
        let acme = share(&got, "acme");
        assert!(
            (3..=5).contains(&acme),
            "{acme} of 16 for the dear one, {max} at once from {queue:?}"
        );
        while !shares(h, &from(queue, 99), 1).await.is_empty() {}
    }
}

/// In either queue each of many customers gets one turn before any gets a second.
pub async fn both_queues_are_fair(h: &Harness) {
    if !fair(h) {
        return;
    }
    for queue in BOTH {
        for customers in [1_usize, 50, 1000] {
            let mut items = Vec::new();
            for _ in 0..customers + 9 {
                items.push(Enqueue::queued(of(h, queue, &format!("{customers}-greedy"))));
            }
            for n in 1..customers {
                items.push(Enqueue::queued(of(h, queue, &format!("{customers}-{n}"))));
                items.push(Enqueue::queued(of(h, queue, &format!("{customers}-{n}"))));
            }
            h.store.dispatch.enqueue(items).await.unwrap();
            let mut got: HashMap<CustomerId, usize> = HashMap::new();
            for share in [customers.div_ceil(2), customers - customers.div_ceil(2)] {
                for lease in h.store.dispatch.lease(from(queue, share)).await.unwrap() {
                    *got.entry(lease.envelope.customer().clone()).or_default() += 1;
                }
            }
            assert_eq!(got.len(), customers, "{queue:?}: one turn for each of {customers}");
            while !h.store.dispatch.lease(from(queue, 9999)).await.unwrap().is_empty() {}
        }
    }
}

/// In either queue a customer that was idle gets its share from now on, and no burst.
pub async fn an_idle_customer_saves_nothing_up(h: &Harness) {
    if !fair(h) {
        return;
    }
    for queue in BOTH {
        h.queue(of(h, queue, "globex")).await;
        shares(h, &from(queue, 1), 1).await;
        for _ in 0..60 {
            h.queue(of(h, queue, "acme")).await;
        }
        shares(h, &from(queue, 1), 30).await;
        for _ in 0..30 {
            h.queue(of(h, queue, "globex")).await;
        }
        let got = shares(h, &from(queue, 1), 10).await;
        let globex = share(&got, "globex");
        assert!((4..=6).contains(&globex), "{globex} of 10 from {queue:?}");
    }
}

/// Nor one that was passed over while its calls went away: it begins anew, in either queue.
pub async fn nor_does_one_that_was_passed_over(h: &Harness) {
    if !fair(h) {
        return;
    }
    for queue in BOTH {
        let gone = h.queue(of(h, queue, "acme")).await;
        for _ in 0..60 {
            h.queue(of(h, queue, "globex")).await;
        }
        let mut request = from(queue, 1);
        request.customers = [CustomerTerms::new(name("acme")).skipped()].into();
        shares(h, &request, 15).await;
        assert_eq!(h.cancel(gone).await, Cancel::Cancelled);
        shares(h, &request, 15).await;
        for _ in 0..30 {
            h.queue(of(h, queue, "acme")).await;
        }
        let got = shares(h, &from(queue, 1), 10).await;
        let acme = share(&got, "acme");
        assert!((4..=6).contains(&acme), "{acme} of 10 from {queue:?}");
        while !shares(h, &from(queue, 99), 1).await.is_empty() {}
    }
}

/// Turns in one queue are not charged in the other.
pub async fn the_queues_count_apart(h: &Harness) {
    if !fair(h) {
        return;
    }
    for _ in 0..8 {
        h.queue(held(h, "acme", HOLD)).await;
    }
    shares(h, &from(Queue::Held, 1), 8).await;
    for _ in 0..8 {
        h.queue(h.service(T, "acme")).await;
        h.queue(h.service(T, "globex")).await;
    }
    let got = shares(h, &from(Queue::Sideline, 1), 8).await;
    assert_eq!((share(&got, "acme"), share(&got, "globex")), (4, 4));
}
