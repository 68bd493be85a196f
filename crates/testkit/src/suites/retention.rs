//! What operators do: counts, dead letters, redrive, purge.

use super::T;
use crate::{Harness, harness, scope};
use crosspoint_core::{
    Audience, CallState, CallStatus, Code, CustomerId, Envelope, ExecutionStatus, Failure, Finish, InvocationId,
    LaneStats, Level, LogEntry, Origin, Outcome, Page, Settle, TargetId,
};
use std::time::Duration;

async fn dead(h: &Harness, envelope: Envelope) -> InvocationId {
    let id = h.queue(envelope).await;
    let lease = h.take(T).await.reference;
    let failure = Failure::new(Code::InputInvalid, "it will never work");
    h.settle(Settle::Dead { lease, failure }).await;
    h.advance(Duration::from_millis(1));
    id
}

async fn failed_flow(h: &Harness) -> InvocationId {
    let id = h.queue(h.flow(T, "acme")).await;
    let outcome = Outcome::Ended {
        status: ExecutionStatus::Failed,
        reply: crate::envelope::reply("no"),
        failure: Some(harness::failure("it failed")),
    };
    let mut finish = Finish::new(h.take(T).await.reference, outcome);
    finish.log = vec![LogEntry::new(h.now(), Level::Error, Audience::Customer, "It failed.")];
    h.finish(finish).await;
    h.advance(Duration::from_millis(1));
    id
}

async fn redrive(h: &Harness, id: InvocationId) -> Option<InvocationId> {
    let admin = h.store.dispatch.admin().expect("checked");
    let answers = admin.redrive((&scope::fleet()).into(), &[id]).await.unwrap();
    assert_eq!(answers.len(), 1, "one answer per id");
    *answers.first().expect("checked")
}

/// Counts per target: ready, delayed or blocked, leased, dead, and the age of the oldest.
pub async fn stats_count_the_queue(h: &Harness) {
    let Some(admin) = h.store.dispatch.admin() else { return };
    let oldest = h.now();
    dead(h, h.service(T, "acme")).await;
    h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    h.retry(lease, Duration::from_secs(60)).await;
    drop(h.start(h.service(T, "acme")).await);
    let since = h.now();
    h.queue(h.service(T, "acme")).await;
    h.advance(Duration::from_secs(1));
    h.queue(h.service(T, "globex")).await;
    let all = admin.stats().await.unwrap();
    let stats = all.iter().find(|s| s.target.as_str() == T).expect("counted");
    assert_eq!((stats.ready, stats.delayed, stats.leased, stats.dead), (2, 1, 1, 1));
    assert_eq!(stats.oldest, Some(since));
    assert!(oldest < since);
}

/// Of one customer's calls for one target, those that wait for a worker are counted, whether somebody waits for them or not.
pub async fn a_lane_counts_what_waits(h: &Harness) {
    let Some(admin) = h.store.dispatch.admin() else { return };
    let target = TargetId::new(T).expect("valid");
    let [acme, globex, nobody] = ["acme", "globex", "nobody"].map(|name| CustomerId::new(name).expect("valid"));
    let lane = async |customer| admin.lane(&target, customer).await.unwrap();
    assert_eq!(lane(&acme).await, LaneStats::default(), "before anything is known");
    h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    h.queue(h.service("other", "acme")).await;
    let mut held = h.service(T, "acme");
    held.hold_until = Some(h.now().plus(Duration::from_secs(60)));
    h.queue(held).await;
    h.queue(h.service(T, "acme")).await;
    h.queue(h.service(T, "globex")).await;
    let (two, one) = (lane(&acme).await, lane(&globex).await);
    assert_eq!((two.ready, one.ready), (2, 1));
    assert!(one.bytes > 0, "requests have a size");
    assert_eq!(two.bytes, one.bytes * 2, "all requests are alike");
    assert_eq!(lane(&nobody).await, LaneStats::default());
    h.retry(lease, Duration::from_secs(60)).await;
    assert_eq!(lane(&acme).await.ready, 2, "what waits for a time waits for no worker");
}

/// Dead letters are listed newest first, in pages, each once.
pub async fn dead_letters_are_listed(h: &Harness) {
    let Some(admin) = h.store.dispatch.admin() else { return };
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(dead(h, h.service(T, "acme")).await);
    }
    ids.push(failed_flow(h).await);
    h.queue(h.service(T, "acme")).await;
    let fleet = scope::fleet();
    let mut page = Page::first(3);
    let mut seen: Vec<CallStatus> = Vec::new();
    loop {
        let part = admin.dead((&fleet).into(), page).await.unwrap();
        assert!(part.items.len() <= 3);
        seen.extend(part.items);
        let Some(next) = part.next else { break };
        page = Page::after(next, 3);
    }
    let listed: Vec<_> = seen.iter().map(|status| status.id).collect();
    ids.reverse();
    assert_eq!(listed, ids);
    assert!(seen.iter().all(|s| s.state == CallState::Dead && s.failure.is_some()));
}

/// A redrive is a new call with the same work and the same keys for outside effects; the old one stays as it ended.
pub async fn a_redrive_is_a_new_id(h: &Harness) {
    if h.store.dispatch.admin().is_none() {
        return;
    }
    let old = h.service(T, "acme");
    let run_key = old.invocation.meta.run_key;
    let old = dead(h, old).await;
    let new = redrive(h, old).await.expect("redriven");
    assert_ne!(new, old);
    let lease = h.take(T).await;
    assert_eq!(lease.envelope.id(), new);
    assert_eq!(lease.envelope.invocation.meta.run_key, run_key);
    assert_eq!(lease.envelope.invocation.request.body(), "{\"n\":1}");
    assert_eq!((lease.envelope.origin, lease.attempt), (Origin::Redrive(old), 1));
    h.complete(lease.reference, "ok").await;
    assert_eq!(h.status(old).await.state, CallState::Dead, "terminal means terminal");
    assert_eq!(h.status(new).await.origin, Origin::Redrive(old));
}

/// A failed flow is redriven as a new execution.
pub async fn a_failed_flow_is_redriven(h: &Harness) {
    if h.store.dispatch.admin().is_none() {
        return;
    }
    let old = failed_flow(h).await;
    let new = redrive(h, old).await.expect("redriven");
    let execution = h.execution(new).await;
    assert_eq!(
        (execution.status, execution.origin),
        (ExecutionStatus::Queued, Origin::Redrive(old))
    );
    assert_eq!(h.execution(old).await.status, ExecutionStatus::Failed);
    assert_eq!(h.take(T).await.envelope.id(), new);
}

/// What nobody knows the end of can be redriven, by somebody who has looked.
pub async fn unknown_work_is_redriven(h: &Harness) {
    if h.store.dispatch.admin().is_none() {
        return;
    }
    let id = h.start(h.service(T, "acme")).await.envelope.id();
    h.expire_leases();
    assert_eq!(h.status(id).await.state, CallState::Unknown);
    assert!(redrive(h, id).await.is_some());
    assert!(h.try_take(T).await.is_some());
}

/// There is nothing to redrive in what succeeded, has not ended, or does not exist.
pub async fn only_what_ended_badly_is_redriven(h: &Harness) {
    if h.store.dispatch.admin().is_none() {
        return;
    }
    let lease = h.start(h.service(T, "acme")).await;
    assert_eq!(redrive(h, lease.envelope.id()).await, None, "running");
    h.complete(lease.reference, "ok").await;
    assert_eq!(redrive(h, lease.envelope.id()).await, None, "completed");
    assert_eq!(redrive(h, InvocationId::derive(&["nothing"])).await, None, "unknown");
    let waiting = h.queue(h.service(T, "acme")).await;
    assert_eq!(redrive(h, waiting).await, None, "waiting");
    assert_eq!(h.lease(T, 9).await.len(), 1);
}

/// Retention takes what ended long ago, oldest first, in batches, with its log, and nothing else.
pub async fn a_purge_takes_what_ended_long_ago(h: &Harness) {
    let Some(admin) = h.store.dispatch.admin() else { return };
    let flow = failed_flow(h).await;
    let mut old = Vec::new();
    for _ in 0..2 {
        old.push(dead(h, h.service(T, "acme")).await);
    }
    let waiting = h.queue(h.service("elsewhere", "acme")).await;
    h.advance(Duration::from_secs(3600));
    let before = h.now();
    h.advance(Duration::from_secs(1));
    let young = dead(h, h.service(T, "acme")).await;

    assert_eq!(admin.purge(before, 2).await.unwrap(), 2);
    assert!(h.try_status(flow).await.is_none() && h.try_status(old[0]).await.is_none());
    assert!(h.try_status(old[1]).await.is_some(), "the limit holds");
    let fleet = scope::fleet();
    let gone = h.store.executions.get((&fleet).into(), flow).await.unwrap();
    assert!(gone.is_none(), "the execution goes with its call");
    // What is gone is not known any more; a new call of that id inherits nothing.
    let mut again = h.flow("elsewhere", "acme");
    again.invocation.meta.id = flow;
    h.queue(again).await;
    let log = &h.store.log;
    let lines = log
        .lines((&fleet).into(), flow, Audience::Developer, Page::default())
        .await
        .unwrap();
    assert!(lines.items.is_empty(), "and so do its lines");
    assert_eq!(admin.purge(before, 100).await.unwrap(), 1);
    assert_eq!(admin.purge(before, 100).await.unwrap(), 0);
    assert!(h.try_status(young).await.is_some() && h.try_status(waiting).await.is_some());
}

/// Of many calls those that have ended are told, with their replies.
pub async fn ended_calls_are_told(h: &Harness) {
    let (done, open, gone) = (
        h.start(h.service(T, "acme")).await,
        h.service(T, "acme"),
        h.service(T, "globex"),
    );
    let (open, gone) = (h.queue(open).await, h.queue(gone).await);
    let unknown = h.service(T, "acme").id();
    let id = done.envelope.id();
    let all = [open, id, unknown, gone];
    assert!(h.store.dispatch.ended(&all).await.unwrap().is_empty());
    h.complete(done.reference, "ok").await;
    h.cancel(gone).await;
    let ended = h.store.dispatch.ended(&all).await.unwrap();
    let mut ids: Vec<InvocationId> = ended.iter().map(|status| status.id).collect();
    ids.sort();
    let mut wanted = vec![id, gone];
    wanted.sort();
    assert_eq!(ids, wanted);
    let status = ended.iter().find(|status| status.id == id).expect("checked");
    assert_eq!(status.reply.as_ref().map(|reply| &reply.body()[..]), Some(&b"ok"[..]));
    let fleet = scope::fleet();
    let one = h.store.dispatch.get((&fleet).into(), id).await.unwrap().expect("kept");
    assert_eq!((one.state, one.finished), (status.state, status.finished));
    if let Some(admin) = h.store.dispatch.admin() {
        h.advance(Duration::from_secs(1));
        assert_eq!(admin.purge(h.now(), 9).await.unwrap(), 2);
        assert!(h.store.dispatch.ended(&all).await.unwrap().is_empty());
    }
}

/// The last note about each target is kept.
pub async fn notes_are_kept(h: &Harness) {
    let Some(admin) = h.store.dispatch.admin() else { return };
    let (here, there) = (TargetId::new(T).unwrap(), TargetId::new("there").unwrap());
    assert_eq!(admin.recall(&here).await.unwrap(), None);
    admin.remember(&here, "first").await.unwrap();
    admin.remember(&there, "other").await.unwrap();
    admin.remember(&here, "{\"limit\":7}").await.unwrap();
    let store = h.after_crash().await;
    let admin = store.dispatch.admin().expect("as before");
    assert_eq!(admin.recall(&here).await.unwrap().as_deref(), Some("{\"limit\":7}"));
    assert_eq!(admin.recall(&there).await.unwrap().as_deref(), Some("other"));
}
