//! Clocks that jump or differ, workers that stall, handlers that panic under a record.

use super::Way;
use crate::site::{HOLD, Site, post, put};
use crosspoint_core::CallState;
use crosspoint_testkit::{Method, When};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const HOUR: i64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn the_clocks_of_two_processes_differ() {
    for skew in [HOUR, -HOUR] {
        let here = Site::new();
        let there = here.skewed(skew, |layer| layer);
        // The lease of an adopted call is long and kept by heartbeats: the other one does not take it.
        let id = here.call(post(1, "a")).await.id();
        sleep(Duration::from_secs(120)).await;
        assert_eq!(here.status(&id).await.state, CallState::Leased, "{skew}");
        assert_eq!(there.scanner.count(), 0, "{skew}");
        here.scanner.finish(1);
        here.until(|stats| stats.leased == 0).await;
        assert_eq!(here.status(&id).await.state, CallState::Completed, "{skew}");

        // The one whose clock is wrong holds its own clients for as long as it should.
        let other = there.send(post(2, "b"));
        there.scanner.begun(1).await;
        here.gateway.set_available(&crate::site::target(), false);
        let began = Instant::now();
        let held = there.send(post(3, "c"));
        sleep(HOLD / 2).await;
        there.scanner.finish(2);
        assert_eq!(other.await.unwrap().status, 201, "{skew}");
        let answer = held.await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (201, "3 c acme/ann/1"), "{skew}");
        assert!(began.elapsed() < HOLD, "{skew}: {:?}", began.elapsed());
    }
}

/// The in-memory store believes its clock; SQLite watches for jumps and takes nothing away for one lease.
#[tokio::test(start_paused = true)]
async fn the_stores_clock_jumps() {
    for jump in [HOUR, -HOUR] {
        for request in [post, put] {
            let site = Site::new();
            let id = {
                let mut request = request(1, "x");
                request.headers_mut().insert("prefer", "respond-async".parse().unwrap());
                site.call(request).await.id()
            };
            site.scanner.begun(1).await;
            site.clock.jump(jump);
            sleep(Duration::from_secs(15)).await;
            site.scanner.finish(4);
            sleep(Duration::from_secs(120)).await;
            let status = site.status(&id).await;
            assert!(status.state.is_terminal(), "{jump}: {status:?}");
            if jump < 0 {
                assert_eq!((status.state, site.scanner.count()), (CallState::Completed, 1));
            }
            let stats = site.stats().await;
            assert_eq!((stats.ready, stats.delayed, stats.leased), (0, 0, 0), "{jump}");
            assert_eq!(site.gate().in_flight, 0, "{jump}");
            let path = format!("/requests/{id}/response");
            let (first, second) = (site.get(&path).await, site.get(&path).await);
            assert_eq!((first.status, &first.body), (second.status, &second.body));
            assert_eq!(
                first.status,
                if status.state == CallState::Completed { 201 } else { 504 }
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stalls_past_its_lease_settles_in_vain() {
    for (method, state, body) in [
        ("PUT", CallState::Completed, "1 x acme/ann/2"),
        ("POST", CallState::Unknown, ""),
    ] {
        let here = Site::new();
        let id = here.call(Way::Asynchronous.request(method)).await.id();
        here.scanner.begun(1).await;
        // Its heartbeats are not heard, and its result is on its way for a minute.
        here.faults.fail_all(Method::Extend, When::Before);
        here.faults.delay(Method::Settle, 1, Duration::from_secs(60));
        let there = here.beside(|layer| layer);
        here.scanner.finish(1);
        there.scanner.finish(1);
        sleep(Duration::from_secs(45)).await;
        let before = there.status(&id).await;
        assert_eq!(
            (before.state, there.scanner.count()),
            (state, usize::from(method == "PUT"))
        );
        let path = format!("/requests/{id}/response");
        let told = there.get(&path).await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(there.status(&id).await.state, state);
        let again = there.get(&path).await;
        assert_eq!(
            (again.status, &again.body),
            (told.status, &told.body),
            "what was told once stays"
        );
        if !body.is_empty() {
            assert_eq!(again.body, body);
        }
        assert_eq!((here.gate().in_flight, here.scanner.count()), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_recorded_attempt_that_panics_is_a_dead_letter_and_the_key_says_so() {
    let site = Way::Recorded.site();
    let request = || {
        let request = crate::site::from_ann("POST", "/v1/scan/1").header("idempotency-key", "k");
        request.body(axum::body::Body::from("panic")).unwrap()
    };
    let call = site.send(request());
    site.scanner.begun(1).await;
    site.scanner.finish(1);
    for answer in [call.await.unwrap(), site.call(request()).await] {
        assert_eq!((answer.status, answer.code().as_str()), (500, "internal"));
    }
    assert_eq!((site.scanner.count(), site.gate().in_flight), (1, 0));
    assert_eq!(site.stats().await.dead, 1);
}
