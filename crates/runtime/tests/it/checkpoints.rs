//! States that are kept before the end, over a store whose answers get lost and a lease that does.

use crate::{
    framed::framed,
    scripts::{demo, install},
    stops::Fifo,
    world::{World, fleet},
};
use async_trait::async_trait;
use crosspoint_core::{
    Code, Error, ExecutionStatus, Finish, Finished, Flow, FlowContext, Installation, Integration, Memory, NoConfig,
    Outcome, Result, Retry, Script, SystemClock, Timings, Trigger,
};
use crosspoint_testkit::{Faults, Method, VirtualClock, When};
use serde_json::{Value, json};
use std::sync::Arc;

async fn faulty(script: Script) -> (World, Arc<Faults>, Installation) {
    let clock = Arc::new(SystemClock::new());
    let (store, faults) = Faults::wrap(&Memory::with_clock(clock.clone()).into());
    let world = World::over(store, clock, [demo(script)]);
    let installation = install(&world, json!({})).await;
    (world, faults, installation)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_gets_no_answer_is_asked_again_and_counts_once() {
    let text = r#"
        say '{"type":"state","seq":1,"value":1}'
        read -r ack
        say '{"type":"state","seq":2,"value":2}'
        read -r ack
        say "{\"type\":\"result\",\"value\":$ack}"
    "#;
    for when in [When::Before, When::After] {
        let (world, faults, installation) = faulty(framed(text)).await;
        faults.fail(Method::Checkpoint, 1, when);
        let (done, last) = world.run(&installation, "go", Value::Null).await;
        assert_eq!(done.status, ExecutionStatus::Succeeded, "{when:?}: {done:?}");
        assert_eq!(last, json!({ "type": "ack", "seq": 2, "version": 2 }), "{when:?}");
        assert_eq!(world.state(&installation, "go").await, json!(2));
        assert!(!faults.pending());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_nobody_answered_for_is_found_at_the_end() {
    // The script does not wait, so that it has ended when its state is asked for.
    let text = r#"say '{"type":"state","seq":1,"value":1}'"#;
    let (world, faults, installation) = faulty(framed(text)).await;
    faults.fail(Method::Checkpoint, 1, When::After);
    let (done, _) = world.run(&installation, "go", Value::Null).await;
    assert_eq!(done.status, ExecutionStatus::Succeeded, "{done:?}");
    assert_eq!(world.state(&installation, "go").await, json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_lost_lets_nothing_be_kept() {
    let (ready, go) = (Fifo::new(), Fifo::new());
    let script = framed(&format!(
        r#"
        trap '' TERM
        echo ready > '{}'
        read -r go < '{}'
        say '{{"type":"state","seq":1,"value":"late"}}'
        while :; do sleep 1000; done
        "#,
        ready.path(),
        go.path()
    ));
    let world = World::new([demo(script)]);
    let installation = install(&world, json!({})).await;
    let id = world.call(&installation, "go", Value::Null).await;
    let lease = world.lease().await.unwrap();
    let (_stop, handled) = world.deliver(&lease);
    let task = tokio::spawn(handled);
    assert_eq!(ready.read().await, "ready\n");

    // As if this worker had been silent for too long and another had taken over.
    let mut away = Finish::new(lease.reference, Outcome::Released);
    away.timings = Timings::default();
    let released = world.store.executions.finish(&fleet(), away).await.unwrap();
    assert!(matches!(released, Finished::Applied { .. }));
    let path = go.path();
    tokio::task::spawn_blocking(move || std::fs::write(path, "go\n").unwrap())
        .await
        .unwrap();

    assert_eq!(task.await.unwrap().unwrap_err().code(), Code::LeaseStale);
    assert_eq!(world.state(&installation, "go").await, Value::Null);
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Queued);
}

/// Keeps two pages, and then does as its input says.
#[derive(Clone)]
struct Pages;

#[async_trait]
impl Flow for Pages {
    const STATEFUL: bool = true;
    type Config = NoConfig;
    type Input = String;
    type Output = u64;
    async fn run(&self, cx: &FlowContext<NoConfig>, then: String) -> Result<u64> {
        let before = cx.state::<u64>()?.unwrap_or(0);
        for page in 1..=2 {
            cx.checkpoint(&(before + page)).await?;
        }
        match then.as_str() {
            "fail" => return Err(Error::new(Code::FlowFailed, "as told").with_retry(Retry::Never)),
            "set" => cx.set_state(&100)?,
            _ => {}
        }
        Ok(before)
    }
}

#[tokio::test(start_paused = true)]
async fn a_rust_flow_keeps_what_it_has_got_done() {
    let clock = Arc::new(VirtualClock::new());
    let (store, faults) = Faults::wrap(&Memory::with_clock(clock.clone()).into());
    let demo = Integration::new("demo", "1.0.0").flow("pages", Trigger::call::<String>(), Pages);
    let world = World::over(store, clock, [demo.into()]);
    let installation = world.install("demo", json!({})).await;
    for (input, status, before, after) in [
        ("fail", ExecutionStatus::Failed, None, 2),
        ("go", ExecutionStatus::Succeeded, Some(2), 4),
        ("set", ExecutionStatus::Succeeded, Some(4), 100),
    ] {
        let (ended, reply) = world.run(&installation, "pages", json!(input)).await;
        assert_eq!(ended.status, status, "{input}: {ended:?}");
        assert_eq!(before, reply.as_u64(), "{input}");
        assert_eq!(world.state(&installation, "pages").await, json!(after), "{input}");
    }
    // An answer that is lost is an error for the flow, and the end finds out what was kept.
    faults.fail(Method::Checkpoint, 2, When::After);
    let (failed, _) = world.run(&installation, "pages", json!("go")).await;
    assert_eq!(failed.failure.unwrap().code, Code::StoreUnavailable);
    assert_eq!(world.state(&installation, "pages").await, json!(102));
}
