//! A store in trouble, bodies that do not come, and requests that must not be stored.

use crate::site::{Headers, Site, from_ann, impatient, post, put, target};
use async_trait::async_trait;
use axum::{Router, body::Body, routing::any};
use bytes::Bytes;
use crosspoint_core::{
    CallStatus, Cancel, Capabilities, Code, CustomerId, DispatchAdmin, DispatchStore, Enqueue, Enqueued, Error,
    Extended, InvocationId, Lease, LeaseRef, LeaseRequest, Memory, Result, Scope, Settle, Settled, Submit, Submitted,
};
use crosspoint_gateway::{Config, Eligible, Gateway};
use crosspoint_testkit::{Method, VirtualClock, envelope};
use futures_util::stream;
use http::Request;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tower::ServiceExt;

/// A store that takes its time, or fails to read.
#[derive(Debug)]
struct Ailing {
    inner: Memory,
    slow: Mutex<Duration>,
    blind: AtomicBool,
}

#[async_trait]
impl DispatchStore for Ailing {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn enqueue(&self, items: Vec<Enqueue>) -> Result<Vec<Enqueued>> {
        let slow = *self.slow.lock().unwrap();
        sleep(slow).await;
        self.inner.enqueue(items).await
    }
    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>> {
        self.inner.lease(request).await
    }
    async fn extend(&self, leases: &[LeaseRef], length: Duration) -> Result<Vec<Extended>> {
        self.inner.extend(leases, length).await
    }
    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<Settled>> {
        self.inner.settle(settles).await
    }
    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<CallStatus>> {
        if self.blind.load(Ordering::Relaxed) {
            return Err(Error::new(Code::StoreUnavailable, "blind"));
        }
        self.inner.get(scope, id).await
    }
    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel> {
        self.inner.cancel(scope, id).await
    }
    fn admin(&self) -> Option<&dyn DispatchAdmin> {
        self.inner.admin()
    }
}

struct Ward {
    store: Arc<Ailing>,
    app: Router,
    begun: Arc<Notify>,
    go: Arc<Notify>,
}

impl Ward {
    /// With one permit, and one call that has it.
    async fn new() -> Self {
        let clock = Arc::new(VirtualClock::new());
        let store = Arc::new(Ailing {
            inner: Memory::with_clock(clock.clone()),
            slow: Mutex::default(),
            blind: AtomicBool::new(false),
        });
        let gateway = Gateway::new(store.clone(), clock, Config::default());
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let layer = gateway
            .layer(target())
            .path("/v1/scan/{id}")
            .policy(impatient())
            .permits(1)
            .adopt(false)
            .customer(|_| CustomerId::new("acme").ok());
        let (notify, wait) = (begun.clone(), go.clone());
        let scan = move || async move {
            notify.notify_one();
            wait.notified().await;
            "done"
        };
        let app = Router::new().route("/v1/scan/{id}", any(scan)).layer(layer);
        gateway.serve_queued(target(), app.clone()).unwrap();
        let app = app.nest("/requests", gateway.requests(Arc::new(Headers)));
        let ward = Self { store, app, begun, go };
        tokio::spawn(ward.app.clone().oneshot(post(1, "")));
        ward.begun.notified().await;
        ward
    }

    async fn status(&self, request: Request<Body>) -> u16 {
        self.app.clone().oneshot(request).await.unwrap().status().as_u16()
    }

    async fn ready(&self) -> u64 {
        let stats = self.store.admin().unwrap().stats().await.unwrap();
        stats.iter().map(|stats| stats.ready + stats.leased).sum()
    }

    fn slow(&self, time: Duration) {
        *self.store.slow.lock().unwrap() = time;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_costs_a_moment_and_then_nothing() {
    let ward = Ward::new().await;
    let moment = Config::default().enqueue_timeout;
    ward.slow(Duration::from_secs(60));
    for n in 0..5 {
        let began = Instant::now();
        assert_eq!(ward.status(post(2, "")).await, 503);
        let cost = if n < 3 { moment } else { Duration::ZERO };
        assert_eq!(began.elapsed(), cost, "call {n}");
    }
    // One probe a second.
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let (first, second) = tokio::join!(ward.status(post(3, "")), ward.status(post(4, "")));
    assert_eq!((first, second, began.elapsed()), (503, 503, moment));
    ward.slow(Duration::ZERO);
    assert_eq!(ward.status(post(5, "")).await, 503, "still closed");
    sleep(Duration::from_secs(1)).await;
    let asked = from_ann("POST", "/v1/scan/6").header("prefer", "wait=0");
    assert_eq!(ward.status(asked.body(Body::empty()).unwrap()).await, 202);
    assert_eq!(ward.ready().await, 1);
    // What was refused and is stored in the end is cancelled: its clients were told 503.
    sleep(Duration::from_secs(120)).await;
    assert_eq!(ward.ready().await, 1);
    ward.go.notify_one();
    ward.begun.notified().await;
    ward.go.notify_one();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(ward.ready().await, 0);
    let unexpected = tokio::time::timeout(Duration::from_secs(60), ward.begun.notified()).await;
    assert!(unexpected.is_err(), "nobody runs what was refused");
}

#[tokio::test(start_paused = true)]
async fn a_keyed_call_that_was_stored_too_late_is_kept_for_its_client() {
    let ward = Ward::new().await;
    let too_long = Config::default().enqueue_timeout * 2;
    ward.slow(too_long);
    let keyed = || {
        let request = from_ann("POST", "/v1/scan/2").header("idempotency-key", "k");
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(ward.status(keyed()).await, 503);
    sleep(too_long).await;
    assert_eq!(ward.ready().await, 1);
    ward.slow(Duration::ZERO);
    ward.go.notify_one();
    ward.begun.notified().await;
    let again = tokio::spawn(ward.app.clone().oneshot(keyed()));
    sleep(Duration::from_secs(1)).await;
    ward.go.notify_one();
    assert_eq!(again.await.unwrap().unwrap().status(), 200);
    assert_eq!(ward.ready().await, 0, "one call, and the repeat was attached to it");
}

#[tokio::test(start_paused = true)]
async fn direct_calls_do_not_notice_that_the_store_is_ill() {
    let ward = Ward::new().await;
    ward.slow(Duration::from_secs(60));
    ward.store.blind.store(true, Ordering::Relaxed);
    ward.go.notify_one();
    sleep(Duration::from_millis(1)).await;
    let began = Instant::now();
    ward.go.notify_one();
    assert_eq!(ward.status(post(2, "")).await, 200);
    assert_eq!(began.elapsed(), Duration::ZERO);
    let id = InvocationId::derive(&["any"]);
    let poll = from_ann("GET", &format!("/requests/{id}")).body(Body::empty());
    assert_eq!(ward.status(poll.unwrap()).await, 503, "not 404");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_gives_its_permit_back_when_its_client_is_refused() {
    let moment = Config::default().enqueue_timeout;
    let site = Site::with(|layer| layer.permits(2));
    site.faults.delay_all(Method::Enqueue, moment * 30);
    for n in 0..8 {
        let prefer = ["respond-async", "respond-async, wait=3"][n % 2];
        let asked = from_ann("PUT", "/v1/scan/1").header("prefer", prefer);
        let call = site.send(asked.body(Body::empty()).unwrap());
        if n == 0 {
            sleep(Duration::from_millis(1)).await;
            assert_eq!(site.gate().in_flight, 1, "it would have begun at once");
        }
        assert_eq!(call.await.unwrap().status, 503);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(site.gate().in_flight, 0, "call {n}");
    }
    site.scanner.finish(1);
    assert_eq!(site.call(post(2, "y")).await.body, "2 y direct");
    site.faults.up();
    sleep(moment * 60).await;
    let stats = site.stats().await;
    assert_eq!((stats.ready, stats.delayed, stats.leased), (0, 0, 0));
    assert_eq!(site.scanner.count(), 1, "nobody runs what was refused");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_write_however_long_it_takes_does_so_without_a_permit() {
    let moment = Config::default().enqueue_timeout;
    let site = Site::new();
    site.faults.delay(Method::Enqueue, 1, moment * 3);
    let gateway = site.gateway.clone();
    let mut stored = envelope::service(&*site.clock, "scan", "acme");
    stored.invocation.request = post(1, "x").map(|_| Bytes::from_static(b"x"));
    let submit = tokio::spawn(async move { gateway.submit(stored, moment * 6).await });
    sleep(Duration::from_millis(1)).await;
    assert_eq!(site.gate().in_flight, 1);
    sleep(moment).await;
    assert_eq!(site.gate().in_flight, 0);
    site.scanner.finish(1);
    assert_eq!(site.call(post(2, "y")).await.body, "2 y direct");
    site.scanner.finish(1);
    assert!(matches!(submit.await.unwrap(), Ok(Submitted::Answered(_))));
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let site = Site::new();
    let direct = site.send(post(1, ""));
    site.scanner.begun(1).await;
    let began = Instant::now();
    let never = Body::from_stream(stream::pending::<std::io::Result<Bytes>>());
    let slow = site.call(from_ann("POST", "/v1/scan/2").body(never).unwrap()).await;
    assert_eq!((slow.status, slow.code().as_str()), (408, "body-too-slow"));
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    let broken = Body::from_stream(stream::iter([
        Ok(Bytes::from_static(b"half")),
        Err(std::io::Error::other("reset")),
    ]));
    let truncated = site.call(from_ann("POST", "/v1/scan/3").body(broken).unwrap()).await;
    assert_eq!((truncated.status, truncated.code().as_str()), (400, "body-malformed"));
    assert_eq!(site.stats().await.ready, 0);
    site.scanner.finish(1);
    drop(direct.await);
}

#[tokio::test(start_paused = true)]
async fn streams_and_upgrades_are_never_stored() {
    let site = Site::new();
    let direct = site.send(post(1, ""));
    site.scanner.begun(1).await;
    for (name, value) in [("accept", "text/html, text/event-stream"), ("upgrade", "websocket")] {
        for prefer in ["wait=5", "respond-async"] {
            let request = from_ann("GET", "/v1/scan/2")
                .header(name, value)
                .header("prefer", prefer);
            let answer = site.call(request.body(Body::empty()).unwrap()).await;
            assert_eq!((answer.status, answer.code().as_str()), (503, "target-saturated"));
        }
    }
    assert_eq!(site.stats().await.ready, 0);
    site.scanner.finish(1);
    drop(direct.await);
}

#[tokio::test(start_paused = true)]
async fn a_route_may_store_only_what_may_be_repeated() {
    let site = Site::with(|layer| layer.eligible(Eligible::Repeatable));
    let direct = site.send(post(1, ""));
    site.scanner.begun(1).await;
    assert_eq!(site.call(post(2, "")).await.status, 503);
    let held = site.send(put(3, ""));
    site.until(|stats| stats.ready == 1).await;
    let keyed = from_ann("POST", "/v1/scan/4").header("idempotency-key", "k");
    let keyed = site.send(keyed.body(Body::empty()).unwrap());
    site.until(|stats| stats.ready == 2).await;
    site.scanner.finish(3);
    for call in [direct, held, keyed] {
        assert_eq!(call.await.unwrap().status, 201);
    }
}
