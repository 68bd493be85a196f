//! How many calls of a kind run at once, and how often they start.

use super::T;
use crate::{
    Harness, envelope,
    harness::{request, terms},
};
use crosspoint_core::{
    CallState, Cancel, Code, Enqueue, Enqueued, Envelope, Failure, Lease, MaxInFlight, Rate, Settle, Settled,
};
use std::time::Duration;

const KEY: &str = "flow:export";

fn bounded(h: &Harness, customer: &str, bounds: &[(&str, u32)]) -> Envelope {
    let mut envelope = h.service(T, customer);
    envelope.bounds = bounds.iter().map(|(key, max)| MaxInFlight::new(*key, *max)).collect();
    envelope
}

async fn lease(h: &Harness, max: usize) -> Vec<Lease> {
    h.lease(T, max).await
}

async fn state(h: &Harness, envelope: &Envelope) -> CallState {
    h.status(envelope.id()).await.state
}

/// No more than the maximum are leased, the rest goes on as room appears, in order.
pub async fn no_more_than_the_maximum_run(h: &Harness) {
    let mut calls = Vec::new();
    for _ in 0..5 {
        let call = bounded(h, "acme", &[(KEY, 2)]);
        h.queue(call.clone()).await;
        calls.push(call);
    }
    let mut order = Vec::new();
    let mut running = lease(h, 10).await;
    assert_eq!(running.len(), 2);
    assert!(lease(h, 10).await.is_empty(), "the others wait");
    assert_eq!(state(h, &calls[4]).await, CallState::Queued);
    while let Some(first) = running.pop() {
        order.push(first.envelope.id());
        h.complete(first.reference, "ok").await;
        let next = lease(h, 10).await;
        assert!(next.len() <= 1 && running.len() + next.len() <= 2);
        running.splice(0..0, next);
    }
    assert_eq!(order.len(), 5);
    assert_eq!(order.last(), Some(&calls[4].id()));
}

/// Who waits at a bound is in nobody's way, not even in that of its own customer.
pub async fn others_pass_those_who_wait(h: &Harness) {
    for _ in 0..3 {
        h.queue(bounded(h, "acme", &[(KEY, 1)])).await;
    }
    let free = h.service(T, "acme");
    h.queue(free.clone()).await;
    let leased: Vec<_> = lease(h, 10).await;
    let ids: Vec<_> = leased.iter().map(|lease| lease.envelope.id()).collect();
    assert_eq!(ids.len(), 2, "one of the bounded, and the free one");
    assert!(ids.contains(&free.id()));
}

/// The call that comes with its own lease asks for room too; an adopted one is let through and counts.
pub async fn a_start_needs_room_and_an_adoption_takes_it(h: &Harness) {
    let call = |customer| bounded(h, customer, &[(KEY, 1)]);
    let first = h.start(call("acme")).await;
    let second = call("globex");
    let stored = h.enqueue(Enqueue::leased(second.clone(), terms("starter"))).await;
    assert!(matches!(stored, Enqueued::New(None)), "no room");
    let Enqueued::New(Some(adopted)) = h.enqueue(Enqueue::adopted(call("initech"), terms("starter"))).await else {
        panic!("an adopted call runs already");
    };
    h.complete(first.reference, "ok").await;
    assert!(lease(h, 10).await.is_empty(), "the adopted one runs");
    h.complete(adopted.reference, "ok").await;
    assert_eq!(lease(h, 10).await[0].envelope.id(), second.id());
}

/// A call may have several bounds; all must have room, and none is kept from others for nothing.
pub async fn several_bounds_hold_together(h: &Harness) {
    let (one, both, other) = (
        bounded(h, "acme", &[("a", 1)]),
        bounded(h, "acme", &[("a", 1), ("b", 1)]),
        bounded(h, "acme", &[("b", 1)]),
    );
    h.queue(one.clone()).await;
    h.queue(both.clone()).await;
    h.queue(other.clone()).await;
    let running = lease(h, 10).await;
    let ids: Vec<_> = running.iter().map(|lease| lease.envelope.id()).collect();
    assert_eq!(ids, [one.id(), other.id()]);
    h.complete(running[0].reference, "ok").await;
    assert!(lease(h, 10).await.is_empty(), "`b` is full");
    h.complete(running[1].reference, "ok").await;
    let last = lease(h, 10).await;
    assert_eq!(last.len(), 1);
    assert_eq!(last[0].envelope.id(), both.id());
}

/// A call that finds its second bound full does not keep the room that it was let in for.
pub async fn room_is_passed_on_by_those_who_cannot_use_it(h: &Harness) {
    h.queue(bounded(h, "acme", &[("b", 1)])).await;
    h.queue(bounded(h, "acme", &[("a", 1)])).await;
    let running = lease(h, 10).await;
    assert_eq!(running.len(), 2);
    let (both, behind) = (
        bounded(h, "acme", &[("a", 1), ("b", 1)]),
        bounded(h, "acme", &[("a", 1)]),
    );
    h.queue(both).await;
    h.queue(behind.clone()).await;
    assert!(lease(h, 10).await.is_empty());
    h.complete(running[1].reference, "ok").await;
    let next = lease(h, 10).await;
    assert_eq!(
        next.len(),
        1,
        "`a` has room, and whoever needs `b` too must not keep it"
    );
    assert_eq!(next[0].envelope.id(), behind.id());
}

/// However a call stops to run, it makes room: retried, given up, lost, cancelled, done.
pub async fn every_end_makes_room(h: &Harness) {
    for end in ["retried", "given up", "lost", "cancelled", "done"] {
        let mut first = bounded(h, "acme", &[(end, 1)]);
        first.max_attempts = if end == "lost" { 1 } else { 5 };
        let second = bounded(h, "acme", &[(end, 1)]);
        h.queue(first.clone()).await;
        let running = lease(h, 1).await.remove(0).reference;
        h.queue(second.clone()).await;
        assert!(lease(h, 1).await.is_empty());
        let failure = Failure::new(Code::Internal, "no");
        let settled = match end {
            "retried" => h.retry(running, Duration::from_secs(3600)).await,
            "given up" => {
                let lease = running;
                h.settle(Settle::Dead { lease, failure }).await
            }
            "lost" => {
                h.expire_leases();
                Settled::Applied
            }
            "cancelled" => {
                assert_eq!(h.cancel(first.id()).await, Cancel::Requested);
                h.settle(Settle::Release { lease: running }).await
            }
            _ => h.complete(running, "ok").await,
        };
        assert_eq!(settled, Settled::Applied, "{end}");
        let next = lease(h, 10).await;
        let ids: Vec<_> = next.iter().map(|lease| lease.envelope.id()).collect();
        assert_eq!(ids, [second.id()], "{end}");
        h.complete(next[0].reference, "ok").await;
        h.cancel(first.id()).await;
    }
}

/// Those who wait can be cancelled; those let in and cancelled before they run pass their room on.
pub async fn a_cancelled_call_passes_its_room_on(h: &Harness) {
    let mut calls = Vec::new();
    for _ in 0..4 {
        let call = bounded(h, "acme", &[(KEY, 1)]);
        h.queue(call.clone()).await;
        calls.push(call);
    }
    let running = lease(h, 10).await.remove(0);
    assert!(lease(h, 10).await.is_empty());
    assert_eq!(h.cancel(calls[2].id()).await, Cancel::Cancelled);
    h.complete(running.reference, "ok").await;
    assert_eq!(h.cancel(calls[1].id()).await, Cancel::Cancelled);
    let ids: Vec<_> = lease(h, 10).await.iter().map(|lease| lease.envelope.id()).collect();
    assert_eq!(ids, [calls[3].id()]);
}

/// A maximum that was raised lets more of those who wait in.
pub async fn a_raised_maximum_is_used(h: &Harness) {
    for _ in 0..4 {
        h.queue(bounded(h, "acme", &[(KEY, 1)])).await;
    }
    let first = lease(h, 10).await.remove(0);
    assert!(lease(h, 10).await.is_empty());
    for _ in 0..2 {
        h.queue(bounded(h, "acme", &[(KEY, 3)])).await;
    }
    let more = lease(h, 10).await;
    assert_eq!(more.len(), 2, "the newer ones know a higher maximum");
    for lease in more.into_iter().chain([first]) {
        h.complete(lease.reference, "ok").await;
    }
    assert_eq!(lease(h, 10).await.len(), 1, "and the older ones go on by theirs");
}

/// Calls of a rate get their times as they are stored, and wait until then.
pub async fn a_rate_spreads_starts(h: &Harness) {
    let rate = Rate::new("rate", 2, Duration::from_secs(20));
    for _ in 0..5 {
        let mut call = h.service(T, "acme");
        call.rate = Some(rate.clone());
        h.queue(call).await;
    }
    let mut seen = vec![take(h).await];
    for _ in 0..3 {
        h.advance(Duration::from_secs(10));
        seen.push(take(h).await);
    }
    assert_eq!(seen, [2, 1, 1, 1]);
    h.advance(Duration::from_secs(100));
    for _ in 0..3 {
        let mut call = h.service(T, "acme");
        call.rate = Some(rate.clone());
        h.queue(call).await;
    }
    assert_eq!(take(h).await, 2, "a pause saves one burst up");
}

async fn take(h: &Harness) -> usize {
    let leases = lease(h, 10).await;
    for lease in &leases {
        h.complete(lease.reference, "ok").await;
    }
    leases.len()
}

/// Bounds are counted by the store: one that is opened anew goes on where it was.
pub async fn bounds_survive_reopening(h: &Harness) {
    for _ in 0..2 {
        h.queue(bounded(h, "acme", &[(KEY, 1)])).await;
    }
    let running = lease(h, 10).await;
    assert_eq!(running.len(), 1);
    assert!(lease(h, 10).await.is_empty());
    let again = h.after_crash().await;
    let request = || request(T, 10);
    assert!(
        again.dispatch.lease(request()).await.unwrap().is_empty(),
        "it still runs"
    );
    let settle = Settle::Complete {
        lease: running[0].reference,
        reply: envelope::reply("ok"),
    };
    assert_eq!(again.dispatch.settle(vec![settle]).await.unwrap(), [Settled::Applied]);
    assert_eq!(again.dispatch.lease(request()).await.unwrap().len(), 1);
}
