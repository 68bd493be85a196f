//! The authorization matrix: every route of the table, for every role, on objects of one's own, of others and of nobody.

use crate::world::{World, installing, request};
use ::http::Method;
use crosspoint_core::Permission;
use crosspoint_marketplace::{Access, Route, routes};
use serde_json::{Value, json};

const SESSIONS: &[&str] = &[
    "admin:acme",
    "viewer:acme",
    "runner:acme",
    "outsider:acme",
    "expired:acme",
    "nobody",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Object {
    Own,
    Foreign,
    Absent,
}

/// The ids of what a customer has.
struct Things {
    installation: String,
    execution: String,
    connection: String,
}

impl Things {
    async fn of(world: &World, session: &str) -> Self {
        let installation = world.install(session).await;
        Self {
            execution: world.execution(session, &installation).await,
            connection: world.connect(session, "shop").await,
            installation,
        }
    }

    fn absent() -> Self {
        let id = "00000000-0000-7000-8000-000000000000".to_owned();
        Self {
            installation: id.clone(),
            execution: id.clone(),
            connection: id,
        }
    }
}

fn may(session: &str, permission: Permission) -> bool {
    let reading = [
        Permission::CatalogueRead,
        Permission::InstallationRead,
        Permission::ExecutionRead,
    ];
    match session.split_once(':').unwrap_or_default().0 {
        "admin" => true,
        "viewer" => reading.contains(&permission),
        "runner" => permission == Permission::ExecutionRun,
        _ => false,
    }
}

/// What the table promises.
fn expected(route: &Route, session: &str, object: Object) -> u16 {
    let found = match object {
        Object::Own => route.status(),
        _ if route.path().contains("{id}") => 404,
        // The catalogue is the same for everybody, so there is no foreign entry.
        Object::Absent if !route.parameters().is_empty() => 404,
        _ => route.status(),
    };
    let signed_in = !session.starts_with("expired") && session != "nobody";
    match route.access() {
        Access::Public(_) => found,
        _ if !signed_in => 401,
        Access::May(permission) if !may(session, permission) => 403,
        _ => found,
    }
}

fn path(route: &Route, things: &Things, hash: &str, object: Object) -> String {
    let id = match route.path().split('/').nth(2) {
        Some("installations") => &things.installation,
        Some("executions") => &things.execution,
        _ => &things.connection,
    };
    let absent = object == Object::Absent;
    let parts = [
        ("{id}", id.as_str()),
        ("{name}", if absent { "nothing" } else { "orders" }),
        ("schedules/{flow}", "schedules/nightly"),
        ("{flow}", "by-hand"),
        ("{source}", "shop.channels"),
        ("{hash}", if absent { "0" } else { hash }),
        ("{file}", "element.js"),
    ];
    let mut path = route.path().trim_start_matches('/').to_owned();
    for (name, value) in parts {
        path = path.replace(name, value);
    }
    assert!(
        !path.contains('{'),
        "the test does not know a parameter of {}",
        route.path()
    );
    path
}

fn body(route: &Route, things: &Things) -> Option<Value> {
    match route.operation() {
        "install" => Some(installing(&things.connection)),
        "changeInstallation" => Some(json!({ "config": { "channel": "c2" } })),
        "startFlow" => Some(json!({ "input": { "amount": 3 } })),
        "connect" => Some(json!({ "connector": "shop", "fields": { "api_key": "k" } })),
        "replaceCredential" => Some(json!({ "fields": { "api_key": "k2" } })),
        _ => None,
    }
}

/// A world with something of everybody in it.
struct Stage {
    world: World,
    own: Things,
    foreign: Things,
    absent: Things,
    hash: String,
}

impl Stage {
    async fn new() -> Self {
        let world = World::new();
        let page = world.get("").await.text;
        Self {
            own: Things::of(&world, "admin:acme").await,
            foreign: Things::of(&world, "admin:globex").await,
            absent: Things::absent(),
            hash: page.split("ui/").nth(1).unwrap().split('/').next().unwrap().to_owned(),
            world,
        }
    }
}

async fn cell(stage: &Stage, route: &Route, session: &str, object: Object) -> (u16, String) {
    let world = &stage.world;
    let things = match object {
        Object::Own => &stage.own,
        Object::Foreign => &stage.foreign,
        Object::Absent => &stage.absent,
    };
    let path = path(route, things, &stage.hash, object);
    // What a new installation uses is the caller's own in every case: the object is what the address names.
    let mut request = request(session, route.method().clone(), &path, body(route, &stage.own));
    if route.requires_revision() {
        request.headers_mut().insert("if-match", "*".parse().unwrap());
    }
    let answer = world.send(request).await;
    if answer.status.is_client_error() || answer.status.is_server_error() {
        answer.code();
    }
    (answer.status.as_u16(), answer.text)
}

#[tokio::test]
async fn every_route_answers_every_role_as_the_table_says() {
    let mut wrong = Vec::new();
    let mut stage = Stage::new().await;
    for route in routes() {
        for session in SESSIONS {
            for object in [Object::Foreign, Object::Absent, Object::Own] {
                let (status, text) = cell(&stage, &route, session, object).await;
                let wanted = expected(&route, session, object);
                if status != wanted {
                    wrong.push(format!("{route:?} {session} {object:?}: {status} for {wanted}: {text}"));
                }
                // What was refused has changed nothing; after anything else the next one starts afresh.
                if !route.is_safe() && status < 400 {
                    stage = Stage::new().await;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_foreign_object_and_an_absent_one_cannot_be_told_apart() {
    let world = World::new();
    let foreign = Things::of(&world, "admin:globex").await.installation;
    let absent = Things::absent().installation;
    for below in ["", "/executions"] {
        let one = world
            .get(&format!("v1/installations/{foreign}{below}"))
            .await
            .expect(404);
        let other = world
            .get(&format!("v1/installations/{absent}{below}"))
            .await
            .expect(404);
        assert_eq!(one.text, other.text);
    }
}

#[tokio::test]
async fn nothing_is_served_outside_of_the_table() {
    let world = World::new();
    for path in [
        "v1",
        "v1/",
        "v2/session",
        "v1/sessions",
        "v1/session/",
        "v1/installations/x/y/z",
        "ui",
        "ui/x",
        "admin",
        "v1/keys",
        "v1/customers",
        "index.html",
        "../Cargo.toml",
        "%2e%2e/Cargo.toml",
        ".git/config",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let answer = world.call("admin:acme", method, path, None).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code().as_str()),
                (404, "not-found"),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn other_methods_are_refused_with_the_ones_that_are_not() {
    let world = World::new();
    let table = routes();
    let all = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
    ];
    for route in &table {
        let path = path(route, &Things::absent(), "0", Object::Absent);
        for method in &all {
            let known = |r: &&Route| r.path() == route.path() && r.method() == method;
            if table.iter().find(known).is_some() {
                continue;
            }
            let answer = world.call("admin:acme", method.clone(), &path, None).await;
            assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text);
            assert_eq!(answer.code(), "method-not-allowed");
            assert!(
                answer.header("allow").contains(route.method().as_str()),
                "{method} {path}"
            );
        }
    }
}
