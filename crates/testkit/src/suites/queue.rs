//! Storing calls and getting them out again.

use super::T;
use crate::{Harness, LEASE, envelope, harness, race};
use bytes::Bytes;
use crosspoint_core::{CallState, Enqueue, Enqueued, Finish, InvocationId, Lease, Settle, Settled};
use std::{sync::Arc, time::Duration};

/// What goes in comes out: request, metadata and terms, byte for byte.
pub async fn a_call_comes_back_as_it_was_stored(h: &Harness) {
    let mut stored = envelope::urgent(envelope::ordered(h.service(T, "acme"), "order-7"), 3);
    let meta = &mut stored.invocation.meta;
    meta.route_class = Arc::from("scan");
    meta.deadline = Some(h.now().plus(LEASE));
    meta.trace = Some(Arc::from("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    meta.principal = Some(Arc::from("user:1"));
    let headers = stored.invocation.request.headers_mut();
    headers.append("x-many", http::HeaderValue::from_static("one"));
    headers.append("x-many", http::HeaderValue::from_bytes(b"tw\xf6").unwrap());
    *stored.invocation.request.body_mut() = Bytes::from_static(&[0, 1, 255, b'\n']);
    stored.expires = Some(h.now().plus(LEASE * 9));
    stored.max_attempts = 7;
    stored.repeatable = true;
    h.queue(stored.clone()).await;

    let lease = h.take(T).await;
    let (got, want) = (&lease.envelope, &stored);
    assert_eq!(got.invocation.request.method(), want.invocation.request.method());
    assert_eq!(got.invocation.request.uri(), want.invocation.request.uri());
    assert_eq!(got.invocation.request.headers(), want.invocation.request.headers());
    assert_eq!(got.invocation.request.body(), want.invocation.request.body());
    let (meta, wanted) = (&got.invocation.meta, &want.invocation.meta);
    assert_eq!(
        (meta.id, &meta.customer, &meta.target),
        (wanted.id, &wanted.customer, &wanted.target)
    );
    assert_eq!(
        (&meta.route_class, meta.deadline),
        (&wanted.route_class, wanted.deadline)
    );
    assert_eq!(
        (&meta.ordering_key, meta.priority),
        (&wanted.ordering_key, wanted.priority)
    );
    assert_eq!((meta.run_key, &meta.trace), (wanted.run_key, &wanted.trace));
    assert_eq!(meta.principal, wanted.principal);
    assert_eq!((got.created, got.expires), (want.created, want.expires));
    assert_eq!((got.max_attempts, got.repeatable, got.origin), (7, true, want.origin));
    assert!(got.flow.is_none() && lease.close.is_none());
    assert_eq!((lease.attempt, lease.until), (1, h.now().plus(LEASE)));
}

/// An envelope of a flow keeps what it starts.
pub async fn a_flow_comes_back_with_its_reference(h: &Harness) {
    let stored = h.flow(T, "acme");
    h.queue(stored.clone()).await;
    let lease = h.take(T).await;
    assert_eq!(lease.envelope.flow, stored.flow);
    assert!(lease.envelope.repeatable, "a flow's effects happen at least once");
}

/// Every state of a simple life can be read by anybody who asks.
pub async fn the_status_follows_a_call(h: &Harness) {
    let mut stored = h.service(T, "acme");
    stored.invocation.meta.principal = Some(Arc::from("user:1"));
    let accepted = h.now();
    let id = h.queue(stored).await;
    let status = h.status(id).await;
    assert_eq!((status.state, status.attempt), (CallState::Queued, 0));
    assert_eq!((status.customer.as_str(), status.target.as_str()), ("acme", T));
    assert_eq!((status.created, status.finished), (accepted, None));
    assert_eq!(status.principal.as_deref(), Some("user:1"));

    h.advance(Duration::from_secs(2));
    let lease = h.take(T).await;
    assert_eq!(lease.queued, accepted, "since when it was ready");
    assert_eq!(h.status(id).await.state, CallState::Leased);

    h.advance(Duration::from_secs(2));
    assert_eq!(h.complete(lease.reference, "done").await, Settled::Applied);
    let status = h.status(id).await;
    assert_eq!((status.state, status.attempt), (CallState::Completed, 1));
    assert_eq!(status.finished, Some(h.now()));
    let reply = status.reply.expect("kept");
    assert_eq!((reply.status().as_u16(), &reply.body()[..]), (200, &b"done"[..]));
    assert_eq!(reply.headers().get("content-type").unwrap(), "text/plain");
    assert!(h.try_take(T).await.is_none(), "it is over");
}

/// Nobody knows of an id that was never stored.
pub async fn an_unknown_id_is_nothing(h: &Harness) {
    let id = InvocationId::derive(&["never", "stored"]);
    assert!(h.try_status(id).await.is_none());
    assert_eq!(h.cancel(id).await, crosspoint_core::Cancel::NotFound);
}

/// An id is known as long as the call is kept: queued, leased and finished.
pub async fn an_id_is_stored_once(h: &Harness) {
    let tick = envelope::derived(h.service(T, "acme"), &["tick", "2026-01-01"]);
    let id = h.queue(tick.clone()).await;
    let again = || h.enqueue(Enqueue::queued(tick.clone()));
    assert!(matches!(again().await, Enqueued::Duplicate), "queued");
    let lease = h.take(T).await;
    assert!(matches!(again().await, Enqueued::Duplicate), "leased");
    let terms = harness::terms("second");
    let stolen = h.enqueue(Enqueue::leased(tick.clone(), terms)).await;
    assert!(matches!(stolen, Enqueued::Duplicate), "nobody gets a lease that way");
    h.complete(lease.reference, "once").await;
    assert!(matches!(again().await, Enqueued::Duplicate), "finished");
    assert_eq!(h.status(id).await.state, CallState::Completed);
    assert!(h.try_take(T).await.is_none());
}

/// One batch may hold an id twice: the second is a duplicate of the first, and the answers are in order.
pub async fn a_batch_answers_in_order(h: &Harness) {
    let (a, b) = (h.service(T, "acme"), h.service(T, "globex"));
    let items = vec![
        Enqueue::queued(a.clone()),
        Enqueue::queued(a),
        Enqueue::leased(b, harness::terms("worker")),
    ];
    let answers = h.store.dispatch.enqueue(items).await.unwrap();
    assert!(
        matches!(
            answers.as_slice(),
            [Enqueued::New(None), Enqueued::Duplicate, Enqueued::New(Some(_))]
        ),
        "{answers:?}"
    );
}

/// However many processes store the same tick at once, there is one call.
pub async fn a_race_for_an_id_stores_it_once(h: &Harness) {
    let tick = envelope::derived(h.flow(T, "acme"), &["tick", "race"]);
    let answers = race(8, |_| {
        let (store, item) = (h.store.clone(), Enqueue::queued(tick.clone()));
        async move { store.dispatch.enqueue(vec![item]).await.unwrap() }
    })
    .await;
    let new = answers.iter().flatten().filter(|a| matches!(a, Enqueued::New(_)));
    assert_eq!(new.count(), 1, "{answers:?}");
    assert_eq!(h.lease(T, 8).await.len(), 1);
}

/// However many workers ask at once, each call goes to one of them.
pub async fn a_race_for_work_leases_each_call_once(h: &Harness) {
    for n in 0..6 {
        h.queue(h.service(T, if n % 2 == 0 { "acme" } else { "globex" })).await;
    }
    let leases = race(8, |_| {
        let store = h.store.clone();
        async move { store.dispatch.lease(harness::request(T, 2)).await.unwrap() }
    })
    .await;
    let mut ids: Vec<_> = leases.iter().flatten().map(|lease| lease.envelope.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), leases.iter().flatten().count()), (6, 6));
}

/// A worker gets no more than it asks for, and nothing of other targets.
pub async fn a_lease_keeps_to_its_request(h: &Harness) {
    for _ in 0..3 {
        h.queue(h.service(T, "acme")).await;
    }
    h.queue(h.service("elsewhere", "acme")).await;
    assert_eq!(h.lease(T, 2).await.len(), 2);
    assert_eq!(h.lease(T, 10).await.len(), 1);
    assert!(h.lease(T, 10).await.is_empty());
    assert_eq!(h.lease("elsewhere", 10).await.len(), 1);
}

/// A delayed call is not delivered before its time.
pub async fn a_delayed_call_waits_for_its_time(h: &Harness) {
    if !h.store.dispatch.capabilities().delay {
        return;
    }
    let mut later = h.service(T, "acme");
    later.not_before = Some(h.now().plus(Duration::from_secs(60)));
    let id = h.queue(later).await;
    assert_eq!(h.status(id).await.state, CallState::Delayed);
    assert!(h.try_take(T).await.is_none());
    h.advance(Duration::from_millis(59_999));
    assert!(h.try_take(T).await.is_none());
    h.advance(Duration::from_millis(1));
    assert_eq!(h.take(T).await.envelope.id(), id);
}

/// A worker that waits for longer than any test lasts.
fn waiting(h: &Harness) -> impl Future<Output = Lease> + use<> {
    let mut request = harness::request(T, 1);
    request.wait = Duration::from_secs(3600);
    let store = h.store.clone();
    let waiting = tokio::spawn(async move { store.dispatch.lease(request).await.unwrap() });
    async move {
        // Not how long it takes is tested: without the limit a worker that is never woken would hang the suite.
        let leases = tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .expect("woken");
        leases.expect("no panic").pop().expect("woken for work")
    }
}

/// A worker that waits is woken by new work.
pub async fn a_waiting_worker_is_woken_by_new_work(h: &Harness) {
    let waiting = waiting(h);
    tokio::task::yield_now().await;
    let id = h.queue(h.service(T, "acme")).await;
    assert_eq!(waiting.await.envelope.id(), id);
}

/// A worker that waits is woken when a call before its own, in the same order, ends.
pub async fn a_waiting_worker_is_woken_by_a_freed_order(h: &Harness) {
    h.queue(envelope::ordered(h.service(T, "acme"), "k")).await;
    let second = h.queue(envelope::ordered(h.service(T, "acme"), "k")).await;
    let first = h.take(T).await;
    let waiting = waiting(h);
    tokio::task::yield_now().await;
    h.complete(first.reference, "one").await;
    assert_eq!(waiting.await.envelope.id(), second);
}

/// A worker that waits is woken by what another one gives back, and by what a finished flow starts.
pub async fn a_waiting_worker_is_woken_by_others(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    let woken = waiting(h);
    tokio::task::yield_now().await;
    h.settle(Settle::Release { lease }).await;
    assert_eq!(woken.await.envelope.id(), id);

    let cause = h.start(h.flow("causes", "acme")).await.reference;
    let mut finish = Finish::new(cause, super::executions::success("ok"));
    finish.starts = vec![h.flow(T, "acme")];
    let start = finish.starts.first().expect("one").id();
    let woken = waiting(h);
    tokio::task::yield_now().await;
    super::executions::finish_and_settle(h, finish).await;
    assert_eq!(woken.await.envelope.id(), start);
}

/// A wait without work ends empty.
pub async fn a_wait_without_work_ends_empty(h: &Harness) {
    let mut request = harness::request(T, 1);
    request.wait = Duration::from_millis(5);
    assert!(h.store.dispatch.lease(request).await.unwrap().is_empty());
}
