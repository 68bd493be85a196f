//! Secrets of configurations go in and never come out.

use crate::{
    fakes::{Mask, scope},
    world::{World, id, installing},
};
use ::http::Method;
use crosspoint_core::{ExposeSecret, SealContext, Vault};
use serde_json::{Value, json};

async fn opened(world: &World, installation: &str, name: &str) -> Option<(u64, String)> {
    let record = world.record("acme", installation).await;
    let (generation, sealed) = record.secrets.get(name)?;
    let context = SealContext::config(scope("acme").customer().clone(), record.id, name, *generation);
    let plain = Mask.open(&context, sealed).await.unwrap();
    Some((*generation, String::from_utf8(plain.expose_secret().clone()).unwrap()))
}

#[tokio::test]
async fn a_secret_is_sealed_in_its_context_and_shown_as_set() {
    let world = World::new();
    let connection = world.connect("admin:acme", "shop").await;
    let made = world
        .post("v1/installations", installing(&connection))
        .await
        .expect(201);
    let id = id(&made);
    assert_eq!(
        made.json()["config"]["token"],
        json!({ "$secret": "token", "set": true })
    );
    assert_eq!(made.json()["config"].get("extra"), None);
    assert_eq!(opened(&world, &id, "token").await, Some((1, "token-canary".into())));
    assert_eq!(
        world.record("acme", &id).await.config["token"],
        json!({ "$secret": "token" })
    );
    for path in [
        "v1/installations".to_owned(),
        format!("v1/installations/{id}"),
        "v1/catalogue".into(),
    ] {
        let answer = world.get(&path).await.expect(200);
        assert!(!answer.text.contains("canary"), "{}", answer.text);
    }
}

#[tokio::test]
async fn nothing_null_and_the_reference_keep_it_and_text_replaces_it() {
    let world = World::new();
    let id = world.install("admin:acme").await;
    let at = format!("v1/installations/{id}");
    let shown = json!({ "$secret": "token", "set": true });
    for (config, generation, text) in [
        (json!({ "channel": "c2" }), 1, "token-canary"),
        (json!({ "channel": "c2", "token": null }), 1, "token-canary"),
        (json!({ "channel": "c2", "token": shown }), 1, "token-canary"),
        (json!({ "channel": "c2", "token": "second" }), 2, "second"),
        (json!({ "channel": "c2", "extra": "more" }), 2, "second"),
    ] {
        world
            .at("*", Method::PATCH, &at, Some(json!({ "config": config })))
            .await
            .expect(200);
        assert_eq!(
            opened(&world, &id, "token").await,
            Some((generation, text.into())),
            "{config}"
        );
    }
    assert_eq!(opened(&world, &id, "extra").await, Some((1, "more".into())));

    let off = json!({ "config": { "channel": "c2", "extra": { "$secret": "extra", "set": false } } });
    world.at("*", Method::PATCH, &at, Some(off)).await.expect(200);
    assert_eq!(opened(&world, &id, "extra").await, None);
    let off = json!({ "config": { "channel": "c2", "token": { "$secret": "token", "set": false } } });
    let answer = world.at("*", Method::PATCH, &at, Some(off)).await.expect(422);
    assert_eq!(answer.pointers(), ["/config/token"]);
    assert_eq!(opened(&world, &id, "token").await, Some((2, "second".into())));
}

#[tokio::test]
async fn a_reference_to_something_else_is_refused() {
    let world = World::new();
    let connection = world.connect("admin:acme", "shop").await;
    for token in [
        json!({ "$secret": "extra" }),
        json!({ "$secret": "token" }),
        json!(5),
        json!([]),
        json!(""),
        json!("x".repeat(70_000)),
    ] {
        let mut body = installing(&connection);
        body["config"]["token"] = token.clone();
        let answer = world.post("v1/installations", body).await.expect(422);
        assert_eq!(answer.pointers(), ["/config/token"], "{token}");
    }
}

#[tokio::test]
async fn a_refusal_does_not_repeat_a_secret_that_was_put_in_the_wrong_place() {
    let world = World::new();
    let bodies: [Value; 5] = [
        json!({ "integration": "orders", "config": { "channel": ["canary"], "minimum": "canary", "token": ["canary"] } }),
        json!({ "integration": "orders", "config": "canary" }),
        json!({ "integration": "orders", "connections": { "shop": "canary" } }),
        json!({ "integration": "canary" }),
        json!({ "integration": ["canary"], "activate": "canary" }),
    ];
    for body in bodies {
        let answer = world.post("v1/installations", body).await;
        assert!(answer.status.is_client_error());
        assert!(!answer.text.contains("canary"), "{}", answer.text);
    }
}
