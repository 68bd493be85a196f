//! Start, replay and what they refuse.

use crate::world::{ACME, World, scope};
use async_trait::async_trait;
use crosspoint_core::{
    Cancel, Code, Control, ExecutionStatus, Flow, FlowContext, InstallationState, Integration, InvocationId, NoConfig,
    Origin, ReplayOptions, Result, SaveInstallation, Tick, Trigger,
};
use crosspoint_testkit::VirtualClock;
use serde_json::{Value, json};
use std::sync::Arc;

struct Echo;

#[async_trait]
impl Flow for Echo {
    type Config = NoConfig;
    type Input = Value;
    type Output = Value;
    async fn run(&self, cx: &FlowContext<NoConfig>, input: Value) -> Result<Value> {
        Ok(json!({ "input": input, "key": cx.run_key() }))
    }
}

struct Ticks;

#[async_trait]
impl Flow for Ticks {
    type Config = NoConfig;
    type Input = Tick;
    type Output = Tick;
    async fn run(&self, _: &FlowContext<NoConfig>, tick: Tick) -> Result<Tick> {
        Ok(tick)
    }
}

fn world() -> World {
    let demo = Integration::new("demo", "1.0.0")
        .flow("echo", Trigger::call::<Value>(), Echo)
        .flow("ticks", Trigger::schedule("0 3 * * *"), Ticks);
    World::on(Arc::new(VirtualClock::new()), [demo.into()])
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_a_new_execution_with_keys_of_its_own() {
    let world = world();
    let installation = world.install("demo", json!({})).await;
    let (first, reply) = world.run(&installation, "echo", json!(1)).await;
    let mut keys = vec![reply["key"].clone()];
    let mut changed = ReplayOptions::default();
    changed.input = Some(json!(2));
    for (options, input) in [(ReplayOptions::default(), json!(1)), (changed, json!(2))] {
        let again = world.runtime.replay(&scope(ACME), first.id, options).await.unwrap();
        world.work().await;
        let execution = world.execution(again).await;
        assert_eq!(
            (execution.status, execution.origin),
            (ExecutionStatus::Succeeded, Origin::Replay(first.id))
        );
        let reply = world.reply(again).await;
        assert_eq!(reply["input"], input);
        keys.push(reply["key"].clone());
    }
    keys.dedup();
    assert_eq!(keys.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_flow_started_by_hand_gets_a_tick() {
    let world = world();
    let installation = world.install("demo", json!({})).await;
    let (done, reply) = world.run(&installation, "ticks", Value::Null).await;
    assert_eq!(done.status, ExecutionStatus::Succeeded);
    assert_eq!(reply["scheduled"], done.created.to_string());
}

#[tokio::test(start_paused = true)]
async fn foreign_and_unknown_ids_are_not_found() {
    let world = world();
    let installation = world.install("demo", json!({})).await;
    let (done, _) = world.run(&installation, "echo", json!(1)).await;
    let stranger = scope("stranger");
    for id in [done.id, InvocationId::mint(&*world.clock)] {
        assert_eq!(world.runtime.cancel(&stranger, id).await.unwrap(), Cancel::NotFound);
        let replay = world.runtime.replay(&stranger, id, ReplayOptions::default());
        assert_eq!(replay.await.unwrap_err().code(), Code::NotFound);
    }
    let start = world.runtime.start(&stranger, installation.id, "echo", Value::Null);
    assert_eq!(start.await.unwrap_err().code(), Code::NotFound);
    let acme = scope(ACME);
    let start = world.runtime.start(&acme, installation.id, "nothing", Value::Null);
    assert_eq!(start.await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn only_what_is_active_is_started() {
    let world = world();
    let mut installation = world.install("demo", json!({})).await;
    let queued = world.call(&installation, "echo", json!(1)).await;
    installation.state = InstallationState::Paused;
    let installation = world.save(SaveInstallation::new(installation)).await;
    let acme = scope(ACME);
    let start = world.runtime.start(&acme, installation.id, "echo", Value::Null);
    assert_eq!(start.await.unwrap_err().code(), Code::Conflict);
    world.work().await;
    assert_eq!(
        world.execution(queued).await.status,
        ExecutionStatus::Succeeded,
        "what was queued still runs"
    );
}

#[tokio::test(start_paused = true)]
async fn bad_input_fails_with_its_reason() {
    let world = world();
    let installation = world.install("demo", json!({})).await;
    let (failed, reply) = world
        .run(&installation, "ticks", json!({ "scheduled": "yesterday" }))
        .await;
    assert_eq!(failed.status, ExecutionStatus::Failed);
    assert_eq!(reply["code"], "input-invalid");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_did_not_come_through_the_store_is_refused() {
    use crosspoint_core::{Handler, Invocation, Meta};
    let world = world();
    let id = InvocationId::mint(&*world.clock);
    let meta = Meta::new(
        id,
        crate::world::acme(),
        crosspoint_core::TargetId::new("flows").unwrap(),
    );
    let error = world
        .handler
        .handle(Invocation::new(meta, http::Request::default()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::SetupInvalid);
}
