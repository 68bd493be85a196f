//! Fences, heartbeats, lost leases.

use super::T;
use crate::{Harness, LEASE, envelope, harness, scope};
use crosspoint_core::{
    Begun, CallState, CloseReason, Enqueue, Enqueued, Envelope, Extended, Fence, LeaseRef, Settle, Settled,
};
use std::time::Duration;

/// Every lease of an id has a higher fence than all before it, however it came about.
pub async fn fences_rise(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.repeatable = true;
    let mut fences = vec![h.start(work).await];
    h.expire_leases();
    fences.push(h.take(T).await);
    let last = fences.last().expect("two").reference;
    h.settle(Settle::Release { lease: last }).await;
    fences.push(h.prefetch(T).await);
    let last = fences.last().expect("three").reference;
    h.retry(last, Duration::ZERO).await;
    fences.push(h.take(T).await);
    let fences: Vec<Fence> = fences.iter().map(|lease| lease.reference.fence).collect();
    assert!(fences.windows(2).all(|pair| pair[0] < pair[1]), "{fences:?}");
}

/// A lease that was taken over can write nothing, and the present one is not disturbed by the attempt.
pub async fn a_late_settle_is_stale(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.repeatable = true;
    let id = h.queue(work).await;
    let old = h.take(T).await.reference;
    h.expire_leases();
    let new = h.take(T).await.reference;
    assert_eq!(h.complete(old, "late").await, Settled::Stale);
    assert_eq!(h.retry(old, Duration::ZERO).await, Settled::Stale);
    assert_eq!(h.settle(Settle::Release { lease: old }).await, Settled::Stale);
    assert_eq!(h.settle(Settle::Unknown { lease: old }).await, Settled::Stale);
    let failure = harness::failure("late");
    assert_eq!(h.settle(Settle::Dead { lease: old, failure }).await, Settled::Stale);
    assert_eq!(h.extend(old).await, Extended::Stale);
    assert_eq!(h.status(id).await.state, CallState::Leased);
    assert_eq!(h.extend(new).await, Extended::Extended);
    assert_eq!(h.complete(new, "in time").await, Settled::Applied);
    assert_eq!(h.status(id).await.reply.expect("kept").body(), "in time");
}

/// A settle works once; the same again is stale.
pub async fn a_repeated_settle_is_stale(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    assert_eq!(h.complete(lease, "one").await, Settled::Applied);
    assert_eq!(h.complete(lease, "two").await, Settled::Stale);
    assert_eq!(h.retry(lease, Duration::ZERO).await, Settled::Stale);
    assert_eq!(h.extend(lease).await, Extended::Stale);
    assert_eq!(h.status(id).await.reply.expect("kept").body(), "one");
    assert!(h.try_take(T).await.is_none());
}

/// A batch of settles is answered one by one: a stale one does not stop the others.
pub async fn a_batch_of_settles_is_answered_one_by_one(h: &Harness) {
    for _ in 0..2 {
        h.queue(h.service(T, "acme")).await;
    }
    let leases = h.lease(T, 2).await;
    let (a, b) = (leases[0].reference, leases[1].reference);
    let ended = LeaseRef::new(a.id, Fence::new(a.fence.get() + 1), a.token);
    let reply = || envelope::reply("ok");
    let settles = [a, ended, b].map(|lease| Settle::Complete { lease, reply: reply() });
    let answers = h.store.dispatch.settle(settles.into()).await.unwrap();
    assert_eq!(answers, [Settled::Applied, Settled::Stale, Settled::Applied]);
    let beats = h.store.dispatch.extend(&[a, b], LEASE).await.unwrap();
    assert_eq!(beats, [Extended::Stale, Extended::Stale]);
}

/// A lease holds until its end and not a moment longer.
pub async fn a_lease_lasts_as_long_as_it_says(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.repeatable = true;
    h.queue(work).await;
    let lease = h.take(T).await;
    h.advance(LEASE - Duration::from_millis(1));
    assert!(h.try_take(T).await.is_none(), "still held");
    h.advance(Duration::from_millis(2));
    assert_eq!(
        h.extend(lease.reference).await,
        Extended::Stale,
        "too late for a heartbeat"
    );
    assert!(h.try_take(T).await.is_some());
}

/// A heartbeat moves the end of the lease.
pub async fn a_heartbeat_keeps_the_lease(h: &Harness) {
    h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    for _ in 0..5 {
        h.advance(LEASE / 2);
        assert_eq!(h.extend(lease).await, Extended::Extended);
        assert!(h.try_take(T).await.is_none());
    }
    h.advance(LEASE / 2);
    assert_eq!(h.complete(lease, "long work").await, Settled::Applied);
}

/// Work that may be repeated comes back when its worker is lost; the attempt counts.
pub async fn lost_repeatable_work_is_ready_again(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.repeatable = true;
    let id = h.queue(work).await;
    assert_eq!(h.take(T).await.attempt, 1);
    h.expire_leases();
    assert_eq!(h.status(id).await.state, CallState::Queued, "reading notices it");
    assert_eq!(h.take(T).await.attempt, 2);
}

/// Begun work that may not be repeated ends as unknown, and its late reply is refused.
pub async fn lost_begun_work_is_unknown(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await;
    assert!(lease.begun);
    h.expire_leases();
    assert_eq!(h.complete(lease.reference, "late").await, Settled::Stale);
    let status = h.status(id).await;
    assert_eq!((status.state, status.finished), (CallState::Unknown, Some(h.now())));
    assert!(status.reply.is_none());
    assert!(h.try_take(T).await.is_none());
}

/// Prefetched work that never began comes back, whether or not it may be repeated.
pub async fn lost_unbegun_work_is_ready_again(h: &Harness) {
    h.queue(h.service(T, "acme")).await;
    assert!(!h.prefetch(T).await.begun);
    h.expire_leases();
    assert!(h.try_take(T).await.is_some());
}

/// `begin` makes prefetched work begun: from then on it is not repeated.
pub async fn begin_makes_prefetched_work_begun(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.prefetch(T).await.reference;
    let begun = h.store.executions.begin(&scope::fleet(), lease).await.unwrap();
    assert!(matches!(begun, Begun::Run), "{begun:?}");
    h.expire_leases();
    assert!(h.try_take(T).await.is_none());
    assert_eq!(h.status(id).await.state, CallState::Unknown);
}

/// Work that costs its worker every time does not do so for ever.
pub async fn lost_leases_use_up_the_attempts(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.repeatable = true;
    work.max_attempts = 2;
    let id = h.queue(work).await;
    for attempt in 1..=2 {
        assert_eq!(h.take(T).await.attempt, attempt);
        h.expire_leases();
    }
    assert!(h.try_take(T).await.is_none());
    let status = h.status(id).await;
    assert_eq!((status.state, status.attempt), (CallState::Dead, 2));
    assert!(status.failure.is_some(), "a dead letter says why");
}

/// A worker may say itself that nobody can know.
pub async fn a_worker_may_settle_as_unknown(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    assert_eq!(h.settle(Settle::Unknown { lease }).await, Settled::Applied);
    assert_eq!(h.status(id).await.state, CallState::Unknown);
}

/// With nothing before it, a new call is leased to the caller in the commit that stores it.
pub async fn a_start_is_leased_and_begun_at_once(h: &Harness) {
    let lease = h.start(h.flow(T, "acme")).await;
    assert!(lease.begun && lease.close.is_none());
    assert_eq!((lease.attempt, lease.until), (1, h.now().plus(LEASE)));
    let id = lease.envelope.id();
    assert_eq!(h.status(id).await.state, CallState::Leased);
    assert!(h.try_take(T).await.is_none());
}

/// A caller does not overtake what waits in its own lane; other customers' lanes do not stop it.
pub async fn a_start_waits_behind_its_lane(h: &Harness) {
    h.queue(h.service(T, "acme")).await;
    let terms = || harness::terms("starter");
    let refused = h.enqueue(Enqueue::leased(h.service(T, "acme"), terms())).await;
    assert!(matches!(refused, Enqueued::New(None)), "{refused:?}");
    let other_customer = h.enqueue(Enqueue::leased(h.service(T, "globex"), terms())).await;
    assert!(matches!(other_customer, Enqueued::New(Some(_))), "{other_customer:?}");
    let other_target = h
        .enqueue(Enqueue::leased(h.service("elsewhere", "acme"), terms()))
        .await;
    assert!(matches!(other_target, Enqueued::New(Some(_))), "{other_target:?}");
    assert_eq!(h.lease(T, 9).await.len(), 2, "both of acme's wait in the queue");
}

/// A start in an order whose head is running waits as well.
pub async fn a_start_waits_behind_its_ordering_key(h: &Harness) {
    let head = h.start(envelope::ordered(h.service(T, "acme"), "k")).await;
    let second = envelope::ordered(h.service(T, "globex"), "k");
    let refused = h.enqueue(Enqueue::leased(second, harness::terms("starter"))).await;
    assert!(matches!(refused, Enqueued::New(None)), "{refused:?}");
    assert!(h.try_take(T).await.is_none());
    h.complete(head.reference, "done").await;
    assert!(h.try_take(T).await.is_some());
}

/// A start that is due later waits for its time.
pub async fn a_delayed_start_waits(h: &Harness) {
    let mut later = h.service(T, "acme");
    later.not_before = Some(h.now().plus(LEASE));
    let refused = h.enqueue(Enqueue::leased(later, harness::terms("starter"))).await;
    assert!(matches!(refused, Enqueued::New(None)), "{refused:?}");
    assert!(h.try_take(T).await.is_none());
    h.advance(LEASE);
    assert!(h.try_take(T).await.is_some());
}

/// A start that comes too late is not run: it goes into the queue, where it expires.
pub async fn an_expired_start_is_not_leased(h: &Harness) {
    let late = |mut work: Envelope| {
        work.expires = Some(h.now());
        Enqueue::leased(work, harness::terms("starter"))
    };
    let service = late(h.service(T, "acme"));
    let id = service.envelope.id();
    let refused = h.enqueue(service).await;
    assert!(matches!(refused, Enqueued::New(None)), "{refused:?}");
    assert_eq!(h.status(id).await.state, CallState::Queued);
    assert!(h.try_take(T).await.is_none());
    assert_eq!(h.status(id).await.state, CallState::Expired);

    let refused = h.enqueue(late(h.flow(T, "acme"))).await;
    assert!(matches!(refused, Enqueued::New(None)), "{refused:?}");
    let lease = h.take(T).await;
    assert_eq!((lease.close, lease.attempt), (Some(CloseReason::Expired), 0));
}
