//! Shutting down.

use crate::site::{HOLD, Site, from_ann, post, put};
use axum::body::Body;
use crosspoint_core::CallState;
use crosspoint_testkit::Method;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn what_runs_may_finish_and_nothing_new_is_leased() {
    let site = Site::new();
    let asynchronous = from_ann("POST", "/v1/scan/1").header("prefer", "respond-async");
    let running = site.call(asynchronous.body(Body::empty()).unwrap()).await.id();
    site.scanner.begun(1).await;
    let gateway = site.gateway.clone();
    let drain = tokio::spawn(async move { gateway.drain(Duration::from_secs(60)).await });
    tokio::task::yield_now().await;
    let began = Instant::now();
    let waiting = site.call(post(2, "b")).await.id();
    assert!(began.elapsed() < Duration::from_secs(1), "nobody new is held");
    assert!(!drain.is_finished());
    site.scanner.finish(2);
    drain.await.unwrap();
    assert_eq!(site.status(&running).await.state, CallState::Completed);
    assert_eq!(
        site.status(&waiting).await.state,
        CallState::Queued,
        "for another process"
    );
    assert_eq!(site.scanner.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_the_timeout_attempts_are_stopped_and_only_repeatable_ones_go_back() {
    let site = Site::with(|layer| layer.permits(2));
    let mut ids = Vec::new();
    for method in ["POST", "PUT"] {
        let request = from_ann(method, "/v1/scan/1").header("prefer", "respond-async");
        ids.push(site.call(request.body(Body::empty()).unwrap()).await.id());
    }
    site.scanner.begun(2).await;
    site.gateway.drain(Duration::from_secs(1)).await;
    assert_eq!(site.gate().in_flight, 0, "confirmed stopped");
    assert_eq!(site.status(&ids[0]).await.state, CallState::Unknown);
    let repeatable = site.status(&ids[1]).await;
    assert_eq!(
        (repeatable.state, repeatable.attempt),
        (CallState::Queued, 0),
        "the attempt does not count"
    );
    let answer = site.get(&format!("/requests/{}/response", ids[0])).await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "outcome-unknown"));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_held_gets_202_before_the_process_ends() {
    let site = Site::with(|layer| layer.hold(Duration::from_secs(600)));
    let direct = site.send(post(1, ""));
    site.scanner.begun(1).await;
    let held = site.send(put(2, "b"));
    site.until(|stats| stats.ready == 1).await;
    site.gateway.drain(Duration::from_secs(5)).await;
    let id = held.await.unwrap().id();
    assert_eq!(site.status(&id).await.state, CallState::Queued);
    site.scanner.finish(1);
    assert_eq!(
        direct.await.unwrap().status,
        201,
        "direct calls are the server's to end"
    );
}

#[tokio::test(start_paused = true)]
async fn what_runs_directly_is_answered_on_its_connection() {
    let site = Site::with(|layer| layer.permits(2));
    let mut calls = vec![site.send(post(1, "a"))];
    site.scanner.begun(1).await;
    let gateway = site.gateway.clone();
    let drain = tokio::spawn(async move { gateway.drain(Duration::from_secs(60)).await });
    tokio::task::yield_now().await;
    // A connection that is kept alive may still bring one.
    calls.push(site.send(post(2, "b")));
    site.scanner.begun(2).await;
    tokio::time::sleep(HOLD / 2).await;
    site.scanner.finish(2);
    for (call, wanted) in calls.into_iter().zip(["1 a direct", "2 b direct"]) {
        let answer = call.await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (201, wanted));
    }
    drain.await.unwrap();
    assert_eq!(site.faults.calls(Method::Enqueue), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_for_a_record_that_is_being_stored_and_for_its_call() {
    for recorded in [false, true] {
        let site = Site::with(|layer| layer.recorded(recorded));
        site.faults.delay(Method::Enqueue, 1, Duration::from_millis(200));
        let call = site.send(post(1, "a"));
        let stored = if recorded { Duration::ZERO } else { HOLD };
        tokio::time::sleep(stored + Duration::from_millis(100)).await;
        let gateway = site.gateway.clone();
        let drain = tokio::spawn(async move { gateway.drain(Duration::from_secs(60)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!drain.is_finished(), "recorded {recorded}");
        site.scanner.finish(1);
        drain.await.unwrap();
        let answer = call.await.unwrap();
        if recorded {
            assert_eq!((answer.status, answer.body.as_str()), (201, "1 a direct"));
        } else {
            assert_eq!(site.status(&answer.id()).await.state, CallState::Completed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_adopted_that_would_end_with_the_process() {
    let site = Site::new();
    let call = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    site.gateway.drain(Duration::from_secs(1)).await;
    tokio::time::sleep(2 * HOLD).await;
    assert!(!call.is_finished(), "no 202 whose lease nobody keeps");
    site.scanner.finish(1);
    assert_eq!(call.await.unwrap().body, "1 a direct");
    assert_eq!(site.gate().in_flight, 0);
}
