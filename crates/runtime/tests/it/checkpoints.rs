//! States that are kept before the end, over a store whose answers get lost and a lease that does.

use crate::{
    framed::framed,
    scripts::{demo, install},
    stops::Fifo,
    world::{World, fleet},
};
use crosspoint_core::{
    Code, ExecutionStatus, Finish, Finished, Installation, Memory, Outcome, Script, SystemClock, Timings,
};
use crosspoint_testkit::{Faults, Method, When};
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
