//! How far a run is, told while it goes on.

use crate::{
    framed::{framed, outcome_with},
    world::{CANARY, World, seal},
};
use async_trait::async_trait;
use crosspoint_core::{
    ExecutionStatus, Flow, FlowContext, Integration, InvocationId, MetricKind, NoConfig, Progress, Result, RunEnd,
    Timestamp, Trigger, Watch,
};
use crosspoint_testkit::VirtualClock;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::Notify;

/// Goes on by one whenever it is told to.
#[derive(Clone, Default)]
struct Walks(Arc<Notify>);

#[async_trait]
impl Flow for Walks {
    type Config = NoConfig;
    type Input = u32;
    type Output = ();
    async fn run(&self, cx: &FlowContext<NoConfig>, steps: u32) -> Result<()> {
        for step in 1..=steps {
            for part in [0.0, 0.5] {
                let progress = Progress::new(Timestamp::from_millis(7)).done(f64::from(step) + part);
                cx.progress(
                    progress
                        .total(f64::from(steps))
                        .text(format!("with {CANARY}-token{}", "!".repeat(400))),
                );
            }
            self.0.notified().await;
        }
        Ok(())
    }
}

async fn done(world: &World, id: InvocationId) -> Option<f64> {
    let progress = world.execution(id).await.progress;
    progress.and_then(|progress| progress.done)
}

#[tokio::test(start_paused = true)]
async fn the_newest_is_kept_now_and_then_until_the_attempt_ends() {
    let walks = Walks::default();
    let demo = Integration::new("demo", "1.0.0").flow("walk", Trigger::call::<u32>(), walks.clone());
    let world = World::on(Arc::new(VirtualClock::new()), [demo.into()]);
    let sealed = |installation: &mut _| seal(installation, "token", &format!("{CANARY}-token"));
    let installation = world.install_with("demo", json!({}), sealed).await;
    let id = world.call(&installation, "walk", json!(3)).await;
    let lease = world.lease().await.unwrap();
    let (_stop, handled) = world.deliver(&lease);
    let task = tokio::spawn(handled);
    let moment = Duration::from_millis(10);
    tokio::time::sleep(moment).await;
    let first = world.execution(id).await.progress.unwrap();
    assert_eq!(
        (first.at.as_millis(), first.done, first.total),
        (7, Some(1.5), Some(3.0)),
        "the newest"
    );
    let text = first.text.unwrap();
    assert!(
        text.starts_with("with [secret]!") && text.chars().count() == 300,
        "{text}"
    );

    walks.0.notify_one();
    tokio::time::sleep(moment).await;
    assert_eq!(done(&world, id).await, Some(1.5), "the store is left alone for a while");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(done(&world, id).await, Some(2.5));
    // Nothing new is nothing to write, and what comes after a pause is written at once.
    tokio::time::sleep(Duration::from_secs(60)).await;
    walks.0.notify_one();
    tokio::time::sleep(moment).await;
    assert_eq!(done(&world, id).await, Some(3.5));

    walks.0.notify_one();
    task.await.unwrap().unwrap();
    let ended = world.execution(id).await;
    assert_eq!((ended.status, ended.progress), (ExecutionStatus::Succeeded, None));
    assert_eq!(world.reply(id).await, Value::Null);
}

/// Remembers what it heard.
#[derive(Debug, Default)]
struct Hears(Mutex<Vec<String>>);

impl Watch for Hears {
    fn progress(&self, said: Progress) {
        let told = format!("{:?} of {:?}", said.done, said.total);
        self.0.lock().unwrap().push(told);
    }
    fn metric(&self, name: &str, kind: MetricKind, value: f64) {
        self.0.lock().unwrap().push(format!("{name} {kind:?} {value}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_tells_it_while_it_runs() {
    let hears = Arc::new(Hears::default());
    let script = framed(
        r#"
        say '{"type":"progress","done":1,"total":2}'
        say '{"type":"metric","name":"orders","value":3}'
        "#,
    );
    let watch: Arc<dyn Watch> = Arc::<Hears>::clone(&hears);
    let outcome = outcome_with(script, |spec| spec.watch = Some(watch)).await;
    assert!(matches!(outcome.end, RunEnd::Succeeded(_)), "{:?}", outcome.end);
    assert_eq!(*hears.0.lock().unwrap(), ["Some(1.0) of Some(2.0)", "orders Counter 3"]);
}
