//! Connect, replace, test, disconnect, and the choices of providers.

use crate::world::{World, id};
use ::http::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_connection_never_shows_its_credential() {
    let world = World::new();
    let body = json!({ "connector": "shop", "label": " <img src=x onerror=alert(1)> ", "fields": { "api_key": "key-canary" } });
    let made = world.post("v1/connections", body).await.expect(201);
    let view = made.json();
    assert_eq!(
        made.header("location"),
        format!("/integrations/v1/connections/{}", id(&made))
    );
    assert_eq!(view["label"], "<img src=x onerror=alert(1)>");
    assert_eq!(
        (&view["title"], &view["scheme"], &view["health"]),
        (&json!("The shop"), &json!("api-key-header"), &json!("unknown"))
    );
    let list = world.get("v1/connections").await.expect(200);
    assert_eq!(list.json()["items"], json!([view]));
    assert!(!made.text.contains("canary") && !list.text.contains("canary"));
}

#[tokio::test]
async fn every_field_that_is_missing_or_unknown_is_named() {
    let world = World::new();
    for (body, pointers) in [
        (json!({ "connector": "shop", "fields": {} }), vec!["/fields/api_key"]),
        (
            json!({ "connector": "shop", "fields": { "api_key": "" } }),
            vec!["/fields/api_key"],
        ),
        (
            json!({ "connector": "own", "fields": { "key": "canary" } }),
            vec!["/fields/api_key", "/fields/key", "/variables/base_url"],
        ),
        (
            json!({ "connector": "shop", "scheme": "basic", "fields": { "username": "u" } }),
            vec!["/fields/password"],
        ),
        (
            json!({ "connector": "shop", "scheme": "magic", "fields": { "api_key": "canary" } }),
            vec!["/scheme"],
        ),
        (json!({ "connector": "nothing", "fields": {} }), vec!["/connector"]),
        (
            json!({ "connector": "shop", "fields": { "api_key": 5 } }),
            vec!["/fields/api_key"],
        ),
        (json!({ "connector": "shop", "field": {} }), vec!["/field"]),
        (json!({ "fields": {} }), vec!["/connector"]),
    ] {
        let answer = world.post("v1/connections", body.clone()).await.expect(422);
        assert_eq!(answer.code(), "input-invalid");
        assert_eq!(answer.pointers(), pointers, "{body}");
        assert!(!answer.text.contains("canary"), "{}", answer.text);
    }
    assert_eq!(world.get("v1/connections").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_new_credential_keeps_what_is_left_out() {
    let world = World::new();
    let body = json!({
        "connector": "own", "scheme": "basic", "label": "Ours", "variables": { "base_url": "https://own.example" },
        "fields": { "username": "u", "password": "p" }
    });
    let id = id(&world.post("v1/connections", body).await.expect(201));
    let at = format!("v1/connections/{id}/credential");
    let put = |body: Value| world.call("admin:acme", Method::PUT, &at, Some(body));
    let answer = put(json!({ "fields": { "username": "u2", "password": "p2" } }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&answer["label"], &answer["scheme"], &answer["id"]),
        (&json!("Ours"), &json!("basic"), &json!(id))
    );
    assert_eq!(answer["variables"]["base_url"], "https://own.example");
    let changed = put(json!({ "scheme": "api-key-header", "label": "New", "fields": { "api_key": "k" } }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&changed["label"], &changed["scheme"]),
        (&json!("New"), &json!("api-key-header"))
    );
    assert_eq!(
        put(json!({ "fields": { "username": "u" } }))
            .await
            .expect(422)
            .pointers(),
        ["/fields/api_key", "/fields/username"]
    );
}

#[tokio::test]
async fn a_connection_in_use_stays() {
    let world = World::new();
    let installation = world.install("admin:acme").await;
    let view = world.get("v1/connections").await.json()["items"][0].clone();
    assert_eq!(view["used_by"], json!([installation]));
    let at = format!("v1/connections/{}", view["id"].as_str().unwrap());
    let refused = world.call("admin:acme", Method::DELETE, &at, None).await.expect(409);
    assert_eq!(refused.code(), "conflict");
    world
        .at("*", Method::DELETE, &format!("v1/installations/{installation}"), None)
        .await
        .expect(204);
    world.call("admin:acme", Method::DELETE, &at, None).await.expect(204);
    world.call("admin:acme", Method::DELETE, &at, None).await.expect(404);
}

#[tokio::test]
async fn a_test_says_how_it_went() {
    let world = World::new();
    let id = world.connect("admin:acme", "shop").await;
    let result = world
        .post(&format!("v1/connections/{id}/test"), json!({}))
        .await
        .expect(200)
        .json();
    assert_eq!(result, json!({ "ok": true, "message": "It works", "took_ms": 12 }));
}

#[tokio::test]
async fn choices_are_searched_and_come_in_pages() {
    let world = World::new();
    let id = world.connect("admin:acme", "shop").await;
    let at = format!("v1/connections/{id}/choices");
    let first = world
        .get(&format!("{at}/shop.channels?search=a%26b"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        first,
        json!({ "items": [{ "value": "c1", "label": "shop.channels a&b" }], "next": "2" })
    );
    let second = world
        .get(&format!("{at}/shop.channels?after=2"))
        .await
        .expect(200)
        .json();
    assert_eq!(second["next"], Value::Null);
    for foreign in ["own.channels", "channels", "shop", "https:%2F%2Fevil.example"] {
        world.get(&format!("{at}/{foreign}")).await.expect(404);
    }
}
