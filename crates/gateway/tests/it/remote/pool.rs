//! Which replica gets a call, and what becomes of calls that none answers.

use super::replica::{ALWAYS, Counted, Replica, call, dead, pool, post, returned, text};
use axum::{Router, body::Body, routing::get};
use crosspoint_gateway::{
    outcome::Outcome,
    remote::{HealthCheck, ReplicaState},
};
use http::{HeaderMap, Request, StatusCode};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::timeout};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn calls_go_where_there_is_least_to_do() {
    let services: Vec<_> = (0..3).map(|_| Counted::new(0)).collect();
    let replicas: Vec<_> = services
        .iter()
        .map(|service| Replica::start(service.router()))
        .collect();
    let uris: Vec<_> = replicas.iter().map(Replica::uri).collect();
    let pool = pool(&uris, |config| config.slow_start = Duration::ZERO);
    let mut calls = JoinSet::new();
    for _ in 0..30 {
        let pool = pool.clone();
        calls.spawn(async move { call(&pool, post("a")).await.status() });
    }
    for service in &services {
        timeout(SOON, service.begun(10)).await.unwrap();
    }
    assert!(pool.replicas().iter().all(|replica| replica.in_flight == 10));
    services[1].go.add_permits(10);
    for _ in 0..10 {
        calls.join_next().await.unwrap().unwrap();
    }
    for _ in 0..6 {
        let pool = pool.clone();
        calls.spawn(async move { call(&pool, post("a")).await.status() });
    }
    timeout(SOON, services[1].begun(16)).await.unwrap();
    services.iter().for_each(|service| service.go.add_permits(ALWAYS));
    let all = calls.join_all().await;
    assert_eq!(
        (all.len(), all.iter().all(|status| *status == StatusCode::OK)),
        (26, true)
    );
}

#[tokio::test]
async fn a_replica_that_is_away_costs_no_call_is_ejected_and_returns() {
    let (here, away) = (Counted::new(ALWAYS), Counted::new(ALWAYS));
    let first = Replica::start(here.router());
    let second = Replica::start(away.router());
    let uris = [first.uri(), second.uri()];
    let address = second.kill();
    let pool = pool(&uris, |config| {
        config.eject_after = 1;
        config.eject_for = Duration::from_millis(300);
        config.slow_start = Duration::ZERO;
    });
    for _ in 0..4 {
        let answer = call(&pool, post("kept")).await;
        assert_eq!((answer.status(), text(answer).await.as_str()), (StatusCode::OK, "kept"));
    }
    assert_eq!(pool.serving(), 1, "ejected");
    assert_eq!(here.count(), 4);
    let _second = Replica::at(address, |_| away.router());
    let back = async {
        while away.count() == 0 {
            assert_eq!(call(&pool, post("kept")).await.status(), StatusCode::OK);
        }
    };
    timeout(SOON, back).await.unwrap();
    assert_eq!(pool.serving(), 2);
}

#[tokio::test]
async fn a_replica_that_dies_in_a_call_has_perhaps_done_it() {
    let (dying, other) = (Counted::new(0), Counted::new(ALWAYS));
    let first = Replica::start(dying.router());
    let pool = pool(&[first.uri()], |config| config.slow_start = Duration::ZERO);
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { call(&pool, post("once")).await }
    });
    timeout(SOON, dying.begun(1)).await.unwrap();
    let second = Replica::start(other.router());
    pool.set_replicas(&[first.uri(), second.uri()]).unwrap();
    first.kill();
    let answer = waiting.await.unwrap();
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(returned(&answer).await, Some((Outcome::Unknown, "once".to_owned())));
    assert_eq!(other.count(), 0, "not made again");
}

#[tokio::test]
async fn without_a_replica_calls_come_back_at_once() {
    let nobody = pool(&[], |_| {});
    let answer = call(&nobody, post("kept")).await;
    assert_eq!(
        (answer.status(), &answer.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
    assert_eq!(returned(&answer).await, Some((Outcome::NotStarted, "kept".to_owned())));
    let all_dead = pool(&[dead(), dead()], |_| {});
    let answer = call(&all_dead, post("kept")).await;
    assert_eq!(returned(&answer).await, Some((Outcome::NotStarted, "kept".to_owned())));
}

#[tokio::test]
async fn one_that_is_full_passes_the_call_on_whatever_its_method() {
    let full = Router::new().fallback(|body: axum::body::Bytes| async move {
        assert_eq!(body, "once");
        (
            StatusCode::SERVICE_UNAVAILABLE,
            [("crosspoint-outcome", "full"), ("retry-after", "7")],
        )
    });
    let (free, full) = (Counted::new(ALWAYS), Replica::start(full));
    let other = Replica::start(free.router());
    let both = pool(&[full.uri(), other.uri()], |_| {});
    for _ in 0..4 {
        let answer = call(&both, post("once")).await;
        assert_eq!((answer.status(), text(answer).await.as_str()), (StatusCode::OK, "once"));
    }
    assert_eq!(both.serving(), 2, "being full is no failure");
    let alone = pool(&[full.uri()], |_| {});
    let answer = call(&alone, post("once")).await;
    assert!(answer.headers().get("crosspoint-outcome").is_none(), "between us only");
    let retry_after = Some(Duration::from_secs(7));
    assert_eq!(
        returned(&answer).await,
        Some((Outcome::Overloaded { retry_after }, "once".to_owned()))
    );
}

#[tokio::test]
async fn an_answer_is_passed_on_whatever_it_says() {
    let replica = Replica::start(
        Router::new().fallback(|| async { (StatusCode::BAD_GATEWAY, [("x-from", "service")], "sorry") }),
    );
    let pool = pool(&[replica.uri()], |_| {});
    let answer = call(&pool, post("a")).await;
    assert_eq!(
        (answer.status(), &answer.headers()["x-from"]),
        (StatusCode::BAD_GATEWAY, &"service".parse().unwrap())
    );
    assert!(returned(&answer).await.is_none(), "it ran");
}

#[tokio::test]
async fn what_belongs_to_a_connection_or_to_us_does_not_pass() {
    let echo = Router::new().fallback(|headers: HeaderMap| async move {
        let names: BTreeSet<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
        (
            [("keep-alive", "timeout=1"), ("crosspoint-id", "x"), ("x-kept", "1")],
            names.into_iter().collect::<Vec<_>>().join(" "),
        )
    });
    let replica = Replica::start(echo);
    let pool = pool(&[replica.uri()], |_| {}).principal(|_| Some("ann".into()));
    let mut request = Request::get("/").body(Body::empty()).unwrap();
    for (name, value) in [
        ("host", "shop.example"),
        ("forwarded", "for=192.0.2.1"),
        ("traceparent", "00-1-2-03"),
        ("idempotency-key", "k"),
        ("connection", "keep-alive, x-hop"),
        ("x-hop", "1"),
        ("upgrade", "h2c"),
        ("crosspoint-customer", "somebody-else"),
        ("crosspoint-secret", "guess"),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = call(&pool, request).await;
    assert_eq!(&answer.headers()["x-kept"], "1");
    assert!(answer.headers().get("crosspoint-id").is_none() && answer.headers().get("keep-alive").is_none());
    let seen = text(answer).await;
    assert_eq!(
        seen,
        "crosspoint-attempt crosspoint-id crosspoint-principal crosspoint-run-key crosspoint-timeout-ms \
         forwarded host idempotency-key traceparent"
    );
}

#[tokio::test]
async fn another_protocol_is_refused_in_clear_words() {
    let pool = pool(&[dead()], |_| {});
    let request = Request::get("/")
        .header("upgrade", "websocket")
        .header("connection", "upgrade");
    let answer = call(&pool, request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
    assert!(returned(&answer).await.is_none());
    assert!(text(answer).await.contains("not forwarded"));
}

#[tokio::test]
async fn a_health_check_decides_before_any_call_does() {
    let well = Arc::new(AtomicBool::new(false));
    let service = Counted::new(ALWAYS);
    let health = {
        let well = Arc::clone(&well);
        get(move || async move { StatusCode::from_u16(if well.load(Ordering::Relaxed) { 204 } else { 503 }).unwrap() })
    };
    let replica = Replica::start(service.router().route("/health", health));
    let pool = pool(&[replica.uri()], |config| {
        let mut check = HealthCheck::new("/health");
        check.interval = Duration::from_millis(10);
        config.check = Some(check);
    });
    let is = |state: ReplicaState| {
        let pool = pool.clone();
        timeout(SOON, async move {
            while pool.replicas()[0].state != state {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    assert_eq!(pool.serving(), 0, "not before it has been checked");
    assert_eq!(
        returned(&call(&pool, post("a")).await).await.unwrap().0,
        Outcome::NotStarted
    );
    well.store(true, Ordering::Relaxed);
    is(ReplicaState::Serving).await.unwrap();
    assert_eq!(call(&pool, post("a")).await.status(), StatusCode::OK);
    well.store(false, Ordering::Relaxed);
    is(ReplicaState::Down).await.unwrap();
    assert_eq!(service.count(), 1);
}
