//! A direct attempt that outlives the hold.

use crate::site::{HOLD, Site, post};
use crosspoint_core::CallState;
use crosspoint_testkit::{Method, When, scope};
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn it_goes_on_under_a_durable_record_and_its_reply_is_stored() {
    let site = Site::new();
    let began = Instant::now();
    let id = site.call(post(1, "a")).await.id();
    assert!(began.elapsed() >= HOLD);
    assert_eq!(site.status(&id).await.state, CallState::Leased);
    assert_eq!(site.gate().in_flight, 1, "it still runs");
    // Heartbeats keep the lease far beyond its length.
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(site.status(&id).await.state, CallState::Leased);
    site.scanner.finish(1);
    site.until(|stats| stats.leased == 0).await;
    let reply = site.get(&format!("/requests/{id}/response")).await;
    assert_eq!((reply.status, reply.body.as_str()), (201, "1 a direct"));
    assert_eq!(site.scanner.count(), 1, "never a second time");
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn without_the_record_the_client_stays_connected() {
    let site = Site::new();
    site.faults.fail(Method::Enqueue, 1, When::Before);
    let call = site.send(post(1, "a"));
    tokio::time::sleep(HOLD * 3).await;
    assert!(!site.faults.pending(), "adoption was tried");
    assert!(!call.is_finished(), "no 202 without a record");
    site.scanner.finish(1);
    let answer = call.await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (201, "1 a direct"));
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_adoption_the_attempt_still_ends_with_its_client() {
    let site = Site::new();
    site.faults.fail(Method::Enqueue, 1, When::Before);
    let call = site.send(post(1, "a"));
    tokio::time::sleep(HOLD * 2).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn an_adopted_attempt_that_panics_is_a_dead_letter() {
    let site = Site::new();
    let id = site.call(post(1, "panic")).await.id();
    site.scanner.finish(1);
    site.until(|stats| stats.dead == 1).await;
    let answer = site.get(&format!("/requests/{id}/response")).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "internal"));
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_route_can_do_without() {
    let site = Site::with(|layer| layer.adopt(false));
    let call = site.send(post(1, "a"));
    tokio::time::sleep(HOLD * 10).await;
    assert!(!call.is_finished());
    site.scanner.finish(1);
    assert_eq!(call.await.unwrap().status, 201);
    assert_eq!(site.stats().await.leased, 0);
}

/// The request of an adopted call is not kept: redriving it must not send an empty one.
#[tokio::test(start_paused = true)]
async fn an_adopted_call_cannot_be_redriven_without_its_request() {
    let site = Site::new();
    let id = site.call(post(1, "panic")).await.id();
    site.scanner.finish(1);
    site.until(|stats| stats.dead == 1).await;
    let fleet = scope::fleet();
    let admin = site.store.dispatch.admin().unwrap();
    let redriven = admin.redrive((&fleet).into(), &[id.parse().unwrap()]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = site.status(&redriven[0].unwrap().to_string()).await;
    assert_eq!(status.state, CallState::Unknown);
    assert_eq!(site.scanner.count(), 1);
}
