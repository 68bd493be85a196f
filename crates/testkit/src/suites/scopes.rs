//! Isolation: in every method a foreign customer's scope sees nothing and changes nothing.

use super::{T, connections, customers, executions, installations};
use crate::{Harness, envelope, harness, scope};
use crosspoint_core::{
    Audience, CallState, Cancel, ExecutionFilter, Finish, Health, Level, LogEntry, Outcome, Page, Paged,
    SaveInstallation, Saved, StateSnapshot,
};
use serde_json::json;

fn alone<T, K: PartialEq + std::fmt::Debug>(page: &Paged<T>, id: impl Fn(&T) -> K, own: &K) {
    let ids: Vec<K> = page.items.iter().map(id).collect();
    assert!(ids.len() == 1 && ids.first() == Some(own), "{ids:?}, not only {own:?}");
    assert!(page.next.is_none(), "not even a hint at more");
}

/// Reading and cancelling calls.
pub async fn calls(h: &Harness) {
    let id = h.queue(h.service(T, "acme")).await;
    let (own, foreign) = (scope::customer("acme"), scope::customer("globex"));
    let dispatch = &h.store.dispatch;
    assert!(dispatch.get((&own).into(), id).await.unwrap().is_some());
    assert!(dispatch.get((&foreign).into(), id).await.unwrap().is_none());
    assert_eq!(dispatch.cancel((&foreign).into(), id).await.unwrap(), Cancel::NotFound);
    assert_eq!(h.status(id).await.state, CallState::Queued);
    assert_eq!(dispatch.cancel((&own).into(), id).await.unwrap(), Cancel::Cancelled);
}

/// Dead letters and redrive.
pub async fn dead_letters(h: &Harness) {
    let Some(admin) = h.store.dispatch.admin() else { return };
    for customer in ["acme", "globex"] {
        let lease = h.start(h.service(T, customer)).await.reference;
        let failure = harness::failure("dead");
        h.settle(crosspoint_core::Settle::Dead { lease, failure }).await;
    }
    let (own, foreign) = (scope::customer("acme"), scope::customer("globex"));
    let theirs = admin.dead((&own).into(), Page::first(1)).await.unwrap();
    let id = theirs.items.first().expect("one").id;
    alone(
        &theirs,
        |status| status.customer.as_str().to_owned(),
        &"acme".to_owned(),
    );
    assert_eq!(admin.redrive((&foreign).into(), &[id]).await.unwrap(), [None]);
    assert!(h.try_take(T).await.is_none());
    assert!(matches!(
        admin.redrive((&own).into(), &[id]).await.unwrap().as_slice(),
        [Some(_)]
    ));
}

/// Reading, listing and cancelling executions.
pub async fn executions(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    h.queue(h.flow(T, "globex")).await;
    let (own, foreign) = (scope::customer("acme"), scope::customer("globex"));
    let repository = &h.store.executions;
    assert!(repository.get((&own).into(), id).await.unwrap().is_some());
    assert!(repository.get((&foreign).into(), id).await.unwrap().is_none());
    assert!(repository.envelope((&own).into(), id).await.unwrap().is_some());
    assert!(repository.envelope((&foreign).into(), id).await.unwrap().is_none());
    let page = repository
        .list((&own).into(), &ExecutionFilter::default(), Page::first(1))
        .await
        .unwrap();
    alone(&page, |execution| execution.id, &id);
    let filter = ExecutionFilter::installation(envelope::installation("acme"));
    let page = repository
        .list((&foreign).into(), &filter, Page::default())
        .await
        .unwrap();
    assert!(page.items.is_empty(), "not by naming the installation either");
    assert_eq!(
        repository.cancel((&foreign).into(), id).await.unwrap(),
        Cancel::NotFound
    );
    assert_eq!(h.take(T).await.close, None);
    assert_eq!(repository.cancel((&own).into(), id).await.unwrap(), Cancel::Requested);
}

/// The lines of a log, and what a flow remembers.
pub async fn logs_and_state(h: &Harness) {
    installations::install(h, "acme").await;
    let id = h.queue(h.flow(T, "acme")).await;
    let mut finish = Finish::new(h.take(T).await.reference, executions::success("ok"));
    finish.log = vec![LogEntry::new(h.now(), Level::Info, Audience::Customer, "Done.")];
    finish.state = Some(StateSnapshot::new(0, json!({ "cursor": 9 })));
    executions::finish_and_settle(h, finish).await;
    let installation = envelope::installation("acme");
    for (customer, sees) in [("acme", true), ("globex", false)] {
        let scope = scope::customer(customer);
        let lines = h
            .store
            .log
            .lines((&scope).into(), id, Audience::Developer, Page::default());
        assert_eq!(lines.await.unwrap().items.len(), usize::from(sees), "{customer}");
        let state = h
            .store
            .state
            .state((&scope).into(), installation, "announce")
            .await
            .unwrap();
        assert_eq!(state.version, u64::from(sees), "{customer}");
    }
}

/// What a flow wrote after its installation was gone belongs to nobody else either.
pub async fn state_without_an_installation(h: &Harness) {
    h.queue(h.flow(T, "acme")).await;
    let mut finish = Finish::new(h.take(T).await.reference, executions::success("ok"));
    finish.state = Some(StateSnapshot::new(0, json!({ "cursor": 9 })));
    executions::finish_and_settle(h, finish).await;
    let (foreign, installation) = (scope::customer("globex"), envelope::installation("acme"));
    let state = h
        .store
        .state
        .state((&foreign).into(), installation, "announce")
        .await
        .unwrap();
    assert_eq!(state, StateSnapshot::default());
}

/// Saving, reading, listing and removing installations; nobody takes over another's id.
pub async fn installations(h: &Harness) {
    let own_record = installations::install(h, "acme").await;
    installations::install(h, "globex").await;
    let (own, foreign) = (scope::customer("acme"), scope::customer("globex"));
    let repository = &h.store.installations;
    let id = own_record.id;
    assert!(repository.get((&own).into(), id).await.unwrap().is_some());
    assert!(repository.get((&foreign).into(), id).await.unwrap().is_none());
    alone(
        &repository.list((&own).into(), Page::first(1)).await.unwrap(),
        |i| i.id,
        &id,
    );

    let mut change = own_record.clone();
    change.config = json!({ "stolen": true });
    let foreign_save = repository
        .save((&foreign).into(), SaveInstallation::new(change.clone()))
        .await;
    assert!(!matches!(foreign_save, Ok(Saved::Applied)), "another's record");
    change.customer = foreign.customer().clone();
    let take_over = repository.save((&foreign).into(), SaveInstallation::new(change)).await;
    assert!(!matches!(take_over, Ok(Saved::Applied)), "another's id");
    let mut new = installations::draft(h, "initech");
    new.customer = own.customer().clone();
    let planted = repository.save((&foreign).into(), SaveInstallation::new(new)).await;
    assert!(!matches!(planted, Ok(Saved::Applied)), "a record in another's name");
    assert_eq!(repository.remove((&foreign).into(), id, 1).await.unwrap(), Saved::Stale);
    assert_eq!(repository.get((&own).into(), id).await.unwrap(), Some(own_record));
    assert_eq!(repository.remove((&own).into(), id, 1).await.unwrap(), Saved::Applied);
}

/// The schedules of an installation.
pub async fn schedules(h: &Harness) {
    let mut change = SaveInstallation::new(installations::draft(h, "acme"));
    let id = change.installation.id;
    change.schedules = Some(vec![installations::schedule(&change.installation, "announce", None)]);
    installations::save(h, change).await;
    let (own, foreign) = (scope::customer("acme"), scope::customer("globex"));
    assert_eq!(h.store.schedules.of((&own).into(), id).await.unwrap().len(), 1);
    assert!(h.store.schedules.of((&foreign).into(), id).await.unwrap().is_empty());
}

/// Saving, reading, listing, judging and removing connections; nobody takes over another's id.
pub async fn connections(h: &Harness) {
    let record = connections::connection(h, "acme");
    connections::save(h, &record).await;
    connections::save(h, &connections::connection(h, "globex")).await;
    let (own, foreign) = (scope::customer("acme"), scope::customer("globex"));
    let repository = &h.store.connections;
    assert!(repository.get((&own).into(), record.id).await.unwrap().is_some());
    assert!(repository.get((&foreign).into(), record.id).await.unwrap().is_none());
    alone(
        &repository.list((&own).into(), Page::first(1)).await.unwrap(),
        |c| c.id,
        &record.id,
    );

    let mut change = record.clone();
    change.generation += 1;
    let foreign_save = repository.save((&foreign).into(), &change).await;
    assert!(!matches!(foreign_save, Ok(Saved::Applied)), "another's record");
    change.customer = foreign.customer().clone();
    let take_over = repository.save((&foreign).into(), &change).await;
    assert!(!matches!(take_over, Ok(Saved::Applied)), "another's id");
    let planted = repository
        .save((&foreign).into(), &connections::connection(h, "acme"))
        .await;
    assert!(!matches!(planted, Ok(Saved::Applied)), "a record in another's name");
    // Whether it answers with an error is its own choice; that nothing changed is not.
    drop(
        repository
            .set_health((&foreign).into(), record.id, Health::NeedsReconnect)
            .await,
    );
    assert!(!repository.remove((&foreign).into(), record.id).await.unwrap());
    assert_eq!(
        repository.get((&own).into(), record.id).await.unwrap(),
        Some(record.clone())
    );
    assert!(repository.remove((&own).into(), record.id).await.unwrap());
}

/// A customer's scope makes that customer's record and no other.
pub async fn customers(h: &Harness) {
    let repository = &h.store.customers;
    let foreign = customers::customer(h, "acme", "Acme, as others call it");
    assert!(repository.ensure(&scope::customer("globex"), &foreign).await.is_err());
    let listed = repository.list(&scope::fleet(), Page::default()).await.unwrap();
    assert!(listed.items.is_empty());
}

/// The work of one customer is not counted, delayed or ended by another's: only its own scope reaches it.
pub async fn a_cancel_stays_at_home(h: &Harness) {
    let id = h.queue(h.flow(T, "acme")).await;
    let lease = h.take(T).await.reference;
    let foreign = scope::customer("globex");
    assert_eq!(
        h.store.dispatch.cancel((&foreign).into(), id).await.unwrap(),
        Cancel::NotFound
    );
    assert_eq!(h.extend(lease).await, crosspoint_core::Extended::Extended);
    executions::finish_and_settle(h, Finish::new(lease, Outcome::Released)).await;
    assert_eq!(h.take(T).await.close, None);
}
