//! Install, change, pause, resume, uninstall.

use crate::{
    fakes::scope,
    world::{World, id, installing, registry},
};
use ::http::Method;
use crosspoint_core::{Code, Failure, InstallationState, Memory, SaveInstallation, Scope, Store};
use crosspoint_marketplace::Install;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn an_installation_comes_back_as_it_was_made() {
    let world = World::new();
    let connection = world.connect("admin:acme", "shop").await;
    let made = world
        .post("v1/installations", installing(&connection))
        .await
        .expect(201);
    let view = made.json();
    let id = id(&made);
    assert_eq!(made.header("location"), format!("/integrations/v1/installations/{id}"));
    assert_eq!(made.header("etag"), "\"1\"");
    assert_eq!(view["state"], "active");
    assert_eq!(view["title"], "Orders <script>alert(1)</script>");
    assert_eq!(view["version"], "1.0.0");
    assert_eq!(view["offered_version"], "1.0.0");
    assert_eq!(view["connections"], json!({ "shop": connection }));
    assert_eq!(view["created"], "2026-01-01T00:00:00.000Z");
    let upcoming: Vec<String> = (1..=10)
        .map(|hour| format!("2026-01-01T{hour:02}:00:00.000Z"))
        .collect();
    assert_eq!(
        view["schedules"],
        json!([{
            "flow": "nightly",
            "cron": "0 3 * * *",
            "timezone": "UTC",
            "next": "2026-01-01T01:00:00.000Z",
            "upcoming": upcoming,
            "paused": null
        }])
    );
    assert_eq!(
        view["flows"][0],
        json!({ "name": "announce", "trigger": { "kind": "event", "event": "order.created" } })
    );
    let read = world.get(&format!("v1/installations/{id}")).await.expect(200);
    assert_eq!(read.json(), view);
    assert_eq!(read.header("etag"), "\"1\"");
    assert_eq!(world.get("v1/installations").await.json()["items"], json!([view]));
}

#[tokio::test]
async fn what_was_left_out_is_stored_with_its_default() {
    let world = World::new();
    let connection = world.connect("admin:acme", "shop").await;
    let mut body = installing(&connection);
    body["config"].as_object_mut().unwrap().remove("minimum");
    let made = world.post("v1/installations", body).await.expect(201);
    assert_eq!(
        made.json()["config"]["minimum"],
        0,
        "a script would not see the default otherwise"
    );
}

#[tokio::test]
async fn every_problem_of_a_set_up_is_told_at_once() {
    let world = World::new();
    let other = world.connect("admin:acme", "own").await;
    let body = json!({
        "integration": "orders",
        "config": { "minimum": 2000, "chanel": "c1", "token": 7 },
        "connections": { "shop": other, "spare": other }
    });
    let answer = world.post("v1/installations", body).await.expect(422);
    assert_eq!(answer.code(), "config-invalid");
    let mut pointers = answer.pointers();
    pointers.sort();
    assert_eq!(
        pointers,
        [
            "/config/chanel",
            "/config/channel",
            "/config/minimum",
            "/config/token",
            "/connections/shop",
            "/connections/spare"
        ]
    );
    let none = json!({ "integration": "orders", "config": { "channel": "c1" } });
    let answer = world.post("v1/installations", none).await.expect(422);
    assert_eq!(answer.pointers(), ["/config/token", "/connections/shop"]);
    assert_eq!(world.get("v1/installations").await.json()["items"], json!([]));
}

#[tokio::test]
async fn a_connection_of_somebody_else_does_not_exist() {
    let world = World::new();
    let foreign = world.connect("admin:globex", "shop").await;
    let answer = world.post("v1/installations", installing(&foreign)).await.expect(422);
    assert_eq!(answer.pointers(), ["/connections/shop"]);
    assert!(answer.text.contains("there is no such connection"));
}

#[tokio::test]
async fn what_is_not_offered_cannot_be_installed() {
    let world = World::new();
    let answer = world
        .post("v1/installations", json!({ "integration": "nothing" }))
        .await
        .expect(422);
    assert_eq!(
        (answer.code().as_str(), answer.pointers()),
        ("input-invalid", vec!["/integration".to_owned()])
    );
}

#[tokio::test]
async fn a_draft_may_be_incomplete_but_not_wrong_and_starts_when_it_is_complete() {
    let world = World::new();
    let draft = json!({ "integration": "orders", "config": { "minimum": 1 }, "activate": false });
    let made = world.post("v1/installations", draft).await.expect(201);
    let at = format!("v1/installations/{}", id(&made));
    assert_eq!(made.json()["state"], "draft");
    assert_eq!(made.json()["schedules"][0]["next"], Value::Null);

    let wrong = json!({ "integration": "orders", "config": { "minimum": "x" }, "activate": false });
    assert_eq!(
        world.post("v1/installations", wrong).await.expect(422).pointers(),
        ["/config/minimum"]
    );

    let early = world.post(&format!("{at}/resume"), json!({})).await.expect(422);
    assert_eq!(
        early.pointers(),
        ["/config/channel", "/config/token", "/connections/shop"]
    );
    world.post(&format!("{at}/pause"), json!({})).await.expect(409);

    let connection = world.connect("admin:acme", "shop").await;
    let change = json!({ "config": { "channel": "c1", "token": "t" }, "connections": { "shop": connection } });
    world.at("\"1\"", Method::PATCH, &at, Some(change)).await.expect(200);
    let active = world.post(&format!("{at}/resume"), json!({})).await.expect(200).json();
    assert_eq!(active["state"], "active");
    assert_eq!(active["schedules"][0]["next"], "2026-01-01T01:00:00.000Z");
}

#[tokio::test]
async fn a_change_needs_the_revision_that_it_starts_from() {
    let world = World::new();
    let at = format!("v1/installations/{}", world.install("admin:acme").await);
    let change = || Some(json!({ "config": { "channel": "c2", "minimum": 7 } }));

    let blind = world.call("admin:acme", Method::PATCH, &at, change()).await.expect(428);
    assert_eq!(blind.code(), "revision-required");
    for stale in ["\"0\"", "\"2\"", "W/\"1\"", "1", "\"\""] {
        let answer = world.at(stale, Method::PATCH, &at, change()).await.expect(412);
        assert_eq!(answer.code(), "revision-stale");
    }
    let first = world.at("\"1\"", Method::PATCH, &at, change()).await.expect(200);
    assert_eq!(first.header("etag"), "\"2\"");
    assert_eq!(first.json()["config"]["channel"], "c2");
    assert_eq!(first.json()["config"]["minimum"], 7);
    let second = world.at("\"1\"", Method::PATCH, &at, change()).await.expect(412);
    assert_eq!(second.code(), "revision-stale");

    world.call("admin:acme", Method::DELETE, &at, None).await.expect(428);
    world.at("\"1\"", Method::DELETE, &at, None).await.expect(412);
    let gone = world.at("\"2\"", Method::DELETE, &at, None).await.expect(204);
    assert_eq!(gone.text, "");
    world.get(&at).await.expect(404);
}

#[tokio::test]
async fn what_a_change_leaves_out_stays() {
    let world = World::new();
    let id = world.install("admin:acme").await;
    let at = format!("v1/installations/{id}");
    let before = world.get(&at).await.json();
    let after = world
        .at("\"1\"", Method::PATCH, &at, Some(json!({})))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&before["config"], &before["connections"]),
        (&after["config"], &after["connections"])
    );
    let bad = json!({ "connections": {} });
    let answer = world.at("\"2\"", Method::PATCH, &at, Some(bad)).await.expect(422);
    assert_eq!(answer.pointers(), ["/connections/shop"]);
}

#[tokio::test]
async fn a_pause_stops_the_clock_and_is_idempotent() {
    let world = World::new();
    let at = format!("v1/installations/{}", world.install("admin:acme").await);
    for _ in 0..2 {
        let paused = world.post(&format!("{at}/pause"), json!({})).await.expect(200);
        assert_eq!(
            (&paused.json()["state"], paused.header("etag")),
            (&json!("paused"), "\"2\"")
        );
        assert_eq!(paused.json()["schedules"][0]["next"], Value::Null);
    }
    world.clock.advance(Duration::from_secs(86_400));
    for _ in 0..2 {
        let active = world.post(&format!("{at}/resume"), json!({})).await.expect(200);
        assert_eq!(
            (&active.json()["state"], active.header("etag")),
            (&json!("active"), "\"3\"")
        );
        assert_eq!(active.json()["schedules"][0]["next"], "2026-01-02T01:00:00.000Z");
    }
}

#[tokio::test]
async fn uninstalling_stops_what_is_under_way_and_takes_the_schedules_along() {
    let world = World::new();
    let id = world.install("admin:acme").await;
    let execution = world.execution("admin:acme", &id).await;
    world
        .at("*", Method::DELETE, &format!("v1/installations/{id}"), None)
        .await
        .expect(204);
    let scope = scope("acme");
    let schedules = world
        .store
        .schedules
        .of(Scope::Customer(&scope), id.parse().unwrap())
        .await
        .unwrap();
    assert!(schedules.is_empty());
    let left = world
        .get(&format!("v1/executions/{execution}"))
        .await
        .expect(200)
        .json();
    assert_eq!(left["status"], "cancelling");
}

#[tokio::test]
async fn settings_made_for_a_version_that_is_gone_are_made_anew() {
    let store: Store = Memory::new().into();
    let old = World::over(store.clone(), registry("1.0.0"));
    let id = old.install("admin:acme").await;
    let mut record = old.record("acme", &id).await;
    record.state = InstallationState::NeedsAttention;
    let scope = scope("acme");
    store
        .installations
        .save(Scope::Customer(&scope), SaveInstallation::new(record))
        .await
        .unwrap();

    let new = World::over(store, registry("2.0.0"));
    let at = format!("v1/installations/{id}");
    let shown = new.get(&at).await.expect(200).json();
    assert_eq!(
        (&shown["version"], &shown["offered_version"]),
        (&json!("1.0.0"), &json!("2.0.0"))
    );
    assert_eq!(
        (&shown["state"], &shown["flows"]),
        (&json!("needs-attention"), &json!([]))
    );
    assert_eq!(
        new.post(&format!("{at}/resume"), json!({})).await.expect(409).code(),
        "conflict"
    );
    let again = json!({ "config": { "channel": "c9" } });
    let saved = new.at("*", Method::PATCH, &at, Some(again)).await.expect(200).json();
    assert_eq!(saved["version"], "2.0.0");
    assert_eq!((&saved["state"], &saved["attention"]), (&json!("active"), &Value::Null));
    assert_eq!(saved["schedules"][0]["next"], "2026-01-01T01:00:00.000Z");
}

#[tokio::test]
async fn a_new_credential_lets_go_on_what_waited_for_it_and_nothing_else() {
    let world = World::new();
    for (code, state) in [
        (Code::CredentialsRefused, "active"),
        (Code::ScriptNotStarted, "needs-attention"),
    ] {
        let id = world.install("admin:acme").await;
        let mut record = world.record("acme", &id).await;
        let connection = record.connections["shop"];
        record.state = InstallationState::NeedsAttention;
        record.attention = Some(Failure::new(code, "for a person"));
        let scope = scope("acme");
        let change = SaveInstallation::new(record);
        world
            .store
            .installations
            .save(Scope::Customer(&scope), change)
            .await
            .unwrap();
        let body = Some(json!({ "fields": { "api_key": "new" } }));
        let at = format!("v1/connections/{connection}/credential");
        world.call("admin:acme", Method::PUT, &at, body).await.expect(200);
        let shown = world.get(&format!("v1/installations/{id}")).await.expect(200).json();
        assert_eq!(shown["state"], state);
        assert_eq!(shown["attention"].is_null(), state == "active");
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new();
    let mut made = Vec::new();
    for _ in 0..5 {
        world.clock.advance(Duration::from_millis(5));
        made.push(id(&world
            .post("v1/installations", json!({ "integration": "plain" }))
            .await
            .expect(201)));
    }
    made.reverse();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = world
            .get(&format!("v1/installations?limit=2{after}"))
            .await
            .expect(200)
            .json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    for wrong in ["0", "101", "-1", "x", ""] {
        let answer = world.get(&format!("v1/installations?limit={wrong}")).await.expect(422);
        assert_eq!(answer.code(), "input-invalid");
    }
}

#[tokio::test]
async fn the_hosts_own_program_installs_with_the_same_checks() {
    let world = World::new();
    world.get("v1/session").await.expect(200);
    let acme = scope("acme").customer().clone();
    let wish = Install::new("orders", json!({ "token": "secret-canary" }));
    assert!(!format!("{wish:?}").contains("canary"));
    let refused = world.marketplace.install(&acme, wish).await.unwrap_err();
    assert_eq!(refused.code(), Code::ConfigInvalid);
    let connection = world.connect("admin:acme", "shop").await.parse().unwrap();
    let config = || json!({ "channel": "c1", "token": "t" });
    let wish = Install::new("orders", config()).connection("shop", connection);
    let id = world.marketplace.install(&acme, wish).await.unwrap();
    let shown = world.get(&format!("v1/installations/{id}")).await.expect(200).json();
    assert_eq!(shown["state"], "active");
    let foreign = Install::new("orders", config()).connection("shop", connection);
    let globex = scope("globex").customer().clone();
    let refused = world.marketplace.install(&globex, foreign).await.unwrap_err();
    assert_eq!(refused.code(), Code::ConfigInvalid);
    let odd = Install::new("plain", json!(7)).draft();
    assert_eq!(
        world.marketplace.install(&acme, odd).await.unwrap_err().code(),
        Code::InputInvalid
    );
}

#[tokio::test]
async fn one_schedule_is_paused_and_resumed() {
    let world = World::new();
    let id = world.install("admin:acme").await;
    let path = format!("v1/installations/{id}");
    let at = |verb: &str| format!("{path}/schedules/nightly/{verb}");
    let paused = world.post(&at("pause"), Value::Null).await.expect(200).json();
    assert_eq!((&paused["next"], &paused["upcoming"]), (&Value::Null, &json!([])));
    assert_eq!(paused["paused"], "2026-01-01T00:00:00.000Z");
    let view = world.get(&path).await.json();
    assert_eq!((&view["state"], &view["schedules"][0]), (&json!("active"), &paused));
    // What happens to the installation leaves it at rest.
    for verb in ["pause", "resume"] {
        world.post(&format!("{path}/{verb}"), Value::Null).await.expect(200);
        assert_eq!(world.get(&path).await.json()["schedules"][0], paused, "{verb}");
    }
    let resumed = world.post(&at("resume"), Value::Null).await.expect(200).json();
    assert_eq!(
        (&resumed["paused"], &resumed["next"]),
        (&Value::Null, &json!("2026-01-01T01:00:00.000Z"))
    );
    assert_eq!(resumed["upcoming"].as_array().unwrap().len(), 10);
    let unknown = format!("{path}/schedules/announce/pause");
    world.post(&unknown, Value::Null).await.expect(404);
}

#[tokio::test]
async fn scripts_are_asked_for_choices_with_what_is_chosen_so_far() {
    let world = World::new();
    let connection = world.connect("admin:acme", "shop").await;
    let told = |answer: crate::world::Answer| -> Value {
        let label = answer.expect(200).json()["fields"]["by-hand"][0]["label"].clone();
        serde_json::from_str(label.as_str().unwrap()).unwrap()
    };
    let offer = "v1/catalogue/orders/choices/by-hand";
    let nothing = told(world.post(offer, json!({})).await);
    assert_eq!(nothing, json!({ "config": {}, "connections": {} }));
    // What is not complete, or not right yet, is passed on; a secret that is not stored is not.
    let given = json!({ "config": { "channel": "c1", "token": "canary" }, "connections": { "shop": connection } });
    let so_far = told(world.post(offer, given).await);
    assert_eq!(so_far["connections"], json!({ "shop": connection }));
    assert!(!so_far.to_string().contains("canary"), "{so_far}");
    let foreign = world.connect("admin:globex", "shop").await;
    let wrong = json!({ "connections": { "shop": foreign, "else": foreign } });
    let refused = world.post(offer, wrong).await.expect(422);
    assert_eq!(refused.pointers(), ["/connections/else", "/connections/shop"]);
    world
        .post("v1/catalogue/orders/choices/nothing", json!({}))
        .await
        .expect(404);

    let id = world.install("admin:acme").await;
    let at = format!("v1/installations/{id}/choices/by-hand");
    let stored = told(world.post(&at, json!({})).await);
    let view = world.get(&format!("v1/installations/{id}")).await.json();
    assert_eq!(stored["connections"], view["connections"]);
    assert_eq!(stored["config"]["channel"], view["config"]["channel"]);
    let changed = told(world.post(&at, json!({ "config": { "channel": "c9" } })).await);
    assert_eq!(changed["config"]["channel"], "c9");
    assert_eq!(
        changed["connections"], view["connections"],
        "what is left out is as it is stored"
    );
}
