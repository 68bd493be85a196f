//! What flows remember: compare-and-set, in the transaction of `finish` or in a checkpoint before it.

use super::{
    T,
    executions::{applied, finish_and_settle, success},
};
use crate::{Harness, envelope, harness, scope};
use crosspoint_core::{
    Audience, Checkpointed, Extended, Finish, Finished, LeaseRef, Level, LogEntry, Outcome, Page, StateSnapshot,
};
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

async fn checkpoint(h: &Harness, lease: LeaseRef, version: u64, value: Value) -> Checkpointed {
    let state = StateSnapshot::new(version, value);
    h.store.state.checkpoint(&scope::fleet(), lease, state).await.unwrap()
}

/// What was kept is there while the execution runs, each version replaces the one before, and `finish` goes on from the
/// newest.
pub async fn a_checkpoint_is_kept_before_the_end(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let lease = h.take(T).await.reference;
    for version in 0..3_u64 {
        let kept = checkpoint(h, lease, version, json!({ "page": version })).await;
        assert_eq!(kept, Checkpointed::Applied { version: version + 1 });
        let expected = StateSnapshot::new(version + 1, json!({ "page": version }));
        assert_eq!(state(h).await, expected);
        assert!(!h.execution(id).await.status.is_terminal());
    }
    let mut old = Finish::new(lease, success("ok"));
    old.state = Some(StateSnapshot::new(0, json!("as it was at the start")));
    assert_eq!(h.finish(old.clone()).await, Finished::StateConflict);
    old.state = Some(StateSnapshot::new(3, json!("done")));
    finish_and_settle(h, old).await;
    assert_eq!(state(h).await, StateSnapshot::new(4, json!("done")));
}

/// A checkpoint that was made from another version than there is writes nothing.
pub async fn a_checkpoint_replaces_what_was_read(h: &Harness) {
    for _ in 0..2 {
        h.queue(h.flow(T, "acme")).await;
    }
    let leases = h.lease(T, 2).await;
    let applied = checkpoint(h, leases[0].reference, 0, json!("first")).await;
    assert_eq!(applied, Checkpointed::Applied { version: 1 });
    for version in [0, 2] {
        let refused = checkpoint(h, leases[1].reference, version, json!("second")).await;
        assert_eq!(refused, Checkpointed::StateConflict, "{version}");
    }
    assert_eq!(state(h).await, StateSnapshot::new(1, json!("first")));
    assert_eq!(
        h.extend(leases[1].reference).await,
        Extended::Extended,
        "the lease goes on"
    );
}

/// It stays when its worker is lost, and the next attempt goes on from there.
pub async fn a_checkpoint_outlives_its_attempt(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    checkpoint(h, h.take(T).await.reference, 0, json!({ "page": 7 })).await;
    h.expire_leases();
    let next = h.take(T).await.reference;
    assert_eq!(state(h).await, StateSnapshot::new(1, json!({ "page": 7 })));
    let kept = checkpoint(h, next, 1, json!({ "page": 8 })).await;
    assert_eq!(kept, Checkpointed::Applied { version: 2 });
}

/// Neither after the lease was lost, nor after the execution has ended.
pub async fn a_stale_worker_cannot_checkpoint(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let old = h.take(T).await.reference;
    h.expire_leases();
    let new = h.take(T).await.reference;
    assert_eq!(checkpoint(h, old, 0, json!("late")).await, Checkpointed::Stale);
    finish_and_settle(h, Finish::new(new, success("ok"))).await;
    assert_eq!(checkpoint(h, new, 0, json!("later")).await, Checkpointed::Stale);
    assert_eq!(state(h).await, StateSnapshot::default());
}

/// There is nothing to keep for it.
pub async fn a_call_of_a_service_has_no_state(h: &Harness) {
    h.queue(h.service(T, "acme")).await;
    let lease = h.take(T).await.reference;
    assert_eq!(checkpoint(h, lease, 0, json!(1)).await, Checkpointed::Stale);
}
