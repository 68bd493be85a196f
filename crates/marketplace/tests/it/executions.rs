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
