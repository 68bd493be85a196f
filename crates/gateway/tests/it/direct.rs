//! The direct way: the store untouched, permits given back however a call ends.

use crate::site::{Site, post, target};
use axum::body::Body;
use crosspoint_core::{CustomerId, Memory, SystemClock};
use crosspoint_gateway::{Config, Gateway};
use futures_util::FutureExt;
use http::{Request, Response};
use std::{convert::Infallible, future::poll_fn, sync::Arc};
use tower::{Service, ServiceExt, service_fn};
use tower_layer::Layer;

fn noop_layered(permits: u32) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone {
    let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
    let customer = CustomerId::new("acme").unwrap();
    let layer = gateway
        .layer(target())
        .permits(permits)
        .customer(move |_| Some(customer.clone()));
    layer.layer(service_fn(|_: Request<Body>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
    }))
}

#[tokio::test(start_paused = true)]
async fn with_a_permit_the_store_is_not_touched() {
    let site = Site::new();
    site.scanner.finish(1);
    let answer = site.call(post(7, "a")).await;
    assert_eq!((answer.status, answer.body.as_str()), (201, "7 a direct"));
    assert_eq!(answer.header("x-scanner"), "1");
    let stats = site.stats().await;
    assert_eq!((stats.ready, stats.leased, stats.delayed, stats.dead), (0, 0, 0, 0));
    assert_eq!(site.gate().admitted, 1);
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_not_ours_passes_without_a_permit() {
    let site = Site::new();
    let running = site.send(post(1, ""));
    site.scanner.begun(1).await;
    assert_eq!(
        site.call(Request::get("/elsewhere").body(Body::empty()).unwrap())
            .await
            .status,
        404
    );
    site.scanner.finish(1);
    assert_eq!(running.await.unwrap().status, 201);
}

/// `tower::limit::ConcurrencyLimit` keeps a permit from `poll_ready` to `call`, so that idle keep-alive connections
/// starve a service on which nothing runs.
#[tokio::test]
async fn idle_clones_that_were_polled_ready_hold_no_permit() {
    let service = noop_layered(8);
    let mut idle: Vec<_> = (0..8).map(|_| service.clone()).collect();
    for clone in &mut idle {
        poll_fn(|cx| clone.poll_ready(cx)).await.unwrap();
    }
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(idle);
}

/// Readiness that takes part in tokio's cooperative budget says "not ready" to a burst that never yields, and a shedding
/// layer reads overload into that.
#[tokio::test]
async fn a_burst_that_never_yields_is_not_refused() {
    let mut service = noop_layered(1);
    for burst in 0..20_000 {
        let ready = poll_fn(|cx| service.poll_ready(cx)).now_or_never();
        assert!(ready.is_some(), "call {burst}");
        let response = service.call(Request::new(Body::empty())).now_or_never();
        assert_eq!(response.unwrap().unwrap().status(), 200, "call {burst}");
    }
}

/// The same burst with an inner service that itself takes part in the budget: calls wait, none is refused.
#[tokio::test]
async fn a_service_that_is_not_ready_is_waited_for() {
    let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
    let limited = tower::limit::ConcurrencyLimit::new(
        service_fn(|_: Request<Body>| {
            Box::pin(async {
                tokio::task::yield_now().await;
                Ok::<_, Infallible>(Response::new(Body::empty()))
            })
        }),
        1,
    );
    // Its future is not `Unpin`; a box is what a router would put around it.
    let boxed = tower::util::BoxCloneSyncService::new(limited);
    let service = gateway.layer(target()).permits(200).layer(boxed);
    let calls = (0..200).map(|_| service.clone().oneshot(Request::new(Body::empty())));
    for response in futures_util::future::join_all(calls).await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(gateway.snapshot(&target()).unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_gives_its_permit_back() {
    let site = Site::new();
    let running = site.send(post(1, ""));
    site.scanner.begun(1).await;
    assert_eq!(site.gate().in_flight, 1);
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_handler_gives_its_permit_back() {
    let site = Site::new();
    site.scanner.finish(1);
    assert!(site.send(post(1, "panic")).await.unwrap_err().is_panic());
    assert_eq!(site.gate().in_flight, 0);
    site.scanner.finish(1);
    assert_eq!(site.call(post(2, "b")).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn nobody_elses_request_is_stored_for_an_unknown_customer() {
    let site = Site::new();
    let running = site.send(post(1, ""));
    site.scanner.begun(1).await;
    let nobody = Request::post("/v1/scan/2").body(Body::empty()).unwrap();
    let answer = site.call(nobody).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "target-saturated"));
    assert_eq!(answer.header("retry-after"), "2");
    site.scanner.finish(1);
    running.await.unwrap();
    assert_eq!(site.scanner.count(), 1);
}
