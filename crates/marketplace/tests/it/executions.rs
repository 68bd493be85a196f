//! Start, look at, cancel and replay executions.

use crate::world::{World, id};
use serde_json::{Value, json};

#[tokio::test]
async fn a_flow_is_started_by_hand() {
    let world = World::new();
    let installation = world.install("admin:acme").await;
    let at = format!("v1/installations/{installation}");
    let body = json!({ "input": { "amount": 3 } });
    let started = world.post(&format!("{at}/flows/by-hand/start"), body).await.expect(202);
    let execution = id(&started);
    assert_eq!(
        started.header("location"),
        format!("/integrations/v1/executions/{execution}")
    );
    let read = world
        .get(&format!("v1/executions/{execution}"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&read["status"], &read["flow"], &read["trigger"]),
        (&json!("queued"), &json!("by-hand"), &json!("call"))
    );
    assert_eq!(
        world.get(&format!("{at}/executions")).await.expect(200).json()["items"],
        json!([read])
    );
    let log = world
        .get(&format!("v1/executions/{execution}/log"))
        .await
        .expect(200)
        .json();
    assert_eq!(log, json!({ "items": [], "next": null }));
}

#[tokio::test]
async fn an_input_that_does_not_fit_starts_nothing() {
    let world = World::new();
    let at = format!("v1/installations/{}", world.install("admin:acme").await);
    for (flow, body, pointers) in [
        ("by-hand", json!({ "input": { "amount": "x" } }), vec!["/input/amount"]),
        (
            "by-hand",
            json!({ "input": { "amount": 1, "more": 2 } }),
            vec!["/input/more"],
        ),
        ("by-hand", json!({}), vec!["/input"]),
        ("nightly", json!({ "input": {} }), vec!["/input/scheduled"]),
        ("by-hand", json!({ "inputs": {} }), vec!["/inputs"]),
    ] {
        let answer = world
            .post(&format!("{at}/flows/{flow}/start"), body.clone())
            .await
            .expect(422);
        assert_eq!(answer.pointers(), pointers, "{body}");
    }
    world
        .post(&format!("{at}/flows/nothing/start"), json!({}))
        .await
        .expect(404);
    assert_eq!(world.get(&format!("{at}/executions")).await.json()["items"], json!([]));
    world
        .post(&format!("{at}/flows/nightly/start"), json!({}))
        .await
        .expect(202);
}

/// What a poll has found is what it is about; nobody can make that up by hand. The poll itself can be run at any time.
#[tokio::test]
async fn a_flow_that_only_a_poll_feeds_is_not_started_by_hand() {
    let world = World::new();
    let offer = world.get("v1/catalogue/polls").await.expect(200).json();
    let kinds: Vec<&Value> = offer["flows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flow| &flow["trigger"]["kind"])
        .collect();
    assert_eq!(kinds, ["poll", "schedule"]);
    let made = world
        .post("v1/installations", json!({ "integration": "polls" }))
        .await
        .expect(201)
        .json();
    let at = format!("v1/installations/{}", made["id"].as_str().unwrap());
    let refused = world
        .post(&format!("{at}/flows/book/start"), json!({ "input": null }))
        .await
        .expect(409);
    assert_eq!(refused.code(), "conflict");
    assert!(
        refused.json()["detail"].as_str().unwrap().contains("poll"),
        "{}",
        refused.json()
    );
    assert_eq!(world.get(&format!("{at}/executions")).await.json()["items"], json!([]));
    world
        .post(&format!("{at}/flows/book-poll/start"), json!({}))
        .await
        .expect(202);
}

#[tokio::test]
async fn a_paused_installation_starts_nothing() {
    let world = World::new();
    let at = format!("v1/installations/{}", world.install("admin:acme").await);
    world.post(&format!("{at}/pause"), json!({})).await.expect(200);
    let body = json!({ "input": { "amount": 3 } });
    let refused = world.post(&format!("{at}/flows/by-hand/start"), body).await.expect(409);
    assert_eq!(refused.code(), "conflict");
}

#[tokio::test]
async fn a_cancel_says_what_became_of_it() {
    let world = World::new();
    let installation = world.install("admin:acme").await;
    let execution = world.execution("admin:acme", &installation).await;
    let at = format!("v1/executions/{execution}");
    let told = world.post(&format!("{at}/cancel"), json!({})).await.expect(200).json();
    assert!(
        ["cancelled", "requested"].contains(&told["result"].as_str().unwrap()),
        "{told}"
    );
    let status = world.get(&at).await.json()["status"].clone();
    assert!(
        ["cancelled", "cancelling"].contains(&status.as_str().unwrap()),
        "{status}"
    );
}

#[tokio::test]
async fn a_replay_is_a_new_execution_that_names_the_old_one() {
    let world = World::new();
    let installation = world.install("admin:acme").await;
    let old = world.execution("admin:acme", &installation).await;
    let at = format!("v1/executions/{old}/replay");
    // No body at all is as good as an empty one.
    let replayed = world
        .call("admin:acme", ::http::Method::POST, &at, None)
        .await
        .expect(202);
    let new = id(&replayed);
    assert_ne!(new, old);
    let read = world.get(&format!("v1/executions/{new}")).await.expect(200).json();
    assert_eq!(read["origin"], json!({ "replay": old }));
    let wrong = world.post(&at, json!({ "input": { "amount": -1 } })).await.expect(422);
    assert_eq!(wrong.pointers(), ["/input/amount"]);
    let none: Value = json!({ "input": null });
    world.post(&at, none).await.expect(202);
}

#[tokio::test]
async fn a_replay_may_take_the_original_settings_and_remember_nothing() {
    let world = World::new();
    let installation = world.install("admin:acme").await;
    let old = world.execution("admin:acme", &installation).await;
    let at = format!("v1/executions/{old}/replay");
    let choices = [("current", "save"), ("original", "discard")];
    for (config, state) in choices {
        let replayed = world
            .post(&at, json!({ "config": config, "state": state }))
            .await
            .expect(202);
        let path = format!("v1/executions/{}", id(&replayed));
        let read = world.get(&path).await.expect(200).json();
        assert_eq!((&read["config"], &read["state"]), (&json!(config), &json!(state)));
    }
    for wrong in [
        json!({ "config": "newest" }),
        json!({ "state": "forget" }),
        json!({ "states": "save" }),
    ] {
        world.post(&at, wrong).await.expect(422);
    }
}
