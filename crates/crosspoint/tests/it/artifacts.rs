//! Published, installed, run; and published again while all of that goes on.

use crosspoint::{
    core::{ContentDigest, OperatorPermission, Release},
    marketplace::OperatorToken,
    prelude::*,
    runtime::artifacts::{ArtifactLimits, ArtifactsConfig, AuthorPolicy, pack},
};
use http::{Method, Request};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tempfile::TempDir;
use tower::ServiceExt;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Ordered {
    id: u64,
}

impl Event for Ordered {
    const NAME: &'static str = "order.created";
}

fn acme() -> CustomerId {
    CustomerId::new("acme").unwrap()
}

async fn platform(root: &Path, store: Memory) -> Platform {
    // What is shown here is the same at every isolation, and there is only one at which scripts run everywhere.
    let authors = AuthorPolicy::new().isolation(Isolation::Process);
    Platform::builder()
        .store(store)
        .keys(KeyRing::generate().unwrap())
        .artifacts(ArtifactsConfig::folder(root).authors(authors))
        .start()
        .await
        .unwrap()
}

/// Answers its version, what it is configured to, and the order.
fn announcer(version: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let manifest = json!({
        "name": "announcer", "version": version, "title": "Announcer",
        "config": {
            "type": "object",
            "properties": { "channel": { "type": "string", "default": "general" }, "top": { "type": "integer" } },
            "required": ["top"], "additionalProperties": false
        },
        "flows": [{
            "name": "announce", "trigger": { "event": "order.created" }, "language": "sh",
            "entry": { "program": "announce.sh" }
        }]
    });
    let script = format!(
        "printf '{{ \"version\": \"{version}\", \"channel\": \"%s\", \"order\": %s }}' \"$XP_CFG_CHANNEL\" \
         \"$(cat \"$XP_INPUT_FILE\")\" > \"$XP_RESULT_FILE\"\n"
    );
    std::fs::write(folder.path().join("crosspoint.json"), manifest.to_string()).unwrap();
    std::fs::write(folder.path().join("announce.sh"), script).unwrap();
    folder
}

async fn answers(platform: &Platform, ids: &[InvocationId]) -> Vec<Value> {
    let mut answers = Vec::new();
    for id in ids {
        let reply = platform.wait(&acme(), *id, Duration::from_secs(30)).await.unwrap();
        answers.push(serde_json::from_slice::<Value>(reply.body()).unwrap());
    }
    answers.sort_by_key(|answer| answer["version"].as_str().map(str::to_owned));
    answers
}

#[tokio::test]
async fn a_new_version_is_for_new_installations_and_the_old_one_runs_on() {
    let root = tempfile::tempdir().unwrap();
    let platform = platform(root.path(), Memory::new()).await;
    let artifacts = platform.artifacts().unwrap();
    let wish = Default::default();
    let missing = platform.install(&acme(), "announcer", json!({ "top": 1 })).await;
    assert_eq!(missing.unwrap_err().code(), Code::InputInvalid);

    artifacts.publish(announcer("1.0.0").path(), &wish).await.unwrap();
    let wrong = platform
        .install(&acme(), "announcer", json!({ "top": "x" }))
        .await
        .unwrap_err();
    assert_eq!(
        (wrong.code(), wrong.problems()[0].pointer.as_str()),
        (Code::ConfigInvalid, "/config/top")
    );
    platform
        .install(&acme(), "announcer", json!({ "top": 1 }))
        .await
        .unwrap();
    let ids = platform.emit(&acme(), Ordered { id: 1 }).await.unwrap();
    let first = json!({ "version": "1.0.0", "channel": "general", "order": { "id": 1 } });
    assert_eq!(answers(&platform, &ids).await, [first]);

    artifacts.publish(announcer("2.0.0").path(), &wish).await.unwrap();
    platform
        .install(&acme(), "announcer", json!({ "top": 1, "channel": "sales" }))
        .await
        .unwrap();
    let ids = platform.emit(&acme(), Ordered { id: 2 }).await.unwrap();
    let found = answers(&platform, &ids).await;
    assert_eq!(
        found,
        [
            json!({ "version": "1.0.0", "channel": "general", "order": { "id": 2 } }),
            json!({ "version": "2.0.0", "channel": "sales", "order": { "id": 2 } })
        ]
    );

    // What is installed is never collected, whoever withdraws it.
    for version in ["1.0.0", "2.0.0"] {
        artifacts.withdraw("announcer", version).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    let removed = platform.collect_artifacts(Duration::ZERO).await.unwrap();
    assert_eq!(removed, Vec::<ContentDigest>::new());
    let ids = platform.emit(&acme(), Ordered { id: 3 }).await.unwrap();
    assert_eq!(answers(&platform, &ids).await.len(), 2);
    platform.shutdown().await.unwrap();
}

/// Two processes over one store and one folder: what one has published and installed, the other runs at once.
#[tokio::test]
async fn an_event_in_another_process_reaches_what_was_published_a_moment_ago() {
    let root = tempfile::tempdir().unwrap();
    let store = Memory::new();
    let (one, other) = (
        platform(root.path(), store.clone()).await,
        platform(root.path(), store).await,
    );
    one.artifacts()
        .unwrap()
        .publish(announcer("1.0.0").path(), &Default::default())
        .await
        .unwrap();
    one.install(&acme(), "announcer", json!({ "top": 1 })).await.unwrap();
    let ids = other.emit(&acme(), Ordered { id: 1 }).await.unwrap();
    assert_eq!(answers(&other, &ids).await.len(), 1);
    one.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_was_published_is_there_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let store = Memory::new();
    let before = platform(root.path(), store.clone()).await;
    before
        .artifacts()
        .unwrap()
        .publish(announcer("1.0.0").path(), &Default::default())
        .await
        .unwrap();
    before.install(&acme(), "announcer", json!({ "top": 1 })).await.unwrap();
    before.shutdown().await.unwrap();
    let after = platform(root.path(), store).await;
    let ids = after.emit(&acme(), Ordered { id: 1 }).await.unwrap();
    assert_eq!(
        answers(&after, &ids).await[0]["version"],
        "1.0.0",
        "it was not parked as missing"
    );
    after.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_build_server_publishes_over_http() {
    const TOKEN: &str = "0123456789abcdef0123456789abcdef";
    let root = tempfile::tempdir().unwrap();
    let platform = platform(root.path(), Memory::new()).await;
    let auth = OperatorToken::new("ci", TOKEN, OperatorPermission::ALL).unwrap();
    let app = platform.operators(auth).unwrap();
    let archive = root.path().join("a.tar.gz");
    let digest = pack(announcer("1.0.0").path(), &archive, &ArtifactLimits::default()).unwrap();
    let request = |method, path: &str, body: Vec<u8>| {
        Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/gzip")
            .header("x-crosspoint", "1")
            .body(axum::body::Body::from(body))
            .unwrap()
    };
    let bytes = std::fs::read(&archive).unwrap();
    let sent = app.clone().oneshot(request(
        Method::POST,
        &format!("/v1/artifacts?digest={digest}"),
        bytes.clone(),
    ));
    assert_eq!(sent.await.unwrap().status(), 200);
    assert!(
        platform
            .install(&acme(), "announcer", json!({ "top": 1 }))
            .await
            .is_ok()
    );
    // Cut off on the way.
    let cut = bytes[..bytes.len() - 20].to_vec();
    let sent = app
        .clone()
        .oneshot(request(Method::POST, "/v1/artifacts", cut))
        .await
        .unwrap();
    assert_eq!(sent.status(), 422);
    let listed = app
        .oneshot(request(Method::GET, "/v1/artifacts", Vec::new()))
        .await
        .unwrap();
    let listed = axum::body::to_bytes(listed.into_body(), 1 << 20).await.unwrap();
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    let release: Release = serde_json::from_value(listed["items"][0].clone()).unwrap();
    assert_eq!((release.name.as_str(), release.digest), ("announcer", digest));
    platform.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_platform_without_artifacts_says_how_to_have_them() {
    let builder = Platform::builder()
        .store(Memory::new())
        .keys(KeyRing::generate().unwrap());
    let platform = builder.start().await.unwrap();
    let error = platform.artifacts().unwrap_err();
    assert!(error.message().contains(".artifacts("), "{error:?}");
    platform.shutdown().await.unwrap();
}
