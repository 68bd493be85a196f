//! Cancelling a service's call, against workers that go on, fail, give back or die.

use super::T;
use crate::Harness;
use crosspoint_core::{CallState, Cancel, Extended, Settle, Settled};
use std::time::Duration;

/// What waits is cancelled at once and never runs.
pub async fn a_waiting_call_is_cancelled(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    assert_eq!(h.cancel(id).await, Cancel::Cancelled);
    let status = h.status(id).await;
    assert_eq!((status.state, status.finished), (CallState::Cancelled, Some(h.now())));
    assert!(h.try_take(T).await.is_none());
    assert_eq!(h.cancel(id).await, Cancel::Finished);
}

/// So is what waits for the time of its next attempt.
pub async fn a_delayed_call_is_cancelled(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    h.retry(lease, Duration::from_secs(60)).await;
    assert_eq!(h.cancel(id).await, Cancel::Cancelled);
    h.advance(Duration::from_secs(60));
    assert!(h.try_take(T).await.is_none());
    assert_eq!(h.status(id).await.state, CallState::Cancelled);
}

/// A worker is told with its next heartbeat, every time.
pub async fn a_worker_is_told(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    assert_eq!(h.cancel(id).await, Cancel::Requested);
    assert_eq!(h.cancel(id).await, Cancel::Requested);
    assert_eq!(h.extend(lease).await, Extended::CancelRequested);
    assert_eq!(h.extend(lease).await, Extended::CancelRequested);
    assert_eq!(h.status(id).await.state, CallState::Leased);
}

/// A reply that comes all the same is kept.
pub async fn a_reply_wins_over_a_cancel(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    h.cancel(id).await;
    assert_eq!(h.complete(lease, "made it").await, Settled::Applied);
    let status = h.status(id).await;
    assert_eq!(status.state, CallState::Completed);
    assert_eq!(status.reply.expect("kept").body(), "made it");
    assert_eq!(h.cancel(id).await, Cancel::Finished);
}

/// A failed attempt is the last one.
pub async fn a_retry_after_a_cancel_ends_it(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    h.cancel(id).await;
    assert_eq!(h.retry(lease, Duration::ZERO).await, Settled::Applied);
    assert_eq!(h.status(id).await.state, CallState::Cancelled);
    assert!(h.try_take(T).await.is_none());
}

/// What is given back is not handed out again.
pub async fn a_release_after_a_cancel_ends_it(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    h.cancel(id).await;
    assert_eq!(h.settle(Settle::Release { lease }).await, Settled::Applied);
    assert_eq!(h.status(id).await.state, CallState::Cancelled);
    assert!(h.try_take(T).await.is_none());
}

/// Neither is what a worker lost before it heard of the wish.
pub async fn a_worker_lost_after_a_cancel_ends_it(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.repeatable = true;
    let id = h.queue(work).await;
    let lease = h.take(T).await.reference;
    h.cancel(id).await;
    h.expire_leases();
    assert!(h.try_take(T).await.is_none());
    assert_eq!(h.status(id).await.state, CallState::Cancelled);
    assert_eq!(h.complete(lease, "late").await, Settled::Stale);
}
