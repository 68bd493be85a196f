//! The lines that attempts leave.

use super::{
    T,
    executions::{finish_and_settle, success},
};
use crate::{Harness, harness, scope};
use crosspoint_core::{Audience, Finish, Finished, InvocationId, LeaseRef, Level, LogEntry, Outcome, Page, Progress};

async fn lines(h: &Harness, id: InvocationId, audience: Audience) -> Vec<String> {
    let fleet = scope::fleet();
    let mut page = Page::first(2);
    let mut lines = Vec::new();
    loop {
        let part = h.store.log.lines((&fleet).into(), id, audience, page).await.unwrap();
        assert!(part.items.len() <= 2);
        lines.extend(part.items.into_iter().map(|line| line.message));
        let Some(next) = part.next else { return lines };
        page = Page::after(next, 2);
    }
}

fn line(h: &Harness, audience: Audience, message: &str) -> LogEntry {
    LogEntry::new(h.now(), Level::Info, audience, message)
}

/// Lines of all attempts, oldest first, in pages; customers see theirs, developers all.
pub async fn lines_are_kept_in_order(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let retry = Outcome::Retry {
        at: h.now(),
        failure: harness::failure("again"),
    };
    let mut finish = Finish::new(h.take(T).await.reference, retry);
    finish.log = vec![
        line(h, Audience::Customer, "1"),
        line(h, Audience::Developer, "2"),
        line(h, Audience::Customer, "3"),
    ];
    finish_and_settle(h, finish).await;
    let mut finish = Finish::new(h.take(T).await.reference, success("ok"));
    finish.log = vec![line(h, Audience::Developer, "4"), line(h, Audience::Customer, "5")];
    finish_and_settle(h, finish).await;
    assert_eq!(lines(h, id, Audience::Developer).await, ["1", "2", "3", "4", "5"]);
    assert_eq!(lines(h, id, Audience::Customer).await, ["1", "3", "5"]);
}

/// A line comes back as it was written.
pub async fn a_line_is_kept_whole(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let entry = LogEntry::new(h.now(), Level::Warn, Audience::Customer, "2 of 3 orders: \"ünïcode\"\n");
    let mut finish = Finish::new(h.take(T).await.reference, success("ok"));
    finish.log = vec![entry.clone()];
    finish_and_settle(h, finish).await;
    let fleet = scope::fleet();
    let kept = h
        .store
        .log
        .lines((&fleet).into(), id, Audience::Customer, Page::default());
    assert_eq!(kept.await.unwrap().items, [entry]);
}

/// A stale worker leaves no line.
pub async fn a_stale_worker_leaves_no_line(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let lease = h.take(T).await.reference;
    h.expire_leases();
    drop(h.take(T).await);
    let mut finish = Finish::new(lease, success("late"));
    finish.log = vec![line(h, Audience::Customer, "late")];
    assert_eq!(h.finish(finish).await, Finished::Stale);
    assert!(lines(h, id, Audience::Developer).await.is_empty());
}

/// What a run says of how far it is can be read until its attempt ends, the last of it.
pub async fn progress_is_told_while_it_runs(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let lease = h.take(T).await.reference;
    assert_eq!(h.execution(id).await.progress, None);
    let first = Progress::new(h.now()).done(1.5).total(8.0).text("orders \"read\"");
    let last = Progress::new(h.now()).text("tidying up");
    for said in [first, last] {
        assert!(report(h, lease, said.clone()).await);
        assert_eq!(h.execution(id).await.progress, Some(said));
    }
    let retry = Outcome::Retry {
        at: h.now(),
        failure: harness::failure("again"),
    };
    finish_and_settle(h, Finish::new(lease, retry)).await;
    assert_eq!(h.execution(id).await.progress, None, "it waits");
    let lease = h.take(T).await.reference;
    assert_eq!(h.execution(id).await.progress, None, "another attempt");
    assert!(report(h, lease, Progress::new(h.now()).done(1.0)).await);
    finish_and_settle(h, Finish::new(lease, success("ok"))).await;
    assert_eq!(h.execution(id).await.progress, None, "it ended");
}

async fn report(h: &Harness, lease: LeaseRef, progress: Progress) -> bool {
    h.store.log.report(&scope::fleet(), lease, progress).await.unwrap()
}

/// A worker that has lost its lease says nothing more, nor does one after the end; a service has no record to say it in.
pub async fn a_stale_worker_tells_no_progress(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let lost = h.take(T).await.reference;
    assert!(report(h, lost, Progress::new(h.now()).done(1.0)).await);
    h.expire_leases();
    let lease = h.take(T).await.reference;
    assert!(!report(h, lost, Progress::new(h.now()).done(2.0)).await);
    assert_eq!(
        h.execution(id).await.progress,
        None,
        "neither what was said before the loss"
    );
    finish_and_settle(h, Finish::new(lease, success("ok"))).await;
    assert!(!report(h, lease, Progress::new(h.now()).done(3.0)).await);
    h.queue(h.service(T, "acme")).await;
    let service = h.take(T).await.reference;
    assert!(!report(h, service, Progress::new(h.now()).done(1.0)).await);
}
