//! Handlers that answer later.

use crate::site::{Answer, from_ann, read};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use crosspoint_core::{
    CallState, Code, CustomerId, InvocationId, Memory, Reply, Settled, Store, TargetId, TargetStats,
};
use crosspoint_gateway::{
    Config, DispatchLayer, Gateway, Replayed,
    later::{self, Completion},
};
use crosspoint_testkit::{VirtualClock, scope};
use http::Request;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::Instant,
};

const WITHIN: Duration = Duration::from_secs(300);

#[derive(Clone)]
struct Approval {
    gateway: Gateway,
    tokens: UnboundedSender<Completion>,
}

/// Passes its token on and answers later; `at-once` answers before it returns.
async fn approve(
    State(approval): State<Approval>,
    token: Option<Extension<Completion>>,
    replayed: Option<Extension<Replayed>>,
    body: Bytes,
) -> Response {
    let Some(Extension(token)) = token else {
        return later::response(WITHIN);
    };
    if let Some(Extension(replayed)) = replayed {
        assert_eq!(replayed.completion(), Some(&token));
    }
    if &body[..] == b"at-once" {
        let settled = approval.gateway.complete(&token, Reply::new("early".into())).await;
        assert_eq!(settled.unwrap(), Settled::Applied);
    }
    if &body[..] == b"plain" {
        return "plain".into_response();
    }
    approval.tokens.send(token).unwrap();
    later::response(WITHIN)
}

struct Office {
    gateway: Gateway,
    store: Store,
    app: Router,
    tokens: UnboundedReceiver<Completion>,
    clock: Arc<VirtualClock>,
}

fn target() -> TargetId {
    TargetId::new("approvals").unwrap()
}

impl Office {
    fn new(route: impl FnOnce(DispatchLayer) -> DispatchLayer) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let store: Store = Memory::with_clock(clock.clone()).into();
        Self::over(&store, clock, route)
    }

    /// A process on this store.
    fn over(store: &Store, clock: Arc<VirtualClock>, route: impl FnOnce(DispatchLayer) -> DispatchLayer) -> Self {
        let gateway = Gateway::new(store.dispatch.clone(), clock.clone(), Config::default());
        let (sender, tokens) = unbounded_channel();
        let layer = gateway.layer(target()).permits(1);
        let layer = layer.customer(|parts| CustomerId::new(parts.headers.get("x-customer")?.to_str().ok()?).ok());
        let approval = Approval {
            gateway: gateway.clone(),
            tokens: sender,
        };
        let app = Router::new()
            .route("/approve", post(approve).put(approve))
            .with_state(approval)
            .layer(route(layer));
        gateway.serve_queued(target(), app.clone()).unwrap();
        Self {
            gateway,
            store: store.clone(),
            app,
            tokens,
            clock,
        }
    }

    fn send(&self, request: Request<Body>) -> JoinHandle<Answer> {
        let app = self.app.clone();
        tokio::spawn(async move { read(app, request).await })
    }

    async fn token(&mut self) -> Completion {
        self.tokens.recv().await.unwrap()
    }

    fn in_flight(&self) -> u32 {
        self.gateway.snapshot(&target()).unwrap().in_flight
    }

    async fn stats(&self) -> TargetStats {
        let stats = self.store.dispatch.admin().unwrap().stats().await.unwrap();
        let own = stats.into_iter().find(|stats| stats.target == target());
        own.unwrap_or_else(|| TargetStats::new(target()))
    }

    async fn state(&self, id: InvocationId) -> CallState {
        let fleet = scope::fleet();
        let status = self.store.dispatch.get((&fleet).into(), id).await.unwrap();
        status.unwrap().state
    }
}

fn ask(method: &str, prefer: &str, body: &'static str) -> Request<Body> {
    let request = from_ann(method, "/approve").header("prefer", prefer);
    request.body(Body::from(body)).unwrap()
}

fn said(text: &'static str) -> Reply {
    let mut reply = Reply::new(text.into());
    reply.headers_mut().insert("set-cookie", "session=1".parse().unwrap());
    reply
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_gets_the_answer_when_it_comes() {
    let mut office = Office::new(|layer| layer.recorded(true));
    let waiting = office.send(ask("POST", "wait=9", ""));
    let token = office.token().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(office.in_flight(), 0, "its permit is free");
    assert_eq!(office.stats().await.leased, 1);
    let began = Instant::now();
    assert_eq!(
        office.gateway.complete(&token, said("yes")).await.unwrap(),
        Settled::Applied
    );
    let answer = waiting.await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str(), began.elapsed()),
        (200, "yes", Duration::ZERO)
    );
    assert_eq!(answer.header("set-cookie"), "", "as for every stored reply");
}

#[tokio::test(start_paused = true)]
async fn a_queued_call_is_answered_later_as_well_and_the_lease_is_not_beaten() {
    let mut office = Office::new(|layer| layer);
    let accepted = office.send(ask("POST", "respond-async", "")).await.unwrap().id();
    let token = office.token().await;
    assert_eq!(token.id().to_string(), accepted);
    // Long after the lease of 30 s and its heartbeats.
    tokio::time::sleep(WITHIN - Duration::from_secs(5)).await;
    assert_eq!(office.state(token.id()).await, CallState::Leased);
    let text = token.to_string();
    let token: Completion = text.parse().unwrap();
    assert_eq!(
        office.gateway.complete(&token, said("yes")).await.unwrap(),
        Settled::Applied
    );
    assert_eq!(office.state(token.id()).await, CallState::Completed);
}

#[tokio::test(start_paused = true)]
async fn the_answer_may_come_before_the_handler_has_returned() {
    let office = Office::new(|layer| layer.recorded(true));
    let answer = office.send(ask("POST", "wait=9", "at-once")).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "early"));
    let stats = office.stats().await;
    assert_eq!((stats.leased, stats.ready, office.in_flight()), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_second_answer_is_stale() {
    let mut office = Office::new(|layer| layer.recorded(true));
    let waiting = office.send(ask("POST", "wait=9", ""));
    let token = office.token().await;
    assert_eq!(
        office.gateway.complete(&token, said("yes")).await.unwrap(),
        Settled::Applied
    );
    assert_eq!(
        office.gateway.complete(&token, said("no")).await.unwrap(),
        Settled::Stale
    );
    assert_eq!(waiting.await.unwrap().body, "yes");
}

#[tokio::test(start_paused = true)]
async fn another_process_may_give_the_answer_also_after_the_first_is_gone() {
    let mut office = Office::new(|layer| layer.recorded(true));
    let elsewhere = Office::over(&office.store, office.clock.clone(), |layer| layer);
    let waiting = office.send(ask("POST", "wait=9", ""));
    let token = office.token().await;
    assert_eq!(
        elsewhere.gateway.complete(&token, said("yes")).await.unwrap(),
        Settled::Applied
    );
    let began = Instant::now();
    assert_eq!(waiting.await.unwrap().body, "yes");
    assert!(began.elapsed() <= Duration::from_secs(1), "found by the slow poll");

    let waiting = office.send(ask("POST", "respond-async", ""));
    let id = waiting.await.unwrap().id();
    let token = office.token().await;
    // The lease is extended when the handler has returned; then the process goes away.
    office.gateway.drain(Duration::from_secs(1)).await;
    drop(office);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(
        elsewhere.gateway.complete(&token, said("yes")).await.unwrap(),
        Settled::Applied
    );
    assert_eq!(token.id().to_string(), id);
    assert_eq!(elsewhere.state(token.id()).await, CallState::Completed);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_comes_is_a_lost_lease() {
    let mut office = Office::new(|layer| layer);
    // PUT may be repeated, POST may not.
    let repeatable = office.send(ask("PUT", "respond-async", "")).await.unwrap().id();
    let first = office.token().await;
    tokio::time::sleep(WITHIN + Duration::from_secs(2)).await;
    let second = office.token().await;
    assert_eq!((first.id().to_string(), second.id()), (repeatable, first.id()));
    assert_ne!(first, second);
    assert_eq!(
        office.gateway.complete(&first, said("late")).await.unwrap(),
        Settled::Stale
    );
    assert_eq!(
        office.gateway.complete(&second, said("yes")).await.unwrap(),
        Settled::Applied
    );

    drop(office.send(ask("POST", "respond-async", "")));
    let only = office.token().await;
    tokio::time::sleep(WITHIN + Duration::from_secs(2)).await;
    assert_eq!(office.state(only.id()).await, CallState::Unknown);
    assert_eq!(
        office.gateway.complete(&only, said("late")).await.unwrap(),
        Settled::Stale
    );
}

#[tokio::test(start_paused = true)]
async fn an_unrecorded_direct_call_cannot_be_answered_later() {
    let office = Office::new(|layer| layer);
    let answer = office.send(ask("POST", "wait=9", "")).await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (500, "setup-invalid"));
    assert!(
        !answer.body.contains("recorded"),
        "details stay in the log: {}",
        answer.body
    );
    assert_eq!(office.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_recorded_route_may_also_answer_at_once() {
    let office = Office::new(|layer| layer.recorded(true));
    let answer = office.send(ask("POST", "wait=9", "plain")).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "plain"));
    let stats = office.stats().await;
    assert_eq!((stats.leased, office.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_an_answer_is_refused() {
    let mut office = Office::new(|layer| layer.recorded(true));
    drop(office.send(ask("POST", "respond-async", "")));
    let token = office.token().await;
    let again = office.gateway.complete(&token, later::reply(WITHIN)).await.unwrap_err();
    assert_eq!(again.code(), Code::InputInvalid);
    let large = Reply::new(vec![0; 2 * 1024 * 1024].into());
    let large = office.gateway.complete(&token, large).await.unwrap_err();
    assert_eq!(large.code(), Code::ResponseTooLarge);
    assert_eq!(office.state(token.id()).await, CallState::Leased);
}
