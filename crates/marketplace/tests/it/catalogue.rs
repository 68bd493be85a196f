//! Who is signed in, and what is offered.

use crate::world::World;
use ::http::Method;
use crosspoint_core::{FleetScope, Page};
use serde_json::{Value, json};

#[tokio::test]
async fn the_session_says_who_and_what() {
    let world = World::new();
    let session = world
        .call("viewer:acme", Method::GET, "v1/session", None)
        .await
        .expect(200)
        .json();
    assert_eq!(
        session,
        json!({
            "customer": "acme",
            "customer_name": "acme <b>Inc</b>",
            "user": "ann",
            "permissions": ["catalogue-read", "installation-read", "execution-read"]
        })
    );
}

#[tokio::test]
async fn customers_are_known_from_their_first_request_on() {
    let world = World::new();
    world
        .call("expired:initech", Method::GET, "v1/session", None)
        .await
        .expect(401);
    world
        .call("outsider:umbrella", Method::GET, "v1/catalogue", None)
        .await
        .expect(403);
    for _ in 0..3 {
        world.get("v1/session").await.expect(200);
    }
    #[expect(clippy::disallowed_methods, reason = "the test looks behind the answers")]
    let fleet = FleetScope::trusted();
    let customers = world.store.customers.list(&fleet, Page::default()).await.unwrap().items;
    let names: Vec<(&str, &str)> = customers.iter().map(|c| (c.id.as_str(), c.name.as_str())).collect();
    assert_eq!(names, [("acme", "acme <b>Inc</b>")]);
}

#[tokio::test]
async fn the_catalogue_shows_what_is_offered_and_what_is_installed() {
    let world = World::new();
    let id = world.install("admin:acme").await;
    world.install("admin:globex").await;
    let items = world.get("v1/catalogue").await.expect(200).json()["items"].clone();
    assert_eq!(items.as_array().unwrap().len(), 3);
    assert_eq!(
        items[0],
        json!({
            "name": "orders", "version": "1.0.0", "title": "Orders <script>alert(1)</script>",
            "summary": "Announces orders & more", "category": "sales",
            "installations": [{ "id": id, "state": "active" }]
        })
    );
}

#[tokio::test]
async fn an_offer_has_all_that_the_form_needs() {
    let world = World::new();
    let offer = world.get("v1/catalogue/orders").await.expect(200).json();
    assert_eq!(
        offer["config_schema"]["$schema"],
        "https://json-schema.org/draft/2020-12/schema"
    );
    let token = &offer["config_schema"]["properties"]["token"];
    assert_eq!(
        (&token["x-crosspoint"]["widget"], &token["description"]),
        (&json!("secret"), &json!("Signs the announcements"))
    );
    assert_eq!(
        offer["connections"],
        json!([{
            "name": "shop", "connector": "shop", "title": "The shop", "summary": "", "base_url_needed": false,
            "schemes": [
                { "scheme": "api-key-header", "header": "authorization", "prefix": "Bearer ", "fields": ["api_key"] },
                { "scheme": "basic", "fields": ["username", "password"] }
            ]
        }])
    );
    let flows = offer["flows"].as_array().unwrap();
    let kinds: Vec<&Value> = flows.iter().map(|flow| &flow["trigger"]["kind"]).collect();
    assert_eq!(kinds, ["event", "schedule", "call"]);
    assert_eq!(flows[1]["trigger"]["schedule"]["cron"], "0 3 * * *");
    assert_eq!(flows[0]["input_schema"]["properties"]["amount"]["type"], "integer");
    assert_eq!(world.get("v1/catalogue/ORDERS").await.expect(404).code(), "not-found");
}
