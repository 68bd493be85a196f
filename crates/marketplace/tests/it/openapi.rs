//! The document says what the table says.

use crate::world::World;
use crosspoint_marketplace::{Access, routes};
use serde_json::{Map, Value};
use std::path::Path;

async fn document() -> Value {
    World::new().get("v1/openapi.json").await.expect(200).json()
}

#[tokio::test]
async fn every_route_stands_in_it_with_its_parameters_and_permission() {
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = 0;
    for route in routes() {
        let method = route.method().as_str().to_lowercase();
        let operation = &document["paths"][route.path()][&method];
        assert_eq!(operation["operationId"], route.operation());
        let names: Vec<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|p| p["in"] == "path")
            .map(|p| p["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, route.parameters(), "{route:?}");
        let open = operation["security"] == serde_json::json!([]);
        assert_eq!(open, matches!(route.access(), Access::Public(_)), "{route:?}");
        assert!(operation["responses"].get(route.status().to_string()).is_some());
        operations += 1;
    }
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(
        paths
            .values()
            .map(|item| item.as_object().map_or(0, Map::len))
            .sum::<usize>(),
        operations
    );
}

#[tokio::test]
async fn every_reference_leads_to_a_schema() {
    let document = document().await;
    let mut stack = vec![&document];
    let mut seen = 0;
    while let Some(node) = stack.pop() {
        match node {
            Value::Object(object) => {
                if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                    let target = reference
                        .strip_prefix('#')
                        .and_then(|pointer| document.pointer(pointer));
                    assert!(target.is_some(), "{reference}");
                    seen += 1;
                }
                stack.extend(object.values());
            }
            Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
    assert!(seen > 30, "{seen}");
}

/// `CROSSPOINT_UPDATE=1 cargo test -p crosspoint-marketplace` writes the file anew.
#[tokio::test]
async fn it_is_the_one_that_was_agreed_on() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi.json");
    let now = serde_json::to_string_pretty(&document().await).unwrap() + "\n";
    if std::env::var_os("CROSSPOINT_UPDATE").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let agreed: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let now: Value = serde_json::from_str(&now).unwrap();
    assert!(
        agreed == now,
        "the API changed: look at `git diff` after running with CROSSPOINT_UPDATE=1; changes may only add"
    );
}
