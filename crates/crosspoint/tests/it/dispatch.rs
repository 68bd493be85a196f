//! A host's own route behind the layer.

use async_trait::async_trait;
use axum::{Router, body::Body, routing::post};
use crosspoint::{
    gateway::callback::{Contents, SigningSecret},
    prelude::*,
};
use http::{Request, StatusCode, request::Parts};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tower::ServiceExt;

#[derive(Debug)]
struct Ann;

#[async_trait]
impl Authenticate for Ann {
    async fn authenticate(&self, _: &Parts) -> Result<Principal> {
        Ok(Principal::admin(CustomerId::new("acme")?, "ann"))
    }
}

/// An app whose one slow route takes a call at a time and answers when the semaphore lets it.
async fn app(hold: Duration) -> (Platform, Router, Arc<Semaphore>) {
    let platform = Platform::builder()
        .store(Memory::new())
        .keys(KeyRing::generate().unwrap())
        .start()
        .await
        .unwrap();
    let go = Arc::new(Semaphore::new(0));
    let slow = go.clone();
    let handler = move |body: String| async move {
        slow.acquire().await.unwrap().forget();
        format!("scanned {body}")
    };
    let layer = platform
        .dispatch("scan")
        .unwrap()
        .permits(1)
        .hold(hold)
        .adopt(false)
        .customer(|_| CustomerId::new("acme").ok());
    let router = Router::new()
        .route("/v1/scan", post(handler).layer(layer))
        .nest_service("/requests", platform.requests(Ann));
    platform.serve_queued(router.clone()).unwrap();
    (platform, router, go)
}

async fn call(router: &Router, method: &str, path: &str, body: &'static str) -> (StatusCode, http::HeaderMap, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::from(body))
        .unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn with_its_permits_used_up_a_call_is_queued_and_answered_on_its_own_connection() {
    let (platform, router, go) = app(Duration::from_secs(30)).await;
    let first = tokio::spawn({
        let router = router.clone();
        async move { call(&router, "POST", "/v1/scan", "one").await }
    });
    let second = tokio::spawn({
        let router = router.clone();
        async move { call(&router, "POST", "/v1/scan", "two").await }
    });
    go.add_permits(2);
    let mut answers = [first.await.unwrap().2, second.await.unwrap().2];
    answers.sort();
    assert_eq!(answers, ["scanned one", "scanned two"]);
    platform.shutdown().await.unwrap();
}

#[tokio::test]
async fn beyond_the_hold_it_is_202_and_the_poll_returns_the_stored_reply() {
    let (platform, router, go) = app(Duration::from_millis(50)).await;
    let first = tokio::spawn({
        let router = router.clone();
        async move { call(&router, "POST", "/v1/scan", "one").await }
    });
    // The first call has the only permit as soon as the target counts it.
    while platform
        .gateway()
        .snapshot(&crosspoint::core::TargetId::new("scan").unwrap())
        .unwrap()
        .in_flight
        == 0
    {
        tokio::task::yield_now().await;
    }
    let (status, headers, _) = call(&router, "POST", "/v1/scan", "two").await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let location = headers["location"].to_str().unwrap().to_owned();
    assert!(headers.contains_key("retry-after"));
    assert_eq!(
        call(&router, "GET", &location, "").await.0,
        StatusCode::OK,
        "it still waits"
    );
    go.add_permits(2);
    assert_eq!(first.await.unwrap().2, "scanned one");
    let id = location.rsplit('/').next().unwrap().parse().unwrap();
    let acme = CustomerId::new("acme").unwrap();
    platform.wait(&acme, id, Duration::from_secs(20)).await.unwrap();
    let (status, headers, _) = call(&router, "GET", &location, "").await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let stored = call(&router, "GET", headers["location"].to_str().unwrap(), "").await;
    assert_eq!((stored.0, stored.2.as_str()), (StatusCode::OK, "scanned two"));
    platform.shutdown().await.unwrap();
}

#[tokio::test]
async fn whoever_was_told_202_is_called_back_over_the_guarded_client() {
    const SECRET: &str = "whsec_YSBzZWNyZXQgb2Ygd2Vlay1lbmRzIGFuZCB3aW5k";
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let receiver = Router::new().route(
        "/ended",
        post(move |headers: http::HeaderMap, body: axum::body::Bytes| async move {
            tell.send((headers, body)).unwrap();
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, receiver).await });

    let platform = Platform::builder()
        .store(Memory::new())
        .keys(KeyRing::generate().unwrap())
        .callback_egress(EgressPolicy::new().allow_host(&address.to_string()).unwrap())
        .callbacks(SigningSecret::parse(SECRET).unwrap())
        .start()
        .await
        .unwrap();
    let layer = platform.dispatch("scan").unwrap().callbacks(Contents::Status);
    let layer = layer.customer(|_| CustomerId::new("acme").ok());
    let go = Arc::new(Semaphore::new(0));
    let slow = Arc::clone(&go);
    let scan = move || async move {
        slow.acquire().await.unwrap().forget();
        "clean"
    };
    let router = Router::new().route("/v1/scan", post(scan).layer(layer));
    platform.serve_queued(router.clone()).unwrap();
    let ask = |url: String| {
        let request = Request::post("/v1/scan").header("prefer", "respond-async");
        let request = request.header("crosspoint-callback", url).body(Body::empty()).unwrap();
        router.clone().oneshot(request)
    };
    let refused = ask("https://127.0.0.1:1/ended".to_owned()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let accepted = ask(format!("http://{address}/ended")).await.unwrap();
    assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    go.add_permits(1);
    let (headers, body) = tokio::time::timeout(Duration::from_secs(30), told.recv())
        .await
        .unwrap()
        .unwrap();
    let secret = SigningSecret::parse(SECRET).unwrap();
    secret.verify(&headers, &body, &SystemClock::new()).unwrap();
    assert!(String::from_utf8_lossy(&body).contains("completed"));
    platform.shutdown().await.unwrap();
}
