//! The status resource.

use crate::site::{Site, from_ann, post};
use async_trait::async_trait;
use axum::body::Body;
use crosspoint_core::{
    CallState, ExecutionStatus, Handler, Invocation, InvocationId, Reply, Result, Submit, Submitted, TargetId,
};
use crosspoint_gateway::{Settles, TargetConfig};
use crosspoint_testkit::{VirtualClock, envelope, scope};
use http::Request;
use std::{sync::Arc, time::Duration};

/// A stored call that waits behind a running one.
async fn queued(site: &Site) -> String {
    drop(site.send(post(1, "")));
    site.scanner.begun(1).await;
    let asynchronous = from_ann("POST", "/v1/scan/2").header("prefer", "respond-async");
    site.call(asynchronous.body(Body::empty()).unwrap()).await.id()
}

fn delete(id: &str) -> Request<Body> {
    from_ann("DELETE", &format!("/requests/{id}"))
        .body(Body::empty())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn nobody_else_sees_a_call() {
    let site = Site::new();
    let id = queued(&site).await;
    assert_eq!(site.get(&format!("/requests/{id}")).await.status, 200);
    for (customer, user) in [("acme", "bob"), ("umbrella", "ann")] {
        for (method, path) in [
            ("GET", format!("/requests/{id}")),
            ("GET", format!("/requests/{id}/response")),
            ("DELETE", format!("/requests/{id}")),
        ] {
            let request = Request::builder().method(method).uri(&path);
            let request = request.header("x-customer", customer).header("x-user", user);
            let answer = site.call(request.body(Body::empty()).unwrap()).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (404, "not-found"),
                "{method} {path}"
            );
        }
    }
    let nobody = Request::get(format!("/requests/{id}")).body(Body::empty()).unwrap();
    assert_eq!(site.call(nobody).await.code(), "session-missing");
    assert_eq!(site.status(&id).await.state, CallState::Queued, "nobody cancelled it");
    let young = InvocationId::mint(&*site.clock);
    for (unknown, status) in [
        (young.to_string().as_str(), 404),
        ("018f0000-0000-7000-8000-000000000000", 410),
        ("nonsense", 404),
    ] {
        assert_eq!(site.get(&format!("/requests/{unknown}")).await.status, status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_can_be_cancelled_and_whoever_waits_for_it_is_told() {
    let site = Site::new();
    let id = queued(&site).await;
    let poll = from_ann("GET", &format!("/requests/{id}")).header("prefer", "wait=9");
    let poll = site.send(poll.body(Body::empty()).unwrap());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!poll.is_finished());
    let cancelled = site.call(delete(&id)).await;
    assert_eq!(
        (cancelled.status, cancelled.json()["status"].as_str()),
        (200, Some("cancelled"))
    );
    assert_eq!(poll.await.unwrap().status, 303);
    let answer = site.get(&format!("/requests/{id}/response")).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "cancelled"));
    assert_eq!(site.call(delete(&id)).await.status, 409, "it has ended");
    site.scanner.finish(2);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(site.scanner.count(), 1, "it never ran");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_runs_is_asked_to_stop_and_dropped_after_the_grace() {
    let site = Site::new();
    let asynchronous = from_ann("POST", "/v1/scan/2").header("prefer", "respond-async");
    let id = site.call(asynchronous.body(Body::empty()).unwrap()).await.id();
    site.scanner.begun(1).await;
    let answer = site.call(delete(&id)).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "conflict"));
    // The next heartbeat brings the wish, and after the grace the attempt is dropped.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(site.status(&id).await.state, CallState::Cancelled);
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_that_times_out_says_what_it_waited() {
    let site = Site::new();
    let id = queued(&site).await;
    let poll = from_ann("GET", &format!("/requests/{id}")).header("prefer", "wait=2");
    let began = tokio::time::Instant::now();
    let answer = site.call(poll.body(Body::empty()).unwrap()).await;
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!((answer.status, answer.header("preference-applied")), (200, "wait=2"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_a_long_poll_gives_its_place_back() {
    let site = Site::configured(|layer| layer, |config| config.max_held = 1);
    let id = queued(&site).await;
    let poll = || {
        let request = from_ann("GET", &format!("/requests/{id}")).header("prefer", "wait=2");
        request.body(Body::empty()).unwrap()
    };
    let waited = async || {
        let began = tokio::time::Instant::now();
        assert_eq!(site.call(poll()).await.status, 200);
        began.elapsed().as_secs()
    };
    let left = site.send(poll());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(waited().await, 0, "the only place is taken");
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    assert_eq!(waited().await, 2);
}

/// A flow that never ends.
#[derive(Debug)]
struct Endless;

#[async_trait]
impl Handler for Endless {
    async fn handle(&self, _: Invocation) -> Result<Reply> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn flows_are_not_served_here_to_anybody() {
    let site = Site::new();
    let flows = TargetId::new("flows").unwrap();
    let config = TargetConfig::default().settles(Settles::Handler);
    site.gateway.register(flows, Arc::new(Endless), config).unwrap();
    let flow = envelope::flow(&VirtualClock::new(), "flows", "acme");
    let id = flow.id();
    let accepted = site.gateway.submit(flow, Duration::ZERO).await.unwrap();
    assert!(matches!(accepted, Submitted::Accepted { .. }));
    for role in ["viewer", "admin"] {
        for (method, path) in [
            ("GET", format!("/requests/{id}")),
            ("GET", format!("/requests/{id}/response")),
            ("DELETE", format!("/requests/{id}")),
        ] {
            let request = from_ann(method, &path).header("x-role", role);
            let answer = site.call(request.body(Body::empty()).unwrap()).await;
            let told = (answer.status, answer.code());
            assert_eq!(told, (404, "not-found".to_owned()), "{role} {method} {path}");
        }
    }
    // The next heartbeat would bring the wish to stop.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let fleet = scope::fleet();
    let execution = site.store.executions.get((&fleet).into(), id).await.unwrap().unwrap();
    assert_eq!(execution.status, ExecutionStatus::Running, "nobody cancelled it");
}

#[tokio::test(start_paused = true)]
async fn a_stored_reply_sets_no_cookie() {
    let site = Site::new();
    let direct = site.send(post(1, ""));
    site.scanner.begun(1).await;
    let held = site.send(post(2, ""));
    site.until(|stats| stats.ready == 1).await;
    site.scanner.finish(2);
    assert_eq!(direct.await.unwrap().header("set-cookie"), "session=1", "not touched");
    let held = held.await.unwrap();
    assert_eq!(
        (held.header("x-scanner"), held.header("set-cookie")),
        ("1", ""),
        "queued"
    );

    let adopted = site.send(post(3, "")).await.unwrap().id();
    site.scanner.finish(1);
    site.until(|stats| stats.leased == 0).await;
    let reply = site.get(&format!("/requests/{adopted}/response")).await;
    assert_eq!((reply.status, reply.header("x-scanner")), (201, "1"));
    assert_eq!(reply.header("set-cookie"), "", "adopted");
}
