//! Adoption: a call that was started directly becomes durable while it runs.

use super::T;
use crate::{Harness, envelope, harness};
use crosspoint_core::{CallState, Enqueue, Enqueued, Envelope, Extended, Lease, Settled};

async fn adopt(h: &Harness, envelope: Envelope) -> Lease {
    match h.enqueue(Enqueue::adopted(envelope, harness::terms("gateway"))).await {
        Enqueued::New(Some(lease)) => *lease,
        other => panic!("an adopted call is leased to who runs it: {other:?}"),
    }
}

/// It is leased to who runs it, begun, whatever waits before it.
pub async fn it_is_leased_whatever_waits(h: &Harness) {
    h.queue(h.service(T, "acme")).await;
    let lease = adopt(h, h.service(T, "acme")).await;
    assert!(lease.begun);
    assert_eq!(lease.attempt, 1);
    assert_eq!(h.extend(lease.reference).await, Extended::Extended);
    let id = lease.envelope.id();
    assert_eq!(h.status(id).await.state, CallState::Leased);
    assert_eq!(h.lease(T, 9).await.len(), 1, "the other one");
}

/// The reply goes to the store, where the client that got a 202 finds it.
pub async fn its_reply_is_kept(h: &Harness) {
    let lease = adopt(h, h.service(T, "acme")).await;
    assert_eq!(h.complete(lease.reference, "finally").await, Settled::Applied);
    let status = h.status(lease.envelope.id()).await;
    assert_eq!(status.reply.expect("kept").body(), "finally");
}

/// Its process dies: it was started, so nobody can know; the late reply is refused.
pub async fn lost_it_ends_as_unknown(h: &Harness) {
    let lease = adopt(h, h.service(T, "acme")).await;
    h.expire_leases();
    assert!(h.try_take(T).await.is_none());
    assert_eq!(h.status(lease.envelope.id()).await.state, CallState::Unknown);
    assert_eq!(h.complete(lease.reference, "late").await, Settled::Stale);
    assert_eq!(h.status(lease.envelope.id()).await.state, CallState::Unknown);
}

/// Its process dies, and it may be repeated: it is.
pub async fn lost_repeatable_work_is_ready_again(h: &Harness) {
    let mut work = h.service(T, "acme");
    work.repeatable = true;
    let lease = adopt(h, work).await;
    h.expire_leases();
    let second = h.take(T).await;
    assert_eq!(second.attempt, 2);
    assert_eq!(h.complete(lease.reference, "late").await, Settled::Stale);
    assert_eq!(h.complete(second.reference, "again").await, Settled::Applied);
}

/// An idempotency key is recorded with it, in the same commit.
pub async fn its_key_is_recorded(h: &Harness) {
    let expires = h.now().plus(harness::LEASE);
    let keyed = || envelope::keyed(h.service(T, "acme"), 1, 1, expires);
    let lease = adopt(h, keyed()).await;
    let again = h.enqueue(Enqueue::adopted(keyed(), harness::terms("gateway"))).await;
    assert!(
        matches!(again, Enqueued::Attached(id) if id == lease.envelope.id()),
        "{again:?}"
    );
}
