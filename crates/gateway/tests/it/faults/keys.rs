//! What may be repeated because of its key.

use crate::site::{Site, from_ann, target};
use axum::body::Body;
use crosspoint_core::CustomerId;
use crosspoint_gateway::outcome::{Outcome, Returned};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use std::{
    convert::Infallible,
    future::{Ready, ready},
};
use tower::{Layer, ServiceExt, service_fn};

/// A proxy that has lost the connection half-way: the request may have been carried out.
fn lost(request: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
        .extensions_mut()
        .insert(Returned::new(Outcome::Unknown, request));
    ready(Ok(response))
}

#[tokio::test(start_paused = true)]
async fn a_returned_request_with_a_key_that_is_honoured_is_made_again() {
    for (honours, key, wanted) in [
        (true, true, 201),
        (true, false, 504),
        (false, true, 504),
        (false, false, 504),
    ] {
        let site = Site::new();
        let proxy = site
            .gateway
            .layer(target())
            .honours_keys(honours)
            .customer(|_| CustomerId::new("acme").ok())
            .layer(service_fn(lost));
        let request = Request::post("/v1/scan/7");
        let request = if key {
            request.header("idempotency-key", "k")
        } else {
            request
        };
        site.scanner.finish(1);
        let response = proxy.oneshot(request.body(Body::from("a")).unwrap()).await.unwrap();
        assert_eq!(response.status(), wanted, "honours {honours}, key {key}");
        let body = response.collect().await.unwrap().to_bytes();
        if wanted == 201 {
            assert_eq!(body, "7 a acme/-/1");
        }
        assert_eq!(site.scanner.count(), usize::from(wanted == 201));
    }
}

/// The worker is lost after it has begun.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_honoured_survives_the_worker() {
    for (honours, wanted) in [(true, 201), (false, 504)] {
        let site = Site::with(|layer| layer.honours_keys(honours));
        let request = from_ann("POST", "/v1/scan/1").header("idempotency-key", "k");
        let request = request.header("prefer", "respond-async").body(Body::from("x"));
        let id = site.call(request.unwrap()).await.id();
        site.scanner.begun(1).await;
        let next = site.beside(|layer| layer.honours_keys(honours));
        site.faults
            .die(crosspoint_testkit::Method::Extend, 1, crosspoint_testkit::When::Before);
        next.scanner.finish(1);
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
        let reply = next.get(&format!("/requests/{id}/response")).await;
        assert_eq!(reply.status, wanted, "{}", reply.body);
        assert_eq!(next.scanner.count(), usize::from(honours));
    }
}
