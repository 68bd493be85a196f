//! The HTTP contract, one test per row.
//!
//! | Situation | Answer | Test |
//! |---|---|---|
//! | there was a permit | the service's own, nothing added | `a_direct_answer_is_the_services_own` |
//! | queued, and quick enough | the service's own and `Server-Timing: queue;dur, run;dur` | `a_held_answer_says_how_long_it_stood` |
//! | the hold has passed | 202, `Location`, `Retry-After`, `{id, status}` | `after_the_hold_it_is_202` |
//! | `Prefer` | `Preference-Applied` exactly when it was | `a_preference_is_said_to_be_applied_only_if_it_was` |
//! | routes with redirects | 303 to a status URL that blocks, a bounded number of times | `a_naive_client_is_sent_on_until_the_answer_is_there`, `redirects_end` |
//! | `GET /requests/{id}` | 200 with an estimate while it waits, then 303 | `the_status_guesses_the_position`, `a_stored_answer_carries_its_timing` |
//! | long poll | at most the hold | `a_long_poll_is_bounded` |
//! | unknown ids | 404, and 410 once they are old, for everybody | `what_is_old_is_gone_and_what_is_young_is_not_found` |
//! | `DELETE` | 200, 409 | `status.rs` |
//! | other methods | HEAD as GET, OPTIONS 204, else 405 with `Allow` | `head_options_and_the_rest` |
//! | the store is down | 503, `Retry-After`, nothing of the cause | `our_own_failures_keep_their_details` |
//! | keys | 400, 422, attach | `keys.rs` |
//! | preflights and traces | never stored | `a_preflight_is_never_stored` |
//! | ids | 74 random bits | `ids_cannot_be_guessed` |

use crate::site::{HOLD, Site, from_ann, post};
use axum::body::Body;
use crosspoint_core::{Clock, InvocationId};
use crosspoint_testkit::{Method, When};
use http::Request;
use std::time::Duration;
use tokio::time::Instant;

fn preferring(id: u32, prefer: &str) -> Request<Body> {
    let request = from_ann("POST", &format!("/v1/scan/{id}")).header("prefer", prefer);
    request.body(Body::from("x")).unwrap()
}

/// The site with its one permit taken.
async fn busy(site: &Site) {
    drop(site.send(post(1, "")));
    site.scanner.begun(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_direct_answer_is_the_services_own() {
    let site = Site::new();
    site.scanner.finish(1);
    let answer = site.call(preferring(1, "wait=5")).await;
    assert_eq!((answer.status, answer.body.as_str()), (201, "1 x direct"));
    for name in ["server-timing", "preference-applied", "location", "retry-after"] {
        assert_eq!(answer.header(name), "", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_answer_says_how_long_it_stood() {
    let site = Site::new();
    busy(&site).await;
    let held = site.send(post(2, "x"));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    site.scanner.finish(1);
    site.scanner.begun(2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    site.scanner.finish(1);
    let held = held.await.unwrap();
    assert_eq!((held.status, held.body.as_str()), (201, "2 x acme/ann/1"));
    assert_eq!(held.header("server-timing"), "queue;dur=2500, run;dur=300");
}

#[tokio::test(start_paused = true)]
async fn a_stored_answer_carries_its_timing() {
    let site = Site::new();
    busy(&site).await;
    let began = Instant::now();
    let accepted = site.call(post(2, "x")).await;
    assert_eq!(began.elapsed(), HOLD);
    let id = accepted.id();
    site.scanner.finish(2);
    site.until(|stats| stats.ready + stats.leased == 0).await;
    let status = site.get(&format!("/requests/{id}")).await;
    let location = format!("/requests/{id}/response");
    assert_eq!((status.status, status.header("location")), (303, location.as_str()));
    let answer = site.get(&location).await;
    assert_eq!((answer.status, answer.body.as_str()), (201, "2 x acme/ann/1"));
    assert_eq!(answer.header("server-timing"), "queue;dur=10000, run;dur=0");
}

#[tokio::test(start_paused = true)]
async fn after_the_hold_it_is_202() {
    let site = Site::new();
    busy(&site).await;
    let accepted = site.call(post(2, "x")).await;
    let id = accepted.id();
    assert_eq!(accepted.header("location"), format!("/requests/{id}"));
    assert_eq!(accepted.header("retry-after"), "2");
    assert_eq!(accepted.header("cache-control"), "no-store");
    assert_eq!(accepted.header("preference-applied"), "", "nobody asked");
    let body = accepted.json();
    assert_eq!((&body["id"], &body["status"]), (&id.into(), &"accepted".into()));
    assert_eq!(body["retry_after"], 2, "as in the header");
}

#[tokio::test(start_paused = true)]
async fn a_preference_is_said_to_be_applied_only_if_it_was() {
    let site = Site::new();
    busy(&site).await;
    for (prefer, seconds, applied) in [
        ("respond-async", 0, "respond-async"),
        ("wait=3", 3, "wait=3"),
        ("respond-async, wait=3", 3, "respond-async, wait=3"),
        ("wait=3600", 10, ""),
        ("respond-async, wait=3600", 10, "respond-async"),
        ("return=minimal", 10, ""),
    ] {
        let began = Instant::now();
        let answer = site.call(preferring(2, prefer)).await;
        answer.id();
        assert_eq!(began.elapsed().as_secs(), seconds, "{prefer}");
        assert_eq!(answer.header("preference-applied"), applied, "{prefer}");
    }

    let full = Site::configured(|layer| layer, |config| config.max_held = 0);
    busy(&full).await;
    let began = Instant::now();
    let answer = full.call(preferring(2, "wait=3")).await;
    answer.id();
    assert_eq!(began.elapsed(), Duration::ZERO, "no room to wait in");
    assert_eq!(answer.header("preference-applied"), "");
}

#[tokio::test(start_paused = true)]
async fn a_naive_client_is_sent_on_until_the_answer_is_there() {
    let site = Site::with(|layer| layer.redirects(5));
    busy(&site).await;
    let first = site.call(post(2, "x")).await;
    assert_eq!((first.status, first.header("retry-after")), (303, "2"));
    assert!(
        first.header("location").ends_with("?hops=4"),
        "{}",
        first.header("location")
    );
    let began = Instant::now();
    let second = site.get(first.header("location")).await;
    assert_eq!((second.status, began.elapsed()), (303, HOLD));
    assert!(
        second.header("location").ends_with("?hops=3"),
        "{}",
        second.header("location")
    );
    site.scanner.finish(2);
    let third = site.get(second.header("location")).await;
    let answer = site.get(third.header("location")).await;
    assert_eq!((answer.status, answer.body.as_str()), (201, "2 x acme/ann/1"));

    busy(&site).await;
    let asked = site.call(preferring(2, "respond-async")).await;
    assert_eq!(asked.status, 202, "whoever asks for 202 gets it");
}

#[tokio::test(start_paused = true)]
async fn redirects_end() {
    let site = Site::with(|layer| layer.redirects(2));
    busy(&site).await;
    let mut answer = site.call(post(2, "x")).await;
    let began = Instant::now();
    let mut hops = 0;
    while answer.status == 303 {
        answer = site.get(answer.header("location")).await;
        hops += 1;
    }
    assert_eq!((hops, answer.status, began.elapsed()), (2, 200, HOLD * 2));
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    let greedy = site.get(&format!("/requests/{id}?hops=255")).await;
    assert!(
        greedy.header("location").ends_with("?hops=15"),
        "no client can make it endless"
    );
    let nonsense = site.get(&format!("/requests/{id}?hops=x")).await;
    assert_eq!(nonsense.status, 200);

    // In a process that shuts down nobody is kept waiting, and nobody runs through the redirects.
    site.gateway.drain(Duration::ZERO).await;
    assert_eq!(site.get(&format!("/requests/{id}?hops=9")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn the_status_guesses_the_position() {
    let site = Site::new();
    busy(&site).await;
    let first = site.call(preferring(2, "respond-async")).await.id();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let last = site.call(preferring(3, "respond-async")).await.id();
    let status = site.get(&format!("/requests/{last}")).await;
    assert_eq!((status.status, status.header("retry-after")), (200, "2"));
    let body = status.json();
    assert_eq!((&body["status"], &body["attempt"]), (&"queued".into(), &0.into()));
    assert_eq!(body["estimate"], serde_json::json!({ "position": 2, "seconds": 30 }));
    let body = site.get(&format!("/requests/{first}")).await.json();
    assert_eq!(body["estimate"]["position"], 1);
    site.scanner.finish(2);
    site.scanner.begun(3).await;
    let running = site.get(&format!("/requests/{last}")).await.json();
    assert_eq!(running["estimate"], serde_json::Value::Null, "it has begun");
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_is_bounded() {
    let site = Site::new();
    busy(&site).await;
    let id = site.call(preferring(2, "respond-async")).await.id();
    let began = Instant::now();
    let poll = from_ann("GET", &format!("/requests/{id}")).header("prefer", "wait=86400");
    let answer = site.call(poll.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, began.elapsed()), (200, HOLD));
    assert_eq!(answer.header("preference-applied"), "", "it did not wait for a day");
}

#[tokio::test(start_paused = true)]
async fn what_is_old_is_gone_and_what_is_young_is_not_found() {
    let site = Site::new();
    busy(&site).await;
    let own = site.call(preferring(2, "respond-async")).await.id();
    let never = InvocationId::mint(&*site.clock).to_string();
    let status = async |who: (&str, &str), id: &str| {
        let request = Request::get(format!("/requests/{id}")).header("x-customer", who.0);
        let answer = site
            .call(request.header("x-user", who.1).body(Body::empty()).unwrap())
            .await;
        if answer.status == 200 {
            "200".to_owned()
        } else {
            answer.code()
        }
    };
    let (ann, stranger) = (("acme", "ann"), ("umbrella", "eve"));
    assert_eq!(status(ann, &own).await, "200");
    for id in [&own, &never] {
        assert_eq!(status(stranger, id).await, "not-found");
    }
    tokio::time::advance(Duration::from_secs(24 * 3600 + 2)).await;
    // It still waits, so its owner sees it; whoever may not cannot tell it from one that never was.
    assert_eq!(status(ann, &own).await, "200");
    for id in [&own, &never] {
        assert_eq!(status(stranger, id).await, "gone");
    }
    site.scanner.finish(2);
    site.until(|stats| stats.ready + stats.leased == 0).await;
    let admin = site.store.dispatch.admin().unwrap();
    let later = site.clock.now().plus(Duration::from_secs(1));
    admin.purge(later, 10).await.unwrap();
    assert_eq!(status(ann, &own).await, "gone");
    let response = site.get(&format!("/requests/{own}/response")).await;
    assert_eq!((response.status, response.code().as_str()), (410, "gone"));
    let derived = InvocationId::derive(&["has no time"]).to_string();
    assert_eq!(status(ann, &derived).await, "not-found");
}

#[tokio::test(start_paused = true)]
async fn head_options_and_the_rest() {
    let site = Site::new();
    busy(&site).await;
    let id = site.call(preferring(2, "respond-async")).await.id();
    let call = async |method: &str, path: &str| {
        let request = from_ann(method, path).body(Body::empty()).unwrap();
        site.call(request).await
    };
    let resource = format!("/requests/{id}");
    let head = call("HEAD", &resource).await;
    assert_eq!(
        (head.status, head.body.as_str(), head.header("retry-after")),
        (200, "", "2")
    );
    for (path, allow) in [
        (resource.clone(), "GET, HEAD, DELETE, OPTIONS"),
        (format!("{resource}/response"), "GET, HEAD, OPTIONS"),
    ] {
        let options = call("OPTIONS", &path).await;
        assert_eq!((options.status, options.header("allow")), (204, allow));
        let refused = call("PATCH", &path).await;
        assert_eq!((refused.status, refused.header("allow")), (405, allow));
        assert_eq!(refused.code(), "method-not-allowed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_preflight_is_never_stored() {
    let site = Site::new();
    busy(&site).await;
    for method in ["OPTIONS", "TRACE"] {
        let request = from_ann(method, "/v1/scan/2").header("prefer", "respond-async");
        let answer = site.call(request.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "target-saturated"),
            "{method}"
        );
    }
    assert_eq!(site.stats().await.ready, 0);
    let head = from_ann("HEAD", "/v1/scan/2").header("prefer", "respond-async");
    assert_eq!(site.call(head.body(Body::empty()).unwrap()).await.status, 202);
    assert_eq!(site.stats().await.ready, 1);
}

#[tokio::test(start_paused = true)]
async fn our_own_failures_keep_their_details() {
    let site = Site::new();
    busy(&site).await;
    site.faults.fail(Method::Enqueue, 1, When::Before);
    let answer = site.call(post(2, "x")).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "store-unavailable"));
    assert_eq!(answer.header("retry-after"), "2");
    let body = answer.json();
    assert_eq!(body["detail"], body["title"], "nothing of the cause");
    assert!(body["type"].as_str().unwrap().contains("store-unavailable"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn ids_cannot_be_guessed() {
    const SAMPLES: u32 = 4096;
    let site = Site::new();
    // The clock stands still: whatever varies is random.
    let ids: Vec<u128> = (0..SAMPLES)
        .map(|_| InvocationId::mint(&*site.clock).as_uuid().as_u128())
        .collect();
    let ones = |bit: u32| ids.iter().filter(|id| (*id >> bit) & 1 == 1).count();
    // Half of the samples, more or less six standard deviations.
    let random = (0..128).filter(|bit| (1856..=2240).contains(&ones(*bit))).count();
    let constant = (0..128).filter(|bit| matches!(ones(*bit), 0 | 4096)).count();
    assert_eq!(
        (random, constant),
        (74, 54),
        "48 bits of time, 4 of version, 2 of variant"
    );
    let mut distinct = ids.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), ids.len());
}
