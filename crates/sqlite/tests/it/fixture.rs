//! Files of every released schema, kept as they were written.
//!
//! `schema-1.db` was made by running the ignored test below with `CROSSPOINT_WRITE_FIXTURE=1`. It is never made anew:
//! what it proves is that files of old releases can be opened.

use crate::world::{place, request};
use crosspoint_core::{
    Audience, BusinessLog, CallState, Clock, Connections, Customers, DispatchStore, Enqueue, Enqueued, ExecutionFilter,
    ExecutionStatus, Executions, Finish, FlowState, Installation, InstallationState, Installations, Level, LogEntry,
    Outcome, Page, SaveInstallation, Schedule, ScheduleSpec, Schedules, Sealed, StateSnapshot,
};
use crosspoint_core::{Connection, ConnectionId, Customer, CustomerId, DataKey, DataKeys, LeaseTerms, WorkerId};
use crosspoint_sqlite::{Options, Sqlite};
use crosspoint_testkit::{ManualClock, envelope, scope};
use std::{path::PathBuf, sync::Arc, time::Duration};

fn fixture(schema: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/schema-{schema}.db"))
}

async fn open(path: &std::path::Path) -> (Arc<ManualClock>, Sqlite) {
    let clock = Arc::new(ManualClock::new());
    let store = Sqlite::open_with(path, Options::new().clock(clock.clone()))
        .await
        .unwrap();
    (clock, store)
}

#[tokio::test]
async fn files_of_schema_1_are_read() {
    let (_folder, path) = place();
    std::fs::copy(fixture(1), &path).unwrap();
    let (clock, store) = open(&path).await;
    let (fleet, acme) = (scope::fleet(), scope::customer("acme"));

    let runs = store.list_all().await;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].status, ExecutionStatus::Succeeded);
    let lines = store
        .lines((&acme).into(), runs[0].id, Audience::Customer, Page::default())
        .await
        .unwrap();
    assert_eq!(lines.items[0].message, "sent 1 order");
    let installation = envelope::installation("acme");
    let state = store.state((&acme).into(), installation, "announce").await.unwrap();
    assert_eq!(state, StateSnapshot::new(1, serde_json::json!({ "cursor": 7 })));
    let found = Installations::get(&store, (&acme).into(), installation)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.state, found.config.clone()),
        (InstallationState::Active, serde_json::json!({ "channel": "#orders" }))
    );
    assert_eq!(
        found.secrets.get("token"),
        Some(&(3, Sealed::from_bytes(b"sealed".to_vec())))
    );
    let schedules = store.of((&acme).into(), installation).await.unwrap();
    assert_eq!((schedules.len(), schedules[0].paused), (1, None));
    let revision = found.revision;
    let mut changed = found.clone();
    changed.config = serde_json::json!({ "channel": "#later" });
    Installations::save(&store, (&acme).into(), SaveInstallation::new(changed))
        .await
        .unwrap();
    let was = store.as_of((&acme).into(), installation, revision).await.unwrap();
    let was = was.expect("a file of before keeps its past from now on");
    assert_eq!((was.config, was.secrets), (found.config, found.secrets));
    assert_eq!(
        Connections::list(&store, (&acme).into(), Page::default())
            .await
            .unwrap()
            .items[0]
            .label,
        "Our shop"
    );
    assert_eq!(store.keys(&acme).await.unwrap()[0].wrapped, b"wrapped");
    assert_eq!(
        Customers::list(&store, &fleet, Page::default()).await.unwrap().items[0].name,
        "Acme Ltd"
    );

    let stats = store.admin().unwrap().stats().await.unwrap();
    let waits = stats.iter().find(|stats| stats.target.as_str() == "t").unwrap();
    assert_eq!((waits.ready, waits.held), (1, 0));
    assert!(waits.bytes > 10, "what waited before is counted: {}", waits.bytes);
    let mut held = envelope::service(&*clock, "t", "acme");
    held.hold_until = Some(clock.now().plus(Duration::from_secs(60)));
    let id = held.id();
    store.enqueue(vec![Enqueue::queued(held)]).await.unwrap();
    let first = store.lease(request("t", 1, Duration::from_secs(30))).await.unwrap();
    assert_eq!(first[0].envelope.id(), id, "a held queue stands beside the old one");

    let lease = store
        .lease(request("t", 9, Duration::from_secs(30)))
        .await
        .unwrap()
        .remove(0);
    assert_eq!(lease.envelope.invocation.request.uri().path(), "/work");
    let status = DispatchStore::get(&store, (&fleet).into(), lease.envelope.id())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.state, CallState::Leased);
    assert!(clock.now() >= status.created);
}

trait ListAll {
    async fn list_all(&self) -> Vec<crosspoint_core::Execution>;
}

impl ListAll for Sqlite {
    async fn list_all(&self) -> Vec<crosspoint_core::Execution> {
        let (fleet, filter) = (scope::fleet(), ExecutionFilter::default());
        let list = Executions::list(self, (&fleet).into(), &filter, Page::default());
        list.await.unwrap().items
    }
}

#[tokio::test]
#[ignore = "writes the fixture of the present schema, once per schema"]
async fn write_the_fixture() {
    if std::env::var_os("CROSSPOINT_WRITE_FIXTURE").is_none() {
        return;
    }
    let (_folder, path) = place();
    let (clock, store) = open(&path).await;
    let (now, acme, customer) = (clock.now(), scope::customer("acme"), CustomerId::new("acme").unwrap());
    store
        .ensure(&acme, &Customer::new(customer.clone(), "Acme Ltd", now))
        .await
        .unwrap();
    store
        .add(&acme, &DataKey::new(1, b"wrapped".to_vec(), now))
        .await
        .unwrap();
    let mut connection = Connection::new(
        ConnectionId::derive(&["shop"]),
        customer.clone(),
        "http",
        "api-key",
        now,
    );
    connection.label = "Our shop".to_owned();
    connection.sealed = Some(Sealed::from_bytes(b"sealed".to_vec()));
    Connections::save(&store, (&acme).into(), &connection).await.unwrap();
    let id = envelope::installation("acme");
    let mut installation = Installation::new(id, customer.clone(), "order-alerts", "1.0.0", now);
    installation.state = InstallationState::Active;
    installation.config = serde_json::json!({ "channel": "#orders" });
    installation
        .secrets
        .insert("token".to_owned(), (3, Sealed::from_bytes(b"sealed".to_vec())));
    installation.connections.insert("shop".to_owned(), connection.id);
    let mut save = SaveInstallation::new(installation);
    save.schedules = Some(vec![Schedule::new(
        id,
        customer,
        "announce",
        ScheduleSpec::cron("0 3 * * *"),
        Some(now),
    )]);
    Installations::save(&store, (&acme).into(), save).await.unwrap();

    let terms = LeaseTerms::new(WorkerId::new("w").unwrap(), Duration::from_secs(30));
    let flow = Enqueue::leased(envelope::flow(&*clock, "flows", "acme"), terms);
    let Some(Enqueued::New(Some(lease))) = store.enqueue(vec![flow]).await.unwrap().pop() else {
        panic!("leased at once");
    };
    let (status, reply) = (ExecutionStatus::Succeeded, envelope::reply("ok"));
    let mut finish = Finish::new(
        lease.reference,
        Outcome::Ended {
            status,
            reply,
            failure: None,
        },
    );
    finish.state = Some(StateSnapshot::new(0, serde_json::json!({ "cursor": 7 })));
    finish.log = vec![LogEntry::new(now, Level::Info, Audience::Customer, "sent 1 order")];
    store.finish(&scope::fleet(), finish).await.unwrap();
    let mut waiting = envelope::service(&*clock, "t", "acme");
    waiting.invocation = envelope::ordered(envelope::keyed(waiting.clone(), 1, 2, now), "k").invocation;
    store.enqueue(vec![Enqueue::queued(waiting)]).await.unwrap();
    store.close().await;
    std::fs::create_dir_all(fixture(1).parent().unwrap()).unwrap();
    std::fs::copy(&path, fixture(1)).unwrap();
}
