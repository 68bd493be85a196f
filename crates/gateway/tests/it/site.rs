//! A host with one slow service behind a gateway, under paused time.

use async_trait::async_trait;
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    response::Response,
    routing::any,
};
use crosspoint_core::{
    Authenticate, CallStatus, Clock, Code, CustomerId, Error, InvocationId, Memory, Principal, Result, Store, TargetId,
    TargetStats,
};
use crosspoint_gateway::{Config, DispatchLayer, Gateway, Policy, Replayed, gate::Snapshot};
use crosspoint_testkit::{Faults, VirtualClock, scope};
use http::{Request, request::Builder, request::Parts};
use http_body_util::BodyExt;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tower::ServiceExt;

/// Counts what it has begun and finishes one call for each permit in `go`.
#[derive(Debug, Clone)]
pub(crate) struct Scanner {
    pub(crate) begun: Arc<watch::Sender<usize>>,
    pub(crate) go: Arc<Semaphore>,
}

impl Scanner {
    fn new() -> Self {
        Self {
            begun: Arc::new(watch::Sender::new(0)),
            go: Arc::new(Semaphore::new(0)),
        }
    }

    /// Waits until `count` calls have been begun since the start.
    pub(crate) async fn begun(&self, count: usize) {
        self.begun.subscribe().wait_for(|begun| *begun >= count).await.unwrap();
    }

    pub(crate) fn count(&self) -> usize {
        *self.begun.borrow()
    }

    pub(crate) fn finish(&self, calls: usize) {
        self.go.add_permits(calls);
    }
}

/// Says what it was asked and, on a replay, for whom.
pub(crate) async fn scan(
    State(scanner): State<Scanner>,
    Path(id): Path<String>,
    replayed: Option<Extension<Replayed>>,
    body: Bytes,
) -> Response {
    scanner.begun.send_modify(|begun| *begun += 1);
    scanner.go.acquire().await.unwrap().forget();
    assert_ne!(&body[..], b"panic", "as the test wants");
    let how = replayed.map_or_else(
        || "direct".to_owned(),
        |Extension(replayed)| {
            let user = replayed.principal.as_deref().unwrap_or("-");
            format!("{}/{user}/{}", replayed.customer, replayed.attempt)
        },
    );
    let text = format!("{id} {} {how}", String::from_utf8_lossy(&body));
    Response::builder()
        .status(201)
        .header("x-scanner", "1")
        .header("set-cookie", "session=1")
        .body(Body::from(text))
        .unwrap()
}

/// Believes what the headers say.
#[derive(Debug)]
pub(crate) struct Headers;

fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name)?.to_str().ok()
}

#[async_trait]
impl Authenticate for Headers {
    async fn authenticate(&self, parts: &Parts) -> Result<Principal> {
        let missing = || Error::new(Code::SessionMissing, "no x-customer");
        let customer = CustomerId::new(header(parts, "x-customer").ok_or_else(missing)?)?;
        let user = header(parts, "x-user").unwrap_or("ann");
        Ok(match header(parts, "x-role") {
            Some("viewer") => Principal::viewer(customer, user),
            _ => Principal::admin(customer, user),
        })
    }
}

pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    pub(crate) store: Store,
    /// Without faults.
    raw: Store,
    config: Config,
    pub(crate) faults: Arc<Faults>,
    pub(crate) scanner: Scanner,
    pub(crate) app: Router,
    pub(crate) clock: Arc<VirtualClock>,
}

pub(crate) fn target() -> TargetId {
    TargetId::new("scan").unwrap()
}

/// Without a wait in memory: a call that gets no permit is stored at once.
pub(crate) fn impatient() -> Policy {
    let mut policy = Policy::default();
    policy.patience = Duration::ZERO;
    policy
}

pub(crate) const HOLD: Duration = Duration::from_secs(10);

impl Site {
    /// One permit, no patience, ten seconds of hold, idempotent methods repeatable.
    pub(crate) fn new() -> Self {
        Self::with(|layer| layer)
    }

    pub(crate) fn with(route: impl FnOnce(DispatchLayer) -> DispatchLayer) -> Self {
        Self::configured(route, |_| {})
    }

    pub(crate) fn configured(
        route: impl FnOnce(DispatchLayer) -> DispatchLayer,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let clock = Arc::new(VirtualClock::new());
        Self::over(clock.clone(), &Memory::with_clock(clock).into(), route, configure)
    }

    /// Another process on the same store, with a service and faults of its own.
    pub(crate) fn beside(&self, route: impl FnOnce(DispatchLayer) -> DispatchLayer) -> Self {
        self.skewed(0, route)
    }

    /// One whose clock differs from the store's by so many milliseconds.
    pub(crate) fn skewed(&self, millis: i64, route: impl FnOnce(DispatchLayer) -> DispatchLayer) -> Self {
        let clock = match millis {
            0 => self.clock.clone(),
            _ => Arc::new(VirtualClock::at(self.clock.now())),
        };
        clock.jump(millis);
        Self::over(clock, &self.raw, route, |config| {
            let worker = config.worker.clone();
            config.clone_from(&self.config);
            config.worker = worker;
        })
    }

    fn over(
        clock: Arc<VirtualClock>,
        raw: &Store,
        route: impl FnOnce(DispatchLayer) -> DispatchLayer,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let (store, faults) = Faults::wrap(raw);
        let mut config = Config::default();
        config.hold = HOLD;
        configure(&mut config);
        let gateway = Gateway::new(store.dispatch.clone(), clock.clone(), config.clone());
        let scanner = Scanner::new();
        let layer = gateway
            .layer(target())
            .path("/v1/scan/{id}")
            .policy(impatient())
            .permits(1)
            .patience(Duration::ZERO)
            .customer(|parts| CustomerId::new(header(parts, "x-customer")?).ok())
            .principal(|parts| header(parts, "x-user").map(Arc::from));
        let app = Router::new()
            .route("/v1/scan/{id}", any(scan))
            .with_state(scanner.clone())
            .layer(route(layer));
        gateway.serve_queued(target(), app.clone()).unwrap();
        let app = app.nest("/requests", gateway.requests(Arc::new(Headers)));
        Self {
            gateway,
            store,
            raw: raw.clone(),
            config,
            faults,
            scanner,
            app,
            clock,
        }
    }

    /// Sends a request in a task of its own.
    pub(crate) fn send(&self, request: Request<Body>) -> JoinHandle<Answer> {
        let app = self.app.clone();
        tokio::spawn(async move { read(app, request).await })
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        read(self.app.clone(), request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(from_ann("GET", path).body(Body::empty()).unwrap()).await
    }

    pub(crate) fn gate(&self) -> Snapshot {
        self.gateway.snapshot(&target()).unwrap()
    }

    /// What the store counts for the target.
    pub(crate) async fn stats(&self) -> TargetStats {
        let stats = self.store.dispatch.admin().unwrap().stats().await.unwrap();
        let own = stats.into_iter().find(|stats| stats.target == target());
        own.unwrap_or_else(|| TargetStats::new(target()))
    }

    /// Waits until the store's counts are as wanted, without letting time pass.
    pub(crate) async fn until(&self, wanted: fn(&TargetStats) -> bool) {
        for _ in 0..10_000 {
            if wanted(&self.stats().await) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("never: {:?}", self.stats().await);
    }

    pub(crate) async fn status(&self, id: &str) -> CallStatus {
        let id: InvocationId = id.parse().unwrap();
        let fleet = scope::fleet();
        let status = self.store.dispatch.get((&fleet).into(), id).await.unwrap();
        status.unwrap()
    }
}

/// A response as a client reads it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The id in an answer 202.
    pub(crate) fn id(&self) -> String {
        assert_eq!(self.status, 202, "{}", self.body);
        self.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.body);
        self.json()["code"].as_str().unwrap().to_owned()
    }
}

pub(crate) async fn read(app: Router, request: Request<Body>) -> Answer {
    let (parts, body) = app.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// A request of acme's ann.
pub(crate) fn from_ann(method: &str, path: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("x-customer", "acme")
        .header("x-user", "ann")
}

pub(crate) fn post(id: u32, body: &'static str) -> Request<Body> {
    from_ann("POST", &format!("/v1/scan/{id}"))
        .body(Body::from(body))
        .unwrap()
}

pub(crate) fn put(id: u32, body: &'static str) -> Request<Body> {
    from_ann("PUT", &format!("/v1/scan/{id}"))
        .body(Body::from(body))
        .unwrap()
}
