//! Which scripts are given clients of their installation's connections.

use crate::{looks::Looks, scripts::install, world::World};
use crosspoint_core::{AnyIntegration, Egress, ExecutionStatus, Integration, Isolation, Script, Trigger};
use serde_json::Value;
use std::sync::Arc;

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
        let specs = looks.0.lock().unwrap();
        let seen = specs.iter().find(|spec| &*spec.flow == name).unwrap();
        assert!(seen.connections.keys().eq(slots), "{name}: {:?}", seen.connections);
    }
}
