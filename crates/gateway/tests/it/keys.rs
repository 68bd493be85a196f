//! `Idempotency-Key`.

use crate::site::{Site, from_ann, post};
use axum::body::Body;
use crosspoint_core::Clock;
use crosspoint_gateway::Keys;
use crosspoint_testkit::VirtualClock;
use http::Request;
use std::time::Duration;

fn keyed(id: u32, key: &str, body: &'static str) -> Request<Body> {
    let request = from_ann("POST", &format!("/v1/scan/{id}")).header("idempotency-key", key);
    request.body(Body::from(body)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_a_stored_call_attaches_to_it() {
    let site = Site::new();
    let direct = site.send(post(1, ""));
    site.scanner.begun(1).await;
    let first = site.send(keyed(2, "k", "x"));
    let second = site.send(keyed(2, "k", "x"));
    site.until(|stats| stats.ready == 1).await;
    let other = site.call(keyed(2, "k", "another")).await;
    assert_eq!((other.status, other.code().as_str()), (422, "key-reused"));
    let bob = Request::post("/v1/scan/2")
        .header("x-customer", "acme")
        .header("x-user", "bob");
    let bob = bob
        .header("idempotency-key", "k")
        .header("prefer", "wait=0")
        .body(Body::from("x"));
    site.call(bob.unwrap()).await.id();
    assert_eq!(site.stats().await.ready, 2, "a key counts for one principal");
    site.scanner.finish(3);
    direct.await.unwrap();
    for call in [first, second] {
        assert_eq!(call.await.unwrap().body, "2 x acme/ann/1");
    }
    site.scanner.begun(3).await;
    site.until(|stats| stats.ready + stats.leased == 0).await;
    // Now there is a permit, and a direct call is not recorded: the target itself has to know the key.
    site.scanner.finish(1);
    assert_eq!(site.call(keyed(2, "k", "x")).await.body, "2 x direct");
    assert_eq!(site.scanner.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_gateway_honours_is_recorded_before_the_call() {
    let site = Site::with(|layer| layer.keys(Keys::Gateway));
    let first = site.send(keyed(1, "k", "x"));
    site.scanner.begun(1).await;
    assert_eq!(site.stats().await.leased, 1, "recorded as started");
    let second = site.send(keyed(1, "k", "x"));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    site.scanner.finish(1);
    for call in [first, second] {
        let answer = call.await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (201, "1 x direct"));
    }
    let late = site.call(keyed(1, "k", "x")).await;
    assert_eq!((late.status, late.body.as_str()), (201, "1 x direct"));
    assert_eq!(site.call(keyed(1, "k", "y")).await.code(), "key-reused");
    assert_eq!(site.scanner.count(), 1);
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_recorded_call_outlives_its_client() {
    let site = Site::with(|layer| layer.keys(Keys::Gateway));
    let first = site.send(keyed(1, "k", "x"));
    site.scanner.begun(1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    site.scanner.finish(1);
    site.until(|stats| stats.leased == 0).await;
    assert_eq!(site.call(keyed(1, "k", "x")).await.body, "1 x direct");
    assert_eq!(site.scanner.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_key_is_refused() {
    let site = Site::with(|layer| layer.keys(Keys::Gateway));
    let answer = site.call(keyed(1, "", "x")).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "key-malformed"));
    assert_eq!(site.scanner.count(), 0);
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_a_call_that_is_no_longer_kept_is_told_so_at_once() {
    let site = Site::with(|layer| layer.keys(Keys::Gateway));
    site.scanner.finish(1);
    assert_eq!(site.call(keyed(1, "k", "x")).await.status, 201);
    let later = VirtualClock::new().now().plus(Duration::from_secs(60));
    let admin = site.store.dispatch.admin().unwrap();
    assert_eq!(admin.purge(later, 10).await.unwrap(), 1);
    let began = tokio::time::Instant::now();
    let repeat = site.call(keyed(1, "k", "x")).await;
    assert_eq!((repeat.status, repeat.code().as_str()), (410, "gone"));
    assert_eq!(began.elapsed(), Duration::ZERO, "not held");
    assert_eq!(site.scanner.count(), 1, "nor begun again");
}

/// One key in every state that its first call can be in, sent again to another process.
#[tokio::test(start_paused = true)]
async fn a_repeat_at_another_gateway_attaches_whatever_state_the_first_call_is_in() {
    let here = Site::with(|layer| layer.keys(Keys::Gateway));
    let there = here.beside(|layer| layer.keys(Keys::Gateway));
    let first = here.send(keyed(1, "k", "x"));
    here.scanner.begun(1).await;

    // It runs directly.
    let running = there.send(keyed(1, "k", "x"));
    let changed = there.call(keyed(1, "k", "y")).await;
    assert_eq!((changed.status, changed.code().as_str()), (422, "key-reused"));
    // The permit here is taken, so this one stands in the queue; both processes may take it from there.
    let queued = here.send(keyed(2, "q", "x"));
    there.scanner.begun(1).await;
    // It is leased by the other process.
    let leased = here.send(keyed(2, "q", "x"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    there.scanner.finish(1);
    for call in [queued, leased] {
        assert_eq!(call.await.unwrap().body, "2 x acme/ann/1");
    }
    here.scanner.finish(1);
    for call in [first, running] {
        assert_eq!(call.await.unwrap().body, "1 x direct");
    }

    // It has finished.
    for site in [&here, &there] {
        assert_eq!(site.call(keyed(1, "k", "x")).await.body, "1 x direct");
        assert_eq!(site.call(keyed(2, "q", "y")).await.code(), "key-reused");
    }
    assert_eq!((here.scanner.count(), there.scanner.count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_a_queued_call_attaches_before_anybody_has_begun_it() {
    let site = Site::new();
    drop(site.send(post(1, "")));
    site.scanner.begun(1).await;
    let asynchronous = |key: &str| {
        let request = from_ann("POST", "/v1/scan/2").header("idempotency-key", key);
        request.header("prefer", "respond-async").body(Body::from("x")).unwrap()
    };
    let id = site.call(asynchronous("k")).await.id();
    assert_eq!(site.call(asynchronous("k")).await.id(), id);
    assert_eq!(
        site.call(asynchronous("\"k\"")).await.id(),
        id,
        "quoted, it is the same key"
    );
    assert_ne!(site.call(asynchronous("l")).await.id(), id);
    assert_eq!(site.stats().await.ready, 2);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_time_is_over_is_a_new_one() {
    let site = Site::with(|layer| layer.keys(Keys::Gateway));
    site.scanner.finish(2);
    assert_eq!(site.call(keyed(1, "k", "x")).await.status, 201);
    tokio::time::advance(Duration::from_secs(49 * 3600)).await;
    assert_eq!(site.call(keyed(1, "k", "y")).await.body, "1 y direct");
    assert_eq!(site.scanner.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_route_can_require_a_key() {
    let site = Site::with(|layer| layer.require_key(true));
    let without = site.call(post(1, "x")).await;
    assert_eq!((without.status, without.code().as_str()), (400, "key-missing"));
    for malformed in ["", "\"open", "two words"] {
        let answer = site.call(keyed(1, malformed, "x")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "key-malformed"),
            "{malformed}"
        );
    }
    assert_eq!(site.scanner.count(), 0);
    site.scanner.finish(2);
    assert_eq!(site.call(keyed(1, "\"k\"", "x")).await.status, 201);
    assert_eq!(site.get("/v1/scan/1").await.status, 201, "a safe method needs none");
}

#[tokio::test(start_paused = true)]
async fn another_path_query_or_content_type_is_another_request() {
    let site = Site::with(|layer| layer.keys(Keys::Gateway));
    site.scanner.finish(1);
    let request = |method: &str, path: &str, content_type: &str| {
        let request = from_ann(method, path).header("idempotency-key", "k");
        request
            .header("content-type", content_type)
            .body(Body::from("x"))
            .unwrap()
    };
    assert_eq!(site.call(request("POST", "/v1/scan/1", "text/plain")).await.status, 201);
    for (method, path, content_type) in [
        ("PUT", "/v1/scan/1", "text/plain"),
        ("POST", "/v1/scan/2", "text/plain"),
        ("POST", "/v1/scan/1?deep=1", "text/plain"),
        ("POST", "/v1/scan/1", "application/json"),
    ] {
        let answer = site.call(request(method, path, content_type)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (422, "key-reused"),
            "{method} {path}"
        );
    }
    assert_eq!(site.scanner.count(), 1);
}
