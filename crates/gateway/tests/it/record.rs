//! Calls that are recorded before they are tried, while the store is in trouble.

use crate::site::{HOLD, Site, from_ann, post, put};
use axum::body::{Body, Bytes};
use crosspoint_gateway::{Config, Keys, OnDisconnect};
use crosspoint_testkit::{Method, When};
use futures_util::stream;
use http::Request;
use std::{convert::Infallible, time::Duration};
use tokio::time::{Instant, sleep};

fn keyed() -> Request<Body> {
    let request = from_ann("POST", "/v1/scan/1").header("idempotency-key", "k");
    request.body(Body::from("x")).unwrap()
}

async fn nothing_is_left(site: &Site) {
    let stats = site.stats().await;
    assert_eq!((stats.ready, stats.delayed, stats.leased), (0, 0, 0));
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_keeps_neither_the_client_nor_the_permit() {
    let site = Site::with(|layer| layer.recorded(true).on_disconnect(OnDisconnect::Continue));
    site.faults.delay_all(Method::Enqueue, Duration::from_secs(60));
    for n in 0..5 {
        let began = Instant::now();
        let answer = site.call(put(1, "x")).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "store-unavailable"));
        let most = if n < 3 {
            Config::default().enqueue_timeout
        } else {
            Duration::ZERO
        };
        assert_eq!(began.elapsed(), most, "call {n}");
        sleep(Duration::from_millis(1)).await;
        assert_eq!(site.gate().in_flight, 0, "call {n}");
    }
    site.faults.up();
    sleep(Duration::from_secs(120)).await;
    assert_eq!(site.scanner.count(), 0, "nobody runs what was refused");
    nothing_is_left(&site).await;
    site.scanner.finish(1);
    assert_eq!(site.call(post(2, "y")).await.body, "2 y direct");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_keeps_nobody_from_the_target() {
    let takes = Duration::from_secs(3);
    let trickling = |id: u32| {
        let body = Body::from_stream(stream::once(async move {
            sleep(takes).await;
            Ok::<_, Infallible>(Bytes::from_static(b"x"))
        }));
        from_ann("PUT", &format!("/v1/scan/{id}")).body(body).unwrap()
    };
    let site = Site::with(|layer| layer.recorded(true));
    let slow = site.send(trickling(1));
    sleep(takes / 2).await;
    assert_eq!(site.gate().in_flight, 0);
    site.scanner.finish(2);
    assert_eq!(site.call(post(2, "y")).await.body, "2 y direct");
    assert_eq!(slow.await.unwrap().body, "1 x direct");
    // Those that find no permit when they have come are queued, and held no longer for that.
    let began = Instant::now();
    let slow = [site.send(trickling(3)), site.send(trickling(4))];
    let busy = site.send(post(5, "y"));
    sleep(HOLD / 2).await;
    assert_eq!((site.gate().in_flight, site.scanner.count()), (1, 3));
    let stats = site.stats().await;
    assert_eq!((stats.ready, stats.leased), (2, 1));
    for slow in slow {
        assert_eq!(slow.await.unwrap().status, 202);
    }
    assert_eq!(began.elapsed(), HOLD);
    site.scanner.finish(3);
    assert_eq!(busy.await.unwrap().status, 202, "it has begun, and its hold has passed");
    site.until(|stats| stats.leased + stats.ready == 0).await;
    nothing_is_left(&site).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_recorded_too_late_is_worked_off_for_its_client() {
    let site = Site::with(|layer| layer.keys(Keys::Gateway));
    site.faults
        .delay(Method::Enqueue, 1, Config::default().enqueue_timeout * 2);
    assert_eq!(site.call(keyed()).await.status, 503);
    sleep(Config::default().enqueue_timeout * 2).await;
    let again = site.send(keyed());
    site.scanner.begun(1).await;
    site.scanner.finish(1);
    assert_eq!(again.await.unwrap().body, "1 x acme/ann/1");
    assert_eq!(site.scanner.count(), 1);
    nothing_is_left(&site).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_client_leaves_while_it_is_recorded_is_not_begun_unless_its_route_says_so() {
    for (then, wanted) in [(OnDisconnect::Cancel, 0), (OnDisconnect::Continue, 1)] {
        let site = Site::with(|layer| layer.recorded(true).on_disconnect(then));
        site.faults.delay(Method::Enqueue, 1, Duration::from_millis(100));
        let call = site.send(post(1, "x"));
        sleep(Duration::from_millis(50)).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        tokio::task::yield_now().await;
        assert_eq!(site.gate().in_flight, 0);
        site.scanner.finish(1);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(site.scanner.count(), wanted);
        nothing_is_left(&site).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_write_failed_and_took_effect_is_not_begun_when_its_lease_ends() {
    let site = Site::with(|layer| layer.recorded(true));
    site.faults.fail(Method::Enqueue, 1, When::After);
    // It may be repeated, so that a lease that is lost would bring it back.
    let answer = site.call(put(1, "x")).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "store-unavailable"));
    sleep(Duration::from_secs(120)).await;
    assert_eq!(site.scanner.count(), 0);
    nothing_is_left(&site).await;
}
