//! The JSON Schemas that the form renderer of the user interface shows.
//!
//! The subset is documented on [`renderable`]; a configuration type outside of it is refused when the platform starts,
//! and by [`assert_renderable`] in the author's own tests, never in a customer's browser.

use crate::check::escape;
use crosspoint_core::Problem;
use schemars::Schema;
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// What `x-crosspoint` may say about a field.
const HINTS: &[&str] = &["widget", "source", "depends_on", "show_if", "step", "order"];
/// How a field may be shown, beside what its type implies.
const WIDGETS: &[&str] = &["dynamic-select", "secret", "textarea", "copy", "hidden"];
/// Keywords that no control of the form stands for.
const REFUSED: &[&str] = &[
    "not",
    "if",
    "then",
    "else",
    "prefixItems",
    "contains",
    "patternProperties",
    "propertyNames",
    "dependentSchemas",
    "dependentRequired",
    "$dynamicRef",
    "unevaluatedItems",
];
/// How deep groups may be nested.
const MAX_DEPTH: usize = 5;

/// Whether the form renderer shows a configuration's schema; every reason why not.
///
/// It shows an object whose properties are: strings (with lengths, pattern, and the formats e-mail, URI, date, date and
/// time), numbers (with bounds and step), booleans, enums, lists of these (a list of an enum becomes check boxes), lists
/// of objects (repeated groups), objects (groups, up to five deep), maps from text to a scalar, optional values of all
/// these, and enums with data whose tag is a property (`#[serde(tag = "kind")]`: a choice with a group for each
/// variant). Local references are followed; types that contain themselves are not shown. A hint in `x-crosspoint` may
/// set `widget` (`dynamic-select` with its `source`, `textarea`, `copy`, `hidden`; `secret` is set by
/// [`SecretRef`](crosspoint_core::SecretRef), which is for properties of the configuration itself), `depends_on`,
/// `show_if`, `step` and `order`.
///
/// ```
/// use crosspoint_marketplace::renderable;
/// #[derive(schemars::JsonSchema)]
/// struct Settings { channel: String, pair: (u8, String) }
///
/// let problems = renderable(&schemars::schema_for!(Settings)).unwrap_err();
/// assert_eq!(problems[0].pointer, "/pair");
/// ```
///
/// # Errors
/// Every place that the renderer does not show, by JSON pointer into a configuration.
pub fn renderable(schema: &Schema) -> Result<(), Vec<Problem>> {
    let mut walk = Walk {
        root: schema.as_value(),
        problems: Vec::new(),
        open: Vec::new(),
    };
    match schema.as_object() {
        Some(object) if object.get("type").and_then(Value::as_str) == Some("object") => {
            walk.object(object, "", 0);
        }
        _ => walk.problem("", "a configuration is a struct with named fields"),
    }
    if walk.problems.is_empty() {
        return Ok(());
    }
    Err(walk.problems)
}

/// Fails the author's test if the form renderer does not show a configuration: `assert_renderable(&schema_for!(C))`.
///
/// # Panics
/// If it does not, with every reason.
#[expect(clippy::panic, reason = "an assertion for tests")]
#[track_caller]
pub fn assert_renderable(schema: &Schema) {
    if let Err(problems) = renderable(schema) {
        let lines: Vec<String> = problems
            .iter()
            .map(|p| format!("  {}: {}", p.pointer, p.message))
            .collect();
        panic!("the form does not show this configuration:\n{}", lines.join("\n"));
    }
}

/// The names of the properties that hold secrets.
pub(crate) fn secrets(schema: &Schema) -> Vec<String> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let is_secret = |node: &Value| {
        let members = ["anyOf", "oneOf", "allOf"]
            .into_iter()
            .filter_map(|key| node.get(key)?.as_array());
        std::iter::once(node)
            .chain(members.flatten())
            .any(|node| widget(node) == Some("secret"))
    };
    properties
        .into_iter()
        .flatten()
        .filter(|(_, node)| is_secret(node))
        .map(|(name, _)| name.clone())
        .collect()
}

fn widget(node: &Value) -> Option<&str> {
    node.get("x-crosspoint")?.get("widget")?.as_str()
}

struct Walk<'s> {
    root: &'s Value,
    problems: Vec<Problem>,
    /// References that are being followed.
    open: Vec<&'s str>,
}

impl<'s> Walk<'s> {
    fn problem(&mut self, at: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(at, message));
    }

    fn node(&mut self, node: &'s Value, at: &str, depth: usize) {
        let Some(object) = node.as_object() else {
            return self.problem(
                at,
                "any value is possible here, and no control stands for that: give it a type",
            );
        };
        self.hints(object, at, depth);
        if let Some(keyword) = REFUSED.iter().find(|keyword| object.contains_key(**keyword)) {
            return self.problem(at, format!("no control stands for `{keyword}`"));
        }
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            return self.reference(reference, at, depth);
        }
        if object.contains_key("const") || object.contains_key("enum") {
            return self.choices(object, at);
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            if let Some(members) = object.get(key).and_then(Value::as_array) {
                return self.alternatives(key, members, at, depth);
            }
        }
        self.typed(object, at, depth);
    }

    fn typed(&mut self, object: &'s Object, at: &str, depth: usize) {
        match kinds(object).as_slice() {
            ["string" | "integer" | "number" | "boolean"] => {}
            ["object"] if depth >= MAX_DEPTH => self.problem(at, "groups are nested too deep"),
            ["object"] => self.object(object, at, depth),
            ["array"] => self.array(object, at, depth),
            [] => self.problem(
                at,
                "any value is possible here, and no control stands for that: give it a type",
            ),
            several => self.problem(at, format!("one control cannot stand for {}", several.join(" or "))),
        }
    }

    fn object(&mut self, object: &'s Object, at: &str, depth: usize) {
        if let Some(keyword) = REFUSED.iter().find(|keyword| object.contains_key(**keyword)) {
            self.problem(at, format!("no control stands for `{keyword}`"));
        }
        if depth == 0
            && ["allOf", "anyOf", "oneOf", "$ref"]
                .iter()
                .any(|key| object.contains_key(*key))
        {
            self.problem(
                at,
                "a configuration cannot take in another type (`flatten`): make it a field",
            );
        }
        if is_secret_reference(object) {
            return;
        }
        let properties = object.get("properties").and_then(Value::as_object);
        for (name, node) in properties.into_iter().flatten() {
            self.node(node, &format!("{at}/{}", escape(name)), depth + 1);
        }
        if let Some(values @ Value::Object(inner)) = object.get("additionalProperties") {
            if properties.is_some_and(|properties| !properties.is_empty()) {
                self.problem(at, "fields and further entries in one object: make the map a field");
            } else if matches!(kinds(inner).as_slice(), ["string" | "integer" | "number" | "boolean"]) {
                self.node(values, &format!("{at}/*"), depth + 1);
            } else {
                self.problem(at, "the values of a map are text, numbers or booleans");
            }
        }
    }

    fn array(&mut self, object: &'s Object, at: &str, depth: usize) {
        let below = format!("{at}/0");
        match object.get("items") {
            None | Some(Value::Bool(_)) => self.problem(at, "a list needs the type of its entries"),
            Some(items) => {
                let target = items
                    .get("$ref")
                    .and_then(Value::as_str)
                    .and_then(|reference| self.resolve(reference))
                    .unwrap_or(items);
                if target.as_object().is_some_and(|items| kinds(items) == ["array"]) {
                    self.problem(at, "no control stands for a list of lists");
                } else {
                    self.node(items, &below, depth + 1);
                }
            }
        }
    }

    fn choices(&mut self, object: &Object, at: &str) {
        let listed = object.get("enum").and_then(Value::as_array);
        let values = listed.into_iter().flatten().chain(object.get("const"));
        if values.into_iter().any(|value| value.is_object() || value.is_array()) {
            self.problem(at, "the values of a choice are text, numbers or booleans");
        }
    }

    fn alternatives(&mut self, key: &str, members: &'s [Value], at: &str, depth: usize) {
        let present: Vec<&Value> = members
            .iter()
            .filter(|member| member.get("type").and_then(Value::as_str) != Some("null"))
            .collect();
        if let [only] = present.as_slice() {
            return self.node(only, at, depth);
        }
        let scalar = |member: &&Value| member.get("const").is_some() || member.get("enum").is_some();
        if key != "allOf" && present.iter().all(scalar) {
            for member in present.iter().filter_map(|member| member.as_object()) {
                self.choices(member, at);
            }
        } else if key == "oneOf" && tag(&present).is_some() {
            for member in present {
                self.node(member, at, depth);
            }
        } else {
            self.problem(
                at,
                "of several types the form cannot tell which is meant: use an enum with a tag, \
                 `#[serde(tag = \"kind\")]`",
            );
        }
    }

    fn reference(&mut self, reference: &'s str, at: &str, depth: usize) {
        if self.open.contains(&reference) {
            return self.problem(at, "the type contains itself");
        }
        match self.resolve(reference) {
            Some(target) => {
                self.open.push(reference);
                self.node(target, at, depth);
                self.open.pop();
            }
            None => self.problem(at, "the reference leads out of the schema"),
        }
    }

    fn resolve(&self, reference: &str) -> Option<&'s Value> {
        self.root.pointer(reference.strip_prefix('#')?)
    }

    fn hints(&mut self, object: &Object, at: &str, depth: usize) {
        let Some(hints) = object.get("x-crosspoint") else {
            return;
        };
        let Some(hints) = hints.as_object() else {
            return self.problem(at, "`x-crosspoint` is an object");
        };
        if let Some(unknown) = hints.keys().find(|key| !HINTS.contains(&key.as_str())) {
            self.problem(at, format!("`x-crosspoint` has no `{unknown}`"));
        }
        let Some(widget) = hints.get("widget") else {
            return;
        };
        match widget.as_str() {
            Some("secret") if depth > 1 => self.problem(at, "a secret is a property of the configuration itself"),
            Some("secret") if !is_secret_reference(object) => {
                self.problem(
                    at,
                    "the type of a secret is `SecretRef`; as text it would be stored unsealed",
                );
            }
            Some("dynamic-select") => {
                let source = hints.get("source").and_then(Value::as_str).unwrap_or("");
                if !source
                    .split_once('.')
                    .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty())
                {
                    self.problem(
                        at,
                        "a dynamic select needs its `source`, as `connector.name` or `flow:<flow>.<list>`",
                    );
                }
            }
            Some(widget) if WIDGETS.contains(&widget) => {}
            _ => self.problem(at, format!("`x-crosspoint.widget` is one of {}", WIDGETS.join(", "))),
        }
    }
}

/// The types that a node allows, null left out.
fn kinds(object: &Object) -> Vec<&str> {
    match object.get("type") {
        Some(Value::String(kind)) => vec![kind],
        Some(Value::Array(kinds)) => kinds
            .iter()
            .filter_map(Value::as_str)
            .filter(|kind| *kind != "null")
            .collect(),
        _ => Vec::new(),
    }
}

fn is_secret_reference(object: &Object) -> bool {
    object
        .get("properties")
        .is_some_and(|properties| properties.get("$secret").is_some())
}

/// The property that tells the variants of an enum apart: required and constant in each.
fn tag<'s>(members: &[&'s Value]) -> Option<&'s str> {
    let constants = |member: &'s Value| {
        let properties = member.get("properties").and_then(Value::as_object);
        let required = member.get("required").and_then(Value::as_array);
        properties
            .into_iter()
            .flatten()
            .filter(|(_, node)| node.get("const").is_some())
            .map(|(name, _)| name.as_str())
            .filter(move |name| required.is_some_and(|r| r.iter().any(|r| r.as_str() == Some(*name))))
            .collect::<Vec<_>>()
    };
    let mut candidates = constants(members.first()?);
    for member in members {
        let here = constants(member);
        candidates.retain(|name| here.contains(name));
    }
    candidates.first().copied()
}

/// The dynamic choices that a schema asks for, each with its place.
pub(crate) fn sources(schema: &Schema) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect_sources(schema.as_value(), "", &mut found);
    found
}

fn collect_sources(node: &Value, at: &str, found: &mut Vec<(String, String)>) {
    if widget(node) == Some("dynamic-select")
        && let Some(source) = node.get("x-crosspoint").and_then(|hints| hints.get("source")?.as_str())
    {
        found.push((at.to_owned(), source.to_owned()));
    }
    let children: Box<dyn Iterator<Item = (String, &Value)>> = match node {
        Value::Object(object) => Box::new(object.iter().map(|(key, value)| (escape(key), value))),
        Value::Array(items) => Box::new(
            items
                .iter()
                .enumerate()
                .map(|(index, value)| (index.to_string(), value)),
        ),
        _ => return,
    };
    for (key, child) in children {
        collect_sources(child, &format!("{at}/{key}"), found);
    }
}

#[cfg(test)]
mod tests;
