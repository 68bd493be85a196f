//! Rust flows.

use crate::world::{ACME, CANARY, World, fleet, scope, seal};
use async_trait::async_trait;
use crosspoint_core::{
    Action, Audience, Cancel, Clock, Code, ConnectionClient, ConnectionId, Control, Enqueue, Error, ExecutionStatus,
    Flow, FlowContext, FlowOptions, Installation, InstallationState, Integration, Isolation, Jitter, Level, Limits,
    Result, Retry, RetryPolicy, SaveInstallation, SecretRef, StopReason, Trigger,
};
use crosspoint_testkit::VirtualClock;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Settings {
    step: u64,
    token: Option<SecretRef>,
}

/// Adds the configured step to its memory.
struct Count;

#[async_trait]
impl Flow for Count {
    const STATEFUL: bool = true;
    type Config = Settings;
    type Input = Value;
    type Output = u64;
    async fn run(&self, cx: &FlowContext<Settings>, _: Value) -> Result<u64> {
        let total = cx.state::<u64>()?.unwrap_or(0) + cx.config().step;
        cx.set_state(&total)?;
        cx.log(Level::Info, format!("Counted to {total}"));
        Ok(total)
    }
}

/// Does what its input says; what it is asked to leak it leaks.
#[derive(Default, Clone)]
struct Moody {
    calls: Arc<AtomicUsize>,
    entered: Arc<Notify>,
}

#[async_trait]
impl Flow for Moody {
    type Config = Settings;
    type Input = Value;
    type Output = Value;
    async fn run(&self, cx: &FlowContext<Settings>, mood: Value) -> Result<Value> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.entered.notify_one();
        match mood.as_str().unwrap_or_default() {
            "fail twice" if call < 3 => Err(Error::new(Code::ProviderError, "the shop is closed")),
            "fail" => Err(Error::new(Code::ProviderError, "the shop is closed")),
            "refuse" => Err(Error::new(Code::InputInvalid, "no such order")),
            "unauthorised" => Err(Error::new(Code::CredentialsRefused, "the key was revoked")),
            "later" => {
                let at = cx.run().deadline.plus(Duration::from_secs(3600));
                Err(Error::new(Code::RateLimited, "slow down").with_retry(Retry::At(at)))
            }
            "panic" => panic!("with {CANARY}"),
            "hang" => std::future::pending().await,
            "remember" => cx.set_state(&1).map(|()| Value::Null),
            "follow" => {
                cx.start("count", &json!({}))?;
                cx.start("count", &json!({}))?;
                Ok(Value::Null)
            }
            "follow nowhere" => cx.start("nowhere", &1).map(|()| Value::Null),
            "leak" => {
                use crosspoint_core::ExposeSecret;
                let secret = cx.secret(&SecretRef::new("token"))?.expose_secret().to_owned();
                cx.log(Level::Info, format!("token {secret}"));
                cx.debug(&secret);
                Ok(json!({ "got": secret }))
            }
            "leak and retry" => Err(Error::new(Code::TargetUnavailable, format!("bad token {CANARY}"))),
            "leak in error" => Err(Error::new(Code::InputInvalid, format!("bad token {CANARY}"))),
            _ => Ok(json!({ "attempt": cx.run().attempt, "key": cx.run_key() })),
        }
    }
}

fn options() -> FlowOptions {
    let mut limits = Limits::default();
    limits.wall_ms = 60_000;
    let retry = RetryPolicy::default().with_max_attempts(3).with_jitter(Jitter::None);
    FlowOptions::default().retry(retry).limits(limits)
}

fn integration(moody: &Moody) -> crosspoint_core::AnyIntegration {
    Integration::new("demo", "1.0.0")
        .config::<Settings>()
        .flow("count", Trigger::call::<Value>(), Count)
        .flow_with("moody", Trigger::call::<Value>(), moody.clone(), options())
        .into()
}

struct Setup {
    world: World,
    clock: Arc<VirtualClock>,
    moody: Moody,
}

fn setup() -> Setup {
    let clock = Arc::new(VirtualClock::new());
    let moody = Moody::default();
    Setup {
        world: World::on(clock.clone(), [integration(&moody)]),
        clock,
        moody,
    }
}

fn config() -> Value {
    json!({ "step": 2 })
}

#[tokio::test(start_paused = true)]
async fn a_flow_remembers_what_it_did() {
    let Setup { world, .. } = setup();
    let installation = world.install("demo", config()).await;
    let (first, reply) = world.run(&installation, "count", Value::Null).await;
    assert_eq!((first.status, first.attempt), (ExecutionStatus::Succeeded, 1));
    assert_eq!((reply, first.isolation), (json!(2), Some(Isolation::Trusted)));
    let (second, reply) = world.run(&installation, "count", Value::Null).await;
    assert_eq!((second.status, reply), (ExecutionStatus::Succeeded, json!(4)));
    assert_eq!(world.state(&installation, "count").await, json!(4));
    let lines = world.log(second.id, Audience::Customer).await;
    assert_eq!(lines, ["Counted to 4", "Finished in 0 ms."]);
}

#[tokio::test(start_paused = true)]
async fn time_in_queue_and_run_is_told_apart() {
    let Setup { world, moody, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", json!("hang")).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let (_stop, handled) = world.deliver(&world.lease().await.unwrap());
    let task = tokio::spawn(handled);
    moody.entered.notified().await;
    tokio::time::advance(Duration::from_secs(3)).await;
    world.runtime.cancel(&scope(ACME), id).await.unwrap();
    task.await.unwrap().unwrap();
    let timings = world.execution(id).await.timings;
    assert_eq!((timings.queue_ms, timings.setup_ms, timings.run_ms), (5000, 0, 3000));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_is_tried_again() {
    let Setup { world, clock, moody } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", json!("fail twice")).await;
    let first = world.work().await.pop().unwrap().unwrap_err();
    let next = clock.now().plus(Duration::from_secs(1));
    assert_eq!((first.code(), first.retry()), (Code::ProviderError, Retry::At(next)));
    let waiting = world.execution(id).await;
    assert_eq!(
        (waiting.status, waiting.next_attempt),
        (ExecutionStatus::Waiting, Some(next))
    );
    assert!(world.work().await.is_empty(), "not before its time");
    for _ in 0..2 {
        tokio::time::advance(Duration::from_secs(2)).await;
        world.work().await;
    }
    let done = world.execution(id).await;
    assert_eq!((done.status, done.attempt), (ExecutionStatus::Succeeded, 3));
    assert_eq!(moody.calls.load(Ordering::SeqCst), 3);
    let lines = world.log(id, Audience::Customer).await;
    let expected = format!("Failed: the shop is closed. Next try at {next}.");
    assert_eq!((lines.len(), &lines[0]), (3, &expected));
}

#[tokio::test(start_paused = true)]
async fn attempts_end_by_the_policy() {
    let Setup { world, moody, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", json!("fail")).await;
    for _ in 0..6 {
        world.work().await;
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    let failed = world.execution(id).await;
    assert_eq!((failed.status, failed.attempt), (ExecutionStatus::Failed, 3));
    assert_eq!(failed.failure.unwrap().code, Code::ProviderError);
    assert_eq!(moody.calls.load(Ordering::SeqCst), 3);
    assert_eq!(world.reply(id).await["code"], "provider-error");
}

#[tokio::test(start_paused = true)]
async fn a_provider_says_when() {
    let Setup { world, clock, .. } = setup();
    let installation = world.install("demo", config()).await;
    let (waiting, _) = world.run(&installation, "moody", json!("later")).await;
    let asked = clock.now().plus(Duration::from_secs(3660));
    assert_eq!(waiting.next_attempt, Some(asked));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_help_is_not_repeated() {
    let Setup { world, .. } = setup();
    let installation = world.install("demo", config()).await;
    let (failed, reply) = world.run(&installation, "moody", json!("refuse")).await;
    assert_eq!((failed.status, failed.attempt), (ExecutionStatus::Failed, 1));
    assert_eq!(
        (reply["code"].as_str(), reply["status"].as_u64()),
        (Some("input-invalid"), Some(422))
    );
    assert_eq!(
        world.installation(installation.id).await.state,
        InstallationState::Active
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_one_attempt_and_nothing_else() {
    let Setup { world, .. } = setup();
    let mut installation = world.install("demo", config()).await;
    seal(&mut installation, "token", CANARY);
    let installation = world.save(SaveInstallation::new(installation)).await;
    let (waiting, _) = world.run(&installation, "moody", json!("panic")).await;
    assert_eq!(waiting.status, ExecutionStatus::Waiting);
    assert_eq!(waiting.failure.unwrap().code, Code::FlowPanicked);
    let lines = world.log(waiting.id, Audience::Developer).await;
    assert_eq!(lines[0], "the flow panicked: with [secret]");
    let (done, _) = world.run(&installation, "count", Value::Null).await;
    assert_eq!(done.status, ExecutionStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_running_flow_is_cancelled_at_once() {
    let Setup { world, moody, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", json!("hang")).await;
    let (_stop, handled) = world.deliver(&world.lease().await.unwrap());
    let task = tokio::spawn(handled);
    moody.entered.notified().await;
    assert_eq!(world.runtime.cancel(&scope(ACME), id).await.unwrap(), Cancel::Requested);
    let reply = task.await.unwrap().unwrap();
    assert_eq!(reply.status(), 409);
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Cancelled);
    assert_eq!(world.runtime.cancel(&scope(ACME), id).await.unwrap(), Cancel::Finished);
    assert!(world.work().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_has_not_begun_is_cancelled_without_running() {
    let Setup { world, moody, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", Value::Null).await;
    world.runtime.cancel(&scope(ACME), id).await.unwrap();
    world.work().await;
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Cancelled);
    assert_eq!(moody.calls.load(Ordering::SeqCst), 0);
    assert_eq!(
        world.log(id, Audience::Customer).await,
        ["Cancelled: it was cancelled."]
    );
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_never_ends_is_stopped_at_its_limit() {
    let Setup { world, .. } = setup();
    let installation = world.install("demo", config()).await;
    let (waiting, _) = world.run(&installation, "moody", json!("hang")).await;
    assert_eq!(waiting.status, ExecutionStatus::Waiting);
    assert_eq!(waiting.failure.unwrap().code, Code::DeadlineExceeded);
    assert_eq!(waiting.timings.run_ms, 60_000);
}

#[tokio::test(start_paused = true)]
async fn a_drained_attempt_does_not_count() {
    let Setup { world, moody, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", json!("hang")).await;
    let (stop, handled) = world.deliver(&world.lease().await.unwrap());
    let task = tokio::spawn(handled);
    moody.entered.notified().await;
    stop.stop(StopReason::Draining);
    assert_eq!(task.await.unwrap().unwrap_err().code(), Code::ShuttingDown);
    let released = world.execution(id).await;
    assert_eq!((released.status, released.attempt), (ExecutionStatus::Queued, 0));
    assert_eq!(world.lease().await.unwrap().attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_lease_nothing_is_written() {
    let Setup { world, moody, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", json!("hang")).await;
    let (stop, handled) = world.deliver(&world.lease().await.unwrap());
    let task = tokio::spawn(handled);
    moody.entered.notified().await;
    stop.stop(StopReason::LeaseLost);
    assert_eq!(task.await.unwrap().unwrap_err().code(), Code::LeaseStale);
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Running);
    assert!(world.log(id, Audience::Developer).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stale_worker_cannot_write() {
    let Setup { world, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "count", Value::Null).await;
    let stale = world.lease().await.unwrap();
    tokio::time::advance(Duration::from_secs(601)).await;
    world.work().await;
    let (_stop, handled) = world.deliver(&stale);
    assert_eq!(handled.await.unwrap_err().code(), Code::LeaseStale);
    assert_eq!(world.state(&installation, "count").await, json!(2));
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn lost_workers_use_up_the_leases_and_then_it_is_closed() {
    let Setup { world, moody, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", Value::Null).await;
    for _ in 0..6 {
        let _lost = world.lease().await.unwrap();
        tokio::time::advance(Duration::from_secs(601)).await;
    }
    world.work().await;
    let closed = world.execution(id).await;
    assert_eq!((closed.status, closed.attempt), (ExecutionStatus::Failed, 6));
    let failure = closed.failure.unwrap();
    assert_eq!(failure.code, Code::AttemptsExhausted);
    assert!(failure.message.contains("the worker was lost"), "{}", failure.message);
    assert_eq!(moody.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn secrets_reach_the_flow_and_nothing_else() {
    let Setup { world, .. } = setup();
    let mut installation = world
        .install("demo", json!({ "step": 1, "token": { "$secret": "token" } }))
        .await;
    seal(&mut installation, "token", CANARY);
    let installation = world.save(SaveInstallation::new(installation)).await;
    let (done, reply) = world.run(&installation, "moody", json!("leak")).await;
    assert_eq!(done.status, ExecutionStatus::Succeeded);
    assert_eq!(reply["got"], "[secret]");
    let (failed, reply) = world.run(&installation, "moody", json!("leak in error")).await;
    let id = world.call(&installation, "moody", json!("leak and retry")).await;
    let heard = world.work().await.pop().unwrap().unwrap_err();
    assert_eq!(
        heard.code(),
        Code::FlowFailed,
        "not one that says that nothing was begun"
    );
    let mut written = format!("{reply} {failed:?} {heard:?} {:?}", world.execution(id).await);
    for id in [done.id, failed.id] {
        written.push_str(&world.log(id, Audience::Developer).await.join("\n"));
    }
    assert!(written.contains("[secret]") && !written.contains(CANARY), "{written}");
}

#[tokio::test(start_paused = true)]
async fn follow_ups_start_with_the_commit() {
    let Setup { world, .. } = setup();
    let installation = world.install("demo", config()).await;
    let (done, _) = world.run(&installation, "moody", json!("follow")).await;
    assert_eq!(done.status, ExecutionStatus::Succeeded);
    assert_eq!(world.state(&installation, "count").await, json!(4));
    let all = world.executions(&installation).await;
    assert_eq!(all.len(), 3);
    let (failed, _) = world.run(&installation, "moody", json!("follow nowhere")).await;
    assert_eq!(failed.failure.unwrap().code, Code::SetupInvalid);
}

#[tokio::test(start_paused = true)]
async fn a_flow_without_memory_cannot_remember() {
    let Setup { world, .. } = setup();
    let installation = world.install("demo", config()).await;
    let (failed, _) = world.run(&installation, "moody", json!("remember")).await;
    assert_eq!(failed.failure.unwrap().code, Code::SetupInvalid);
}

#[tokio::test(start_paused = true)]
async fn a_removed_installation_fails_what_was_queued() {
    let Setup { world, moody, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", Value::Null).await;
    let fleet = fleet();
    let removed = world
        .store
        .installations
        .remove((&fleet).into(), installation.id, installation.revision);
    removed.await.unwrap();
    world.work().await;
    assert_eq!(world.execution(id).await.failure.unwrap().code, Code::NotFound);
    assert_eq!(moody.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_without_the_version_leaves_the_work_to_others() {
    let Setup { world, moody, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", Value::Null).await;
    let other = World::over(world.store.clone(), world.clock.clone(), []);
    for _ in 0..20 {
        let lease = other.lease().await.unwrap();
        let (_stop, handled) = other.deliver(&lease);
        assert_eq!(handled.await.unwrap_err().code(), Code::VersionMissing);
        assert!(other.lease().await.is_none(), "it does not come straight back");
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    let queued = world.execution(id).await;
    assert_eq!((queued.status, queued.attempt), (ExecutionStatus::Queued, 0));
    let state = world.installation(installation.id).await.state;
    assert_eq!(
        (state, moody.calls.load(Ordering::SeqCst)),
        (InstallationState::Active, 0)
    );
    world.work().await;
    let done = world.execution(id).await;
    assert_eq!((done.status, done.attempt), (ExecutionStatus::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_in_the_queue_does_not_use_up_the_first_retry() {
    let Setup { world, .. } = setup();
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "moody", json!("fail")).await;
    tokio::time::advance(Duration::from_secs(30 * 3600)).await;
    world.work().await;
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Waiting);
}

/// Counts, and on request waits between reading and writing.
#[derive(Default, Clone)]
struct Slow {
    entered: Arc<Notify>,
    gate: Arc<Notify>,
}

#[async_trait]
impl Flow for Slow {
    const STATEFUL: bool = true;
    type Config = Settings;
    type Input = bool;
    type Output = u64;
    async fn run(&self, cx: &FlowContext<Settings>, wait: bool) -> Result<u64> {
        let total = cx.state::<u64>()?.unwrap_or(0) + 1;
        if wait && cx.run().attempt == 1 {
            self.entered.notify_one();
            self.gate.notified().await;
        }
        cx.set_state(&total)?;
        Ok(total)
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_that_changed_in_the_meantime_is_read_again() {
    let slow = Slow::default();
    let demo = Integration::new("demo", "1.0.0").config::<Settings>();
    let demo = demo.flow("slow", Trigger::call::<bool>(), slow.clone());
    let world = World::on(Arc::new(VirtualClock::new()), [demo.into()]);
    let installation = world.install("demo", config()).await;
    let id = world.call(&installation, "slow", json!(true)).await;
    let (_stop, handled) = world.deliver(&world.lease().await.unwrap());
    let task = tokio::spawn(handled);
    slow.entered.notified().await;
    // Somebody who does not keep the order writes the state.
    let mut intruder = world
        .handler
        .starter()
        .for_call(&installation, "slow", &json!(false))
        .unwrap();
    intruder.invocation.meta.ordering_key = None;
    world
        .store
        .dispatch
        .enqueue(vec![Enqueue::queued(intruder)])
        .await
        .unwrap();
    world.work().await;
    slow.gate.notify_one();
    assert_eq!(task.await.unwrap().unwrap_err().code(), Code::StateConflict);
    assert_eq!(world.state(&installation, "slow").await, json!(1));
    let lines = world.log(id, Audience::Customer).await;
    assert!(
        matches!(&*lines, [line] if line.starts_with("Failed: the flow's state was changed")),
        "{lines:?}"
    );
    let lines = world.log(id, Audience::Developer).await;
    assert!(lines.iter().any(|line| line.contains("state-conflict")), "{lines:?}");
    tokio::time::advance(Duration::from_secs(2)).await;
    world.work().await;
    assert_eq!(
        world.state(&installation, "slow").await,
        json!(2),
        "both counted, none lost"
    );
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn executions_of_a_flow_with_state_run_one_at_a_time() {
    let Setup { world, .. } = setup();
    let installation = world.install("demo", config()).await;
    for _ in 0..2 {
        world.call(&installation, "count", Value::Null).await;
        world.call(&installation, "moody", Value::Null).await;
    }
    let mut flows = Vec::new();
    while let Some(lease) = world.lease().await {
        flows.push(lease.envelope.flow.unwrap().flow.as_ref().to_owned());
    }
    flows.sort();
    assert_eq!(flows, ["count", "moody", "moody"]);
}

/// Sends what it gets to the provider.
#[derive(Debug)]
struct Send;

#[async_trait]
impl Action for Send {
    const NAME: &'static str = "send";
    type Input = Value;
    type Output = Value;
    async fn call(&self, client: &ConnectionClient, input: Value) -> Result<Value> {
        let echoed: Value = client.json(http::Method::POST, "/", Some(&input)).await?;
        Ok(json!({ "echoed": echoed, "key": client.effect_key() }))
    }
}

struct Sends;

#[async_trait]
impl Flow for Sends {
    type Config = Settings;
    type Input = Value;
    type Output = Value;
    async fn run(&self, cx: &FlowContext<Settings>, input: Value) -> Result<Value> {
        let first = cx.action(Send).on("shop").call(input.clone()).await?;
        let second = cx.action(Send).on("shop").call(input).await?;
        Ok(json!([first, second]))
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_reaches_its_provider_through_the_connection() {
    let demo = Integration::new("demo", "1.0.0")
        .connection("shop", "shop")
        .config::<Settings>();
    let demo = demo.flow("send", Trigger::call::<Value>(), Sends);
    let world = World::on(Arc::new(VirtualClock::new()), [demo.into()]);
    let alone = world.install("demo", config()).await;
    let (failed, _) = world.run(&alone, "send", json!(7)).await;
    assert_eq!(failed.failure.unwrap().code, Code::ConnectionMissing);
    let connection = ConnectionId::mint(&*world.clock);
    let connected = |i: &mut Installation| i.connections.extend([("shop".to_owned(), connection)]);
    let installation = world.install_with("demo", config(), connected).await;
    let (_, reply) = world.run(&installation, "send", json!(7)).await;
    assert_eq!((&reply[0]["echoed"], &reply[1]["echoed"]), (&json!(7), &json!(7)));
    assert_ne!(reply[0]["key"], reply[1]["key"], "two equal calls are two effects");
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_not_run() {
    let Setup { world, clock, moody } = setup();
    let installation = world.install("demo", config()).await;
    let mut envelope = world
        .handler
        .starter()
        .for_call(&installation, "moody", &Value::Null)
        .unwrap();
    envelope.invocation.meta.deadline = Some(clock.now().plus(Duration::from_secs(5)));
    let id = envelope.id();
    world
        .store
        .dispatch
        .enqueue(vec![Enqueue::queued(envelope)])
        .await
        .unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    world.work().await;
    let failed = world.execution(id).await;
    assert_eq!(
        (failed.status, failed.failure.unwrap().code),
        (ExecutionStatus::Failed, Code::DeadlineExceeded)
    );
    assert_eq!(moody.calls.load(Ordering::SeqCst), 0);
}
