//! What one customer may take of what all share, and that it is told 429 when it has taken it.

use crate::site::{Answer, Site, from_ann, post, put};
use axum::body::{Body, Bytes};
use crosspoint_testkit::{Method, When};
use http::Request;
use std::time::Duration;
use tokio::time::sleep;

fn asks_later(id: u32, customer: &str) -> Request<Body> {
    let request = Request::post(format!("/v1/scan/{id}")).header("x-customer", customer);
    request
        .header("prefer", "respond-async")
        .body(Body::from("12345678"))
        .unwrap()
}

fn assert_refused(answer: &Answer, quota: &str, unit: &str, limit: u64) {
    assert_eq!((answer.status, answer.code()), (429, "rate-limited".to_owned()));
    let after = answer.header("retry-after");
    assert!(after.parse::<u64>().unwrap() >= 1);
    let policy = format!("\"{quota}\";q={limit};qu=\"{unit}\"");
    assert_eq!(answer.header("ratelimit-policy"), policy);
    assert_eq!(answer.header("ratelimit"), format!("\"{quota}\";r=0;t={after}"));
}

#[tokio::test(start_paused = true)]
async fn a_customer_with_too_many_waiting_calls_is_told_so_and_nobody_else() {
    let site = Site::configured(|layer| layer, |config| config.max_queued_per_customer = 3);
    let _busy = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    for id in 2..5 {
        assert_eq!(site.call(asks_later(id, "acme")).await.status, 202);
    }
    let refused = site.call(asks_later(5, "acme")).await;
    assert_refused(&refused, "queued-calls", "requests", 3);
    assert_eq!(site.call(asks_later(6, "globex")).await.status, 202, "another customer");
    assert_eq!(site.stats().await.ready, 4, "what was refused is not stored");
    // Another process has stored none of them, and knows of them once it has counted.
    let other = site.beside(|layer| layer);
    let _busy = other.send(post(7, "a"));
    other.scanner.begun(1).await;
    assert_refused(&other.call(asks_later(8, "acme")).await, "queued-calls", "requests", 3);
    site.scanner.finish(9);
    other.scanner.finish(9);
    site.until(|stats| stats.ready == 0).await;
    sleep(Duration::from_secs(1)).await;
    assert_ne!(
        site.call(asks_later(9, "acme")).await.status,
        429,
        "there is room again"
    );
}

#[tokio::test(start_paused = true)]
async fn a_customer_whose_waiting_calls_are_too_large_is_told_so() {
    let site = Site::configured(|layer| layer, |config| config.max_queued_bytes_per_customer = 16);
    let _busy = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    assert_eq!(site.call(asks_later(2, "acme")).await.status, 202);
    assert_eq!(site.call(asks_later(3, "acme")).await.status, 202);
    let refused = site.call(asks_later(4, "acme")).await;
    assert_refused(&refused, "queued-bytes", "content-bytes", 16);
    assert_eq!(site.call(asks_later(5, "globex")).await.status, 202);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_count_refuses_nobody() {
    let site = Site::configured(|layer| layer, |config| config.max_queued_per_customer = 1);
    let _busy = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    site.faults.fail_next(Method::Lane, 1, When::Before);
    for id in 2..4 {
        assert_eq!(site.call(asks_later(id, "acme")).await.status, 202);
    }
}

#[tokio::test(start_paused = true)]
async fn one_customers_slow_bodies_leave_room_for_those_of_others() {
    let endless = || Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>());
    let site = Site::configured(
        |layer| layer.max_body(600),
        |config| (config.max_buffered, config.max_buffered_per_customer) = (4096, 1200),
    );
    let _busy = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    let slow: Vec<_> = (2..4)
        .map(|id| site.send(from_ann("POST", &format!("/v1/scan/{id}")).body(endless()).unwrap()))
        .collect();
    sleep(Duration::from_millis(1)).await;
    assert_refused(&site.call(post(4, "a")).await, "buffered-bytes", "content-bytes", 1200);
    assert_eq!(site.call(asks_later(5, "globex")).await.status, 202);
    for slow in slow {
        assert_eq!(slow.await.unwrap().status, 408);
    }
    let waits = site.send(put(6, "a"));
    site.until(|stats| stats.ready == 2).await;
    assert!(!waits.is_finished(), "there is room again");
}

#[tokio::test(start_paused = true)]
async fn places_for_waiting_clients_are_no_quota() {
    let site = Site::configured(|layer| layer, |config| config.max_held_per_customer = 0);
    let _busy = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    let answer = site.call(post(2, "a")).await;
    assert_eq!(answer.status, 202, "nothing is refused for want of a place to wait");
    assert_eq!(answer.header("ratelimit"), "");
}
