//! What flows remember: compare-and-set, in the transaction of `finish`.

use super::{
    T,
    executions::{applied, finish_and_settle, success},
};
use crate::{Harness, envelope, harness, scope};
use crosspoint_core::{Audience, Extended, Finish, Finished, Level, LogEntry, Outcome, Page, StateSnapshot};
use serde_json::{Value, json};

async fn state(h: &Harness) -> StateSnapshot {
    let (fleet, installation) = (scope::fleet(), envelope::installation("acme"));
    h.store
        .state
        .state((&fleet).into(), installation, "announce")
        .await
        .unwrap()
}

/// Before the first write there is nothing, at version 0.
pub async fn it_starts_empty(h: &Harness) {
    assert_eq!(state(h).await, StateSnapshot::default());
}

/// Each write moves the version on by one; an attempt without a new state leaves it alone.
pub async fn a_write_moves_it_on(h: &Harness) {
    for version in 0..3_u64 {
        h.queue(h.flow(T, "acme")).await;
        let mut finish = Finish::new(h.take(T).await.reference, success("ok"));
        finish.state = Some(StateSnapshot::new(version, json!({ "cursor": version })));
        finish_and_settle(h, finish).await;
        assert_eq!(
            state(h).await,
            StateSnapshot::new(version + 1, json!({ "cursor": version }))
        );
    }
    h.queue(h.flow(T, "acme")).await;
    finish_and_settle(h, Finish::new(h.take(T).await.reference, success("ok"))).await;
    assert_eq!(state(h).await.version, 3);
}

/// A state that moved on since it was read refuses the whole finish, and the lease goes on.
pub async fn a_conflict_writes_nothing(h: &Harness) {
    let ids = [h.queue(h.flow(T, "acme")).await, h.queue(h.flow(T, "acme")).await];
    let leases = h.lease(T, 2).await;
    let mut finishes = leases.iter().map(|lease| {
        let mut finish = Finish::new(lease.reference, success("ok"));
        finish.state = Some(StateSnapshot::new(0, Value::from(lease.envelope.id().to_string())));
        finish.log = vec![LogEntry::new(h.now(), Level::Info, Audience::Customer, "Done.")];
        finish.starts = vec![envelope::derived(
            h.flow("follow-ups", "acme"),
            &[&lease.envelope.id().to_string()],
        )];
        finish
    });
    let (first, mut second) = (finishes.next().expect("two"), finishes.next().expect("two"));
    assert!(applied(h.finish(first).await));
    assert_eq!(h.finish(second.clone()).await, Finished::StateConflict);

    assert_eq!(state(h).await, StateSnapshot::new(1, Value::from(ids[0].to_string())));
    assert!(!h.execution(ids[1]).await.status.is_terminal());
    let fleet = scope::fleet();
    let lines = h
        .store
        .log
        .lines((&fleet).into(), ids[1], Audience::Developer, Page::default());
    assert!(lines.await.unwrap().items.is_empty());
    assert!(h.try_status(second.starts[0].id()).await.is_none());
    assert_eq!(h.extend(second.lease).await, Extended::Extended, "the lease goes on");

    second.state = Some(StateSnapshot::new(1, json!("merged")));
    finish_and_settle(h, second.clone()).await;
    assert_eq!(state(h).await, StateSnapshot::new(2, json!("merged")));
    assert!(h.try_status(second.starts[0].id()).await.is_some());
}

/// A stale worker cannot write the state, though its version fits.
pub async fn a_stale_worker_cannot_write_it(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let old = h.take(T).await.reference;
    h.expire_leases();
    let new = h.take(T).await.reference;
    let mut finish = Finish::new(old, success("late"));
    finish.state = Some(StateSnapshot::new(0, json!("stale")));
    assert_eq!(h.finish(finish).await, Finished::Stale);
    assert_eq!(state(h).await, StateSnapshot::default());
    finish_and_settle(h, Finish::new(new, success("ok"))).await;
}

/// A failed attempt may keep what it has reached.
pub async fn a_retry_may_write_it(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let retry = Outcome::Retry {
        at: h.now(),
        failure: harness::failure("half way"),
    };
    let mut finish = Finish::new(h.take(T).await.reference, retry);
    finish.state = Some(StateSnapshot::new(0, json!({ "page": 4 })));
    finish_and_settle(h, finish).await;
    assert_eq!(state(h).await, StateSnapshot::new(1, json!({ "page": 4 })));
}

/// Each flow of each installation remembers for itself.
pub async fn flows_do_not_share_it(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let mut finish = Finish::new(h.take(T).await.reference, success("ok"));
    finish.state = Some(StateSnapshot::new(0, json!(1)));
    finish_and_settle(h, finish).await;
    let fleet = scope::fleet();
    for (customer, flow) in [("acme", "other"), ("globex", "announce")] {
        let installation = envelope::installation(customer);
        let state = h.store.state.state((&fleet).into(), installation, flow).await.unwrap();
        assert_eq!(state, StateSnapshot::default(), "{customer} {flow}");
    }
}
