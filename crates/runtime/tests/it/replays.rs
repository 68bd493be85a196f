//! Replays with what an execution had, and without keeping what they would remember.

use crate::world::{ACME, World, acme, fleet, scope, seal};
use async_trait::async_trait;
use crosspoint_core::{
    Audience, Code, Connection, ConnectionId, Control, Error, Execution, ExecutionStatus, ExposeSecret, Flow,
    FlowContext, Installation, InstallationState, Integration, InvocationId, Poll, Polled, ReplayConfig, ReplayOptions,
    ReplayState, Result, Retry, SaveInstallation, SecretRef, Trigger,
};
use crosspoint_testkit::VirtualClock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const DISCARDED: &str = "Nothing that this run would remember was saved, as asked for.";

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Settings {
    n: u64,
}

/// Counts its runs in its state by way of a checkpoint, and tells what it sees.
#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

#[async_trait]
impl Flow for Count {
    const STATEFUL: bool = true;
    type Config = Settings;
    type Input = Value;
    type Output = Value;
    async fn run(&self, cx: &FlowContext<Settings>, input: Value) -> Result<Value> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let before = cx.state::<u64>()?.unwrap_or(0);
        cx.checkpoint(&(before + 1)).await?;
        if input == json!("fail") {
            return Err(Error::new(Code::FlowFailed, "as told").with_retry(Retry::Never));
        }
        cx.set_state(&(before + 10))?;
        Ok(json!({ "n": cx.config().n, "before": before, "key": cx.run_key() }))
    }
}

/// Tells its secret's length, its version and whether it is refused.
struct Show(&'static str);

#[async_trait]
impl Flow for Show {
    type Config = Settings;
    type Input = Value;
    type Output = Value;
    async fn run(&self, cx: &FlowContext<Settings>, input: Value) -> Result<Value> {
        if input == json!("refuse") {
            return Err(Error::new(Code::ConnectionMissing, "as told"));
        }
        let secret = cx
            .secret(&SecretRef::new("token"))
            .map(|secret| secret.expose_secret().len());
        Ok(json!({ "n": cx.config().n, "version": self.0, "secret": secret.ok() }))
    }
}

fn version(name: &'static str) -> crosspoint_core::AnyIntegration {
    Integration::new("demo", name)
        .config::<Settings>()
        .flow("count", Trigger::call::<Value>(), Count::default())
        .flow("show", Trigger::call::<Value>(), Show(name))
        .into()
}

fn world() -> World {
    World::on(Arc::new(VirtualClock::new()), [version("1.0.0"), version("2.0.0")])
}

async fn replay(world: &World, id: InvocationId, options: ReplayOptions) -> (Execution, Value) {
    let again = world.runtime.replay(&scope(ACME), id, options).await.unwrap();
    world.work().await;
    (world.execution(again).await, world.reply(again).await)
}

fn with(config: ReplayConfig, state: ReplayState) -> ReplayOptions {
    ReplayOptions::default().config(config).state(state)
}

async fn change(world: &World, of: &Installation, f: impl FnOnce(&mut Installation)) -> Installation {
    let mut record = world.installation(of.id).await;
    f(&mut record);
    world.save(SaveInstallation::new(record)).await
}

#[tokio::test(start_paused = true)]
async fn a_replay_runs_with_the_present_or_the_original_settings() {
    let world = world();
    let installed = world.install("demo", json!({ "n": 1 })).await;
    let installed = change(&world, &installed, |record| seal(record, "token", "first")).await;
    let (first, shown) = world.run(&installed, "show", Value::Null).await;
    assert_eq!(shown, json!({ "n": 1, "version": "1.0.0", "secret": 5 }));
    assert_eq!(first.revision, Some(installed.revision));
    change(&world, &installed, |record| {
        record.config = json!({ "n": 2 });
        record.version = "2.0.0".to_owned();
        seal(record, "token", "the second");
    })
    .await;

    let (now, shown) = replay(&world, first.id, ReplayOptions::default()).await;
    assert_eq!(shown, json!({ "n": 2, "version": "2.0.0", "secret": 10 }));
    assert_eq!(now.config, ReplayConfig::Current);
    let original = with(ReplayConfig::Original, ReplayState::Save);
    let (then, shown) = replay(&world, first.id, original.clone()).await;
    assert_eq!(shown, json!({ "n": 1, "version": "1.0.0", "secret": 5 }));
    assert_eq!(
        (then.config, then.revision, then.version.as_str()),
        (ReplayConfig::Original, first.revision, "1.0.0")
    );
    // A replay of a replay repeats that one.
    let (_, shown) = replay(&world, then.id, original).await;
    assert_eq!(shown["n"], 1);
    let (_, shown) = replay(&world, then.id, ReplayOptions::default()).await;
    assert_eq!(shown["n"], 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_is_said_so() {
    let world = world();
    let installed = world.install("demo", json!({ "n": 1 })).await;
    let connection = ConnectionId::derive(&["shop"]);
    let shop = Connection::new(connection, acme(), "shop", "none", world.clock.now());
    let fleet = fleet();
    world.store.connections.save((&fleet).into(), &shop).await.unwrap();
    let installed = change(&world, &installed, |record| {
        record.connections = [("shop".to_owned(), connection)].into();
    })
    .await;
    let (first, _) = world.run(&installed, "show", Value::Null).await;
    let queued = world.call(&installed, "show", Value::Null).await;
    change(&world, &installed, |record| record.config = json!({ "n": 2 })).await;
    let original = with(ReplayConfig::Original, ReplayState::Save);
    let refused = async |id| {
        world
            .runtime
            .replay(&scope(ACME), id, original.clone())
            .await
            .unwrap_err()
    };

    assert_eq!(
        refused(queued).await.code(),
        Code::ConfigGone,
        "it has run with none yet"
    );
    world
        .store
        .connections
        .remove((&fleet).into(), connection)
        .await
        .unwrap();
    let error = refused(first.id).await;
    assert_eq!(error.code(), Code::ConfigGone, "{error}");
    assert!(error.message().contains("connection"), "{error}");
    world.store.connections.save((&fleet).into(), &shop).await.unwrap();
    // Accepted, it keeps what it needs; when that is lost all the same, it ends and says why.
    let again = world
        .runtime
        .replay(&scope(ACME), first.id, original.clone())
        .await
        .unwrap();
    for n in 0..=Installation::KEPT as u64 {
        change(&world, &installed, |record| record.config = json!({ "n": n + 100 })).await;
    }
    world.work().await;
    let failed = world.execution(again).await;
    assert_eq!(failed.status, ExecutionStatus::Failed);
    assert_eq!(failed.failure.unwrap().code, Code::ConfigGone);
    assert_eq!(refused(first.id).await.code(), Code::ConfigGone);
    let now = world.installation(installed.id).await;
    assert_eq!(now.state, InstallationState::Active, "no reason to park anything");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_gone_is_not_repeated() {
    let world = world();
    let installed = world.install("demo", json!({ "n": 1 })).await;
    let (first, _) = world.run(&installed, "show", Value::Null).await;
    change(&world, &installed, |record| record.version = "0.9.0".to_owned()).await;
    change(&world, &installed, |record| record.version = "2.0.0".to_owned()).await;
    let original = with(ReplayConfig::Original, ReplayState::Save);
    assert!(
        world
            .runtime
            .replay(&scope(ACME), first.id, original.clone())
            .await
            .is_ok()
    );
    let elsewhere = World::over(world.store.clone(), world.clock.clone(), [version("2.0.0")]);
    let error = elsewhere
        .runtime
        .replay(&scope(ACME), first.id, original)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Conflict, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_discards_its_state_sees_it_and_leaves_it() {
    let world = world();
    let installed = world.install("demo", json!({ "n": 1 })).await;
    let (first, seen) = world.run(&installed, "count", Value::Null).await;
    assert_eq!(world.state(&installed, "count").await, json!(10));
    let dry = with(ReplayConfig::Current, ReplayState::Discard);
    let (done, again) = replay(&world, first.id, dry.clone()).await;
    assert_eq!(
        (done.status, done.state),
        (ExecutionStatus::Succeeded, ReplayState::Discard)
    );
    assert_eq!(again["before"], 10, "it sees the state");
    assert_ne!(again["key"], seen["key"], "its effects have keys of their own");
    assert_eq!(
        world.state(&installed, "count").await,
        json!(10),
        "neither checkpoint nor end"
    );
    let customers = world.log(done.id, Audience::Customer).await;
    assert!(customers.iter().any(|line| line == DISCARDED), "{customers:?}");
    let developers = world.log(done.id, Audience::Developer).await;
    let counted = "Discarded 1 checkpoints and a final state.";
    assert!(developers.iter().any(|line| line == counted), "{developers:?}");

    // The same where it fails half way, and nothing of it in an ordinary replay.
    let mut failing = dry;
    failing.input = Some(json!("fail"));
    let (failed, _) = replay(&world, first.id, failing).await;
    assert_eq!(failed.status, ExecutionStatus::Failed);
    assert_eq!(world.state(&installed, "count").await, json!(10));
    assert!(
        world
            .log(failed.id, Audience::Customer)
            .await
            .iter()
            .any(|line| line == DISCARDED)
    );
    let (done, _) = replay(&world, done.id, ReplayOptions::default()).await;
    assert_eq!(world.state(&installed, "count").await, json!(20));
    assert!(
        !world
            .log(done.id, Audience::Customer)
            .await
            .iter()
            .any(|line| line == DISCARDED)
    );
}

#[tokio::test(start_paused = true)]
async fn original_connections_that_are_refused_park_nothing_unless_they_are_the_present_ones() {
    let world = world();
    let installed = world.install("demo", json!({ "n": 1 })).await;
    let (first, _) = world.run(&installed, "show", Value::Null).await;
    let refuse = || {
        let mut options = with(ReplayConfig::Original, ReplayState::Save);
        options.input = Some(json!("refuse"));
        options
    };
    let other = ConnectionId::derive(&["other"]);
    change(&world, &installed, |record| {
        record.connections = [("shop".to_owned(), other)].into();
    })
    .await;
    let (failed, _) = replay(&world, first.id, refuse()).await;
    assert_eq!(failed.status, ExecutionStatus::Failed);
    assert_eq!(world.installation(installed.id).await.state, InstallationState::Active);
    change(&world, &installed, |record| {
        record.connections.clear();
        record.config = json!({ "n": 2 });
    })
    .await;
    replay(&world, first.id, refuse()).await;
    assert_eq!(
        world.installation(installed.id).await.state,
        InstallationState::NeedsAttention
    );
}

/// Finds two items more at each poll.
struct Numbers;

#[async_trait]
impl Poll for Numbers {
    type Config = crosspoint_core::NoConfig;
    type Cursor = u64;
    type Item = u64;
    async fn poll(&self, _: &FlowContext<Self::Config>, cursor: Option<u64>) -> Result<Polled<u64, u64>> {
        let cursor = cursor.unwrap_or(0);
        Ok(Polled::new(cursor + 2).items([cursor + 1, cursor + 2], u64::to_string))
    }
}

struct Nothing;

#[async_trait]
impl Flow for Nothing {
    type Config = crosspoint_core::NoConfig;
    type Input = u64;
    type Output = ();
    async fn run(&self, _: &FlowContext<Self::Config>, _: u64) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_discarded_poll_leaves_its_cursor_and_starts_each_item_once() {
    let orders = Integration::new("orders", "1.0.0").poll("book", Duration::from_secs(60), Numbers, Nothing);
    let orders: crosspoint_core::AnyIntegration = orders.into();
    let poll = orders
        .flows
        .iter()
        .find(|flow| flow.name != "book")
        .unwrap()
        .name
        .clone();
    let world = World::on(Arc::new(VirtualClock::new()), [orders]);
    let installed = world.install("orders", json!({})).await;
    let (first, _) = world.run(&installed, &poll, Value::Null).await;
    world.work().await;
    assert_eq!(world.state(&installed, &poll).await, json!(2));
    let dry = with(ReplayConfig::Current, ReplayState::Discard);
    for _ in 0..2 {
        replay(&world, first.id, dry.clone()).await;
        world.work().await;
        assert_eq!(world.state(&installed, &poll).await, json!(2));
    }
    let booked = world.executions(&installed).await;
    let booked = booked.iter().filter(|one| one.flow == "book").count();
    assert_eq!(
        booked, 4,
        "what the first dry run found, the second does not start again"
    );
}
