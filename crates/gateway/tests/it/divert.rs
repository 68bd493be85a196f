//! No permit: stored first, held, answered on the same connection or later by id.

use crate::site::{HOLD, Site, from_ann, impatient, post, put, scan, target};
use axum::{Router, body::Body, routing::any};
use crosspoint_core::{CallState, Code, CustomerId, TargetId};
use crosspoint_testkit::{Method, When};
use http::Request;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::Instant;
use tower::ServiceExt;

#[tokio::test(start_paused = true)]
async fn a_diverted_request_is_replayed_through_the_whole_router_and_answered_on_its_own_connection() {
    let site = Site::new();
    let direct = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    let diverted = site.send(post(2, "b"));
    site.until(|stats| stats.ready == 1).await;
    assert_eq!(site.scanner.count(), 1, "it waits for the permit");
    site.scanner.finish(2);
    assert_eq!(direct.await.unwrap().body, "1 a direct");
    let answer = diverted.await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (201, "2 b acme/ann/1"));
    assert_eq!(answer.header("x-scanner"), "1");
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_hold_it_is_202_and_the_poll_returns_the_stored_reply() {
    let site = Site::new();
    let direct = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    let began = Instant::now();
    let accepted = site.call(post(2, "b")).await;
    assert!(began.elapsed() >= HOLD);
    let id = accepted.id();
    assert_eq!(accepted.header("location"), format!("/requests/{id}"));
    assert_eq!(accepted.header("retry-after"), "2");
    assert_eq!(accepted.json()["status"], "accepted");
    let pending = site.get(&format!("/requests/{id}")).await;
    assert_eq!(
        (pending.status, pending.json()["status"].as_str()),
        (200, Some("queued"))
    );
    assert_eq!(pending.header("retry-after"), "2");
    assert_eq!(site.get(&format!("/requests/{id}/response")).await.status, 404);

    site.scanner.finish(2);
    drop(direct.await);
    site.scanner.begun(2).await;
    let waited = from_ann("GET", &format!("/requests/{id}")).header("prefer", "wait=5");
    let done = site.call(waited.body(Body::empty()).unwrap()).await;
    assert_eq!(done.status, 303);
    assert_eq!(done.header("location"), format!("/requests/{id}/response"));
    let reply = site.get(done.header("location")).await;
    assert_eq!((reply.status, reply.body.as_str()), (201, "2 b acme/ann/1"));
    assert_eq!(reply.header("x-scanner"), "1");
}

#[tokio::test(start_paused = true)]
async fn the_client_says_how_long_it_waits() {
    let site = Site::new();
    let asynchronous = from_ann("POST", "/v1/scan/1").header("prefer", "respond-async");
    let answer = site.call(asynchronous.body(Body::empty()).unwrap()).await;
    answer.id();
    assert_eq!(answer.header("preference-applied"), "respond-async");
    site.scanner.begun(1).await;
    let began = Instant::now();
    let shorter = from_ann("POST", "/v1/scan/2").header("prefer", "wait=3");
    let answer = site.call(shorter.body(Body::empty()).unwrap()).await;
    answer.id();
    assert_eq!(began.elapsed().as_secs(), 3);
    assert_eq!(answer.header("preference-applied"), "wait=3");
    site.scanner.finish(2);
    site.scanner.begun(2).await;
}

#[tokio::test(start_paused = true)]
async fn while_the_target_is_unavailable_everything_waits_and_then_drains() {
    let site = Site::new();
    site.gateway.set_available(&target(), false);
    let calls: Vec<_> = (0..3).map(|id| site.send(post(id, "x"))).collect();
    site.until(|stats| stats.ready == 3).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(site.scanner.count(), 0);
    site.gateway.set_available(&target(), true);
    site.scanner.finish(3);
    for (id, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap();
        assert_eq!(answer.body, format!("{id} x acme/ann/1"));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_durable_acknowledgement_there_is_no_202() {
    for when in [When::Before, When::After] {
        let site = Site::new();
        let direct = site.send(post(1, ""));
        site.scanner.begun(1).await;
        site.faults.fail(Method::Enqueue, 1, when);
        let answer = site.call(post(2, "")).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "store-unavailable"));
        assert_eq!(answer.header("retry-after"), "2");
        assert_eq!(answer.json()["status"], 503);
        let body = answer.json();
        assert_eq!(body["detail"], body["title"], "the store's own words stay in the log");
        site.scanner.finish(2);
        direct.await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(
            site.scanner.count(),
            1,
            "{when:?}: what was stored all the same was cancelled"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_too_large_for_the_queue_is_refused_there_and_only_there() {
    let site = Site::with(|layer| layer.max_body(4));
    let direct = site.send(post(1, "larger"));
    site.scanner.begun(1).await;
    let refused = site.call(post(2, "larger")).await;
    assert_eq!((refused.status, refused.code().as_str()), (413, "body-too-large"));
    assert_eq!(
        refused.header("retry-after"),
        "2",
        "it would fit when there is capacity"
    );
    site.scanner.finish(1);
    assert_eq!(direct.await.unwrap().body, "1 larger direct");
    assert_eq!(site.stats().await.ready, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_what_may_not_be_repeated_and_repeats_the_rest() {
    let site = Site::new();
    let direct = site.send(post(1, ""));
    site.scanner.begun(1).await;
    let once = site.send(post(2, "panic"));
    site.until(|stats| stats.ready == 1).await;
    site.scanner.finish(2);
    direct.await.unwrap();
    let answer = once.await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (500, Code::Internal.as_str()));
    assert_eq!(site.stats().await.dead, 1);

    let direct = site.send(post(3, ""));
    site.scanner.begun(3).await;
    let repeated = site.send(put(4, "panic"));
    site.until(|stats| stats.ready == 1).await;
    site.scanner.finish(2);
    direct.await.unwrap();
    site.until(|stats| stats.delayed == 1).await;
    assert_eq!(site.gate().in_flight, 0);
    assert_eq!(
        repeated.await.unwrap().status,
        202,
        "it is tried again and does not end within the hold"
    );
}

#[tokio::test(start_paused = true)]
async fn a_reply_too_large_to_be_stored_is_a_dead_letter() {
    let site = Site::configured(|layer| layer, |config| config.max_reply = 5);
    let direct = site.send(post(1, ""));
    site.scanner.begun(1).await;
    let diverted = site.send(post(2, "b"));
    site.until(|stats| stats.ready == 1).await;
    site.scanner.finish(2);
    direct.await.unwrap();
    let answer = diverted.await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (502, "response-too-large"));
    assert_eq!(site.stats().await.dead, 1);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_clients_are_held() {
    let site = Site::configured(|layer| layer, |config| config.max_held = 1);
    let direct = site.send(post(1, ""));
    site.scanner.begun(1).await;
    let held = site.send(post(2, ""));
    site.until(|stats| stats.ready == 1).await;
    let began = Instant::now();
    let id = site.call(post(3, "")).await.id();
    assert!(began.elapsed() < Duration::from_secs(1));
    site.scanner.finish(3);
    direct.await.unwrap();
    assert_eq!(held.await.unwrap().status, 201);
    site.scanner.begun(3).await;
    site.until(|stats| stats.ready + stats.leased == 0).await;
    assert_eq!(site.status(&id).await.state, CallState::Completed);
}

/// Nested routers see a shortened path; what is matched and stored is the path that the client sent.
#[tokio::test(start_paused = true)]
async fn a_layer_within_a_nested_router_replays_through_the_outer_one() {
    let site = Site::new();
    let nested = TargetId::new("nested").unwrap();
    let layer = site
        .gateway
        .layer(nested)
        .path("/api/scan/{id}")
        .policy(impatient())
        .permits(1)
        .customer(|_| CustomerId::new("acme").ok());
    let inner = Router::new()
        .route("/scan/{id}", any(scan))
        .with_state(site.scanner.clone())
        .layer(layer);
    let outer: Router = Router::new().nest("/api", inner);
    site.gateway.serve_all_queued(outer.clone()).unwrap();
    let send = |id: u32| {
        let request = Request::post(format!("/api/scan/{id}?q=1"))
            .body(Body::empty())
            .unwrap();
        tokio::spawn(outer.clone().oneshot(request))
    };
    let direct = send(1);
    site.scanner.begun(1).await;
    let diverted = send(2);
    site.scanner.finish(2);
    for (call, wanted) in [(direct, "1  direct"), (diverted, "2  acme/-/1")] {
        let body = call.await.unwrap().unwrap().into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes(), wanted);
    }
}
