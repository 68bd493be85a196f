//! The service's own end: two doors, one pool of permits.

use super::replica::{ALWAYS, Counted, Replica, call, pool, post, returned, text};
use async_trait::async_trait;
use axum::{Router, body::Body};
use bytes::Bytes;
use crosspoint_core::{
    Code, CustomerId, Envelope, Error, Handler, Invocation, InvocationId, Memory, Meta, Reply, Result, RunKey, Submit,
    Submitted, SystemClock, TargetId,
};
use crosspoint_gateway::{
    Config, Gateway, HttpTarget, TargetConfig,
    outcome::Outcome,
    remote::{Serve, SharedSecret},
};
use http::{Request, StatusCode, Uri};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

/// Says what it was told about the call.
#[derive(Debug)]
struct Scan(Counted);

#[async_trait]
impl Handler for Scan {
    async fn handle(&self, call: Invocation) -> Result<Reply> {
        let body = String::from_utf8_lossy(call.request.body()).into_owned();
        assert_ne!(body, "panic", "as the test wants");
        self.0.one().await;
        if let Some(code) = Code::ALL.iter().find(|code| code.as_str() == body) {
            return Err(Error::new(*code, "as the test wants").with("target", &call.meta.target));
        }
        let meta = &call.meta;
        assert!(
            meta.deadline.is_some() || meta.delivery.is_some(),
            "a direct call knows how long it has"
        );
        let ours = call
            .request
            .headers()
            .keys()
            .filter(|name| name.as_str().starts_with("crosspoint-"));
        let text = format!(
            "{} {} {body} for {} by {} attempt {} key {} ours {}",
            call.request.method(),
            call.request.uri(),
            meta.customer,
            meta.principal.as_deref().unwrap_or("-"),
            meta.attempt,
            meta.idempotency_key.is_some(),
            ours.count(),
        );
        let mut reply = Reply::new(text.into());
        // What only the door may say.
        reply
            .headers_mut()
            .insert("crosspoint-outcome", "full".parse().unwrap());
        Ok(reply)
    }
}

fn target() -> TargetId {
    TargetId::new("scan").unwrap()
}

fn acme() -> CustomerId {
    CustomerId::new("acme").unwrap()
}

fn secret() -> SharedSecret {
    SharedSecret::new("known-to-the-two-of-us").unwrap()
}

/// A pod with its own view of the shared store.
fn pod(store: &Memory, service: &Counted, serve: Serve) -> (Replica, Gateway) {
    let (told, tell) = std::sync::mpsc::channel();
    let (store, service) = (store.clone(), service.clone());
    let replica = Replica::at("127.0.0.1:0".parse().unwrap(), move |_| {
        let gateway = Gateway::new(Arc::new(store), Arc::new(SystemClock::new()), Config::default());
        let app: Router = gateway.serve(target(), Arc::new(Scan(service)), serve).unwrap();
        told.send(gateway).unwrap();
        app
    });
    (replica, tell.recv().unwrap())
}

fn front(uri: Uri, secret: Option<SharedSecret>) -> HttpTarget {
    pool(&[uri], |config| config.secret = secret)
        .customer(|parts| CustomerId::new(parts.headers.get("x-customer")?.to_str().ok()?).ok())
        .principal(|_| Some("Zoë".into()))
}

fn from_acme(body: &'static str) -> Request<Body> {
    let mut request = post(body);
    request.headers_mut().insert("x-customer", "acme".parse().unwrap());
    request
}

fn envelope(body: &'static str) -> Envelope {
    let mut meta = Meta::new(InvocationId::mint(&SystemClock::new()), acme(), target());
    meta.principal = Some("Zoë".into());
    let request = Request::post("/v1/scan?x=1")
        .body(Bytes::from_static(body.as_bytes()))
        .unwrap();
    Envelope::service(
        Invocation::new(meta, request),
        crosspoint_core::Clock::now(&SystemClock::new()),
    )
}

#[tokio::test]
async fn both_doors_lead_to_the_same_call() {
    let store = Memory::new();
    let service = Counted::new(ALWAYS);
    let (replica, _pod) = pod(&store, &service, Serve::with_secret(secret()));
    let mut request = from_acme("text");
    request.headers_mut().insert("idempotency-key", "k".parse().unwrap());
    let direct = text(call(&front(replica.uri(), Some(secret())), request).await).await;
    assert_eq!(
        direct,
        "POST /v1/scan?x=1 text for acme by Zoë attempt 1 key true ours 0"
    );

    // Another process, which stores and does not drain.
    let outside = Gateway::new(Arc::new(store), Arc::new(SystemClock::new()), Config::default());
    let queued = outside.submit(envelope("text"), SOON).await.unwrap();
    let Submitted::Answered(reply) = queued else {
        panic!("{queued:?}")
    };
    let reply = String::from_utf8(reply.into_body().to_vec()).unwrap();
    assert_eq!(
        reply,
        "POST /v1/scan?x=1 text for acme by Zoë attempt 1 key false ours 0"
    );
}

#[tokio::test]
async fn both_doors_share_the_permits() {
    let store = Memory::new();
    let service = Counted::new(0);
    let serve = Serve::with_secret(secret()).target(TargetConfig::default().permits(1));
    let (replica, pod) = pod(&store, &service, serve);
    let outside = Gateway::new(Arc::new(store), Arc::new(SystemClock::new()), Config::default());
    let queued = tokio::spawn(async move { outside.submit(envelope("queued"), SOON).await });
    timeout(SOON, service.begun(1)).await.unwrap();
    let front = front(replica.uri(), Some(secret()));
    let refused = call(&front, from_acme("direct")).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let (outcome, body) = returned(&refused).await.unwrap();
    assert_eq!(
        outcome,
        Outcome::Overloaded {
            retry_after: Some(Duration::from_secs(1))
        }
    );
    assert_eq!((body.as_str(), service.count()), ("direct", 1));
    assert_eq!(front.serving(), 1, "being full is no failure");
    service.go.add_permits(2);
    assert!(matches!(queued.await.unwrap().unwrap(), Submitted::Answered(_)));
    let free = async {
        while pod.snapshot(&target()).unwrap().in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, free).await.unwrap();
    assert_eq!(call(&front, from_acme("direct")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn strangers_get_nothing_and_their_calls_were_not_started() {
    let service = Counted::new(ALWAYS);
    let (replica, _pod) = pod(&Memory::new(), &service, Serve::with_secret(secret()));
    let wrong = SharedSecret::new("known-to-nobody-else").unwrap();
    for stranger in [None, Some(wrong)] {
        let answer = call(&front(replica.uri(), stranger), from_acme("a")).await;
        assert_eq!(
            answer.status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "not the client's fault"
        );
        assert_eq!(returned(&answer).await.unwrap().0, Outcome::NotStarted);
    }
    assert_eq!(service.count(), 0);
}

#[tokio::test]
async fn a_call_without_a_customer_needs_somebody_to_stand_for_it() {
    let service = Counted::new(ALWAYS);
    let (strict, _pod) = pod(&Memory::new(), &service, Serve::with_secret(secret()));
    let answer = call(&front(strict.uri(), Some(secret())), post("a")).await;
    assert_eq!((answer.status().as_u16(), service.count()), (422, 0));
    let open = Serve::open_to_all_who_connect().nobody(CustomerId::new("public").unwrap());
    let (open, _pod) = pod(&Memory::new(), &service, open);
    let answer = text(call(&front(open.uri(), None), post("a")).await).await;
    assert!(answer.contains("for public"), "{answer}");
}

#[tokio::test]
async fn what_the_handler_says_reaches_the_gateway() {
    let service = Counted::new(ALWAYS);
    let serve = Serve::with_secret(secret()).max_body(64);
    let (replica, pod) = pod(&Memory::new(), &service, serve);
    let front = front(replica.uri(), Some(secret()));
    let full = Outcome::Overloaded {
        retry_after: Some(Duration::from_secs(1)),
    };
    for (body, status, outcome) in [
        ("target-saturated", 503, Some(full)),
        ("shutting-down", 503, Some(Outcome::NotStarted)),
        ("outcome-unknown", 504, Some(Outcome::Unknown)),
        ("input-invalid", 422, None),
        ("flow-failed", 500, None),
        ("panic", 500, None),
    ] {
        let answer = call(&front, from_acme(body)).await;
        assert_eq!(answer.status().as_u16(), status, "{body}");
        assert_eq!(returned(&answer).await.map(|(outcome, _)| outcome), outcome, "{body}");
    }
    let long = "a body of more than sixty-four bytes, which is more than this one wants to read";
    assert_eq!(
        call(&front, from_acme(long)).await.status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(pod.snapshot(&target()).unwrap().in_flight, 0);
}

#[tokio::test]
async fn the_pool_as_a_handler_tells_the_replica_which_call_it_is() {
    let service = Counted::new(ALWAYS);
    let (replica, _pod) = pod(&Memory::new(), &service, Serve::with_secret(secret()));
    let front = front(replica.uri(), Some(secret()));
    let mut queued = envelope("again").invocation;
    queued.meta.attempt = 3;
    queued.meta.run_key = RunKey::from_uuid(uuid::Uuid::from_u128(7));
    let reply = front.handle(queued).await.unwrap();
    assert_eq!(
        reply.into_body(),
        "POST /v1/scan?x=1 again for acme by Zoë attempt 3 key false ours 0"
    );
    for (body, code) in [
        ("target-saturated", Code::TargetSaturated),
        ("shutting-down", Code::TargetUnavailable),
        ("outcome-unknown", Code::OutcomeUnknown),
    ] {
        let error = front.handle(envelope(body).invocation).await.unwrap_err();
        assert_eq!(error.code(), code, "{body}");
    }
}

#[tokio::test]
async fn a_body_that_is_still_on_its_way_takes_no_permit_and_is_not_the_replicas_fault() {
    let service = Counted::new(ALWAYS);
    let serve = Serve::with_secret(secret()).target(TargetConfig::default().permits(1));
    let (replica, pod) = pod(&Memory::new(), &service, serve);
    let front = pool(&[replica.uri()], |config| {
        config.secret = Some(secret());
        config.head = Duration::from_millis(300);
    })
    .customer(|_| Some(acme()));
    let (_more, body) = tokio::sync::mpsc::unbounded_channel::<std::io::Result<Bytes>>();
    let body = futures_util::stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) });
    let slow = tokio::spawn({
        let front = front.clone();
        async move { call(&front, post("").map(|_| Body::from_stream(body))).await.status() }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(pod.snapshot(&target()).unwrap().in_flight, 0);
    assert_eq!(call(&front, from_acme("quick")).await.status(), StatusCode::OK);
    assert_eq!(timeout(SOON, slow).await.unwrap().unwrap(), StatusCode::BAD_REQUEST);
    assert_eq!(front.serving(), 1);
    assert_eq!(service.count(), 1);
}

#[tokio::test]
async fn the_door_may_stand_below_a_path() {
    let service = Counted::new(ALWAYS);
    let scan = service.clone();
    let replica = Replica::at("127.0.0.1:0".parse().unwrap(), move |_| {
        let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
        let serve = Serve::open_to_all_who_connect().path("/v1/scan");
        let app = gateway.serve(target(), Arc::new(Scan(scan)), serve).unwrap();
        Router::new().nest("/v1", app)
    });
    let answer = text(call(&front(replica.uri(), None), from_acme("a")).await).await;
    assert!(answer.starts_with("POST /v1/scan?x=1 a for acme"), "{answer}");
}
