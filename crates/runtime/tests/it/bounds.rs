//! How many executions run at once, how often they start, and in what order.

use crate::world::World;
use async_trait::async_trait;
use crosspoint_core::{
    Clock, Flow, FlowContext, FlowOptions, Installation, Integration, NoConfig, Result, Timestamp, Trigger,
};
use crosspoint_runtime::Capacity;
use crosspoint_testkit::VirtualClock;
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// Takes ten seconds, and notes when it began and ended.
#[derive(Clone)]
struct Slow {
    clock: Arc<VirtualClock>,
    runs: Arc<Mutex<Vec<(Value, Timestamp, Timestamp)>>>,
}

#[async_trait]
impl Flow for Slow {
    type Config = NoConfig;
    type Input = Value;
    type Output = ();
    async fn run(&self, _: &FlowContext<NoConfig>, input: Value) -> Result<()> {
        let began = self.clock.now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        self.runs.lock().unwrap().push((input, began, self.clock.now()));
        Ok(())
    }
}

struct Setup {
    world: World,
    slow: Slow,
}

fn setup(options: FlowOptions, capacity: Capacity) -> Setup {
    let clock = Arc::new(VirtualClock::new());
    let slow = Slow {
        clock: clock.clone(),
        runs: Arc::default(),
    };
    let demo = Integration::new("demo", "1.0.0")
        .flow_with("slow", Trigger::call::<Value>(), slow.clone(), options.clone())
        .flow_with("other", Trigger::call::<Value>(), slow.clone(), options);
    Setup {
        world: World::with(clock, [demo.into()], |parts| parts.capacity(capacity)),
        slow,
    }
}

impl Setup {
    /// Runs everything as a worker without limits of its own does; the most that ran at once.
    async fn run(&self) -> usize {
        let mut deliveries = tokio::task::JoinSet::new();
        loop {
            while let Some(lease) = self.world.lease().await {
                let (stop, delivery) = self.world.deliver(&lease);
                deliveries.spawn(async move {
                    let done = delivery.await;
                    drop(stop);
                    done
                });
            }
            match deliveries.join_next().await {
                Some(done) => drop(done.unwrap().unwrap()),
                None if self.world.waiting().await => tokio::time::sleep(Duration::from_secs(1)).await,
                None => return self.most(),
            }
        }
    }

    fn most(&self) -> usize {
        let runs = self.slow.runs.lock().unwrap();
        let at = |time: Timestamp| {
            runs.iter()
                .filter(|(_, began, ended)| *began <= time && time < *ended)
                .count()
        };
        runs.iter().map(|(_, began, _)| at(*began)).max().unwrap_or(0)
    }

    async fn call(&self, installation: &Installation, flow: &str, input: Value) {
        self.world.call(installation, flow, input).await;
    }

    fn starts(&self) -> Vec<i64> {
        let runs = self.slow.runs.lock().unwrap();
        let first = runs.iter().map(|run| run.1.as_millis()).min().unwrap_or(0);
        let mut starts: Vec<i64> = runs.iter().map(|run| (run.1.as_millis() - first) / 1000).collect();
        starts.sort_unstable();
        starts
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_a_customer_and_an_installation_have_a_maximum_each() {
    let flow = FlowOptions::default().max_in_flight(2);
    for (options, capacity, expected) in [
        (flow, Capacity::default(), 4),
        (FlowOptions::default(), Capacity::default().per_installation(3), 3),
        (FlowOptions::default(), Capacity::default().per_customer(1), 1),
        (FlowOptions::default(), Capacity::default(), 12),
    ] {
        let setup = setup(options, capacity);
        let installation = setup.world.install("demo", json!({})).await;
        for n in 0..6 {
            setup.call(&installation, "slow", json!(n)).await;
            setup.call(&installation, "other", json!(n)).await;
        }
        assert_eq!(setup.run().await, expected, "{capacity:?}");
        assert_eq!(setup.slow.runs.lock().unwrap().len(), 12, "all have run");
    }
}

#[tokio::test(start_paused = true)]
async fn healthy_executions_of_one_installation_all_finish_at_once() {
    let setup = setup(FlowOptions::default(), Capacity::default());
    let installation = setup.world.install("demo", json!({})).await;
    for n in 0..20 {
        setup.call(&installation, "slow", json!(n)).await;
    }
    assert_eq!(setup.run().await, 20);
    assert_eq!(setup.starts(), [0; 20]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_spreads_the_starts_of_a_flow() {
    let setup = setup(
        FlowOptions::default().rate(2, Duration::from_secs(60)),
        Capacity::default(),
    );
    let installation = setup.world.install("demo", json!({})).await;
    for n in 0..5 {
        setup.call(&installation, "slow", json!(n)).await;
    }
    setup.run().await;
    assert_eq!(setup.starts(), [0, 0, 30, 60, 90]);
}

#[tokio::test(start_paused = true)]
async fn equal_values_run_in_order_and_different_ones_side_by_side() {
    let setup = setup(FlowOptions::default().ordered_by("/order"), Capacity::default());
    let installation = setup.world.install("demo", json!({})).await;
    for (order, n) in [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3)] {
        setup
            .call(&installation, "slow", json!({ "order": order, "n": n }))
            .await;
    }
    setup.call(&installation, "slow", json!({ "n": 9 })).await;
    assert_eq!(
        setup.run().await,
        3,
        "one of `a`, one of `b`, and the one in nobody's order"
    );
    let runs = setup.slow.runs.lock().unwrap();
    let of_a = runs.iter().filter(|run| run.0["order"] == "a");
    let of_a: Vec<_> = of_a.map(|run| run.0["n"].as_u64().unwrap()).collect();
    assert_eq!(of_a, [1, 2, 3]);
}
