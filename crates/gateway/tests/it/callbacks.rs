//! Signed callbacks.

use crate::site::{HOLD, Site, from_ann, post};
use async_trait::async_trait;
use axum::body::{Body, Bytes};
use crosspoint_core::{
    CallState, Clock, Code, Deliver, Delivered, DispatchStore, Error, InvocationId, Page, Result, RetryPolicy,
    TargetStats,
};
use crosspoint_gateway::{
    DispatchLayer, Keys,
    callback::{CALLBACKS, Callbacks, Contents, DELIVERIES, SigningSecret},
};
use crosspoint_testkit::scope;
use http::{HeaderMap, Request, StatusCode};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

const URL: &str = "https://hooks.example/ended";
const SECRET: &str = "whsec_YSBzZWNyZXQgb2Ygd2Vlay1lbmRzIGFuZCB3aW5k";

/// A receiver that answers what it is told to, and 200 after that.
#[derive(Debug, Default)]
struct Receiver {
    answers: Mutex<VecDeque<Result<Delivered>>>,
    seen: Mutex<Vec<(String, HeaderMap, Bytes)>>,
}

#[async_trait]
impl Deliver for Receiver {
    fn check(&self, url: &str) -> Result<()> {
        let public = url.starts_with("https://") && !url.contains("127.0.0.1");
        public
            .then_some(())
            .ok_or_else(|| Error::new(Code::EgressRefused, "only public addresses over https"))
    }

    async fn deliver(&self, url: &str, headers: HeaderMap, body: Bytes) -> Result<Delivered> {
        self.seen.lock().unwrap().push((url.to_owned(), headers, body));
        let next = self.answers.lock().unwrap().pop_front();
        next.unwrap_or_else(|| Ok(Delivered::new(StatusCode::OK)))
    }
}

impl Receiver {
    fn will(&self, status: u16) {
        let delivered = Delivered::new(StatusCode::from_u16(status).unwrap());
        self.answers.lock().unwrap().push_back(Ok(delivered));
    }

    fn seen(&self) -> Vec<(String, HeaderMap, Bytes)> {
        self.seen.lock().unwrap().clone()
    }
}

fn site(route: impl FnOnce(DispatchLayer) -> DispatchLayer) -> (Site, Arc<Receiver>) {
    let site = Site::with(|layer| route(layer.callbacks(Contents::Status)));
    let receiver = Arc::new(Receiver::default());
    site.gateway.serve_callbacks(callbacks(&receiver)).unwrap();
    (site, receiver)
}

fn callbacks(receiver: &Arc<Receiver>) -> Callbacks {
    Callbacks::new(receiver.clone(), SigningSecret::parse(SECRET).unwrap())
}

fn asking(id: u32, prefer: &str, url: &str) -> Request<Body> {
    let request = from_ann("POST", &format!("/v1/scan/{id}")).header("prefer", prefer);
    request
        .header("crosspoint-callback", url)
        .body(Body::from("x"))
        .unwrap()
}

async fn busy(site: &Site) {
    drop(site.send(post(1, "")));
    site.scanner.begun(1).await;
}

async fn stats(store: &dyn DispatchStore, target: &str) -> Option<TargetStats> {
    let stats = store.admin().unwrap().stats().await.unwrap();
    stats.into_iter().find(|stats| stats.target.as_str() == target)
}

#[tokio::test(start_paused = true)]
async fn whoever_was_told_202_is_told_when_the_call_has_ended() {
    let (site, receiver) = site(|layer| layer);
    busy(&site).await;
    let id = site.call(asking(2, "respond-async", URL)).await.id();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(receiver.seen().is_empty(), "it goes on");
    site.scanner.finish(2);
    tokio::time::sleep(Duration::from_secs(62)).await;
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1);
    let (url, headers, body) = &seen[0];
    assert_eq!(url, URL);
    SigningSecret::parse(SECRET)
        .unwrap()
        .verify(headers, body, &*site.clock)
        .unwrap();
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    assert_eq!((&body["id"], &body["status"]), (&id.into(), &"completed".into()));
    assert!(body.get("reply").is_none() && body.get("code").is_none(), "{body}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(receiver.seen().len(), 1, "once");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_by_its_code_and_a_reply_if_the_route_says_so() {
    let (site, receiver) = site(|layer| layer.callbacks(Contents::Reply));
    busy(&site).await;
    let dead = from_ann("POST", "/v1/scan/2").header("prefer", "respond-async");
    let dead = dead
        .header("crosspoint-callback", URL)
        .body(Body::from("panic"))
        .unwrap();
    site.call(dead).await.id();
    site.call(asking(3, "respond-async", URL)).await.id();
    site.scanner.finish(3);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut bodies: Vec<serde_json::Value> = receiver
        .seen()
        .iter()
        .map(|(_, _, body)| serde_json::from_slice(body).unwrap())
        .collect();
    bodies.sort_by_key(|body| body["status"].to_string());
    assert_eq!(bodies.len(), 2);
    assert_eq!(bodies[0]["reply"]["status"], 201);
    assert_eq!(bodies[0]["reply"]["body"], "3 x acme/ann/1");
    assert_eq!(
        (&bodies[1]["status"], &bodies[1]["code"]),
        (&"dead".into(), &"internal".into())
    );
}

#[tokio::test(start_paused = true)]
async fn whoever_was_answered_gets_no_callback() {
    let (site, receiver) = site(|layer| layer.keys(Keys::Gateway));
    site.scanner.finish(1);
    assert_eq!(site.call(asking(1, "wait=9", URL)).await.body, "1 x direct", "direct");
    assert!(
        stats(&*site.store.dispatch, CALLBACKS).await.is_none(),
        "nothing was stored"
    );

    let direct = site.send(post(1, ""));
    site.scanner.begun(2).await;
    let held = site.send(asking(2, "wait=9", URL));
    site.until(|stats| stats.ready == 1).await;
    site.scanner.finish(2);
    assert_eq!(held.await.unwrap().status, 201, "held");
    direct.await.unwrap();

    site.scanner.finish(1);
    let recorded = from_ann("POST", "/v1/scan/3").header("idempotency-key", "k");
    let recorded = recorded.header("crosspoint-callback", URL).body(Body::empty()).unwrap();
    assert_eq!(site.call(recorded).await.status, 201, "recorded");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(receiver.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_adopted_call_is_called_back() {
    let (site, receiver) = site(|layer| layer);
    let id = site.call(asking(1, "wait=9", URL)).await.id();
    site.scanner.finish(1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let seen = receiver.seen();
    assert_eq!(seen.len(), 1);
    assert!(String::from_utf8_lossy(&seen[0].2).contains(&id));
}

#[tokio::test(start_paused = true)]
async fn a_repeat_under_the_same_key_is_called_back_for_the_first_call() {
    let (site, receiver) = site(|layer| layer);
    busy(&site).await;
    let keyed = |url: Option<&str>| {
        let mut request = from_ann("POST", "/v1/scan/2").header("prefer", "respond-async");
        if let Some(url) = url {
            request = request.header("crosspoint-callback", url);
        }
        request.header("idempotency-key", "k").body(Body::from("x")).unwrap()
    };
    let id = site.call(keyed(None)).await.id();
    for _ in 0..2 {
        assert_eq!(site.call(keyed(Some(URL))).await.id(), id);
    }
    assert_eq!(site.call(keyed(Some("https://other.example/"))).await.id(), id);
    site.scanner.finish(2);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut urls: Vec<_> = receiver.seen().into_iter().map(|(url, ..)| url).collect();
    urls.sort();
    assert_eq!(urls, [URL, "https://other.example/"], "once for each URL");
}

#[tokio::test(start_paused = true)]
async fn a_bad_url_is_refused_before_anything_is_stored_or_begun() {
    let (site, _) = site(|layer| layer);
    let long = format!("{URL}/{}", "x".repeat(2048));
    for url in [
        "http://hooks.example/",
        "https://127.0.0.1/",
        "nonsense",
        "",
        long.as_str(),
    ] {
        for prefer in ["wait=9", "respond-async"] {
            let answer = site.call(asking(1, prefer, url)).await;
            assert_eq!((answer.status, answer.code().as_str()), (422, "input-invalid"), "{url}");
        }
    }
    let twice = from_ann("POST", "/v1/scan/1").header("crosspoint-callback", URL);
    let twice = twice.header("crosspoint-callback", URL).body(Body::empty()).unwrap();
    assert_eq!(site.call(twice).await.status, 422);
    assert_eq!(site.scanner.count(), 0);
    assert!(site.store.dispatch.admin().unwrap().stats().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_route_that_does_not_allow_it_ignores_the_header() {
    let site = Site::new();
    let receiver = Arc::new(Receiver::default());
    site.gateway.serve_callbacks(callbacks(&receiver)).unwrap();
    busy(&site).await;
    site.call(asking(2, "respond-async", "nonsense")).await.id();
    assert!(stats(&*site.store.dispatch, CALLBACKS).await.is_none());

    let unserved = Site::with(|layer| layer.callbacks(Contents::Status));
    let answer = unserved.call(asking(2, "respond-async", URL)).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "setup-invalid"));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_taken_is_sent_again_under_the_same_id_and_dies_at_last() {
    let site = Site::with(|layer| layer.callbacks(Contents::Status));
    let receiver = Arc::new(Receiver::default());
    let retry = RetryPolicy::default()
        .with_max_attempts(3)
        .with_initial(Duration::from_secs(10));
    site.gateway.serve_callbacks(callbacks(&receiver).retry(retry)).unwrap();
    receiver.will(302);
    receiver.will(500);
    busy(&site).await;
    site.call(asking(2, "respond-async", URL)).await.id();
    site.scanner.finish(2);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let seen = receiver.seen();
    assert_eq!(seen.len(), 3);
    let secret = SigningSecret::parse(SECRET).unwrap();
    let (first, last) = (&seen[0], &seen[2]);
    assert_eq!((&first.1["webhook-id"], &first.2), (&last.1["webhook-id"], &last.2));
    assert_ne!(
        first.1["webhook-timestamp"], last.1["webhook-timestamp"],
        "each attempt is signed anew"
    );
    secret.verify(&last.1, &last.2, &*site.clock).unwrap();

    for _ in 0..3 {
        receiver.will(503);
    }
    drop(site.send(post(4, "")));
    site.scanner.begun(3).await;
    site.call(asking(3, "respond-async", URL)).await.id();
    site.scanner.finish(2);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(receiver.seen().len(), 6);
    let left = stats(&*site.store.dispatch, DELIVERIES).await.unwrap();
    assert_eq!((left.dead, left.ready, left.delayed), (1, 0, 0));

    // By the specification 410 means: never again.
    receiver.will(410);
    drop(site.send(post(6, "")));
    site.scanner.begun(5).await;
    site.call(asking(5, "respond-async", URL)).await.id();
    site.scanner.finish(2);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(receiver.seen().len(), 7);
    let fleet = scope::fleet();
    let admin = site.store.dispatch.admin().unwrap();
    let dead = admin.dead((&fleet).into(), Page::default()).await.unwrap();
    assert_eq!(dead.items.len(), 2);
    assert!(dead.items.iter().all(|dead| dead.target.as_str() == DELIVERIES));
}

#[tokio::test(start_paused = true)]
async fn it_waits_without_using_attempts_up_and_survives_the_process() {
    let (first, receiver) = site(|layer| layer);
    busy(&first).await;
    let id = first.call(asking(2, "respond-async", URL)).await.id();
    first.gateway.drain(Duration::ZERO).await;
    let mut first = first;
    first.app = axum::Router::new();
    let second = first.beside(|layer| layer.callbacks(Contents::Status));
    second.gateway.serve_callbacks(callbacks(&receiver)).unwrap();
    second.scanner.begun(1).await;
    tokio::time::sleep(Duration::from_secs(15 * 60)).await;
    assert!(receiver.seen().is_empty());
    second.scanner.finish(1);
    tokio::time::sleep(Duration::from_secs(65)).await;
    assert_eq!(receiver.seen().len(), 1);
    assert!(String::from_utf8_lossy(&receiver.seen()[0].2).contains(&id));
}

#[tokio::test(start_paused = true)]
async fn both_are_stored_or_neither() {
    use crosspoint_testkit::{Method, When};
    let (site, _) = site(|layer| layer);
    busy(&site).await;
    site.faults.fail(Method::Enqueue, 1, When::Before);
    assert_eq!(site.call(asking(2, "respond-async", URL)).await.status, 503);
    assert!(stats(&*site.store.dispatch, CALLBACKS).await.is_none());
    let id = site.call(asking(2, "respond-async", URL)).await.id();
    let watch = InvocationId::derive(&["callback", &id, URL]).to_string();
    let status = site.status(&watch).await;
    assert_eq!((status.state, status.target.as_str()), (CallState::Delayed, CALLBACKS));
    assert!(status.created <= site.clock.now());
    let held = site.send(asking(3, "wait=9", URL));
    tokio::time::sleep(HOLD).await;
    held.await.unwrap().id();
}
