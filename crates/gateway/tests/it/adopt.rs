//! A direct attempt that outlives the hold.

use crate::site::{HOLD, Site, post, target};
use axum::body::Body;
use crosspoint_core::{CallState, CustomerId};
use crosspoint_gateway::outcome::{Outcome, Returned};
use crosspoint_testkit::{Method, When, scope};
use http::{Request, Response};
use std::{convert::Infallible, future::ready, time::Duration};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};

#[tokio::test(start_paused = true)]
async fn it_goes_on_under_a_durable_record_and_its_reply_is_stored() {
    let site = Site::new();
    let began = Instant::now();
    let id = site.call(post(1, "a")).await.id();
    assert!(began.elapsed() >= HOLD);
    assert_eq!(site.status(&id).await.state, CallState::Leased);
    assert_eq!(site.gate().in_flight, 1, "it still runs");
    // Heartbeats keep the lease far beyond its length.
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(site.status(&id).await.state, CallState::Leased);
    site.scanner.finish(1);
    site.until(|stats| stats.leased == 0).await;
    let reply = site.get(&format!("/requests/{id}/response")).await;
    assert_eq!((reply.status, reply.body.as_str()), (201, "1 a direct"));
    assert_eq!(site.scanner.count(), 1, "never a second time");
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn without_the_record_the_client_stays_connected() {
    let site = Site::new();
    site.faults.fail(Method::Enqueue, 1, When::Before);
    let call = site.send(post(1, "a"));
    tokio::time::sleep(HOLD * 3).await;
    assert!(!site.faults.pending(), "adoption was tried");
    assert!(!call.is_finished(), "no 202 without a record");
    site.scanner.finish(1);
    let answer = call.await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (201, "1 a direct"));
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_adoption_the_attempt_still_ends_with_its_client() {
    let site = Site::new();
    site.faults.fail(Method::Enqueue, 1, When::Before);
    let call = site.send(post(1, "a"));
    tokio::time::sleep(HOLD * 2).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn an_adopted_attempt_that_panics_is_a_dead_letter() {
    let site = Site::new();
    let id = site.call(post(1, "panic")).await.id();
    site.scanner.finish(1);
    site.until(|stats| stats.dead == 1).await;
    let answer = site.get(&format!("/requests/{id}/response")).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "internal"));
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_route_can_do_without() {
    let site = Site::with(|layer| layer.adopt(false));
    let call = site.send(post(1, "a"));
    tokio::time::sleep(HOLD * 10).await;
    assert!(!call.is_finished());
    site.scanner.finish(1);
    assert_eq!(call.await.unwrap().status, 201);
    assert_eq!(site.stats().await.leased, 0);
}

/// The request of an adopted call is not kept: redriving it must not send an empty one.
#[tokio::test(start_paused = true)]
async fn an_adopted_call_cannot_be_redriven_without_its_request() {
    let site = Site::new();
    let id = site.call(post(1, "panic")).await.id();
    site.scanner.finish(1);
    site.until(|stats| stats.dead == 1).await;
    let fleet = scope::fleet();
    let admin = site.store.dispatch.admin().unwrap();
    let redriven = admin.redrive((&fleet).into(), &[id.parse().unwrap()]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = site.status(&redriven[0].unwrap().to_string()).await;
    assert_eq!(status.state, CallState::Unknown);
    assert_eq!(site.scanner.count(), 1);
}

/// A proxy that finds nobody to send the request to.
async fn nobody(request: Request<Body>, took: Duration) -> Result<Response<Body>, Infallible> {
    tokio::time::sleep(took).await;
    gives_back(request, Outcome::NotStarted)
}

/// A proxy that has got no answer.
fn gives_back(request: Request<Body>, why: Outcome) -> Result<Response<Body>, Infallible> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::BAD_GATEWAY;
    response.extensions_mut().insert(Returned::new(why, request));
    Ok(response)
}

#[tokio::test(start_paused = true)]
async fn whatever_stands_in_the_way_of_the_queue_a_call_that_may_have_run_is_not_refused() {
    let site = Site::new();
    let layer = site
        .gateway
        .layer(target())
        .customer(|_| CustomerId::new("acme").ok())
        .max_body(3);
    for (method, why, status) in [
        ("POST", Outcome::Unknown, 504),
        // What may be repeated, and what did not begin, may be sent again, if not like this.
        ("PUT", Outcome::Unknown, 413),
        ("POST", Outcome::NotStarted, 413),
    ] {
        let request = Request::builder().method(method).uri("/v1/scan/7");
        let response = layer
            .clone()
            .boxed()
            .layer(service_fn(move |request| ready(gives_back(request, why))))
            .oneshot(request.body(Body::from("more than three")).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{method} {why:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_back_while_its_record_is_being_stored_or_cannot_be_is_queued() {
    for fails in [false, true] {
        let site = Site::new();
        if fails {
            site.faults.fail(Method::Enqueue, 1, When::Before);
        } else {
            site.faults.delay_all(Method::Enqueue, Duration::from_millis(100));
        }
        let layer = site
            .gateway
            .layer(target())
            .customer(|_| CustomerId::new("acme").ok())
            .boxed();
        let request = Request::post("/v1/scan/7").body(Body::from("a")).unwrap();
        let response = layer
            .layer(service_fn(|request| nobody(request, HOLD + Duration::from_millis(50))))
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(response.status(), 202, "fails {fails}");
        site.scanner.finish(1);
        site.scanner.begun(1).await;
        site.until(|stats| stats.ready + stats.leased == 0).await;
        assert_eq!((site.scanner.count(), site.gate().in_flight), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_back_is_held_for_the_rest_of_the_hold_only() {
    let site = Site::new();
    let layer = site
        .gateway
        .layer(target())
        .customer(|_| CustomerId::new("acme").ok())
        .boxed();
    let request = Request::post("/v1/scan/7").body(Body::from("a")).unwrap();
    let began = Instant::now();
    let proxy = layer.layer(service_fn(|request| nobody(request, HOLD / 2)));
    assert_eq!(proxy.oneshot(request).await.unwrap().status(), 202);
    assert_eq!(began.elapsed(), HOLD);
}
