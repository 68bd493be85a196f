//! Flows that end without success are delivered once more to be closed, so that their owner writes the end.

use super::{
    T,
    executions::{applied, finish_and_settle, success},
};
use crate::{Harness, LEASE, envelope, harness, scope};
use crosspoint_core::{
    CallState, Cancel, CloseReason, ExecutionStatus, Extended, Finish, InvocationId, Lease, LeaseRef, Outcome, Settle,
    Settled,
};
use std::time::Duration;

fn closed(status: ExecutionStatus) -> Outcome {
    Outcome::Ended {
        status,
        reply: envelope::reply("closed"),
        failure: Some(harness::failure("closed")),
    }
}

fn retry(h: &Harness, delay: Duration) -> Outcome {
    Outcome::Retry {
        at: h.now().plus(delay),
        failure: harness::failure("it failed"),
    }
}

async fn close(h: &Harness, lease: &Lease, status: ExecutionStatus) {
    finish_and_settle(h, Finish::new(lease.reference, closed(status))).await;
    let id = lease.envelope.id();
    assert_eq!(h.execution(id).await.status, status);
    let call = h.status(id).await;
    let state = match status {
        ExecutionStatus::Cancelled => CallState::Cancelled,
        ExecutionStatus::Expired => CallState::Expired,
        _ => CallState::Dead,
    };
    assert_eq!(call.state, state);
    assert_eq!(&call.reply.expect("its reply is kept").body()[..], b"closed");
    assert!(h.try_take(T).await.is_none(), "it is over");
}

async fn take_closing(h: &Harness, id: InvocationId, why: CloseReason) -> Lease {
    let lease = h.take(T).await;
    assert_eq!((lease.envelope.id(), lease.close), (id, Some(why)));
    assert!(!h.execution(id).await.status.is_terminal(), "only its owner ends it");
    lease
}

/// Attempts used up by failures.
pub async fn exhausted_by_failures(h: &Harness) {
    let mut work = h.flow(T, "acme");
    work.max_attempts = 2;
    let id = h.queue(work).await;
    for attempt in 1..=2 {
        let lease = h.take(T).await;
        assert_eq!((lease.attempt, lease.close), (attempt, None));
        finish_and_settle(h, Finish::new(lease.reference, retry(h, Duration::ZERO))).await;
    }
    let lease = take_closing(h, id, CloseReason::Exhausted).await;
    close(h, &lease, ExecutionStatus::Failed).await;
    assert_eq!(h.execution(id).await.attempt, 2, "closing is no attempt");
}

/// Attempts used up by lost workers.
pub async fn exhausted_by_lost_workers(h: &Harness) {
    let mut work = h.flow(T, "acme");
    work.max_attempts = 1;
    let id = h.queue(work).await;
    drop(h.take(T).await);
    h.expire_leases();
    let lease = take_closing(h, id, CloseReason::Exhausted).await;
    close(h, &lease, ExecutionStatus::Failed).await;
}

/// A delivery to be closed that is lost or given back comes again, to be closed, as often as it takes.
pub async fn a_lost_close_comes_again(h: &Harness) {
    let mut work = h.flow(T, "acme");
    work.max_attempts = 1;
    let id = h.queue(work).await;
    drop(h.take(T).await);
    for _ in 0..4 {
        h.expire_leases();
        drop(take_closing(h, id, CloseReason::Exhausted).await);
    }
    h.expire_leases();
    let lease = take_closing(h, id, CloseReason::Exhausted).await;
    finish_and_settle(h, Finish::new(lease.reference, Outcome::Released)).await;
    let lease = take_closing(h, id, CloseReason::Exhausted).await;
    finish_and_settle(h, Finish::new(lease.reference, retry(h, Duration::from_secs(5)))).await;
    h.advance(Duration::from_secs(5));
    let lease = take_closing(h, id, CloseReason::Exhausted).await;
    assert_eq!(h.execution(id).await.attempt, 1, "none of these was an attempt");
    close(h, &lease, ExecutionStatus::Failed).await;
}

/// A flow that nobody began in time.
pub async fn expired(h: &Harness) {
    let mut work = h.flow(T, "acme");
    work.expires = Some(h.now().plus(Duration::from_secs(5)));
    let id = h.queue(work).await;
    h.advance(Duration::from_secs(6));
    let lease = take_closing(h, id, CloseReason::Expired).await;
    close(h, &lease, ExecutionStatus::Expired).await;
    assert_eq!(h.status(id).await.state, CallState::Expired);
    assert_eq!(h.execution(id).await.attempt, 0);
}

/// A waiting flow that somebody cancels is marked first and delivered to be closed.
pub async fn cancelled_while_waiting(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    assert_eq!(h.cancel(id).await, Cancel::Requested);
    assert_eq!(h.execution(id).await.status, ExecutionStatus::Cancelling);
    assert_eq!(h.cancel(id).await, Cancel::Requested);
    let lease = take_closing(h, id, CloseReason::Cancelled).await;
    close(h, &lease, ExecutionStatus::Cancelled).await;
    assert_eq!(h.status(id).await.state, CallState::Cancelled);
    assert_eq!(h.cancel(id).await, Cancel::Finished);
}

/// Nobody waits for the next attempt of what is to be cancelled.
pub async fn cancelled_while_delayed(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let lease = h.take(T).await.reference;
    finish_and_settle(h, Finish::new(lease, retry(h, Duration::from_secs(3600)))).await;
    let fleet = scope::fleet();
    let answer = h.store.executions.cancel((&fleet).into(), id).await.unwrap();
    assert_eq!(answer, Cancel::Requested);
    let lease = take_closing(h, id, CloseReason::Cancelled).await;
    close(h, &lease, ExecutionStatus::Cancelled).await;
}

/// A running attempt is told; if it succeeds all the same, that counts.
pub async fn a_success_wins_over_a_cancel(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let lease = h.take(T).await.reference;
    assert_eq!(h.cancel(id).await, Cancel::Requested);
    assert_eq!(h.execution(id).await.status, ExecutionStatus::Cancelling);
    assert_eq!(h.extend(lease).await, Extended::CancelRequested);
    finish_and_settle(h, Finish::new(lease, success("made it"))).await;
    assert_eq!(h.execution(id).await.status, ExecutionStatus::Succeeded);
    assert!(h.try_take(T).await.is_none());
}

/// A running attempt that stops ends it itself.
pub async fn a_stopped_attempt_ends_it(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let lease = h.take(T).await;
    h.cancel(id).await;
    close(h, &lease, ExecutionStatus::Cancelled).await;
}

/// A running attempt that fails or is given back after the wish is not tried again but closed at once.
pub async fn a_failure_after_a_cancel_closes(h: &Harness) {
    for released in [false, true] {
        let id = h.queue(h.flow(T, "acme")).await;
        let lease = h.take(T).await.reference;
        h.cancel(id).await;
        let outcome = if released {
            Outcome::Released
        } else {
            retry(h, Duration::from_secs(3600))
        };
        finish_and_settle(h, Finish::new(lease, outcome)).await;
        let lease = take_closing(h, id, CloseReason::Cancelled).await;
        close(h, &lease, ExecutionStatus::Cancelled).await;
    }
}

/// A worker that gives up after the wish leaves a cancelled flow, not one that was tried too often.
pub async fn giving_up_after_a_cancel_closes(h: &Harness) {
    for unknown in [false, true] {
        let id = h.queue(h.flow(T, "acme")).await;
        let lease = h.take(T).await.reference;
        assert_eq!(h.cancel(id).await, Cancel::Requested);
        assert_eq!(h.settle(given_up(lease, unknown)).await, Settled::Applied);
        let lease = take_closing(h, id, CloseReason::Cancelled).await;
        close(h, &lease, ExecutionStatus::Cancelled).await;
    }
}

/// Who gives up while closing leaves the reason as it was.
pub async fn giving_up_a_close_keeps_its_reason(h: &Harness) {
    let mut work = h.flow(T, "acme");
    work.expires = Some(h.now().plus(Duration::from_secs(5)));
    let id = h.queue(work).await;
    h.advance(Duration::from_secs(6));
    for unknown in [false, true] {
        let lease = take_closing(h, id, CloseReason::Expired).await.reference;
        assert_eq!(h.settle(given_up(lease, unknown)).await, Settled::Applied);
    }
    let lease = take_closing(h, id, CloseReason::Expired).await;
    close(h, &lease, ExecutionStatus::Expired).await;
}

fn given_up(lease: LeaseRef, unknown: bool) -> Settle {
    if unknown {
        return Settle::Unknown { lease };
    }
    let failure = harness::failure("no runner");
    Settle::Dead { lease, failure }
}

/// A worker that dies after the wish leaves it to the next one to close.
pub async fn a_worker_lost_after_a_cancel(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let old = h.take(T).await.reference;
    h.cancel(id).await;
    h.expire_leases();
    let lease = take_closing(h, id, CloseReason::Cancelled).await;
    assert!(!applied(h.outcome(old, success("late")).await));
    close(h, &lease, ExecutionStatus::Cancelled).await;
}

/// Who closes holds the lease like any other: heartbeats extend it.
pub async fn a_close_is_an_ordinary_lease(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    h.cancel(id).await;
    let lease = take_closing(h, id, CloseReason::Cancelled).await;
    h.advance(LEASE / 2);
    assert_ne!(h.extend(lease.reference).await, Extended::Stale);
    h.advance(LEASE / 2);
    assert!(h.try_take(T).await.is_none(), "still held");
    close(h, &lease, ExecutionStatus::Cancelled).await;
}

/// A prefetched delivery to be closed can be begun like any other.
pub async fn a_prefetched_close_can_be_begun(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    h.cancel(id).await;
    let lease = h.prefetch(T).await;
    assert_eq!(lease.close, Some(CloseReason::Cancelled));
    let begun = h
        .store
        .executions
        .begin(&scope::fleet(), lease.reference)
        .await
        .unwrap();
    assert!(matches!(begun, crosspoint_core::Begun::Run), "{begun:?}");
    close(h, &lease, ExecutionStatus::Cancelled).await;
}
