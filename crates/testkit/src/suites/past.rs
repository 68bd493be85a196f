//! What installations had before they were changed, for as long as an execution refers to it.

use super::{
    T,
    executions::{finish_and_settle, success},
    installations::{draft, save},
};
use crate::{Harness, scope};
use crosspoint_core::{
    ConnectionId, Finish, FlowRef, Installation, InstallationState, InvocationId, ReplayConfig, ReplayState,
    SaveInstallation, Saved, Sealed,
};
use serde_json::json;
use std::time::Duration;

/// An active installation whose settings say `n`.
fn with(mut record: Installation, n: u64) -> Installation {
    record.state = InstallationState::Active;
    record.version = format!("{n}.0.0");
    record.config = json!({ "n": n, "key": { "$secret": "key" } });
    record.secrets = [("key".to_owned(), (n, Sealed::from_bytes(vec![0xff, 0, 7])))].into();
    record.connections = [("shop".to_owned(), ConnectionId::derive(&[&n.to_string()]))].into();
    record
}

async fn write(h: &Harness, record: Installation) -> Installation {
    let id = record.id;
    assert_eq!(save(h, SaveInstallation::new(record)).await, Saved::Applied);
    let fleet = scope::fleet();
    let found = h.store.installations.get((&fleet).into(), id).await.unwrap();
    found.expect("saved")
}

async fn as_of(h: &Harness, of: &Installation, revision: u64) -> Option<Installation> {
    let fleet = scope::fleet();
    h.store
        .installations
        .as_of((&fleet).into(), of.id, revision)
        .await
        .unwrap()
}

/// What `as_of` should answer for `had`, when the installation is as `now`.
fn at(had: &Installation, now: &Installation, revision: u64) -> Installation {
    let mut was = now.clone();
    was.version.clone_from(&had.version);
    was.config.clone_from(&had.config);
    was.secrets.clone_from(&had.secrets);
    was.connections.clone_from(&had.connections);
    was.revision = revision;
    was
}

/// Runs an execution to its end that says with which revision it ran.
async fn run(h: &Harness, revision: u64) -> InvocationId {
    let id = h.queue(h.flow(T, "acme")).await;
    finish(h, revision).await;
    id
}

async fn finish(h: &Harness, revision: u64) {
    let mut finish = Finish::new(h.take(T).await.reference, success("ok"));
    finish.revision = Some(revision);
    finish_and_settle(h, finish).await;
}

/// Each revision answers with what the installation had then, sealed as it was.
pub async fn each_revision_is_kept_whole(h: &Harness) {
    let one = write(h, with(draft(h, "acme"), 1)).await;
    h.advance(Duration::from_secs(1));
    let two = write(h, with(one.clone(), 2)).await;
    let three = write(h, with(two.clone(), 3)).await;
    assert_eq!(as_of(h, &one, 1).await, Some(at(&one, &three, 1)));
    assert_eq!(as_of(h, &one, 2).await, Some(at(&two, &three, 2)));
    assert_eq!(as_of(h, &one, 3).await, Some(three.clone()));
    assert_eq!(as_of(h, &one, 4).await, None, "not yet");
    assert_eq!(as_of(h, &one, 0).await, None, "never");
    let other = draft(h, "globex");
    assert_eq!(as_of(h, &other, 1).await, None, "no such installation");
}

/// A save that changes nothing that an execution runs with changes no past, and each secret and connection counts.
pub async fn what_changes_nothing_is_the_same(h: &Harness) {
    let one = write(h, with(draft(h, "acme"), 1)).await;
    let mut paused = one.clone();
    paused.state = InstallationState::Paused;
    let two = write(h, paused).await;
    let mut sealed = two.clone();
    sealed.secrets = [("key".to_owned(), (2, Sealed::from_bytes(vec![1])))].into();
    let three = write(h, sealed).await;
    let mut connected = three.clone();
    connected.connections.clear();
    let four = write(h, connected).await;
    let mut bare = four.clone();
    bare.secrets.clear();
    let five = write(h, bare).await;
    for (revision, had) in [(1, &one), (2, &one), (3, &three), (4, &four), (5, &five)] {
        assert_eq!(
            as_of(h, &one, revision).await,
            Some(at(had, &five, revision)),
            "{revision}"
        );
    }
}

/// What a draft had is not kept: nothing runs with it.
pub async fn a_draft_has_no_past(h: &Harness) {
    let mut record = with(draft(h, "acme"), 1);
    record.state = InstallationState::Draft;
    let one = write(h, record).await;
    let two = write(h, with(one.clone(), 2)).await;
    assert_eq!(as_of(h, &one, 1).await, None);
    assert_eq!(as_of(h, &one, 2).await, Some(two));
}

/// Another customer's past is none, and a removed installation has none.
pub async fn it_goes_with_the_installation(h: &Harness) {
    let one = write(h, with(draft(h, "acme"), 1)).await;
    let two = write(h, with(one.clone(), 2)).await;
    let installations = &h.store.installations;
    let globex = scope::customer("globex");
    for revision in [1, 2] {
        let found = installations.as_of((&globex).into(), one.id, revision).await.unwrap();
        assert_eq!(found, None, "somebody else's");
    }
    let fleet = scope::fleet();
    let removed = installations
        .remove((&fleet).into(), one.id, two.revision)
        .await
        .unwrap();
    assert_eq!(removed, Saved::Applied);
    assert_eq!(as_of(h, &one, 1).await, None);
    write(h, with(draft(h, "acme"), 9)).await;
    let three = write(h, with(as_of(h, &one, 1).await.expect("the new one's"), 10)).await;
    assert_eq!(three.revision, 2);
    let was = as_of(h, &one, 1).await.expect("kept");
    assert_eq!(was.version, "9.0.0", "nothing of the removed one is left");
}

/// A purge leaves what an execution ran with that it leaves, and takes it with the last such execution.
pub async fn it_is_kept_while_an_execution_refers_to_it(h: &Harness) {
    let Some(admin) = h.store.dispatch.admin() else { return };
    let one = write(h, with(draft(h, "acme"), 1)).await;
    let id = h.queue(h.flow(T, "acme")).await;
    let two = write(h, with(one.clone(), 2)).await;
    let three = write(h, with(two.clone(), 3)).await;
    h.advance(Duration::from_secs(3600));
    let before = h.now();
    // It was begun before the change, and ends long after it.
    finish(h, 1).await;
    assert_eq!(h.execution(id).await.revision, Some(1));
    h.advance(Duration::from_secs(60));
    admin.purge(before, 100).await.unwrap();
    assert_eq!(as_of(h, &one, 1).await, Some(at(&one, &three, 1)), "it is referred to");
    assert_eq!(as_of(h, &one, 2).await, None, "nothing ran with it");
    assert_eq!(as_of(h, &one, 3).await, Some(three.clone()), "what it has now");
    h.advance(Duration::from_secs(60));
    assert_eq!(admin.purge(h.now(), 100).await.unwrap(), 1);
    admin.purge(h.now(), 100).await.unwrap();
    assert_eq!(as_of(h, &one, 1).await, None);
    assert_eq!(as_of(h, &one, 3).await, Some(three));
}

/// What waits to be run with a revision keeps it, however long it waits; then it counts as any other.
pub async fn it_is_kept_for_what_is_to_run(h: &Harness) {
    let Some(admin) = h.store.dispatch.admin() else { return };
    let one = write(h, with(draft(h, "acme"), 1)).await;
    let two = write(h, with(one.clone(), 2)).await;
    let mut again = h.flow(T, "acme");
    let flow = again.flow.as_mut().expect("a flow");
    (flow.revision, flow.state) = (Some(1), ReplayState::Discard);
    let id = h.queue(again.clone()).await;
    let waits = h.execution(id).await;
    assert_eq!(
        (waits.revision, waits.config, waits.state),
        (Some(1), ReplayConfig::Original, ReplayState::Discard)
    );
    h.advance(Duration::from_secs(86_400));
    admin.purge(h.now(), 100).await.unwrap();
    assert_eq!(as_of(h, &one, 1).await, Some(at(&one, &two, 1)));
    let lease = h.take(T).await;
    assert_eq!(lease.envelope.flow, again.flow, "the worker is told");
    admin.purge(h.now(), 100).await.unwrap();
    assert!(as_of(h, &one, 1).await.is_some(), "it runs");
    let ended_at = h.now();
    finish_and_settle(h, Finish::new(lease.reference, success("ok"))).await;
    assert_eq!(h.execution(id).await.revision, Some(1), "what was known stays");
    admin.purge(ended_at, 100).await.unwrap();
    assert!(as_of(h, &one, 1).await.is_some(), "it can be repeated");
    h.advance(Duration::from_secs(1));
    for _ in 0..2 {
        admin.purge(h.now(), 100).await.unwrap();
    }
    assert_eq!(as_of(h, &one, 1).await, None);
}

/// The record says with which revision the last attempt ran; of one that did not get so far, the one before.
pub async fn the_record_says_what_it_ran_with(h: &Harness) {
    let id = run(h, 3).await;
    let ended = h.execution(id).await;
    assert_eq!(
        (ended.revision, ended.config, ended.state),
        (Some(3), ReplayConfig::Current, ReplayState::Save)
    );
    let id = h.queue(h.flow(T, "acme")).await;
    assert_eq!(h.execution(id).await.revision, None);
    for (ran, known) in [(Some(4), Some(4)), (None, Some(4)), (Some(6), Some(6))] {
        let outcome = crosspoint_core::Outcome::Retry {
            at: h.now(),
            failure: crate::harness::failure("again"),
        };
        let mut finish = Finish::new(h.take(T).await.reference, outcome);
        finish.revision = ran;
        finish_and_settle(h, finish).await;
        assert_eq!(h.execution(id).await.revision, known);
    }
}

/// Of one installation only so many are kept: the newest.
pub async fn there_is_an_end_to_it(h: &Harness) {
    let mut record = write(h, with(draft(h, "acme"), 1)).await;
    let first = record.clone();
    for n in 2..=Installation::KEPT as u64 + 2 {
        record = write(h, with(record, n)).await;
    }
    assert_eq!(as_of(h, &first, 1).await, None);
    assert_eq!(as_of(h, &first, 2).await.expect("kept").version, "2.0.0");
}

/// A flow is named with what it is to run with.
pub async fn the_terms_of_a_replay_are_kept(h: &Harness) {
    let mut envelope = h.flow(T, "acme");
    let flow: &mut FlowRef = envelope.flow.as_mut().expect("a flow");
    flow.revision = Some(u64::from(u32::MAX) + 7);
    let id = h.queue(envelope.clone()).await;
    let fleet = scope::fleet();
    let kept = h.store.executions.envelope((&fleet).into(), id).await.unwrap();
    assert_eq!(kept.expect("kept").flow, envelope.flow);
}
