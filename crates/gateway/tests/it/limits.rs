//! What is bounded, and what is said when nothing can be answered.

use crate::site::{HOLD, Site, from_ann, post, put, target};
use axum::{
    Router,
    body::{Body, Bytes},
};
use crosspoint_core::{Code, Error, Memory, Scope};
use crosspoint_gateway::{
    Config, Gateway, HttpTarget,
    remote::{HealthCheck, RemoteConfig},
};
use crosspoint_testkit::{Method, VirtualClock, When, scope};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// A body that never ends.
fn endless() -> Body {
    Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>())
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_neither_adopted_nor_queued() {
    for (name, value) in [
        ("accept", "text/event-stream"),
        ("content-type", "application/grpc+proto"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
    ] {
        let site = Site::new();
        let request = from_ann("POST", "/v1/scan/1").header(name, value);
        let call = site.send(request.body(Body::from("a")).unwrap());
        site.scanner.begun(1).await;
        let other = from_ann("POST", "/v1/scan/2").header(name, value);
        let refused = site.call(other.body(Body::empty()).unwrap()).await;
        assert_eq!(refused.status, 503, "{name}");
        sleep(HOLD * 3).await;
        assert!(!call.is_finished(), "{name}: no 202 for a stream");
        site.scanner.finish(1);
        assert_eq!(call.await.unwrap().status, 201);
    }
    let site = Site::new();
    let polite = from_ann("POST", "/v1/scan/1").header("upgrade", "h2c");
    let adopted = site.call(polite.body(Body::from("a")).unwrap()).await;
    assert_eq!(adopted.status, 202, "an offer of another version of HTTP is no stream");
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_read_to_be_queued_share_one_budget() {
    let site = Site::configured(|layer| layer.max_body(600), |config| config.max_buffered = 1200);
    let _busy = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    let reading: Vec<_> = (2..4)
        .map(|id| site.send(from_ann("POST", &format!("/v1/scan/{id}")).body(endless()).unwrap()))
        .collect();
    sleep(Duration::from_millis(1)).await;
    let refused = site.call(post(4, "a")).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "target-saturated"));
    assert!(!refused.header("retry-after").is_empty());
    for slow in reading {
        assert_eq!(slow.await.unwrap().status, 408);
    }
    let waits = site.send(put(5, "a"));
    site.until(|stats| stats.ready == 1).await;
    assert!(!waits.is_finished(), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_left_alone_no_body_is_read() {
    let site = Site::new();
    let _busy = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    site.faults.fail_next(Method::Enqueue, 3, When::Before);
    for id in 2..5 {
        assert_eq!(site.call(post(id, "a")).await.status, 503);
    }
    let began = Instant::now();
    let request = from_ann("POST", "/v1/scan/9").body(endless()).unwrap();
    assert_eq!(site.call(request).await.status, 503);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_an_answer_takes_a_seat_of_its_customers() {
    let site = Site::configured(|layer| layer, |config| config.max_held_per_customer = 0);
    let asked = from_ann("POST", "/v1/scan/1").header("prefer", "respond-async");
    let id = site.call(asked.body(Body::from("a")).unwrap()).await.id();
    let began = Instant::now();
    let ask = from_ann("GET", &format!("/requests/{id}")).header("prefer", "wait=5");
    assert_eq!(site.call(ask.body(Body::empty()).unwrap()).await.status, 200);
    assert_eq!(began.elapsed(), Duration::ZERO, "no seat, no wait");
    let site = Site::configured(|layer| layer.recorded(true), |config| config.max_held_per_customer = 0);
    assert_eq!(site.call(post(1, "a")).await.status, 202);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_reply_says_where_it_is_kept() {
    let site = Site::new();
    let busy = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    let held = site.send(post(2, "panic"));
    site.until(|stats| stats.ready == 1).await;
    site.scanner.finish(2);
    assert_eq!(busy.await.unwrap().status, 201);
    let ended = held.await.unwrap();
    assert_eq!(ended.status, 500);
    let kept = ended.header("location").to_owned();
    assert_eq!(site.get(&kept).await.json()["status"], "dead");
}

#[tokio::test(start_paused = true)]
async fn head_through_the_queue_keeps_the_length_that_it_asked_for() {
    let site = Site::new();
    let busy = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    let head = site.send(from_ann("HEAD", "/v1/scan/2").body(Body::empty()).unwrap());
    site.until(|stats| stats.ready == 1).await;
    site.scanner.finish(2);
    assert_eq!(busy.await.unwrap().status, 201);
    let head = head.await.unwrap();
    assert_eq!((head.status, head.body.as_str()), (201, ""));
    assert_eq!(head.header("content-length"), "13");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_purges_what_ended_long_ago_unless_it_is_told_not_to() {
    for purge in [true, false] {
        let site = Site::configured(
            |layer| layer,
            |config| {
                config.purge = purge;
                config.retention = Duration::from_secs(60);
            },
        );
        let asked = from_ann("POST", "/v1/scan/1").header("prefer", "respond-async");
        let id = site.call(asked.body(Body::from("a")).unwrap()).await.id();
        site.scanner.finish(1);
        site.scanner.begun(1).await;
        sleep(Duration::from_secs(11 * 60)).await;
        let fleet = scope::fleet();
        let kept = site
            .store
            .dispatch
            .get(Scope::Fleet(&fleet), id.parse().unwrap())
            .await
            .unwrap();
        assert_eq!(kept.is_none(), purge);
    }
}

fn problems(error: &Error) -> Vec<&str> {
    assert_eq!(error.code(), Code::SetupInvalid);
    let problems = error.problems().iter();
    problems.map(|problem| problem.pointer.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn settings_that_make_no_sense_are_refused_all_at_once() {
    let mut config = Config::default();
    config.poll = Duration::ZERO;
    config.lease = Duration::ZERO;
    config.enqueue_timeout = Duration::ZERO;
    config.max_queued_per_customer = 0;
    config.suspect_losses = 0;
    config.retention = Duration::from_secs(9);
    config.requests_path = "/requests?all".into();
    let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(VirtualClock::new()), config.clone());
    let error = gateway.serve_queued(target(), Router::new()).unwrap_err();
    assert_eq!(
        problems(&error),
        [
            "/lease_ms",
            "/poll_ms",
            "/enqueue_timeout_ms",
            "/max_queued_per_customer",
            "/suspect_losses",
            "/retention_ms",
            "/requests_path"
        ]
    );
    // What goes on without being served is no busy loop: the paused clock moves only when nobody runs.
    drop(gateway.layer(target()));
    let began = Instant::now();
    sleep(Duration::from_millis(20)).await;
    assert_eq!(began.elapsed(), Duration::from_millis(20));
    for (path, right) in [
        ("/", true),
        ("/api/requests/", true),
        ("", false),
        ("requests", false),
        ("/a b", false),
    ] {
        let mut config = Config::default();
        config.requests_path = path.into();
        assert_eq!(config.validate().is_ok(), right, "{path:?}");
    }
}

#[tokio::test]
async fn a_pool_of_replicas_refuses_settings_that_make_no_sense() {
    let mut check = HealthCheck::new("health");
    (check.interval, check.timeout) = (Duration::ZERO, Duration::ZERO);
    let mut config = RemoteConfig::default();
    (config.connect, config.head, config.call) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    (config.eject_after, config.check) = (0, Some(check));
    let error = HttpTarget::new(target(), config).unwrap_err();
    assert_eq!(
        problems(&error),
        [
            "/connect_ms",
            "/head_ms",
            "/call_ms",
            "/eject_after",
            "/check/path",
            "/check/interval_ms",
            "/check/timeout_ms"
        ]
    );
}

#[test]
fn configurations_are_read_from_json_with_defaults_and_without_surprises() {
    let read: RemoteConfig = serde_json::from_str(r#"{ "head_ms": 20000, "check": { "path": "/health" } }"#).unwrap();
    assert_eq!(read.head, Duration::from_secs(20));
    assert_eq!(read.check, Some(HealthCheck::new("/health")));
    assert_eq!(read.connect, RemoteConfig::default().connect);
    assert!(serde_json::from_str::<RemoteConfig>(r#"{ "secret": "in a file" }"#).is_err());
    assert!(
        serde_json::from_str::<Config>(r#"{ "hold": 5 }"#).is_err(),
        "durations say their unit"
    );
    let config = Config::default();
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
}
