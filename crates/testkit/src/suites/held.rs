//! Two queues of one target: calls that somebody waits for, and the sideline.

use super::T;
use crate::{Harness, envelope, harness};
use crosspoint_core::CustomerId;
use crosspoint_core::{
    CustomerTerms, Enqueue, Enqueued, Envelope, InvocationId, LeaseRequest, Queue, Settle, TargetStats,
};
use std::time::Duration;

pub(super) const HOLD: Duration = Duration::from_secs(60);

/// A call that somebody waits for, for so long.
pub(super) fn held(h: &Harness, customer: &str, hold: Duration) -> Envelope {
    let mut call = h.service(T, customer);
    call.hold_until = Some(h.now().plus(hold));
    call
}

pub(super) fn from(queue: Queue, max: usize) -> LeaseRequest {
    let mut request = harness::request(T, max);
    request.queue = queue;
    request
}

pub(super) async fn leased(h: &Harness, request: LeaseRequest) -> Vec<InvocationId> {
    let leases = h.store.dispatch.lease(request).await.unwrap();
    leases.iter().map(|lease| lease.envelope.id()).collect()
}

pub(super) fn name(customer: &str) -> CustomerId {
    CustomerId::new(customer).unwrap()
}

async fn stats(h: &Harness) -> Option<TargetStats> {
    let all = h.store.dispatch.admin()?.stats().await.unwrap();
    all.into_iter().find(|stats| stats.target.as_str() == T)
}

/// Whoever asks for both queues gets what is held first, whenever it came.
pub async fn held_calls_go_first(h: &Harness) {
    let first = h.queue(h.service(T, "acme")).await;
    let waited_for = h.queue(held(h, "acme", HOLD)).await;
    let other = h.queue(held(h, "globex", HOLD)).await;
    let got = leased(h, from(Queue::HeldFirst, 9)).await;
    assert_eq!(got.len(), 3);
    assert_eq!(got[2], first, "the sideline comes last");
    assert!(got.contains(&waited_for) && got.contains(&other));
}

/// Each queue can be asked for alone.
pub async fn a_queue_can_be_asked_for_alone(h: &Harness) {
    let sidelined = h.queue(h.service(T, "acme")).await;
    let waited_for = h.queue(held(h, "acme", HOLD)).await;
    assert_eq!(leased(h, from(Queue::Held, 9)).await, [waited_for]);
    assert_eq!(leased(h, from(Queue::Held, 9)).await, []);
    assert_eq!(leased(h, from(Queue::Sideline, 9)).await, [sidelined]);
}

/// The time of a hold comes back with the lease.
pub async fn the_hold_is_kept_with_the_call(h: &Harness) {
    let call = held(h, "acme", HOLD);
    let until = call.hold_until;
    h.queue(call).await;
    assert_eq!(h.take(T).await.envelope.hold_until, until);
}

/// What is not worth hurrying for any more goes to the sideline when its turn comes, to the place of its age.
pub async fn hopeless_calls_go_to_the_sideline(h: &Harness) {
    let older = h.queue(h.service(T, "acme")).await;
    let hopeless = h.queue(held(h, "acme", Duration::from_secs(2))).await;
    let younger = h.queue(h.service(T, "acme")).await;
    let good = h.queue(held(h, "acme", HOLD)).await;
    let mut request = from(Queue::Held, 9);
    request.hopeless = Duration::from_secs(2);
    assert_eq!(leased(h, request.clone()).await, [good], "it leaves the held queue");
    assert_eq!(leased(h, request).await, [], "for good");
    assert_eq!(leased(h, from(Queue::Sideline, 9)).await, [older, hopeless, younger]);
}

/// The same in one lease of both queues.
pub async fn hopeless_calls_come_in_the_sidelines_turn(h: &Harness) {
    let older = h.queue(h.service(T, "acme")).await;
    let hopeless = h.queue(held(h, "acme", Duration::from_secs(1))).await;
    let good = h.queue(held(h, "acme", HOLD)).await;
    let mut request = from(Queue::HeldFirst, 9);
    request.hopeless = Duration::from_secs(5);
    assert_eq!(leased(h, request).await, [good, older, hopeless]);
}

/// A hold that is over ends the haste by itself: the call waits in the sideline, whoever looks.
pub async fn a_hold_that_is_over_is_sidelined(h: &Harness) {
    let call = h.queue(held(h, "acme", HOLD)).await;
    let later = h.queue(h.service(T, "acme")).await;
    h.advance(HOLD);
    assert_eq!(leased(h, from(Queue::Held, 9)).await, []);
    assert_eq!(leased(h, from(Queue::Sideline, 9)).await, [call, later]);
    let late = held(h, "acme", Duration::ZERO);
    let late = h.queue(late).await;
    assert_eq!(leased(h, from(Queue::Held, 9)).await, [], "or never begins");
    assert_eq!(leased(h, from(Queue::Sideline, 9)).await, [late]);
}

/// However many are moved away first: nothing is answered only when nothing is ready.
pub async fn many_hopeless_calls_hide_no_other(h: &Harness) {
    let hopeless = (0..2000).map(|_| Enqueue::queued(held(h, "acme", Duration::from_secs(2))));
    h.store.dispatch.enqueue(hopeless.collect()).await.unwrap();
    let good = h.queue(held(h, "acme", HOLD)).await;
    let mut request = from(Queue::Held, 9);
    request.hopeless = Duration::from_secs(2);
    assert_eq!(leased(h, request).await, [good]);
}

/// On demand the held call that came last goes first, within its customer and its priority; the sideline keeps its order.
pub async fn the_newest_held_call_goes_first(h: &Harness) {
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(h.queue(held(h, "acme", HOLD)).await);
    }
    let mut urgent = Vec::new();
    for _ in 0..2 {
        urgent.push(h.queue(envelope::urgent(held(h, "acme", HOLD), 5)).await);
    }
    let (first, second) = (h.queue(h.service(T, "acme")).await, h.queue(h.service(T, "acme")).await);
    let mut request = from(Queue::HeldFirst, 9);
    request.newest_first = true;
    let got = leased(h, request).await;
    if h.store.dispatch.capabilities().priority {
        assert_eq!(got[..5], [urgent[1], urgent[0], ids[2], ids[1], ids[0]]);
    }
    assert_eq!(got[5..], [first, second]);
}

/// Within each queue higher priorities go first, but a queue is not left for one.
pub async fn priority_counts_within_a_queue(h: &Harness) {
    if !h.store.dispatch.capabilities().priority {
        return;
    }
    let urgent = h.queue(envelope::urgent(h.service(T, "acme"), 9)).await;
    let low = h.queue(envelope::urgent(held(h, "acme", HOLD), -1)).await;
    let plain = h.queue(held(h, "acme", HOLD)).await;
    assert_eq!(leased(h, from(Queue::HeldFirst, 9)).await, [plain, low, urgent]);
}

/// While its hold lasts, a call that comes back stands in the held queue again; then in the sideline.
pub async fn a_hold_outlasts_retry_and_release(h: &Harness) {
    let call = h.queue(held(h, "acme", HOLD)).await;
    h.queue(h.service(T, "acme")).await;
    let take = |queue| async move { h.store.dispatch.lease(from(queue, 1)).await.unwrap().pop() };
    let lease = take(Queue::Held).await.expect("held").reference;
    h.retry(lease, Duration::ZERO).await;
    let lease = take(Queue::Held).await.expect("held after a retry").reference;
    h.settle(Settle::Release { lease }).await;
    let lease = take(Queue::Held).await.expect("held after a release").reference;
    h.retry(lease, Duration::from_secs(10)).await;
    assert!(take(Queue::Held).await.is_none(), "not before its time");
    h.advance(Duration::from_secs(10));
    let lease = take(Queue::Held).await.expect("held after a delay").reference;
    h.retry(lease, HOLD).await;
    h.advance(HOLD);
    assert!(take(Queue::Held).await.is_none(), "nobody waits any more");
    let lease = take(Queue::Sideline).await.expect("sidelined");
    assert_eq!(lease.envelope.id(), call, "in the place of its age");
    h.settle(Settle::Release { lease: lease.reference }).await;
    assert!(take(Queue::Held).await.is_none());
}

/// A worker that is lost gives the call back to the queue in which it belongs by then.
pub async fn a_lost_call_comes_back_to_its_queue(h: &Harness) {
    let mut long = held(h, "acme", HOLD);
    long.repeatable = true;
    let mut short = held(h, "globex", Duration::from_secs(1));
    short.repeatable = true;
    let (long, short) = (h.queue(long).await, h.queue(short).await);
    assert_eq!(leased(h, from(Queue::Held, 9)).await.len(), 2);
    h.expire_leases();
    assert_eq!(leased(h, from(Queue::Held, 9)).await, [long]);
    assert_eq!(leased(h, from(Queue::Sideline, 9)).await, [short]);
}

/// A call that somebody waits for is leased as it is stored, past its customer's sideline; not past what is held.
pub async fn a_start_goes_past_the_sideline(h: &Harness) {
    let start = |call| h.enqueue(Enqueue::leased(call, harness::terms("starter")));
    h.queue(h.service(T, "acme")).await;
    let answer = start(h.service(T, "acme")).await;
    assert!(matches!(answer, Enqueued::New(None)), "behind the sideline: {answer:?}");
    let answer = start(held(h, "acme", HOLD)).await;
    assert!(matches!(answer, Enqueued::New(Some(_))), "past it: {answer:?}");
    h.queue(held(h, "globex", HOLD)).await;
    for call in [h.service(T, "globex"), held(h, "globex", HOLD)] {
        let answer = start(call).await;
        assert!(matches!(answer, Enqueued::New(None)), "behind what is held: {answer:?}");
    }
}

/// With an ordering key the head decides: what stands behind it is in no queue, held or not.
pub async fn the_head_of_an_order_decides(h: &Harness) {
    let head = h.queue(envelope::ordered(h.service(T, "acme"), "k")).await;
    let second = h.queue(envelope::ordered(held(h, "acme", HOLD), "k")).await;
    let third = h
        .queue(envelope::ordered(held(h, "acme", Duration::from_secs(1)), "k"))
        .await;
    assert_eq!(leased(h, from(Queue::Held, 9)).await, [], "it does not overtake");
    let lease = h.take(T).await;
    assert_eq!(lease.envelope.id(), head);
    h.complete(lease.reference, "ok").await;
    let lease = h.store.dispatch.lease(from(Queue::Held, 9)).await.unwrap().remove(0);
    assert_eq!(lease.envelope.id(), second);
    h.advance(Duration::from_secs(2));
    h.complete(lease.reference, "ok").await;
    assert_eq!(
        leased(h, from(Queue::Held, 9)).await,
        [],
        "its hold ended while it stood behind"
    );
    assert_eq!(leased(h, from(Queue::Sideline, 9)).await, [third]);
}

/// Flows are held as calls are, also when they are delivered to be closed.
pub async fn flows_are_held_too(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let mut flow = h.flow(T, "acme");
    flow.hold_until = Some(h.now().plus(HOLD));
    let flow = h.queue(flow).await;
    h.cancel(flow).await;
    let lease = h.take(T).await;
    assert_eq!(lease.envelope.id(), flow);
    assert!(lease.close.is_some());
}

/// A call that expires in the held queue has ended.
pub async fn a_held_call_expires(h: &Harness) {
    let mut call = held(h, "acme", HOLD);
    call.expires = Some(h.now().plus(Duration::from_secs(1)));
    let call = h.queue(call).await;
    h.advance(Duration::from_secs(2));
    assert_eq!(leased(h, from(Queue::HeldFirst, 9)).await, []);
    assert!(h.status(call).await.state.is_terminal());
}

/// Counts tell what is held, and what all that waits takes up.
pub async fn stats_tell_what_is_held(h: &Harness) {
    if h.store.dispatch.admin().is_none() {
        return;
    }
    let mut long = held(h, "acme", HOLD);
    *long.invocation.request.body_mut() = vec![7; 5000].into();
    h.queue(long).await;
    h.queue(held(h, "acme", Duration::from_secs(1))).await;
    h.queue(h.service(T, "acme")).await;
    let full = stats(h).await.expect("counted");
    assert_eq!((full.ready, full.held), (3, 2));
    assert!((5000..7000).contains(&full.bytes), "{}", full.bytes);
    h.advance(Duration::from_secs(2));
    let over = stats(h).await.expect("counted");
    assert_eq!((over.ready, over.held), (3, 1), "one hold is over");
    let lease = h.take(T).await.reference;
    let left = stats(h).await.expect("counted");
    assert_eq!((left.ready, left.held, left.leased), (2, 0, 1));
    assert!(left.bytes < 2000, "{}", left.bytes);
    h.retry(lease, Duration::from_secs(5)).await;
    let back = stats(h).await.expect("counted");
    assert_eq!((back.delayed, back.bytes), (1, full.bytes));
}

/// The process that comes next finds both queues as they were.
pub async fn a_restart_keeps_both_queues(h: &Harness) {
    let good = h.queue(held(h, "acme", HOLD)).await;
    let short = h.queue(held(h, "acme", Duration::from_secs(1))).await;
    let sidelined = h.queue(h.service(T, "globex")).await;
    let leased_before = h.queue(held(h, "initech", HOLD)).await;
    let mut request = from(Queue::Held, 1);
    request.customers = [CustomerTerms::new(name("acme")).skipped()].into();
    let lease = h.store.dispatch.lease(request).await.unwrap().remove(0);
    assert_eq!(lease.envelope.id(), leased_before);
    let store = h.after_crash().await;
    let release = Settle::Release { lease: lease.reference };
    store.dispatch.settle(vec![release]).await.unwrap();
    h.advance(Duration::from_secs(2));
    let ids = |leases: Vec<crosspoint_core::Lease>| leases.iter().map(|l| l.envelope.id()).collect::<Vec<_>>();
    let mut got = ids(store.dispatch.lease(from(Queue::Held, 9)).await.unwrap());
    got.sort();
    let mut wanted = [good, leased_before];
    wanted.sort();
    assert_eq!(got, wanted);
    let got = ids(store.dispatch.lease(from(Queue::Sideline, 9)).await.unwrap());
    assert!(
        got.len() == 2 && got.contains(&short) && got.contains(&sidelined),
        "{got:?}"
    );
}
