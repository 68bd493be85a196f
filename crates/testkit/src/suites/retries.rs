//! Attempts: counted, delayed, given back, used up.

use super::T;
use crate::{Harness, harness};
use crosspoint_core::{CallState, Code, Failure, Settle, Settled};
use std::time::Duration;

/// A retry is delivered at its time, with the next number, and the failure can be read meanwhile.
pub async fn a_retry_waits_for_its_time(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    assert_eq!(h.retry(lease, Duration::from_secs(10)).await, Settled::Applied);
    let status = h.status(id).await;
    assert_eq!((status.state, status.attempt), (CallState::Delayed, 1));
    assert_eq!(status.failure.expect("kept").message, "it failed");
    assert!(h.try_take(T).await.is_none());
    h.advance(Duration::from_secs(10));
    let second = h.take(T).await;
    assert_eq!((second.attempt, second.queued), (2, h.now()));
}

/// A retry without a delay is ready at once.
pub async fn a_retry_may_be_due_at_once(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    h.retry(lease, Duration::ZERO).await;
    assert_eq!(h.status(id).await.state, CallState::Queued);
    assert_eq!(h.take(T).await.attempt, 2);
}

/// A release gives the attempt back.
pub async fn a_release_does_not_count(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.max_attempts = 1;
    let id = h.queue(work).await;
    for returned in 0..5 {
        let lease = h.take(T).await;
        assert_eq!((lease.attempt, lease.returned), (1, returned));
        let lease = lease.reference;
        assert_eq!(h.settle(Settle::Release { lease }).await, Settled::Applied);
        let status = h.status(id).await;
        assert_eq!((status.state, status.attempt), (CallState::Queued, 0));
    }
    let lease = h.take(T).await.reference;
    assert_eq!(h.complete(lease, "after all").await, Settled::Applied);
}

/// The last attempt's failure makes a dead letter that says why.
pub async fn used_up_attempts_make_a_dead_letter(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.max_attempts = 2;
    let id = h.queue(work).await;
    for _ in 0..2 {
        let lease = h.take(T).await.reference;
        assert_eq!(h.retry(lease, Duration::ZERO).await, Settled::Applied);
    }
    assert!(h.try_take(T).await.is_none());
    let status = h.status(id).await;
    assert_eq!((status.state, status.attempt), (CallState::Dead, 2));
    assert_eq!(status.finished, Some(h.now()));
    assert_eq!(status.failure.expect("kept").code, Code::FlowFailed);
}

/// The failure that a dead letter keeps is the one with which its last attempt was settled, code and all.
pub async fn a_dead_letter_keeps_the_last_failure(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.max_attempts = 2;
    let id = h.queue(work).await;
    let last = Failure::new(Code::TargetUnavailable, "nobody answered the second time");
    for failure in [harness::failure("the first time"), last.clone()] {
        let (lease, at) = (h.take(T).await.reference, h.now());
        assert_eq!(h.settle(Settle::Retry { lease, at, failure }).await, Settled::Applied);
    }
    let status = h.status(id).await;
    assert_eq!((status.state, status.failure), (CallState::Dead, Some(last)));
}

/// A worker may give up before the attempts are used up.
pub async fn a_worker_may_give_up(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    let failure = Failure::new(Code::InputInvalid, "it will never work");
    let settle = Settle::Dead {
        lease,
        failure: failure.clone(),
    };
    assert_eq!(h.settle(settle).await, Settled::Applied);
    let status = h.status(id).await;
    assert_eq!((status.state, status.failure), (CallState::Dead, Some(failure)));
    assert!(h.try_take(T).await.is_none());
}

/// A service's call that nobody began in time expires.
pub async fn a_service_expires_in_the_queue(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.expires = Some(h.now().plus(Duration::from_secs(5)));
    let id = h.queue(work).await;
    let other = h.queue(h.service(T, "acme")).await;
    h.advance(Duration::from_secs(6));
    let leases = h.lease(T, 2).await;
    let ids: Vec<_> = leases.iter().map(|lease| lease.envelope.id()).collect();
    assert_eq!(ids, [other], "an expired call does not stand in the way");
    let status = h.status(id).await;
    assert_eq!(status.state, CallState::Expired);
    assert!(status.finished.is_some() && status.failure.is_some());
}

/// `expires` is about beginning: what has begun goes on.
pub async fn begun_work_does_not_expire(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.expires = Some(h.now().plus(Duration::from_secs(5)));
    h.queue(work).await;
    let lease = h.take(T).await.reference;
    h.advance(Duration::from_secs(6));
    assert_eq!(h.complete(lease, "slow").await, Settled::Applied);
}

/// The failures of earlier attempts do not spoil a success.
pub async fn a_later_attempt_may_succeed(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    let (at, failure) = (h.now(), harness::failure("first"));
    h.settle(Settle::Retry { lease, at, failure }).await;
    let lease = h.take(T).await.reference;
    assert_eq!(h.complete(lease, "second").await, Settled::Applied);
    let status = h.status(id).await;
    assert_eq!((status.state, status.attempt), (CallState::Completed, 2));
}

/// Losses are counted apart from failures: a call that takes its workers down can be told from one that only fails.
pub async fn losses_are_counted_apart_from_failures(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.repeatable = true;
    h.queue(work).await;
    // Prefetched work had not begun: that it is lost says nothing about it.
    assert_eq!(h.prefetch(T).await.lost, 0);
    h.expire_leases();
    let lease = h.take(T).await;
    assert_eq!((lease.attempt, lease.lost), (2, 0));
    h.expire_leases();
    let lease = h.take(T).await;
    assert_eq!((lease.attempt, lease.lost), (3, 1));
    assert_eq!(h.retry(lease.reference, Duration::ZERO).await, Settled::Applied);
    let lease = h.take(T).await;
    assert_eq!((lease.attempt, lease.lost), (4, 1), "a failure is no loss");
    let lease = lease.reference;
    assert_eq!(h.settle(Settle::Release { lease }).await, Settled::Applied);
    let lease = h.take(T).await;
    assert_eq!(
        (lease.lost, lease.returned),
        (1, 1),
        "losses and failures were attempts"
    );
    h.expire_leases();
    assert_eq!(h.take(T).await.lost, 2);
}
