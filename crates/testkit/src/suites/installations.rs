//! Installations: conditional saves, and what changes together with them.

use crate::{Harness, envelope, race, scope};
use crosspoint_core::{
    Clock, Code, ConnectionId, CustomerId, Failure, Finish, Installation, InstallationId, InstallationState, Page,
    SaveInstallation, Saved, Schedule, ScheduleSpec, Sealed, StateSnapshot,
};
use serde_json::json;
use std::time::Duration;

/// A draft of the customer's installation that [`envelope::flow`] belongs to.
pub(super) fn draft(h: &Harness, customer: &str) -> Installation {
    let id = envelope::installation(customer);
    let owner = CustomerId::new(customer).unwrap();
    Installation::new(id, owner, "order-alerts", "1.0.0", h.now())
}

pub(super) async fn save(h: &Harness, save: SaveInstallation) -> Saved {
    h.store
        .installations
        .save((&scope::fleet()).into(), save)
        .await
        .unwrap()
}

async fn get(h: &Harness, id: InstallationId) -> Option<Installation> {
    h.store.installations.get((&scope::fleet()).into(), id).await.unwrap()
}

pub(super) async fn install(h: &Harness, customer: &str) -> Installation {
    let draft = draft(h, customer);
    assert_eq!(save(h, SaveInstallation::new(draft.clone())).await, Saved::Applied);
    get(h, draft.id).await.expect("saved")
}

/// A schedule of an installation, due at `next`.
pub(super) fn schedule(of: &Installation, flow: &str, next: Option<crosspoint_core::Timestamp>) -> Schedule {
    Schedule::new(
        of.id,
        of.customer.clone(),
        flow,
        ScheduleSpec::cron("*/5 * * * *"),
        next,
    )
}

/// Everything in the record is kept; the revision is the store's.
pub async fn a_record_is_kept_whole(h: &Harness) {
    let mut record = draft(h, "acme");
    record.state = InstallationState::NeedsAttention;
    record.attention = Some(Failure::new(Code::CredentialsRefused, "reconnect"));
    record.config = json!({ "channel": "#ops", "n": 2, "key": { "$secret": "key" } });
    record.secrets = [("key".to_owned(), (3, Sealed::from_bytes(vec![0, 1, 255])))].into();
    record.connections = [("slack".to_owned(), ConnectionId::mint(&*h.clock))].into();
    assert_eq!(save(h, SaveInstallation::new(record.clone())).await, Saved::Applied);
    let kept = get(h, record.id).await.expect("saved");
    assert_eq!(kept.revision, 1);
    record.revision = kept.revision;
    record.updated = kept.updated;
    assert_eq!(kept, record);
}

/// A save counts from the revision that it read; one that is behind writes nothing.
pub async fn a_stale_save_writes_nothing(h: &Harness) {
    let first = install(h, "acme").await;
    let mut second = first.clone();
    second.config = json!({ "channel": "#new" });
    h.advance(Duration::from_secs(5));
    assert_eq!(save(h, SaveInstallation::new(second)).await, Saved::Applied);

    let mut stale = SaveInstallation::new(first.clone());
    stale.installation.config = json!({ "channel": "#stale" });
    stale.schedules = Some(vec![schedule(&first, "announce", Some(h.now()))]);
    stale.starts = vec![h.flow("flows", "acme")];
    let start = stale.starts[0].id();
    assert_eq!(save(h, stale).await, Saved::Stale);
    let kept = get(h, first.id).await.expect("kept");
    assert_eq!((kept.revision, &kept.config), (2, &json!({ "channel": "#new" })));
    let schedules = h.store.schedules.of((&scope::fleet()).into(), first.id).await.unwrap();
    assert!(schedules.is_empty(), "nor schedules");
    assert!(h.try_status(start).await.is_none(), "nor starts");
}

/// Creating what exists, or changing what does not, is stale.
pub async fn a_save_knows_whether_it_creates(h: &Harness) {
    let existing = install(h, "acme").await;
    assert_eq!(save(h, SaveInstallation::new(draft(h, "acme"))).await, Saved::Stale);
    let mut unknown = draft(h, "globex");
    unknown.revision = 4;
    let id = unknown.id;
    assert_eq!(save(h, SaveInstallation::new(unknown)).await, Saved::Stale);
    assert!(get(h, id).await.is_none());
    assert_eq!(get(h, existing.id).await.expect("kept").revision, 1);
}

/// Of many that change the same revision, one wins.
pub async fn a_race_has_one_winner(h: &Harness) {
    let first = install(h, "acme").await;
    let answers = race(8, |n| {
        let (store, mut change) = (h.store.clone(), SaveInstallation::new(first.clone()));
        change.installation.config = json!({ "n": n });
        async move {
            store
                .installations
                .save((&scope::fleet()).into(), change)
                .await
                .unwrap()
        }
    })
    .await;
    let winner = answers.iter().position(|a| *a == Saved::Applied).expect("one");
    assert_eq!(answers.iter().filter(|a| **a == Saved::Applied).count(), 1);
    let kept = get(h, first.id).await.expect("kept");
    assert_eq!((kept.revision, kept.config), (2, json!({ "n": winner })));
}

/// What an installation starts is there with it.
pub async fn starts_come_with_the_save(h: &Harness) {
    let mut save_it = SaveInstallation::new(draft(h, "acme"));
    save_it.starts = vec![h.flow("flows", "acme")];
    let start = save_it.starts[0].id();
    assert_eq!(save(h, save_it).await, Saved::Applied);
    assert_eq!(h.take("flows").await.envelope.id(), start);
}

/// Schedules are replaced as a whole when given, and left alone when not.
pub async fn schedules_are_replaced_with_it(h: &Harness) {
    let mut change = SaveInstallation::new(draft(h, "acme"));
    let (soon, later) = (
        h.clock.now().plus(Duration::from_secs(60)),
        h.now().plus(Duration::from_secs(90)),
    );
    let of = change.installation.clone();
    let kept = vec![schedule(&of, "a", Some(soon)), schedule(&of, "b", None)];
    change.schedules = Some(kept.clone());
    save(h, change).await;
    let schedules = || async {
        let mut all = h.store.schedules.of((&scope::fleet()).into(), of.id).await.unwrap();
        all.sort_by(|a, b| a.flow.cmp(&b.flow));
        all
    };
    assert_eq!(schedules().await, kept);

    save(h, SaveInstallation::new(get(h, of.id).await.expect("kept"))).await;
    assert_eq!(schedules().await, kept, "a change of the record alone");

    let mut change = SaveInstallation::new(get(h, of.id).await.expect("kept"));
    let replaced = vec![schedule(&of, "b", Some(later)), schedule(&of, "c", Some(soon))];
    change.schedules = Some(replaced.clone());
    save(h, change).await;
    assert_eq!(schedules().await, replaced);

    let mut change = SaveInstallation::new(get(h, of.id).await.expect("kept"));
    change.schedules = Some(Vec::new());
    assert_eq!(save(h, change).await, Saved::Applied);
    assert!(schedules().await.is_empty());
    assert_eq!(h.store.schedules.soonest(&scope::fleet()).await.unwrap(), None);
}

/// Removing one takes its schedules and its flows' state; executions stay.
pub async fn removing_takes_what_belongs_to_it(h: &Harness) {
    let mut change = SaveInstallation::new(draft(h, "acme"));
    let id = change.installation.id;
    change.schedules = Some(vec![schedule(&change.installation, "announce", Some(h.now()))]);
    save(h, change).await;
    let execution = h.queue(h.flow("flows", "acme")).await;
    let outcome = super::executions::success("ok");
    let mut finish = Finish::new(h.take("flows").await.reference, outcome);
    finish.state = Some(StateSnapshot::new(0, json!(1)));
    super::executions::finish_and_settle(h, finish).await;

    let (fleet, installations) = (scope::fleet(), &h.store.installations);
    assert_eq!(
        installations.remove((&fleet).into(), id, 0).await.unwrap(),
        Saved::Stale
    );
    assert!(get(h, id).await.is_some());
    assert_eq!(
        installations.remove((&fleet).into(), id, 1).await.unwrap(),
        Saved::Applied
    );
    assert_eq!(
        installations.remove((&fleet).into(), id, 1).await.unwrap(),
        Saved::Stale
    );
    assert!(get(h, id).await.is_none());
    assert!(h.store.schedules.of((&fleet).into(), id).await.unwrap().is_empty());
    assert!(h.store.schedules.due(&fleet, h.now(), 9).await.unwrap().is_empty());
    let state = h.store.state.state((&fleet).into(), id, "announce").await.unwrap();
    assert_eq!(state, StateSnapshot::default());
    assert!(h.execution(execution).await.status.is_terminal(), "the history stays");
}

/// Lists are newest first, in pages that hold each once.
pub async fn installations_are_listed(h: &Harness) {
    let mut ids = Vec::new();
    for customer in ["acme", "globex", "initech", "hooli", "umbrella"] {
        ids.push(install(h, customer).await.id);
        h.advance(Duration::from_secs(1));
    }
    ids.reverse();
    let fleet = scope::fleet();
    let (mut page, mut listed) = (Page::first(2), Vec::new());
    loop {
        let part = h.store.installations.list((&fleet).into(), page).await.unwrap();
        assert!(part.items.len() <= 2);
        listed.extend(part.items.iter().map(|installation| installation.id));
        let Some(next) = part.next else { break };
        page = Page::after(next, 2);
    }
    assert_eq!(listed, ids);
}
