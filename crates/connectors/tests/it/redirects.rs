//! Redirects: followed by hand, checked at every hop, and credentials stay at home.

use crate::server::{KEY, Server, answer, client, client_with, get, http, permit, status};
use bytes::Bytes;
use crosspoint_connectors::HttpClient;
use crosspoint_core::{AuthScheme, Code};
use std::sync::{Arc, Mutex};

/// Redirects `/go` to `location`, which may be set later; everything else is 200.
async fn redirecting() -> (Server, Arc<Mutex<String>>) {
    let location = Arc::new(Mutex::new(String::new()));
    let shared = Arc::clone(&location);
    let server = Server::start(move |seen| {
        if seen.path.starts_with("/go") {
            answer(302, &[("location", &shared.lock().unwrap())], "")
        } else {
            status(200)
        }
    })
    .await;
    (server, location)
}

#[tokio::test]
async fn at_home_the_credential_goes_along() {
    let (server, location) = redirecting().await;
    "/there#part".clone_into(&mut location.lock().unwrap());
    let response = client(&[&server]).send(get("/go")).await.unwrap();
    assert_eq!(response.status(), 200);
    let seen = server.seen();
    assert_eq!(seen[1].path, "/there");
    assert_eq!(seen[1].header("authorization"), Some(format!("Bearer {KEY}").as_str()));
}

#[tokio::test]
async fn elsewhere_no_credential_and_no_header_of_the_callers_arrives() {
    let (server, location) = redirecting().await;
    let (other, back) = redirecting().await;
    *location.lock().unwrap() = format!("{}/go", other.url());
    *back.lock().unwrap() = format!("{}/home", server.url());
    let request = http::Request::get("/go")
        .header("accept", "text/csv")
        .header("cookie", "session=canary")
        .header("x-api-token", "canary")
        .body(Bytes::new())
        .unwrap();
    let response = client(&[&server, &other]).send(request).await.unwrap();
    assert_eq!(response.status(), 200);

    let elsewhere = other.only();
    assert_eq!(elsewhere.header("accept"), Some("text/csv"));
    for name in ["authorization", "cookie", "x-api-token", "referer"] {
        assert_eq!(elsewhere.header(name), None, "{name}");
    }
    // And whoever was sent away comes back as a stranger.
    let home = &server.seen()[1];
    assert_eq!((home.path.as_str(), home.header("authorization")), ("/home", None));
}

#[tokio::test]
async fn a_key_in_the_query_stays_at_home_even_if_the_provider_copies_it() {
    let (server, location) = redirecting().await;
    let other = Server::start(|_| status(200)).await;
    *location.lock().unwrap() = format!("{}/x?key={KEY}&a=1", other.url());
    let query = AuthScheme::ApiKeyQuery {
        parameter: "key".to_owned(),
    };
    let client = client_with(&http(&[&server, &other]), &server.url(), &query);
    client.send(get("/go")).await.unwrap();
    assert_eq!(server.only().path, format!("/go?key={KEY}"));
    assert_eq!(other.only().path, "/x?a=1");
}

#[tokio::test]
async fn what_changes_something_is_not_sent_on() {
    let (server, location) = redirecting().await;
    "/there".clone_into(&mut location.lock().unwrap());
    let client = client(&[&server]);
    let request = http::Request::post("/go").body(Bytes::from_static(b"{}")).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 302);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_loop_ends() {
    let (server, location) = redirecting().await;
    "/go".clone_into(&mut location.lock().unwrap());
    let error = client(&[&server]).send(get("/go")).await.unwrap_err();
    assert_eq!(error.code(), Code::ProviderError);
    assert_eq!(server.seen().len(), 6);
}

#[tokio::test]
async fn every_hop_is_checked() {
    let (server, location) = redirecting().await;
    let inside = Server::start(|_| status(200)).await;
    // The inner server is not among those that are permitted.
    let client = client(&[&server]);
    for target in [
        inside.url(),
        format!("http://localhost:{}/", inside.address.port()),
        format!("http://[::ffff:127.0.0.1]:{}/", inside.address.port()),
        format!("https://2130706433:{}/", inside.address.port()),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://169.254.169.254/".to_owned(),
        "https://10.0.0.1/".to_owned(),
        format!("http://user:word@{}/", server.address),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1:70/".to_owned(),
    ] {
        target.clone_into(&mut location.lock().unwrap());
        let error = client.send(get("/go")).await.unwrap_err();
        assert_eq!(error.code(), Code::EgressRefused, "{target}: {error}");
    }
    assert!(inside.seen().is_empty());
}

#[tokio::test]
async fn a_name_is_checked_when_it_is_resolved() {
    let (server, location) = redirecting().await;
    let inside = Server::start(|_| status(200)).await;
    let policy = permit(&[&server]).allow_plain_http("localhost").unwrap();
    let http = HttpClient::builder().egress(policy).build().unwrap();
    *location.lock().unwrap() = format!("http://localhost:{}/", inside.address.port());
    let client = client_with(&http, &server.url(), &AuthScheme::bearer());
    let error = client.send(get("/go")).await.unwrap_err();
    assert_eq!(error.code(), Code::EgressRefused);
    assert!(inside.seen().is_empty());
}

#[tokio::test]
async fn a_location_that_is_no_url_is_the_providers_error() {
    let (server, location) = redirecting().await;
    "http://[".clone_into(&mut location.lock().unwrap());
    let error = client(&[&server]).send(get("/go")).await.unwrap_err();
    assert_eq!(error.code(), Code::ProviderError);
}
