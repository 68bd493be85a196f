//! How long permits are kept and waited for, and what calls that come back do to the gate.

use crate::site::{HOLD, Site, post, put, target};
use axum::body::{Body, Bytes};
use crosspoint_core::{Memory, SystemClock};
use crosspoint_gateway::{
    Config, DispatchLayer, Gateway, PermitUntil,
    gate::State,
    outcome::{Outcome, Returned},
};
use crosspoint_testkit::Method;
use futures_util::{FutureExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::time::Instant;
use tower::{Layer, ServiceExt, service_fn};

const MS: Duration = Duration::from_millis(1);

fn plain(gateway: &Gateway) -> DispatchLayer {
    gateway.layer(target()).permits(1)
}

fn gateway() -> Gateway {
    Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default())
}

fn in_flight(gateway: &Gateway) -> u32 {
    gateway.snapshot(&target()).unwrap().in_flight
}

#[tokio::test(start_paused = true)]
async fn a_short_lack_of_permits_is_waited_out_in_memory() {
    let site = Site::with(|layer| layer.patience(100 * MS));
    let first = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    let second = site.send(post(2, "b"));
    tokio::time::sleep(50 * MS).await;
    site.scanner.finish(2);
    assert_eq!(first.await.unwrap().status, 201);
    assert_eq!(second.await.unwrap().body, "2 b direct");
    assert_eq!((site.stats().await.ready, site.gate().admitted), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_hangs_gives_its_permits_back_and_is_worked_on_under_another() {
    let moment = Config::default().enqueue_timeout;
    let site = Site::with(|layer| layer.adopt(false));
    site.faults.delay_all(Method::Lease, 7 * moment);
    tokio::time::sleep(MS).await;
    assert_eq!(site.gate().in_flight, 1, "the store is asked under the only permit");
    for n in 0..3 {
        tokio::time::sleep(moment).await;
        assert_eq!(site.gate().in_flight, 0, "call {n}");
        site.scanner.finish(1);
        assert_eq!(site.call(post(n, "a")).await.body, format!("{n} a direct"));
    }
    let direct = site.send(post(3, "a"));
    site.scanner.begun(4).await;
    let held = site.send(post(4, "a"));
    site.until(|stats| stats.ready == 1).await;
    tokio::time::sleep(4 * moment + MS).await;
    assert_eq!(site.stats().await.leased, 1, "granted late");
    assert_eq!(
        (site.gate().in_flight, site.scanner.count()),
        (1, 4),
        "it waits its turn"
    );
    site.scanner.finish(2);
    assert_eq!(direct.await.unwrap().status, 201);
    assert_eq!(held.await.unwrap().body, "4 a acme/ann/1");
}

#[tokio::test(start_paused = true)]
async fn a_longer_one_goes_through_the_store() {
    let site = Site::with(|layer| layer.patience(100 * MS));
    let first = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    let began = Instant::now();
    let second = site.send(put(2, "b"));
    tokio::time::sleep(99 * MS).await;
    assert_eq!(site.stats().await.ready, 0);
    tokio::time::sleep(2 * MS).await;
    site.until(|stats| stats.ready == 1).await;
    site.scanner.finish(2);
    assert_eq!(first.await.unwrap().status, 201);
    let second = second.await.unwrap();
    assert_eq!(
        (second.status, second.body.ends_with("acme/ann/1")),
        (201, true),
        "{}",
        second.body
    );
    assert!(began.elapsed() < HOLD);
}

#[tokio::test]
async fn a_permit_may_be_kept_until_the_body_ends() {
    for (until, while_streaming) in [(PermitUntil::Head, 0), (PermitUntil::Body, 1)] {
        let gateway = gateway();
        let service = plain(&gateway)
            .permit_until(until)
            .layer(service_fn(|_: Request<Body>| {
                let parts = ["a", "b"].map(|part| Ok::<_, Infallible>(Bytes::from(part)));
                std::future::ready(Ok::<_, Infallible>(Response::new(Body::from_stream(stream::iter(
                    parts,
                )))))
            }));
        let call = || service.clone().oneshot(Request::new(Body::empty()));
        let mut response = call().await.unwrap();
        response.frame().await.unwrap().unwrap();
        assert_eq!(in_flight(&gateway), while_streaming, "{until:?}");
        assert_eq!(response.collect().await.unwrap().to_bytes(), "b");
        assert_eq!(in_flight(&gateway), 0, "{until:?}");

        let left = call().await.unwrap();
        assert_eq!(in_flight(&gateway), while_streaming);
        drop(left);
        assert_eq!(in_flight(&gateway), 0, "a client that leaves");
    }
}

#[tokio::test]
async fn an_empty_body_has_ended_with_its_head() {
    let gateway = gateway();
    let service = plain(&gateway)
        .permit_until(PermitUntil::Body)
        .layer(service_fn(|_: Request<Body>| {
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        }));
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(in_flight(&gateway), 0);
    drop(response);
}

#[tokio::test]
async fn a_service_with_a_pinned_future_is_boxed() {
    let gateway = gateway();
    let service = plain(&gateway).boxed().layer(service_fn(|_: Request<Body>| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Response::new(Body::from("clean")))
    }));
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.collect().await.unwrap().to_bytes(), "clean");
}

/// Answers as a proxy does that found no replica.
fn unreachable(
    outcome: Outcome,
) -> impl Fn(Request<Body>) -> std::future::Ready<Result<Response<Body>, Infallible>> + Clone {
    move |request| {
        let mut response = Response::new(Body::from("no replica is up"));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response.extensions_mut().insert(Returned::new(outcome, request));
        std::future::ready(Ok(response))
    }
}

#[tokio::test]
async fn calls_that_could_not_be_started_close_the_direct_way() {
    let gateway = gateway();
    let service = plain(&gateway).layer(service_fn(unreachable(Outcome::NotStarted)));
    for _ in 0..3 {
        assert_eq!(gateway.snapshot(&target()).unwrap().state, State::Direct);
        let response = service.clone().oneshot(Request::new(Body::empty())).await.unwrap();
        assert_eq!(response.status(), 502, "nobody knows whose it is: it is not stored");
    }
    assert_eq!(gateway.snapshot(&target()).unwrap().state, State::CoolOff);
    let refused = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(refused.status(), 503);
}

#[tokio::test(start_paused = true)]
async fn a_returned_request_is_stored_if_that_is_safe() {
    for (outcome, method, stored) in [
        (Outcome::NotStarted, "POST", true),
        (Outcome::Unknown, "PUT", true),
        (Outcome::Unknown, "POST", false),
    ] {
        let site = Site::new();
        let customer = crosspoint_core::CustomerId::new("acme").unwrap();
        let proxy = site
            .gateway
            .layer(target())
            .customer(move |_| Some(customer.clone()))
            .layer(service_fn(unreachable(outcome)));
        let request = Request::builder()
            .method(method)
            .uri("/v1/scan/7")
            .body(Body::from("a"));
        let mut call = Box::pin(proxy.oneshot(request.unwrap()));
        let at_once = (&mut call).now_or_never();
        assert_eq!(at_once.is_none(), stored, "{outcome:?} {method}");
        if stored {
            site.scanner.finish(1);
            let response = call.await.unwrap();
            assert_eq!(response.status(), 201);
            assert_eq!(response.collect().await.unwrap().to_bytes(), "7 a acme/-/1");
        } else {
            let told = if outcome == Outcome::Unknown { 504 } else { 502 };
            assert_eq!(at_once.unwrap().unwrap().status(), told);
        }
    }
}
