//! Events in, executions and replies out.

use async_trait::async_trait;
use crosspoint::{
    core::{CustomerScope, ExecutionFilter, ExecutionStatus, Page},
    prelude::*,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
struct Settings {
    factor: u64,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Counted {
    number: u64,
}

impl Event for Counted {
    const NAME: &'static str = "counted";
}

/// Adds up what it has seen, times the factor.
struct Sum;

#[async_trait]
impl Flow for Sum {
    const STATEFUL: bool = true;
    type Config = Settings;
    type Input = Counted;
    type Output = u64;

    async fn run(&self, cx: &FlowContext<Settings>, event: Counted) -> Result<u64> {
        let sum = cx.state::<u64>()?.unwrap_or(0) + event.number * cx.config().factor;
        cx.set_state(&sum)?;
        Ok(sum)
    }
}

fn acme() -> CustomerId {
    CustomerId::new("acme").unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test is its own authenticator")]
fn scope() -> CustomerScope {
    CustomerScope::trusted(acme())
}

async fn platform() -> Platform {
    let sum = Integration::new("sum", "1.0.0")
        .config::<Settings>()
        .flow("sum", Trigger::event::<Counted>(), Sum);
    let keys = KeyRing::generate().unwrap();
    Platform::builder()
        .store(Memory::new())
        .keys(keys)
        .integration(sum)
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn an_event_runs_the_flows_of_those_who_installed_them() {
    let platform = platform().await;
    assert!(
        platform.emit(&acme(), Counted { number: 1 }).await.unwrap().is_empty(),
        "nothing is installed yet"
    );
    platform.install(&acme(), "sum", json!({ "factor": 10 })).await.unwrap();
    let mut last = String::new();
    for number in 1..=3 {
        let ids = platform.emit(&acme(), Counted { number }).await.unwrap();
        let reply = platform.wait(&acme(), ids[0], Duration::from_secs(20)).await.unwrap();
        last = String::from_utf8(reply.body().to_vec()).unwrap();
    }
    assert_eq!(last, "60");
    let globex = CustomerId::new("globex").unwrap();
    assert!(
        platform.emit(&globex, Counted { number: 9 }).await.unwrap().is_empty(),
        "somebody else's event"
    );
    platform.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_event_with_an_id_starts_everything_once() {
    let platform = platform().await;
    let installation = platform.install(&acme(), "sum", json!({ "factor": 1 })).await.unwrap();
    let first = platform
        .emit_once(&acme(), "event-1", Counted { number: 5 })
        .await
        .unwrap();
    let again = platform
        .emit_once(&acme(), "event-1", Counted { number: 5 })
        .await
        .unwrap();
    assert_eq!((first.len(), again.len()), (1, 0));
    platform.wait(&acme(), first[0], Duration::from_secs(20)).await.unwrap();
    let filter = ExecutionFilter::installation(installation);
    let all = platform
        .store()
        .executions
        .list((&scope()).into(), &filter, Page::default())
        .await
        .unwrap();
    let states: Vec<ExecutionStatus> = all.items.iter().map(|execution| execution.status).collect();
    assert_eq!(states, [ExecutionStatus::Succeeded]);
    platform.shutdown().await.unwrap();
}

/// Answers by call, without any event.
struct Double;

#[async_trait]
impl Flow for Double {
    type Config = crosspoint::core::NoConfig;
    type Input = u64;
    type Output = u64;

    async fn run(&self, _: &FlowContext<Self::Config>, number: u64) -> Result<u64> {
        Ok(number * 2)
    }
}

#[tokio::test]
async fn a_flow_can_be_called_and_answers() {
    let double = Integration::new("double", "1.0.0").flow("double", Trigger::call::<u64>(), Double);
    let builder = Platform::builder()
        .store(Memory::new())
        .keys(KeyRing::generate().unwrap());
    let platform = builder.integration(double).start().await.unwrap();
    let id = platform.install(&acme(), "double", json!({})).await.unwrap();
    let hold = Duration::from_secs(20);
    let answer = platform.call(&acme(), id, "double", &json!(21), hold).await.unwrap();
    assert!(matches!(answer, Submitted::Answered(reply) if reply.body().as_ref() == b"42"));
    let error = platform
        .call(&acme(), id, "no-such-flow", &json!(1), hold)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    let globex = CustomerId::new("globex").unwrap();
    let error = platform.call(&globex, id, "double", &json!(1), hold).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    platform.shutdown().await.unwrap();
}

#[tokio::test]
async fn settings_are_checked_as_in_the_marketplace() {
    let platform = platform().await;
    let error = platform
        .install(&acme(), "sum", json!({ "factor": "ten", "more": 1 }))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::ConfigInvalid);
    assert_eq!(error.problems().len(), 2, "{error}");
    assert!(platform.install(&acme(), "no-such", json!({})).await.is_err());
    platform.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_foreign_execution_is_not_there() {
    let platform = platform().await;
    platform.install(&acme(), "sum", json!({ "factor": 1 })).await.unwrap();
    let id = platform.emit(&acme(), Counted { number: 1 }).await.unwrap()[0];
    let globex = CustomerId::new("globex").unwrap();
    let error = platform.wait(&globex, id, Duration::ZERO).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    platform.shutdown().await.unwrap();
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn what_was_accepted_survives_the_process_that_accepted_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let keys = folder.path().join("keys");
    let build = async || {
        let sum = Integration::new("sum", "1.0.0")
            .config::<Settings>()
            .flow("sum", Trigger::event::<Counted>(), Sum);
        let builder = Platform::builder()
            .store(Sqlite::open(&file).await.unwrap())
            .keys(KeyRing::from_file(&keys).unwrap());
        builder.integration(sum).start().await.unwrap()
    };
    let platform = build().await;
    platform.install(&acme(), "sum", json!({ "factor": 2 })).await.unwrap();
    platform.shutdown().await.unwrap();
    let id = platform.emit(&acme(), Counted { number: 4 }).await.unwrap()[0];
    drop(platform);

    let platform = build().await;
    let reply = platform.wait(&acme(), id, Duration::from_secs(20)).await.unwrap();
    assert_eq!(reply.body().as_ref(), b"8");
    platform.shutdown().await.unwrap();
}
