//! The pool under the real layer: what no replica has started waits for one.

use super::replica::{ALWAYS, Counted, Replica, pool, post, text};
use axum::{Router, body::Body};
use crosspoint_core::{CustomerId, Memory, SystemClock, TargetId};
use crosspoint_gateway::{Config, Gateway, HttpTarget};
use http::{HeaderMap, Request, Response, StatusCode};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{task::JoinHandle, time::timeout};
use tower::ServiceExt;

const SOON: Duration = Duration::from_secs(30);

fn front(pool: &HttpTarget, repeatable: bool) -> Router {
    let target = TargetId::new("scan").unwrap();
    let mut config = Config::default();
    config.hold = SOON;
    let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), config);
    let layer = gateway
        .layer(target.clone())
        .customer(|_| CustomerId::new("acme").ok())
        .repeatable(repeatable);
    let app = Router::new().fallback_service(pool.clone()).layer(layer);
    gateway.serve_queued(target, app.clone()).unwrap();
    app
}

fn send(app: &Router, request: Request<Body>) -> JoinHandle<Response<Body>> {
    let app = app.clone();
    tokio::spawn(async move { app.oneshot(request).await.unwrap() })
}

#[tokio::test]
async fn with_every_replica_down_calls_wait_and_are_answered_on_the_connection() {
    let service = Counted::new(ALWAYS);
    let replica = Replica::start(service.router());
    let pool = pool(&[replica.uri()], |_| {});
    let app = front(&pool, false);
    let address = replica.kill();
    let held: Vec<_> = ["one", "two", "three"].map(|body| send(&app, post(body))).into();
    // Time enough for the first attempts to fail.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for call in &held {
        assert!(!call.is_finished(), "held, not refused");
    }
    let _replica = Replica::at(address, |_| service.router());
    for (call, body) in held.into_iter().zip(["one", "two", "three"]) {
        let answer = timeout(SOON, call).await.unwrap().unwrap();
        assert_eq!((answer.status(), text(answer).await.as_str()), (StatusCode::OK, body));
    }
    assert_eq!(service.count(), 3, "each was made once");
}

#[tokio::test]
async fn a_call_lost_on_the_way_is_made_again_only_where_its_route_allows_it() {
    for repeatable in [false, true] {
        let service = Counted::new(0);
        let replica = Replica::start(service.router());
        let pool = pool(&[replica.uri()], |_| {});
        let app = front(&pool, repeatable);
        let call = send(&app, post("once"));
        timeout(SOON, service.begun(1)).await.unwrap();
        let address = replica.kill();
        let _replica = Replica::at(address, |_| service.router());
        service.go.add_permits(ALWAYS);
        let answer = timeout(SOON, call).await.unwrap().unwrap();
        if repeatable {
            assert_eq!((answer.status(), text(answer).await.as_str()), (StatusCode::OK, "once"));
        } else {
            assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
            assert!(text(answer).await.contains("outcome-unknown"));
        }
        assert_eq!(service.count(), 1 + usize::from(repeatable));
    }
}

#[tokio::test]
async fn every_attempt_of_a_call_has_its_run_key_and_id_the_direct_one_too() {
    let seen: Arc<Mutex<Vec<[String; 2]>>> = Arc::default();
    let see = Arc::clone(&seen);
    let replica = Replica::start(Router::new().fallback(move |headers: HeaderMap| async move {
        let told = |name: &str| headers[name].to_str().unwrap().to_owned();
        let mut seen = see.lock().unwrap();
        seen.push([told("crosspoint-id"), told("crosspoint-run-key")]);
        if seen.len() == 1 {
            (StatusCode::GATEWAY_TIMEOUT, [("crosspoint-outcome", "unknown")])
        } else {
            (StatusCode::OK, [("x-by", "replica")])
        }
    }));
    let pool = pool(&[replica.uri()], |_| {});
    let answer = timeout(SOON, send(&front(&pool, true), post("once")))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0], seen[1]);
}
