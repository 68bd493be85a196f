//! Starts are transactional: they are written with what causes them, or not at all.

use super::{
    T,
    executions::{finish_and_settle, success},
};
use crate::{Harness, envelope};
use crosspoint_core::{CallState, Enqueue, Enqueued, Envelope, ExecutionStatus, Finish, Finished};
use std::time::Duration;

fn follow_up(h: &Harness, part: &str) -> Envelope {
    envelope::derived(h.flow("follow-ups", "acme"), &["follow-up", part])
}

/// Follow-ups start with the end of their cause.
pub async fn they_come_with_the_finish(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let lease = h.take(T).await.reference;
    assert!(h.try_take("follow-ups").await.is_none());
    let mut finish = Finish::new(lease, success("ok"));
    finish.starts = vec![follow_up(h, "1"), follow_up(h, "2")];
    let ids: Vec<_> = finish.starts.iter().map(Envelope::id).collect();
    finish_and_settle(h, finish).await;
    for id in &ids {
        assert_eq!(h.execution(*id).await.status, ExecutionStatus::Queued);
    }
    let taken: Vec<_> = h.lease("follow-ups", 9).await.iter().map(|l| l.envelope.id()).collect();
    assert_eq!(taken, ids);
}

/// A refused finish starts nothing.
pub async fn a_stale_finish_starts_nothing(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let lease = h.take(T).await.reference;
    h.expire_leases();
    let mut finish = Finish::new(lease, success("late"));
    finish.starts = vec![follow_up(h, "1")];
    assert_eq!(h.finish(finish).await, Finished::Stale);
    assert!(h.try_status(follow_up(h, "1").id()).await.is_none());
    assert!(h.try_take("follow-ups").await.is_none());
}

/// A start whose id is known is the same start: it is not made twice, and does not stop the finish.
pub async fn a_known_start_is_not_made_twice(h: &Harness) {
    h.queue(follow_up(h, "1")).await;
    let first = h.take("follow-ups").await;
    finish_and_settle(h, Finish::new(first.reference, success("ok"))).await;
    h.queue(h.flow(T, "acme")).await;
    let mut finish = Finish::new(h.take(T).await.reference, success("ok"));
    finish.starts = vec![follow_up(h, "1"), follow_up(h, "2"), follow_up(h, "2")];
    finish_and_settle(h, finish).await;
    assert_eq!(h.status(follow_up(h, "1").id()).await.state, CallState::Completed);
    let taken = h.lease("follow-ups", 9).await;
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].envelope.id(), follow_up(h, "2").id());
}

/// A start may be due later, and follows its ordering key.
pub async fn they_keep_their_terms(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let mut later = follow_up(h, "later");
    later.not_before = Some(h.now().plus(Duration::from_secs(60)));
    let mut finish = Finish::new(h.take(T).await.reference, success("ok"));
    finish.starts = vec![
        later,
        envelope::ordered(follow_up(h, "first"), "k"),
        envelope::ordered(follow_up(h, "second"), "k"),
    ];
    finish_and_settle(h, finish).await;
    let taken = h.lease("follow-ups", 9).await;
    assert_eq!(taken.len(), 1, "one is delayed, one waits behind the other");
    assert_eq!(taken[0].envelope.id(), follow_up(h, "first").id());
    assert_eq!(h.status(follow_up(h, "later").id()).await.state, CallState::Delayed);
}

/// A start that is announced again by somebody else is a duplicate.
pub async fn an_announced_start_is_a_duplicate(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let mut finish = Finish::new(h.take(T).await.reference, success("ok"));
    finish.starts = vec![follow_up(h, "1")];
    finish_and_settle(h, finish).await;
    let again = h.enqueue(Enqueue::queued(follow_up(h, "1"))).await;
    assert!(matches!(again, Enqueued::Duplicate), "{again:?}");
}
