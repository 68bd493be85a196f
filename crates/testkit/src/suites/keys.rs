//! Idempotency keys: new, attached, reused, in another scope, expired, outliving.

use super::T;
use crate::{Harness, envelope, harness, race};
use crosspoint_core::{Enqueue, Enqueued, Envelope, InvocationId};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

fn keyed(h: &Harness, scope: u8, fingerprint: u8) -> Envelope {
    envelope::keyed(h.service(T, "acme"), scope, fingerprint, h.now().plus(DAY))
}

async fn store(h: &Harness, envelope: Envelope) -> Enqueued {
    h.enqueue(Enqueue::queued(envelope)).await
}

fn attached(answer: &Enqueued, id: InvocationId) -> bool {
    matches!(answer, Enqueued::Attached(to) if *to == id)
}

/// The same request under the same key belongs to the first call, in every state of it.
pub async fn a_repeat_attaches(h: &Harness) {
    let id = h.queue(keyed(h, 1, 1)).await;
    let answer = store(h, keyed(h, 1, 1)).await;
    assert!(attached(&answer, id), "queued: {answer:?}");
    let lease = h.take(T).await.reference;
    let answer = h
        .enqueue(Enqueue::leased(keyed(h, 1, 1), harness::terms("starter")))
        .await;
    assert!(attached(&answer, id), "leased: {answer:?}");
    h.complete(lease, "ok").await;
    let answer = store(h, keyed(h, 1, 1)).await;
    assert!(attached(&answer, id), "completed: {answer:?}");
    assert!(h.try_take(T).await.is_none(), "a repeat is not work");
}

/// Another request under the same key is refused, and stores nothing.
pub async fn another_request_is_refused(h: &Harness) {
    let id = h.queue(keyed(h, 1, 1)).await;
    let other = keyed(h, 1, 2);
    let other_id = other.id();
    let answer = store(h, other).await;
    assert!(matches!(answer, Enqueued::KeyReused(to) if to == id), "{answer:?}");
    assert!(h.try_status(other_id).await.is_none());
    assert_eq!(h.lease(T, 9).await.len(), 1);
}

/// Customer, target, route and principal are in the scope: the same key elsewhere is another one.
pub async fn another_scope_is_another_key(h: &Harness) {
    h.queue(keyed(h, 1, 1)).await;
    let answer = store(h, keyed(h, 2, 1)).await;
    assert!(matches!(answer, Enqueued::New(None)), "{answer:?}");
    assert_eq!(h.lease(T, 9).await.len(), 2);
}

/// A key that has expired is free again.
pub async fn an_expired_key_is_free(h: &Harness) {
    h.queue(keyed(h, 1, 1)).await;
    h.advance(DAY + Duration::from_secs(1));
    let second = keyed(h, 1, 2);
    let id = second.id();
    let answer = store(h, second).await;
    assert!(matches!(answer, Enqueued::New(None)), "{answer:?}");
    let answer = store(h, keyed(h, 1, 2)).await;
    assert!(attached(&answer, id), "the key belongs to the new call: {answer:?}");
}

/// A key outlives its result: after the call is gone a repeat still does not run again.
pub async fn a_key_outlives_its_call(h: &Harness) {
    let Some(admin) = h.store.dispatch.admin() else { return };
    let id = h.queue(keyed(h, 1, 1)).await;
    let lease = h.take(T).await.reference;
    h.complete(lease, "ok").await;
    h.advance(Duration::from_secs(60));
    assert_eq!(admin.purge(h.now(), 10).await.unwrap(), 1);
    assert!(h.try_status(id).await.is_none());
    let answer = store(h, keyed(h, 1, 1)).await;
    assert!(attached(&answer, id), "{answer:?}");
    h.advance(DAY);
    admin.purge(h.now(), 10).await.unwrap();
    let answer = store(h, keyed(h, 1, 1)).await;
    assert!(matches!(answer, Enqueued::New(None)), "{answer:?}");
}

/// An id that is known is a duplicate, whatever its key says.
pub async fn a_known_id_is_a_duplicate_first(h: &Harness) {
    let call = keyed(h, 1, 1);
    h.queue(call.clone()).await;
    let answer = store(h, call.clone()).await;
    assert!(matches!(answer, Enqueued::Duplicate), "{answer:?}");
    let answer = store(h, envelope::keyed(call, 3, 3, h.now().plus(DAY))).await;
    assert!(matches!(answer, Enqueued::Duplicate), "{answer:?}");
    let answer = store(h, keyed(h, 3, 3)).await;
    assert!(
        matches!(answer, Enqueued::New(None)),
        "a duplicate takes no key: {answer:?}"
    );
}

/// Within one batch the first takes the key.
pub async fn a_batch_attaches_to_its_own_first(h: &Harness) {
    let first = keyed(h, 1, 1);
    let id = first.id();
    let items = [first, keyed(h, 1, 1), keyed(h, 1, 2)].map(Enqueue::queued);
    let answers = h.store.dispatch.enqueue(items.into()).await.unwrap();
    let right = matches!(
        answers.as_slice(),
        [Enqueued::New(None), Enqueued::Attached(a), Enqueued::KeyReused(b)] if *a == id && *b == id
    );
    assert!(right, "{answers:?}");
}

/// However many clients repeat a request at once, one call is made.
pub async fn a_race_for_a_key_makes_one_call(h: &Harness) {
    let answers = race(8, |_| {
        let (store, item) = (h.store.clone(), Enqueue::queued(keyed(h, 1, 1)));
        async move { store.dispatch.enqueue(vec![item]).await.unwrap() }
    })
    .await;
    let mut ids: Vec<_> = answers
        .iter()
        .flatten()
        .filter_map(|a| match a {
            Enqueued::Attached(id) => Some(*id),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 7, "{answers:?}");
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(h.take(T).await.envelope.id(), ids[0]);
}
