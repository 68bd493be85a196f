//! The OpenAPI 3.1 document, made from the route table.

use crate::route::{Access, Route};
use crosspoint_core::{Code, Error, ProblemDetails, Result};
use schemars::{Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// Statuses with which any route may fail, and when.
const FAILURES: &[(u16, &str)] = &[
    (400, "The body or an id is malformed"),
    (401, "Nobody is signed in, or the session has expired"),
    (
        403,
        "The permission is missing, or the request comes from another origin",
    ),
    (404, "There is no such thing for this caller"),
    (409, "It clashes with the present state"),
    (410, "It existed, and is not kept any more"),
    (412, "It was changed in the meantime"),
    (413, "The body is too large"),
    (415, "The body is not JSON"),
    (422, "The input does not fit; `errors` says where"),
    (428, "`If-Match` is missing"),
];

/// What a document is about.
pub(crate) struct About {
    title: &'static str,
    summary: &'static str,
    description: &'static str,
    tags: &'static [&'static str],
    scheme: fn() -> Value,
}

/// The customers' side.
pub(crate) const MARKETPLACE: About = About {
    title: "Crosspoint marketplace",
    summary: "Catalogue, installations, connections and executions of one customer",
    description: "The session is the host's own. Requests that change something carry `x-crosspoint: 1`. Failures are \
        application/problem+json with a stable code.",
    tags: &[
        "page",
        "session",
        "catalogue",
        "installations",
        "executions",
        "connections",
    ],
    scheme: || {
        json!({
            "type": "apiKey", "in": "cookie", "name": "session",
            "description": "The host's own session; its name and form are the host's"
        })
    },
};

/// The operators' side.
pub(crate) const OPERATORS: About = About {
    title: "Crosspoint operators",
    summary: "What the host's own people and build servers do: publishing integrations",
    description: "Who is an operator, and how they prove it, is the host's own. Requests that change something carry \
        `x-crosspoint: 1`. Failures are application/problem+json with a stable code.",
    tags: &["page", "artifacts"],
    scheme: || {
        json!({
            "type": "http", "scheme": "bearer",
            "description": "A token, unless the host lets its operators in in another way"
        })
    },
};

/// Makes the document.
pub(crate) fn document(routes: &[Route], about: &About) -> Result<Value> {
    let at_components = |settings: &mut SchemaSettings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    };
    let mut taken = SchemaSettings::draft2020_12().with(at_components).into_generator();
    let mut given = SchemaSettings::draft2020_12()
        .with(at_components)
        .for_serialize()
        .into_generator();
    let problem = given.subschema_for::<ProblemDetails>();
    let mut paths = Map::new();
    for route in routes {
        let item = paths
            .entry(route.path().to_owned())
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(item) = item {
            let method = route.method().as_str().to_ascii_lowercase();
            item.insert(method, operation(route, &mut taken, &mut given, &problem));
        }
    }
    let mut schemas = taken.take_definitions(true);
    for (name, schema) in given.take_definitions(true) {
        if schemas.get(&name).is_some_and(|other| *other != schema) {
            return Err(Error::new(Code::Internal, "two schemas have the same name").with("name", name));
        }
        schemas.insert(name, schema);
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": about.title,
            "version": "1",
            "summary": about.summary,
            "description": about.description,
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" }
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{ "url": ".." , "description": "Where the host nested it" }],
        "tags": about.tags.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "session": (about.scheme)() }
        }
    }))
}

fn tag(route: &Route) -> &'static str {
    let mut parts = route.path().split('/').filter(|part| *part != "v1" && !part.is_empty());
    match (
        parts.next(),
        route.path().contains("/executions") || route.path().contains("/flows/"),
    ) {
        (Some("installations"), true) => "executions",
        (Some(first @ ("session" | "catalogue" | "installations" | "executions" | "connections" | "artifacts")), _) => {
            first
        }
        _ => "page",
    }
}

fn operation(route: &Route, taken: &mut SchemaGenerator, given: &mut SchemaGenerator, problem: &Schema) -> Value {
    let mut operation = Map::new();
    operation.insert("operationId".into(), json!(route.operation()));
    operation.insert("summary".into(), json!(route.summary()));
    operation.insert("tags".into(), json!([tag(route)]));
    let (security, permission) = match route.access() {
        Access::Public(_) => (json!([]), None),
        Access::SignedIn => (json!([{ "session": [] }]), None),
        Access::May(permission) => (json!([{ "session": [] }]), Some(json!(permission))),
        Access::Operator(permission) => (json!([{ "session": [] }]), Some(json!(permission))),
    };
    operation.insert("security".into(), security);
    let guarded = permission.is_some();
    if let Some(permission) = permission {
        operation.insert("x-crosspoint-permission".into(), permission);
    }
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation.insert("parameters".into(), Value::Array(parameters));
    }
    if let Some(schema) = route.request(taken) {
        let body = json!({
            "required": route.request_required(),
            "content": { "application/json": { "schema": schema } }
        });
        operation.insert("requestBody".into(), body);
    } else if !route.takes().is_empty() {
        let binary = json!({ "schema": { "type": "string", "format": "binary" } });
        let content: Map<String, Value> = route
            .takes()
            .iter()
            .map(|media| ((*media).to_owned(), binary.clone()))
            .collect();
        operation.insert("requestBody".into(), json!({ "required": true, "content": content }));
    }
    operation.insert("responses".into(), responses(route, guarded, given, problem));
    Value::Object(operation)
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut all: Vec<Value> = route
        .parameters()
        .into_iter()
        .map(|name| {
            let format = if name == "id" {
                json!({ "type": "string", "format": "uuid" })
            } else {
                json!({ "type": "string" })
            };
            json!({ "name": name, "in": "path", "required": true, "schema": format })
        })
        .collect();
    if route.is_paged() {
        all.push(json!({
            "name": "limit", "in": "query", "description": "How many items at most",
            "schema": { "type": "integer", "minimum": 1, "maximum": 100, "default": 50 }
        }));
        all.push(json!({
            "name": "after", "in": "query", "description": "The `next` of the page before",
            "schema": { "type": "string" }
        }));
    }
    for (name, description) in route.query() {
        all.push(json!({
            "name": name, "in": "query", "description": description, "schema": { "type": "string" }
        }));
    }
    if !route.is_safe() {
        all.push(json!({
            "name": "x-crosspoint", "in": "header", "required": true,
            "description": "Shows that the request was made by a script of the host's own pages",
            "schema": { "const": "1" }
        }));
    }
    if route.requires_revision() {
        all.push(json!({
            "name": "If-Match", "in": "header", "required": true,
            "description": "The `ETag` of what is changed", "schema": { "type": "string" }
        }));
    }
    all
}

fn responses(route: &Route, guarded: bool, given: &mut SchemaGenerator, problem: &Schema) -> Value {
    let mut all = Map::new();
    let mut success = json!({ "description": "Success" });
    if let Value::Object(success) = &mut success {
        if let Some(schema) = route.response(given) {
            success.insert("content".into(), json!({ "application/json": { "schema": schema } }));
        } else if route.status() != 204 {
            success.insert("content".into(), json!({ route.produces(): {} }));
        }
    }
    all.insert(route.status().to_string(), success);
    for (status, description) in FAILURES {
        let possible = match status {
            400 => route.parameters().contains(&"id") || !route.is_safe(),
            401 => !matches!(route.access(), Access::Public(_)),
            403 => guarded || !route.is_safe(),
            404 => !route.parameters().is_empty(),
            412 | 428 => route.requires_revision(),
            422 => !route.is_safe() || route.is_paged(),
            _ => !route.is_safe(),
        };
        if possible {
            all.insert(
                status.to_string(),
                json!({ "description": description, "content": { "application/problem+json": { "schema": problem } } }),
            );
        }
    }
    all.insert(
        "default".into(),
        json!({ "description": "Another failure", "content": { "application/problem+json": { "schema": problem } } }),
    );
    Value::Object(all)
}
