//! What `crosspoint.json` may say.

use super::site::{Site, folder, manifest, trusting};
use crosspoint_core::{
    Code, Egress, Integration, Isolation, NoConfig, Protocol, Registry, Script, Source, Trigger, Work,
};
use crosspoint_runtime::artifacts::{ArtifactsConfig, Manifest};
use serde_json::{Value, json};
use std::path::Path;

/// Every pointer that is told of.
async fn problems(site: &Site, manifest: &Value) -> Vec<String> {
    let source = folder(&[("crosspoint.json", &manifest.to_string()), ("greet.sh", "true\n")]);
    let error = site.refusal(source.path()).await;
    assert_eq!(error.code(), Code::ArtifactInvalid, "{error:?}");
    let mut pointers: Vec<String> = error.problems().iter().map(|problem| problem.pointer.clone()).collect();
    pointers.sort();
    pointers.dedup();
    pointers
}

#[tokio::test]
async fn every_problem_of_the_form_is_told_at_once() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let broken = json!({
        "name": "Hello World", "title": "", "colour": "red",
        "connections": [{ "name": "shop" }],
        "flows": [{ "name": "greet", "trigger": { "event": 1 }, "entry": {}, "limits": { "wall": 1 }, "isolation": "none",
            "max_in_flight": 0, "rate": { "count": 0, "per_ms": 0 }
        }]
    });
    let found = problems(&site, &broken).await;
    for pointer in [
        "/name",
        "/version",
        "/title",
        "/colour",
        "/connections/0/connector",
        "/flows/0/entry/program",
        "/flows/0/limits/wall",
        "/flows/0/isolation",
        "/flows/0/max_in_flight",
        "/flows/0/rate/count",
        "/flows/0/rate/per_ms",
    ] {
        assert!(
            found.iter().any(|one| one == pointer),
            "{pointer} is not among {found:?}"
        );
    }
    assert!(found.iter().any(|one| one.starts_with("/flows/0/trigger")), "{found:?}");
}

#[tokio::test]
async fn every_problem_of_the_meaning_is_told_at_once() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let flow = |name: &str, changes: Value| {
        let mut flow = json!({ "name": name, "trigger": "call", "language": "sh", "entry": { "program": "greet.sh" } });
        flow.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        flow
    };
    let broken = manifest(
        "1.0",
        json!({
            "config": { "type": "string" },
            "connections": [{ "name": "shop", "connector": "shop" }, { "name": "shop", "connector": "shop" }],
            "flows": [
                flow("a", json!({ "entry": { "program": "../x.sh" } })),
                flow("a", json!({ "entry": { "program": "missing.sh" } })),
                flow("c", json!({ "language": "static" })),
                flow("d", json!({ "trigger": { "schedule": { "cron": "never" } }, "input": {} })),
                flow("e", json!({ "trigger": { "event": "two words" } })),
                flow("f", json!({ "isolation": "trusted" })),
                flow("g", json!({ "egress": { "allow": ["ok.example", "no host"] } })),
                flow("h", json!({ "limits": { "memory": 1_u64 << 50 } })),
                flow("i", json!({ "retry": { "max_attempts": 3, "initial_ms": 10, "cap_ms": 5 } })),
                flow("j", json!({ "warm": { "imports": ["ssl", "os; import sys"] } })),
                flow("k", json!({ "rate": { "count": 11, "per_ms": 10 } })),
                flow("l", json!({ "max_in_flight": 2 })),
                flow("m", json!({ "max_in_flight": 1, "rate": { "count": 10, "per_ms": 10 } }))
            ]
        }),
    );
    assert_eq!(
        problems(&site, &broken).await,
        [
            "/config/type",
            "/connections/1/name",
            "/flows/0/entry/program",
            "/flows/1/entry/program",
            "/flows/1/name",
            "/flows/10/rate/count",
            "/flows/11/max_in_flight",
            "/flows/2/entry/program",
            "/flows/3/input",
            "/flows/3/trigger/schedule",
            "/flows/4/trigger/event",
            "/flows/5/isolation",
            "/flows/6/egress/allow/1",
            "/flows/7/limits/memory",
            "/flows/8/retry/cap_ms",
            "/flows/9/warm",
            "/flows/9/warm/imports/1",
            "/version",
        ]
    );
}

#[tokio::test]
async fn what_this_host_does_not_have_is_told_at_once() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let foreign = manifest(
        "1.0.0",
        json!({
            "connections": [{ "name": "crm", "connector": "no-such-crm" }],
            "config": { "type": "object", "properties": { "pair": { "type": "array", "prefixItems": [{}, {}] } } },
        }),
    );
    assert_eq!(problems(&site, &foreign).await, ["/config", "/connections/0"]);
    // Without saying more, an author gets what the host asks for, and not less.
    let strict = Site::with(ArtifactsConfig::folder(root.path().join("strict")));
    let process = manifest("1.0.0", json!({}));
    let mut weaker = process.clone();
    weaker["flows"][0]["isolation"] = json!("process");
    assert_eq!(problems(&strict, &weaker).await, ["/flows/0/isolation"]);
    let mut open = process;
    open["flows"][0]["egress"] = json!("open");
    assert!(problems(&strict, &open).await.contains(&"/flows/0/egress".to_owned()));
}

#[tokio::test]
async fn a_manifest_that_is_no_json_is_told_where() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    for text in ["", "{", "[]", "\"x\"", &"[".repeat(100_000)] {
        let source = folder(&[("crosspoint.json", text)]);
        let error = site.refusal(source.path()).await;
        assert_eq!(error.code(), Code::ArtifactInvalid, "{text:.20}");
    }
    let large = format!("{{ \"name\": \"{}\" }}", "a".repeat(2 << 20));
    let error = site.refusal(folder(&[("crosspoint.json", &large)]).path()).await;
    assert!(error.message().contains("at most"), "{error:?}");
}

#[tokio::test]
async fn a_name_that_is_compiled_into_the_host_cannot_be_taken() {
    let root = tempfile::tempdir().unwrap();
    let mut registry = Registry::new();
    let compiled = Integration::<NoConfig>::new("hello", "0.1.0");
    let script = Script::inline("sh", "true").isolation(Isolation::Process);
    registry
        .add_integration(compiled.script("greet", Trigger::call::<()>(), script))
        .unwrap();
    let config = ArtifactsConfig::folder(root.path()).authors(trusting());
    let site = Site::around(config, registry);
    assert_eq!(
        site.refusal(super::site::hello("9.0.0").path()).await.code(),
        Code::Conflict
    );
    // Nor through a folder that another host has published to.
    let other = Site::over(root.path());
    other.publish(super::site::hello("9.0.0").path()).await.unwrap();
    let looked = site.artifacts.refresh().await.unwrap();
    assert!(looked.failed[0].2.contains("compiled into the host"), "{looked:?}");
    assert_eq!(site.offered("hello").unwrap(), "0.1.0");
}

#[tokio::test]
async fn all_that_is_said_arrives_at_the_flow() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let full = manifest(
        "1.0.0",
        json!({
            "summary": "s", "description": "d", "category": "c",
            "connections": [{ "name": "my_shop", "connector": "shop" }],
            "config": {
                "type": "object",
                "properties": {
                    "top": { "type": "integer", "default": 10, "minimum": 1 },
                    "key": { "type": "string", "x-crosspoint": { "widget": "secret" } }
                },
                "additionalProperties": false
            },
            "flows": [{
                "name": "greet", "trigger": { "event": "order.created" }, "language": "python",
                "entry": { "program": "greet.sh", "args": ["--fast"] }, "protocol": "framed", "env_prefix": "PAN",
                "warm": { "imports": ["ssl", "urllib.request"] },
                "isolation": "process", "egress": "open", "secrets": true,
                "limits": { "wall_ms": 5000 }, "retry": { "max_attempts": 2 }, "stateful": false,
                "max_in_flight": 5, "rate": { "count": 100, "per_ms": 60_000 },
                "input": { "type": "object" }
            }]
        }),
    );
    let source = folder(&[("crosspoint.json", &full.to_string()), ("greet.sh", "true\n")]);
    site.publish(source.path()).await.unwrap();
    let integration = site.registry.offered("hello").unwrap();
    assert_eq!(integration.connections[0].name, "my_shop");
    assert_eq!((integration.check_config)(&json!({})).unwrap(), json!({ "top": 10 }));
    assert!((integration.check_config)(&json!({ "top": 0 })).is_err());
    assert!((integration.check_config)(&json!({ "key": { "$secret": "key" } })).is_ok());
    let flow = integration.flow("greet").unwrap();
    assert!(matches!(&flow.source, Source::Event(name) if name == "order.created"));
    assert_eq!(
        (
            flow.stateful,
            flow.options.limits.wall_ms,
            flow.options.retry.max_attempts
        ),
        (false, 5000, 2)
    );
    assert_eq!(flow.options.max_in_flight.map(std::num::NonZeroU32::get), Some(5));
    let rate = flow.options.rate.map(|(count, time)| (count.get(), time.as_secs()));
    assert_eq!(rate, Some((100, 60)));
    let Work::Script(script) = &flow.work else {
        panic!("{:?}", flow.work)
    };
    assert_eq!(
        (script.prefix(), script.spoken(), script.wants_secrets()),
        ("PAN", Protocol::Framed, true)
    );
    assert_eq!(script.warm_imports().unwrap(), ["ssl", "urllib.request"]);
    assert_eq!(script.required_isolation(), Isolation::Process);
    assert_eq!(script.reachable(Isolation::Sandboxed), Egress::Open);
}

/// `CROSSPOINT_UPDATE=1 cargo test -p crosspoint-runtime` writes the file anew.
#[test]
fn the_schema_in_the_documentation_is_that_of_the_type() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/crosspoint.schema.json");
    let now = serde_json::to_string_pretty(&Manifest::schema()).unwrap() + "\n";
    if std::env::var_os("CROSSPOINT_UPDATE").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == now,
        "crosspoint.json changed: run this test with CROSSPOINT_UPDATE=1 and look at `git diff`"
    );
}
