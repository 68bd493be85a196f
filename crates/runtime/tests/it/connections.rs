//! Which scripts are given clients of their installation's connections.

use crate::{scripts::install, world::World};
use async_trait::async_trait;
use crosspoint_core::{
    AnyIntegration, Egress, ExecutionStatus, Integration, Isolation, IsolationReport, Result, RunEnd, RunHandle,
    RunOutcome, RunSpec, Runner, Script, StopReason, Trigger, Work,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Runs nothing, and remembers which connections each flow was given.
#[derive(Debug, Default)]
struct Looks(Mutex<BTreeMap<String, Vec<String>>>);

#[derive(Debug)]
struct Done;

#[async_trait]
impl Runner for Looks {
    fn name(&self) -> &'static str {
        "looks"
    }
    async fn probe(&self) -> IsolationReport {
        IsolationReport::new(Isolation::Machine, Vec::new(), Vec::new())
    }
    async fn prepare(&self, _: &Work, _: Isolation) -> Result<()> {
        Ok(())
    }
    async fn start(&self, spec: RunSpec) -> Result<Box<dyn RunHandle>> {
        let slots = spec.connections.into_keys().collect();
        self.0.lock().unwrap().insert(spec.flow.to_string(), slots);
        Ok(Box::new(Done))
    }
}

#[async_trait]
impl RunHandle for Done {
    async fn wait(&mut self) -> RunOutcome {
        RunOutcome::new(RunEnd::Succeeded(Value::Null), Isolation::Machine)
    }
    async fn cancel(&mut self, _: StopReason, _: Duration) {}
}

#[tokio::test]
async fn scripts_with_a_broker_get_clients_of_their_connections() {
    let script = || Script::inline("sh", "true");
    let allow = || Egress::Allow(vec!["api.example.com".to_owned()]);
    let open = || script().isolation(Isolation::Process);
    let cases = [
        ("default", script(), true),
        ("allow", script().egress(allow()), true),
        ("none", script().egress(Egress::None), false),
        ("open", script().egress(Egress::Open), false),
        ("process", open(), false),
        ("process-broker", open().egress(Egress::Broker), true),
        ("process-none", open().egress(Egress::None), false),
    ];
    let mut demo = Integration::new("demo", "1.0.0").connection("shop", "shop");
    for (name, script, _) in &cases {
        demo = demo.script(*name, Trigger::call::<Value>(), script.clone());
    }
    let looks = Arc::new(Looks::default());
    let demo: AnyIntegration = demo.into();
    let world = World::run_by(looks.clone(), [demo]);
    let installation = install(&world, serde_json::json!({})).await;
    for (name, _, given) in cases {
        let (done, _) = world.run(&installation, name, Value::Null).await;
        assert_eq!(done.status, ExecutionStatus::Succeeded, "{name}");
        let slots: &[String] = if given { &["shop".to_owned()] } else { &[] };
        assert_eq!(looks.0.lock().unwrap()[name], slots, "{name}");
    }
}
