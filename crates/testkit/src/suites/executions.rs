//! Executions: begin, finish, and what can be read.

use super::T;
use crate::{Harness, envelope, harness, scope};
use crosspoint_core::{
    Begun, CallState, CloseReason, ExecutionFilter, ExecutionStatus, Extended, Finish, Finished, InvocationId,
    Isolation, LeaseRef, Outcome, Page, Settle, Settled, Timings,
};
use std::time::Duration;

/// The end of a successful run.
pub(crate) fn success(body: &str) -> Outcome {
    Outcome::Ended {
        status: ExecutionStatus::Succeeded,
        reply: envelope::reply(body),
        failure: None,
    }
}

/// How a worker ends what it was given: a run succeeds, and what came to be closed is closed.
pub(crate) fn ended(close: Option<CloseReason>, body: &str) -> Outcome {
    match close {
        None => success(body),
        Some(why) => Outcome::Ended {
            status: if why == CloseReason::Cancelled {
                ExecutionStatus::Cancelled
            } else {
                ExecutionStatus::Failed
            },
            reply: envelope::reply(body),
            failure: None,
        },
    }
}

/// Whether a finish was written, in whichever of the two ways a store has.
pub(super) const fn applied(finished: Finished) -> bool {
    matches!(finished, Finished::Applied { .. })
}

/// What a worker does after `finish`: settles, if the store did not in the same commit.
pub(super) async fn finish_and_settle(h: &Harness, finish: Finish) {
    let (lease, outcome) = (finish.lease, finish.outcome.clone());
    let finished = h.finish(finish).await;
    assert!(applied(finished), "{finished:?}");
    let in_transaction = h.store.dispatch.capabilities().in_transaction;
    assert!(!in_transaction || finished == Finished::Applied { settled: true });
    if finished == (Finished::Applied { settled: false }) {
        let settle = match outcome {
            Outcome::Ended { reply, .. } => Settle::Complete { lease, reply },
            Outcome::Retry { at, failure } => Settle::Retry { lease, at, failure },
            Outcome::Released => Settle::Release { lease },
            other => panic!("an outcome that this suite does not know: {other:?}"),
        };
        h.settle(settle).await;
    }
}

async fn begin(h: &Harness, lease: LeaseRef) -> Begun {
    h.store.executions.begin(&scope::fleet(), lease).await.unwrap()
}

/// Storing a flow's envelope makes the execution; its record says when an attempt runs and what it waits for.
pub async fn the_record_follows_an_attempt(h: &Harness) {
    let accepted = h.now();
    let id = h.queue(h.flow(T, "acme")).await;
    let execution = h.execution(id).await;
    assert_eq!((execution.status, execution.attempt), (ExecutionStatus::Queued, 0));
    assert_eq!(
        (execution.created, execution.started, execution.finished),
        (accepted, None, None)
    );
    assert_eq!(execution.installation, envelope::installation("acme"));
    assert_eq!(
        (execution.integration.as_str(), execution.version.as_str()),
        ("order-alerts", "1.0.0")
    );
    assert_eq!((execution.flow.as_str(), execution.max_attempts), ("announce", 5));

    h.advance(Duration::from_secs(1));
    let leased = h.now();
    let lease = h.take(T).await;
    let execution = h.execution(id).await;
    assert_eq!((execution.status, execution.attempt), (ExecutionStatus::Running, 1));
    assert_eq!(execution.started, Some(leased));

    let at = h.now().plus(Duration::from_secs(10));
    let failure = harness::failure("the provider is away");
    let retry = Outcome::Retry {
        at,
        failure: failure.clone(),
    };
    finish_and_settle(h, Finish::new(lease.reference, retry)).await;
    let execution = h.execution(id).await;
    assert_eq!((execution.status, execution.attempt), (ExecutionStatus::Waiting, 1));
    assert_eq!((execution.next_attempt, execution.failure), (Some(at), Some(failure)));
}

/// The record of a success: the number of its attempt, when it ended, where its time went, and no failure any more.
pub async fn the_record_follows_the_next_attempt(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let retry = Outcome::Retry {
        at: h.now(),
        failure: harness::failure("the provider is away"),
    };
    finish_and_settle(h, Finish::new(h.take(T).await.reference, retry)).await;
    let lease = h.take(T).await;
    assert_eq!(lease.attempt, 2);
    h.advance(Duration::from_secs(1));
    let mut finish = Finish::new(lease.reference, success("done"));
    finish.timings = Timings::default();
    finish.timings.queue_ms = 5;
    finish.timings.run_ms = 900;
    finish.usage.cpu_ms = 40;
    finish.usage.peak_memory = 1 << 33;
    finish.usage.sent = 7;
    finish.isolation = Some(Isolation::Process);
    let (timings, usage) = (finish.timings, finish.usage);
    finish_and_settle(h, finish).await;
    let execution = h.execution(id).await;
    assert_eq!((execution.status, execution.attempt), (ExecutionStatus::Succeeded, 2));
    assert_eq!((execution.finished, execution.timings), (Some(h.now()), timings));
    assert_eq!(execution.usage, usage);
    assert_eq!(
        (execution.isolation, execution.next_attempt),
        (Some(Isolation::Process), None)
    );
    assert!(execution.failure.is_none(), "a success has no failure");
    let status = h.status(id).await;
    assert_eq!((status.state, status.attempt), (CallState::Completed, 2));
    assert_eq!(status.reply.expect("kept").body(), "done");
}

/// `begin` runs under the current lease, as often as it is asked.
pub async fn begin_under_the_current_lease_runs(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let lease = h.prefetch(T).await.reference;
    assert!(matches!(begin(h, lease).await, Begun::Run));
    assert!(
        matches!(begin(h, lease).await, Begun::Run),
        "an answer that got lost is asked for again"
    );
    finish_and_settle(h, Finish::new(lease, success("ok"))).await;
}

/// `begin` under an older lease is stale, and does not fence out the present one.
pub async fn begin_under_an_older_lease_is_stale(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let old = h.prefetch(T).await.reference;
    h.expire_leases();
    let new = h.prefetch(T).await.reference;
    assert!(matches!(begin(h, new).await, Begun::Run));
    assert!(matches!(begin(h, old).await, Begun::Stale));
    assert_eq!(h.extend(new).await, Extended::Extended);
    assert!(matches!(begin(h, new).await, Begun::Run));
    assert_eq!(h.outcome(old, success("late")).await, Finished::Stale);
    finish_and_settle(h, Finish::new(new, success("in time"))).await;
    assert_eq!(h.status(id).await.reply.expect("kept").body(), "in time");
}

/// `begin` after the end answers with the reply, so that the envelope is settled without running.
pub async fn begin_after_the_end_answers_the_reply(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let lease = h.take(T).await.reference;
    finish_and_settle(h, Finish::new(lease, success("done"))).await;
    match begin(h, lease).await {
        Begun::Finished(reply) => assert_eq!(reply.body(), "done"),
        other => panic!("it is over: {other:?}"),
    }
}

/// `begin` of an id that nobody knows (any more) is stale.
pub async fn begin_of_an_unknown_id_is_stale(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let known = h.take(T).await.reference;
    let unknown = LeaseRef::new(InvocationId::derive(&["unknown"]), known.fence, known.token + 1000);
    assert!(matches!(begin(h, unknown).await, Begun::Stale));
    assert_eq!(h.outcome(unknown, success("?")).await, Finished::Stale);
}

/// An execution ends once: neither a second finish nor a late one changes anything.
pub async fn an_execution_ends_once(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let old = h.take(T).await.reference;
    h.expire_leases();
    let new = h.take(T).await.reference;
    assert_eq!(h.outcome(old, success("old")).await, Finished::Stale);
    finish_and_settle(h, Finish::new(new, success("new"))).await;
    let ended = h.execution(id).await;
    h.advance(Duration::from_secs(1));
    for lease in [old, new] {
        assert_eq!(h.outcome(lease, success("again")).await, Finished::Stale);
        let retry = Outcome::Retry {
            at: h.now(),
            failure: harness::failure("again"),
        };
        assert_eq!(h.outcome(lease, retry).await, Finished::Stale);
        assert_eq!(h.outcome(lease, Outcome::Released).await, Finished::Stale);
        assert_eq!(h.extend(lease).await, Extended::Stale);
    }
    let execution = h.execution(id).await;
    assert_eq!((execution.status, execution.finished), (ended.status, ended.finished));
    assert_eq!(h.status(id).await.reply.expect("kept").body(), "new");
    assert!(h.try_take(T).await.is_none());
}

/// A flow's envelope cannot be settled past its execution: completing it works only after `finish`, under its fence.
pub async fn completing_needs_a_finish(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let old = h.take(T).await.reference;
    assert_eq!(h.complete(old, "forged").await, Settled::Stale);
    assert!(!h.execution(id).await.status.is_terminal());
    h.expire_leases();
    let lease = h.take(T).await.reference;
    assert!(applied(h.outcome(lease, success("true")).await));
    assert_eq!(h.complete(old, "forged").await, Settled::Stale);
    assert_eq!(
        h.complete(lease, "true").await,
        Settled::Applied,
        "the worker need not know who settled"
    );
    assert_eq!(h.status(id).await.reply.expect("kept").body(), "true");
}

/// A worker that gives up on a flow's envelope does not end the execution: its owner is asked to close it.
pub async fn giving_up_does_not_end_an_execution(h: &Harness) {
    for unknown in [false, true] {
        let id = h.queue(h.flow(T, "acme")).await;
        let lease = h.take(T).await.reference;
        let failure = harness::failure("no runner");
        h.settle(if unknown {
            Settle::Unknown { lease }
        } else {
            Settle::Dead { lease, failure }
        })
        .await;
        assert!(!h.execution(id).await.status.is_terminal());
        h.expire_leases();
        let again = h.take(T).await;
        assert_eq!(again.envelope.id(), id);
        finish_and_settle(h, Finish::new(again.reference, success("closed"))).await;
    }
}

/// A released attempt does not count and is ready at once, by `finish` as by `settle`.
pub async fn a_released_attempt_does_not_count(h: &Harness) {
    let mut work = h.flow(T, "acme");
    work.max_attempts = 1;
    let id = h.queue(work).await;
    let lease = h.take(T).await.reference;
    finish_and_settle(h, Finish::new(lease, Outcome::Released)).await;
    let execution = h.execution(id).await;
    assert_eq!((execution.status, execution.attempt), (ExecutionStatus::Queued, 0));
    let lease = h.take(T).await.reference;
    assert_eq!(h.settle(Settle::Release { lease }).await, Settled::Applied);
    let last = h.take(T).await;
    assert_eq!((last.attempt, last.close), (1, None));
    finish_and_settle(h, Finish::new(last.reference, success("ok"))).await;
}

/// A postponed attempt does not count either; it waits for its time and lets others go first.
pub async fn a_postponed_attempt_lets_others_go_first(h: &Harness) {
    let mut work = h.flow(T, "acme");
    work.max_attempts = 1;
    let id = h.queue(work).await;
    let behind = h.queue(h.flow(T, "acme")).await;
    for _ in 0..3 {
        let lease = h.take(T).await;
        assert_eq!((lease.envelope.id(), lease.attempt), (id, 1));
        let at = h.now().plus(Duration::from_secs(5));
        finish_and_settle(h, Finish::new(lease.reference, Outcome::Postponed { at })).await;
        let execution = h.execution(id).await;
        assert_eq!((execution.status, execution.attempt), (ExecutionStatus::Queued, 0));
        let other = h.take(T).await;
        assert_eq!(
            other.envelope.id(),
            behind,
            "the postponed one kept its place at the front"
        );
        assert_eq!(
            h.settle(Settle::Release { lease: other.reference }).await,
            Settled::Applied
        );
        h.advance(Duration::from_secs(5));
    }
    let lease = h.take(T).await;
    finish_and_settle(h, Finish::new(lease.reference, success("ok"))).await;
    assert_eq!(h.execution(id).await.status, ExecutionStatus::Succeeded);
}

/// A failed execution keeps reply and failure, and its call is a dead letter.
pub async fn a_failed_execution_says_why(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let failure = harness::failure("no such channel");
    let outcome = Outcome::Ended {
        status: ExecutionStatus::Failed,
        reply: envelope::reply("sorry"),
        failure: Some(failure.clone()),
    };
    finish_and_settle(h, Finish::new(h.take(T).await.reference, outcome)).await;
    let execution = h.execution(id).await;
    assert_eq!(
        (execution.status, execution.failure),
        (ExecutionStatus::Failed, Some(failure))
    );
    let status = h.status(id).await;
    assert_eq!(status.state, CallState::Dead);
    assert_eq!(status.reply.expect("kept").body(), "sorry");
    assert!(h.try_take(T).await.is_none());
}

/// A service's call is no execution.
pub async fn a_service_has_no_execution(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let fleet = scope::fleet();
    assert!(h.store.executions.get((&fleet).into(), id).await.unwrap().is_none());
    let filter = ExecutionFilter::default();
    let listed = h.store.executions.list((&fleet).into(), &filter, Page::default());
    assert!(listed.await.unwrap().items.is_empty());
}

/// The stored envelope can be read for a replay, also after the end.
pub async fn the_envelope_can_be_read(h: &Harness) {
    let stored = h.flow(T, "acme");
    let id = h.queue(stored.clone()).await;
    finish_and_settle(h, Finish::new(h.take(T).await.reference, success("ok"))).await;
    let fleet = scope::fleet();
    let envelope = h
        .store
        .executions
        .envelope((&fleet).into(), id)
        .await
        .unwrap()
        .expect("kept");
    assert_eq!(envelope.invocation.request.body(), stored.invocation.request.body());
    assert_eq!((envelope.id(), envelope.flow), (id, stored.flow));
    assert_eq!(envelope.invocation.meta.run_key, stored.invocation.meta.run_key);
}

/// Lists are newest first, in pages that hold each execution once, and filtered as asked.
pub async fn executions_are_listed(h: &Harness) {
    let mut ids = Vec::new();
    for n in 0..5 {
        let mut work = h.flow(T, if n == 4 { "globex" } else { "acme" });
        if n == 2 {
            let flow = work.flow.as_mut().expect("a flow");
            flow.flow = "other".into();
        }
        ids.push(h.queue(work).await);
        h.advance(Duration::from_secs(1));
    }
    let lease = h.take(T).await;
    let ended = lease.envelope.id();
    finish_and_settle(h, Finish::new(lease.reference, success("ok"))).await;
    ids.reverse();
    assert_eq!(listed(h, &ExecutionFilter::default()).await, ids);
    let mut filter = ExecutionFilter::installation(envelope::installation("acme"));
    assert_eq!(listed(h, &filter).await, ids[1..]);
    filter.flow = Some("announce".to_owned());
    assert_eq!(listed(h, &filter).await, [ids[1], ids[3], ids[4]]);
    filter = ExecutionFilter::default();
    filter.active = true;
    let active: Vec<_> = ids.iter().copied().filter(|id| *id != ended).collect();
    assert_eq!(listed(h, &filter).await, active);
}

async fn listed(h: &Harness, filter: &ExecutionFilter) -> Vec<InvocationId> {
    let fleet = scope::fleet();
    let mut page = Page::first(2);
    let mut ids = Vec::new();
    loop {
        let part = h.store.executions.list((&fleet).into(), filter, page).await.unwrap();
        assert!(part.items.len() <= 2);
        ids.extend(part.items.iter().map(|execution| execution.id));
        let Some(next) = part.next else { return ids };
        page = Page::after(next, 2);
    }
}

/// Overlap policies count what has not ended: queued, running, waiting.
pub async fn active_executions_are_counted(h: &Harness) {
    let active = || async {
        let installation = envelope::installation("acme");
        h.store
            .executions
            .active(&scope::fleet(), installation, "announce")
            .await
            .unwrap()
    };
    assert_eq!(active().await, 0);
    for _ in 0..3 {
        h.queue(h.flow(T, "acme")).await;
    }
    h.queue(h.flow(T, "globex")).await;
    assert_eq!(active().await, 3);
    let leases = h.lease(T, 4).await;
    assert_eq!(active().await, 3);
    let of_acme: Vec<_> = leases
        .iter()
        .filter(|l| l.envelope.customer().as_str() == "acme")
        .collect();
    finish_and_settle(h, Finish::new(of_acme[0].reference, success("ok"))).await;
    let retry = Outcome::Retry {
        at: h.now().plus(harness::LEASE),
        failure: harness::failure("later"),
    };
    finish_and_settle(h, Finish::new(of_acme[1].reference, retry)).await;
    assert_eq!(active().await, 2);
}
