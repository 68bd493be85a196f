//! How far code is trusted: by who wrote it, and for whom it runs.

use crate::{
    looks::Looks,
    world::{World, acme},
};
use crosspoint_core::{Egress, ExecutionStatus, Integration, Isolation, Limits, Runner, Script, SystemClock, Trigger};
use crosspoint_runtime::{Trust, TrustClass};
use serde_json::{Value, json};
use std::sync::Arc;

fn most() -> Limits {
    let mut limits = Limits::default();
    limits.wall_ms = 5_000;
    limits.memory = 64 << 20;
    limits
}

/// What others wrote is sandboxed, reaches its connections only, gets little, and runs on workers of its own; the host's
/// own integrations get what they ask for.
fn rule() -> Trust {
    Trust::by(|code| match code.author {
        None => TrustClass::new(),
        Some(_) if *code.customer == acme() => TrustClass::new()
            .isolation(Isolation::Sandboxed)
            .egress(Egress::Broker)
            .limits(most())
            .label("clients"),
        Some(author) => TrustClass::new().label(author),
    })
}

fn script() -> Script {
    Script::inline("sh", "true").isolation(Isolation::Process)
}

fn world(trust: Trust) -> (World, Arc<Looks>) {
    let looks = Arc::new(Looks::default());
    let own = Integration::new("own", "1.0.0").script("go", Trigger::call::<Value>(), script());
    let theirs = Integration::new("theirs", "1.0.0")
        .author("initech")
        .script("go", Trigger::call::<Value>(), script());
    let runner: Arc<dyn Runner> = looks.clone();
    let world = World::with(Arc::new(SystemClock::new()), [own.into(), theirs.into()], |parts| {
        parts.runners(runner).trust(trust)
    });
    (world, looks)
}

#[tokio::test]
async fn code_of_others_is_held_tighter_than_the_hosts_own() {
    let (world, looks) = world(rule());
    for name in ["own", "theirs"] {
        let installation = world.install(name, json!({})).await;
        let id = world.call(&installation, "go", json!({})).await;
        let status = world
            .store
            .dispatch
            .get((&crate::world::fleet()).into(), id)
            .await
            .unwrap();
        let target = status.unwrap().target;
        let expected = if name == "own" { "scripts" } else { "scripts.clients" };
        assert_eq!(target.as_str(), expected);
        world.work_at(&target).await;
        assert_eq!(world.execution(id).await.status, ExecutionStatus::Succeeded);
    }
    let specs = looks.0.lock().unwrap();
    let [own, theirs] = specs.as_slice() else {
        panic!("{specs:?}")
    };
    let script = script();
    assert_eq!((own.require, own.limits), (Isolation::Process, Limits::default()));
    assert_eq!(own.reachable(&script, own.require), Egress::Open);
    assert_eq!(theirs.require, Isolation::Sandboxed);
    assert_eq!((theirs.limits.wall_ms, theirs.limits.memory), (5_000, 64 << 20));
    assert_eq!(theirs.limits.open_files, Limits::default().open_files);
    assert_eq!(theirs.reachable(&script, theirs.require), Egress::Broker);
    assert!(theirs.deadline < own.deadline, "and it is stopped sooner");
}

/// A worker takes from the targets that it serves, and from no other.
#[tokio::test]
async fn workers_without_the_label_leave_the_code_alone() {
    let (world, looks) = world(rule());
    let theirs = world.install("theirs", json!({})).await;
    let id = world.call(&theirs, "go", json!({})).await;
    world.work().await;
    assert!(looks.0.lock().unwrap().is_empty());
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Queued);
}

#[tokio::test]
async fn a_label_that_is_none_is_refused_at_the_start() {
    let (world, _) = world(Trust::by(|_| TrustClass::new().label("No Good")));
    let own = world.install("own", json!({})).await;
    let refused = world.handler.starter().for_call(&own, "go", &Value::Null).unwrap_err();
    assert_eq!(refused.code(), crosspoint_core::Code::SetupInvalid);
}
