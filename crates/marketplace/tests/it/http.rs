//! What happens to requests before a handler sees them, and the headers of all answers.

use crate::world::{World, id, request};
use ::http::{Method, Request, header::HeaderName};
use axum::body::Body;
use serde_json::json;

fn posting(body: impl Into<Body>) -> Request<Body> {
    let mut request = request("admin:acme", Method::POST, "v1/installations", Some(json!({})));
    *request.body_mut() = body.into();
    request
}

fn with(mut request: Request<Body>, name: &str, value: Option<&str>) -> Request<Body> {
    let name: HeaderName = name.parse().unwrap();
    match value {
        Some(value) => drop(request.headers_mut().insert(name, value.parse().unwrap())),
        None => drop(request.headers_mut().remove(name)),
    }
    request
}

#[tokio::test]
async fn a_change_must_come_from_the_hosts_own_pages() {
    let world = World::new();
    let plain = || posting(json!({ "integration": "plain" }).to_string());
    for (name, value) in [
        ("x-crosspoint", None),
        ("x-crosspoint", Some("0")),
        ("x-crosspoint", Some("")),
        ("sec-fetch-site", Some("cross-site")),
        ("sec-fetch-site", Some("same-site")),
        ("sec-fetch-site", Some("")),
        ("origin", Some("https://evil.example")),
        ("origin", Some("https://saas.example.evil.example")),
        ("origin", Some("https://saas.example:8443")),
        ("origin", Some("null")),
        ("origin", Some("saas.example")),
        ("host", None),
    ] {
        let answer = world.send(with(plain(), name, value)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (403, "origin-refused"),
            "{name}: {value:?}"
        );
    }
    let mut twice = plain();
    twice
        .headers_mut()
        .append("origin", "https://evil.example".parse().unwrap());
    assert_eq!(world.send(twice).await.expect(403).code(), "origin-refused");
    // A program that is no browser sends neither.
    let bare = with(with(plain(), "origin", None), "sec-fetch-site", None);
    world.send(bare).await.expect(201);
    world
        .send(with(plain(), "sec-fetch-site", Some("none")))
        .await
        .expect(201);
    assert_eq!(
        world.get("v1/installations").await.json()["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn reading_needs_no_special_header() {
    let world = World::new();
    let request = with(
        request("admin:acme", Method::GET, "v1/session", None),
        "sec-fetch-site",
        Some("cross-site"),
    );
    world.send(request).await.expect(200);
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused_by_name() {
    let world = World::new();
    let valid = json!({ "integration": "plain" }).to_string();
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("application/json-patch+json"),
        Some("application/jsonx"),
        Some(""),
    ] {
        let answer = world
            .send(with(posting(valid.clone()), "content-type", content_type))
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (415, "content-type-unsupported"),
            "{content_type:?}"
        );
    }
    let charset = with(posting(valid), "content-type", Some("Application/JSON; charset=utf-8"));
    world.send(charset).await.expect(201);
}

#[tokio::test]
async fn a_malformed_body_is_refused_where_it_breaks() {
    let world = World::new();
    let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
    for body in [
        "{",
        "",
        "nul",
        "{\"integration\":}",
        "{} {}",
        "\u{feff}{}",
        "{'a':1}",
        deep.as_str(),
    ] {
        let answer = world.send(posting(body.to_owned())).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (400, "body-malformed"),
            "{body}"
        );
    }
    let invalid_utf8 = world.send(posting(b"{\"integration\":\"\xff\"}".to_vec())).await;
    assert_eq!(invalid_utf8.expect(400).code(), "body-malformed");
}

#[tokio::test]
async fn unknown_and_mistyped_fields_of_a_body_are_all_named() {
    let world = World::new();
    let body = json!({ "integration": 5, "activate": "yes", "customer": "globex", "connections": { "shop": "x" } });
    let answer = world.post("v1/installations", body).await.expect(422);
    assert_eq!(answer.code(), "input-invalid");
    assert_eq!(
        answer.pointers(),
        ["/activate", "/connections/shop", "/customer", "/integration"]
    );
    for body in [json!([]), json!("x"), json!(null)] {
        world.post("v1/installations", body).await.expect(422);
    }
}

#[tokio::test]
async fn a_body_has_a_limit_whether_or_not_it_tells_its_length() {
    let world = World::new();
    let padding = |length: usize| format!("{{\"integration\":\"plain\"{}}}", " ".repeat(length));
    let large = padding(1024 * 1024);
    let told = with(posting(large.clone()), "content-length", Some(&large.len().to_string()));
    assert_eq!(world.send(told).await.expect(413).code(), "body-too-large");
    assert_eq!(world.send(posting(large)).await.expect(413).code(), "body-too-large");
    let lying = with(posting("{}"), "content-length", Some("99999999999"));
    assert_eq!(world.send(lying).await.expect(413).code(), "body-too-large");
    world.send(posting(padding(1024 * 1000))).await.expect(201);
}

#[tokio::test]
async fn a_malformed_id_is_not_an_absent_one() {
    let world = World::new();
    for id in [
        "x",
        "1",
        "00000000-0000-0000-0000-00000000000g",
        "%00",
        "..%2f..%2fetc%2fpasswd",
    ] {
        let answer = world.get(&format!("v1/installations/{id}")).await.expect(400);
        assert_eq!(answer.code(), "id-malformed");
        assert!(!answer.text.contains("passwd"));
    }
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let world = World::new();
    for (path, status) in [
        ("v1/session", 200),
        ("v1/nothing", 404),
        ("v1/installations/x", 400),
        ("v1/openapi.json", 200),
        ("", 200),
    ] {
        let answer = world.get(path).await.expect(status);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; "), "{path}: {policy}");
        let cached = answer.header("cache-control");
        assert_eq!(cached, if path.is_empty() { "no-cache" } else { "no-store" }, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
}

#[tokio::test]
async fn the_page_may_do_what_it_needs_and_no_more() {
    let world = World::new();
    let page = world.get("").await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(
        page.header("content-security-policy"),
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors 'self'; base-uri 'none'; \
         form-action 'none'"
    );
    assert!(!page.text.contains("<style") && !page.text.contains(" style=") && !page.text.contains("onclick"));
    let scripts: Vec<&str> = page.text.split("<script").skip(1).collect();
    assert!(
        scripts
            .iter()
            .all(|script| script.contains("src=\"") && script.contains("></script>"))
    );
    let loader = world.get("/element.js").await.expect(200);
    assert_eq!(loader.header("cache-control"), "no-cache");
    let source = page.text.split("src=\"").nth(1).unwrap().split('"').next().unwrap();
    let script = world.get(source).await.expect(200);
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(script.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(script.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn it_can_be_nested_in_each_way_that_axum_has() {
    use axum::Router;
    use tower::ServiceExt;
    let inner = World::new().app;
    let ask = |app: Router, path: &'static str| async move {
        let mut request = request("admin:acme", Method::GET, "", None);
        *request.uri_mut() = path.parse().unwrap();
        let response = app.oneshot(request).await.unwrap();
        response.status().as_u16()
    };
    for path in [
        "/integrations",
        "/integrations/",
        "/integrations/v1/session",
        "/integrations/v1/openapi.json",
    ] {
        assert_eq!(ask(inner.clone(), path).await, 200, "{path}");
    }
    let world = World::new();
    let nested = Router::new().nest("/a/{team}", world.router());
    for (path, status) in [("/a/b", 200), ("/a/b/v1/session", 200), ("/a/b/v1/nothing", 404)] {
        assert_eq!(ask(nested.clone(), path).await, status, "{path}");
    }
    let slashed = Router::new().nest("/a/", world.router());
    for (path, status) in [("/a/", 200), ("/a/v1/session", 200), ("/a/v1/nothing", 404)] {
        assert_eq!(ask(slashed.clone(), path).await, status, "{path}");
    }
    assert_eq!(ask(world.router(), "/v1/session").await, 200);
}

#[tokio::test]
async fn the_address_of_what_was_made_leads_there_wherever_the_router_is() {
    let world = World::new();
    let app = axum::Router::new().nest("/a/{team}/i", world.router());
    let mut request = posting(json!({ "integration": "plain" }).to_string());
    *request.uri_mut() = "/a/b/i/v1/installations".parse().unwrap();
    let response = tower::ServiceExt::oneshot(app, request).await.unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let made = world.get("v1/installations").await.json()["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(location, format!("/a/b/i/v1/installations/{made}"));
}

#[tokio::test]
async fn strings_of_people_stay_data() {
    let world = World::new();
    for text in [
        "<img src=x onerror=alert(1)>",
        "\"><script>alert(1)</script>",
        "javascript:alert(1)",
        "{{constructor.constructor('alert(1)')()}}",
        "\u{202e}gnp.exe",
        "'; DROP TABLE installations; --",
        "=cmd|' /C calc'!A0",
        "line\nbreak\ttab\u{0}nul",
    ] {
        let body = json!({ "connector": "shop", "label": text, "fields": { "api_key": "k" } });
        let made = world.post("v1/connections", body).await.expect(201);
        assert_eq!(made.header("content-type"), "application/json");
        assert_eq!(made.json()["label"].as_str().unwrap().trim(), text.trim());
        let installed = world
            .post(
                "v1/installations",
                json!({
                    "integration": "orders", "connections": { "shop": id(&made) },
                    "config": { "channel": text, "token": text }
                }),
            )
            .await
            .expect(201);
        assert_eq!(installed.json()["config"]["channel"], text);
    }
}
