//! The operators' routes: who gets in, what is taken, what is told.

use ::http::{Method, Request, StatusCode};
use async_trait::async_trait;
use axum::{Router, body::Body};
use bytes::Bytes;
use crosspoint_core::{
    Code, ContentDigest, Error, Incoming, Operator, OperatorPermission, Operators, Problem, Publish, PublishOptions,
    Published, Release, Result, Timestamp,
};
use crosspoint_marketplace::{Access, OperatorParts, OperatorToken, operator_routes, operators};
use http_body_util::BodyExt;
use serde_json::Value;
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tower::ServiceExt;

const TOKEN: &str = "operator-token-canary-0123456789";

/// Takes at most ten bytes, and fails as its content says.
#[derive(Debug, Clone, Default)]
struct Desk(Arc<Mutex<Vec<Received>>>);

/// An archive, and how it is to be published.
type Received = (Vec<u8>, PublishOptions);

fn release() -> Release {
    let digest = ContentDigest::from_bytes([7; 32]);
    Release::new("hello", "1.0.0", digest, vec![digest], Timestamp::from_millis(0))
}

#[async_trait]
impl Publish for Desk {
    fn largest(&self) -> u64 {
        10
    }
    async fn receive(&self) -> Result<Box<dyn Incoming>> {
        Ok(Box::new(Arriving(self.clone(), Vec::new())))
    }
    async fn releases(&self) -> Result<Vec<Release>> {
        Ok(vec![release()])
    }
    async fn withdraw(&self, name: &str, version: &str) -> Result<Release> {
        match (name, version) {
            ("hello", "1.0.0") => Ok(release()),
            _ => Err(Error::new(Code::NotFound, "there is no such version")),
        }
    }
}

#[derive(Debug)]
struct Arriving(Desk, Vec<u8>);

#[async_trait]
impl Incoming for Arriving {
    async fn write(&mut self, part: Bytes) -> Result<()> {
        self.1.extend_from_slice(&part);
        match self.1.len() {
            0..=10 => Ok(()),
            _ => Err(Error::new(Code::BodyTooLarge, "at most 10 bytes")),
        }
    }
    async fn publish(self: Box<Self>, options: PublishOptions) -> Result<Published> {
        let Self(desk, bytes) = *self;
        let end =
            match bytes.as_slice() {
                b"bad" => Err(Error::new(Code::ArtifactInvalid, "it has problems")
                    .with_problems(vec![Problem::new("/name", "bad")])),
                b"isolation" => Err(Error::new(Code::IsolationUnavailable, "the sandbox is missing")),
                b"disk" => Err(Error::new(Code::StoreUnavailable, "cannot write /var/lib/secret-place")),
                _ => Ok(Published::new(&release(), true, Vec::new())),
            };
        desk.0.lock().unwrap().push((bytes, options));
        end
    }
}

/// `reader` and `nobody` beside the token.
#[derive(Debug)]
struct Staff(OperatorToken);

#[async_trait]
impl Operators for Staff {
    async fn authenticate(&self, parts: &::http::request::Parts) -> Result<Operator> {
        match parts.headers.get("x-staff").map(|value| value.to_str().unwrap()) {
            Some("reader") => Ok(Operator::new("reader", &[OperatorPermission::ArtifactRead])),
            Some("nobody") => Ok(Operator::new("nobody", &[])),
            _ => self.0.authenticate(parts).await,
        }
    }
}

fn app(desk: &Desk) -> Router {
    let token = OperatorToken::new("ci", TOKEN, OperatorPermission::ALL).unwrap();
    let parts = OperatorParts {
        auth: Arc::new(Staff(token)),
        publish: Arc::new(desk.clone()),
    };
    Router::new().nest_service("/operators", operators(parts).unwrap())
}

fn request(method: Method, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(format!("/operators/{path}"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/gzip")
        .header("x-crosspoint", "1")
        .body(body.into())
        .unwrap()
}

async fn send(desk: &Desk, request: Request<Body>) -> (StatusCode, Value) {
    let (parts, body) = app(desk).oneshot(request).await.unwrap().into_parts();
    assert_eq!(
        parts.headers["x-content-type-options"], "nosniff",
        "every answer is hardened"
    );
    let bytes = body.collect().await.unwrap().to_bytes();
    assert!(
        !String::from_utf8_lossy(&bytes).contains("canary"),
        "the token is never told"
    );
    (parts.status, serde_json::from_slice(&bytes).unwrap())
}

/// A request that fits the route.
fn fitting(route: &crosspoint_marketplace::Route) -> Request<Body> {
    let path = route.path().replace("{name}", "hello").replace("{version}", "1.0.0");
    request(route.method().clone(), path.trim_start_matches('/'), "good")
}

#[tokio::test]
async fn each_route_lets_in_who_may_and_nobody_else() {
    let desk = Desk::default();
    for route in operator_routes() {
        let needed = match route.access() {
            Access::Operator(permission) => Some(permission),
            Access::Public(_) => None,
            other => panic!("{other:?} is not for operators"),
        };
        for (who, header, value, status) in [
            ("the token", "x-other", String::new(), 200),
            (
                "another token",
                "authorization",
                "Bearer operator-token-0000000000".to_owned(),
                401,
            ),
            ("another scheme", "authorization", format!("Basic {TOKEN}"), 401),
            ("nothing", "authorization", String::new(), 401),
            ("reader", "x-staff", "reader".to_owned(), 200),
            ("nobody", "x-staff", "nobody".to_owned(), 403),
        ] {
            let mut request = fitting(&route);
            request.headers_mut().insert(header, value.parse().unwrap());
            let expected = match (needed, who) {
                (None, _) => 200,
                (Some(OperatorPermission::ArtifactPublish), "reader") => 403,
                _ => status,
            };
            let (found, body) = send(&desk, request).await;
            assert_eq!(found.as_u16(), expected, "{route:?} for {who}: {body}");
        }
        if !route.is_safe() {
            let mut foreign = fitting(&route);
            foreign.headers_mut().remove("x-crosspoint");
            assert_eq!(send(&desk, foreign).await.0, 403, "{route:?} from another site's page");
        }
    }
}

#[tokio::test]
async fn an_archive_arrives_whole_with_its_wishes() {
    let desk = Desk::default();
    let digest = "ab".repeat(32);
    let path = format!("v1/artifacts?replace=true&check=true&digest={digest}");
    let (status, body) = send(&desk, request(Method::POST, &path, "good")).await;
    assert_eq!(
        (status.as_u16(), &body["version"], &body["new"]),
        (200, &"1.0.0".into(), &true.into())
    );
    let (bytes, options) = desk.0.lock().unwrap().pop().unwrap();
    assert_eq!(bytes, b"good");
    assert!(options.replace && options.check);
    assert_eq!(options.digest.unwrap().to_string(), digest);
    send(&desk, request(Method::POST, "v1/artifacts", "good")).await;
    let mut plain = PublishOptions::default();
    plain.author = Some("ci".to_owned());
    let (_, options) = desk.0.lock().unwrap().pop().unwrap();
    assert_eq!(options, plain, "who publishes is told by who is let in");
}

#[tokio::test]
async fn what_is_too_large_or_no_archive_is_refused() {
    let desk = Desk::default();
    let code = |answer: (StatusCode, Value)| (answer.0.as_u16(), answer.1["code"].as_str().unwrap().to_owned());
    let declared = request(Method::POST, "v1/artifacts", "12345678901");
    assert_eq!(code(send(&desk, declared).await), (413, "body-too-large".to_owned()));
    // Without a length it ends when it is too much.
    let parts = [Bytes::from_static(b"123456"), Bytes::from_static(b"789012")];
    let endless = request(Method::POST, "v1/artifacts", Body::new(Parts(parts.into(), false)));
    assert_eq!(code(send(&desk, endless).await), (413, "body-too-large".to_owned()));
    let mut json = request(Method::POST, "v1/artifacts", "{}");
    json.headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    assert_eq!(
        code(send(&desk, json).await),
        (415, "content-type-unsupported".to_owned())
    );
    let strange = request(Method::POST, "v1/artifacts?check=perhaps&digest=x", "good");
    let (status, body) = send(&desk, strange).await;
    assert_eq!((status.as_u16(), body["errors"].as_array().unwrap().len()), (422, 2));
    assert!(desk.0.lock().unwrap().is_empty());
}

/// A body in parts, without a length; it never ends when it is told not to.
struct Parts(std::collections::VecDeque<Bytes>, bool);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<std::result::Result<http_body::Frame<Bytes>, Self::Error>>> {
        match self.0.pop_front() {
            None if self.1 => std::task::Poll::Pending,
            part => std::task::Poll::Ready(part.map(|part| Ok(http_body::Frame::data(part)))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_sends_nothing_is_not_waited_for() {
    let began = tokio::time::Instant::now();
    let silent = Body::new(Parts([Bytes::from_static(b"1")].into(), true));
    let (status, body) = send(&Desk::default(), request(Method::POST, "v1/artifacts", silent)).await;
    assert_eq!((status.as_u16(), &body["code"]), (408, &"body-too-slow".into()));
    assert_eq!(began.elapsed().as_secs(), Duration::from_secs(30).as_secs());
}

#[tokio::test]
async fn operators_are_told_what_is_wrong_with_the_host_but_not_where_it_keeps_things() {
    let desk = Desk::default();
    let (status, body) = send(&desk, request(Method::POST, "v1/artifacts", "bad")).await;
    assert_eq!((status.as_u16(), &body["errors"][0]["pointer"]), (422, &"/name".into()));
    let (_, body) = send(&desk, request(Method::POST, "v1/artifacts", "isolation")).await;
    assert_eq!(body["detail"], "the sandbox is missing");
    let (status, body) = send(&desk, request(Method::POST, "v1/artifacts", "disk")).await;
    assert_eq!(status, 503);
    assert!(!body.to_string().contains("secret-place"), "{body}");
    let (status, _) = send(&desk, request(Method::POST, "v1/artifacts/hello/2.0.0/withdraw", "")).await;
    assert_eq!(status, 404);
}

/// `CROSSPOINT_UPDATE=1 cargo test -p crosspoint-marketplace` writes the file anew.
#[tokio::test]
async fn the_document_is_the_one_that_was_agreed_on() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operators.json");
    let (_, now) = send(&Desk::default(), request(Method::GET, "v1/openapi.json", "")).await;
    if std::env::var_os("CROSSPOINT_UPDATE").is_some() {
        std::fs::write(&file, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
    }
    let agreed: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).unwrap_or_else(|_| "null".to_owned())).unwrap();
    assert!(
        agreed == now,
        "the API changed: look at `git diff` after running with CROSSPOINT_UPDATE=1; changes may only add"
    );
    assert_eq!(now["openapi"], "3.1.0");
    for route in operator_routes() {
        let operation = &now["paths"][route.path()][route.method().as_str().to_lowercase()];
        assert_eq!(operation["operationId"], route.operation());
    }
}
