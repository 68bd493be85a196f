use super::*;
use crosspoint_core::SecretRef;
use schemars::{JsonSchema, schema_for};
use std::collections::BTreeMap;

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is of interest")]
enum Size {
    /// Up to ten
    Small,
    Large,
}

#[derive(JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(dead_code, reason = "only the schema is of interest")]
enum Mode {
    /// Everything
    All,
    /// Some of it
    Some { limit: u32, sizes: Vec<Size> },
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema is of interest")]
struct Item {
    name: String,
    size: Option<Size>,
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only the schema is of interest")]
struct Everything {
    #[schemars(length(min = 1, max = 20), regex(pattern = "^[a-z]+$"))]
    text: String,
    #[schemars(email)]
    mail: Option<String>,
    #[schemars(range(min = 1, max = 5))]
    number: u8,
    ratio: Option<f64>,
    yes: bool,
    size: Size,
    sizes: Vec<Size>,
    words: Vec<String>,
    items: Vec<Item>,
    group: Item,
    maybe: Option<Item>,
    mode: Mode,
    headers: BTreeMap<String, String>,
    token: SecretRef,
    /// Another one
    other: Option<SecretRef>,
    #[schemars(extend("x-crosspoint" = { "widget": "dynamic-select", "source": "slack.channels", "order": 1 }))]
    channel: String,
    #[schemars(extend("x-crosspoint" = { "widget": "textarea" }))]
    long: String,
    #[serde(default)]
    with_default: u16,
}

#[test]
fn all_of_the_documented_subset_passes() {
    assert_renderable(&schema_for!(Everything));
    assert_renderable(&schema_for!(crosspoint_core::NoConfig));
}

#[test]
fn secrets_are_found_with_and_without_being_optional() {
    let mut names = secrets(&schema_for!(Everything));
    names.sort();
    assert_eq!(names, ["other", "token"]);
}

#[test]
fn dynamic_choices_are_found() {
    let found = sources(&schema_for!(Everything));
    assert_eq!(found, [("/properties/channel".to_owned(), "slack.channels".to_owned())]);
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is of interest")]
struct Tree {
    children: Vec<Self>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only the schema is of interest")]
enum Either {
    Text(String),
    Number(u8),
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is of interest")]
struct Hidden {
    token: SecretRef,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only the schema is of interest")]
struct Wrong {
    any: Value,
    pair: (u8, String),
    tree: Tree,
    either: Either,
    lists: Vec<Vec<String>>,
    hidden: Hidden,
    map: BTreeMap<String, Item>,
    #[schemars(extend("x-crosspoint" = { "widget": "secret" }))]
    open_secret: String,
    #[schemars(extend("x-crosspoint" = { "widget": "dynamic-select" }))]
    no_source: String,
    #[schemars(extend("x-crosspoint" = { "widget": "wheel" }))]
    wheel: String,
    #[schemars(extend("x-crosspoint" = { "colour": "red" }))]
    colour: String,
}

#[test]
fn everything_else_is_named_with_its_place() {
    let problems = renderable(&schema_for!(Wrong)).unwrap_err();
    let mut places: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
    places.sort_unstable();
    assert_eq!(
        places,
        [
            "/any",
            "/colour",
            "/either",
            "/hidden/token",
            "/lists",
            "/map",
            "/no_source",
            "/open_secret",
            "/pair",
            "/tree/children/0",
            "/wheel"
        ]
    );
}

#[test]
fn a_configuration_is_an_object() {
    assert!(renderable(&schema_for!(String)).is_err());
    assert!(renderable(&schema_for!(Mode)).is_err());
}

#[test]
#[should_panic(expected = "/pair: no control stands for `prefixItems`")]
fn the_assertion_says_what_is_wrong() {
    assert_renderable(&schema_for!(Wrong));
}
