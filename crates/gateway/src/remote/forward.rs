//! One call on its way to a replica, and to another one if the first has not started it.

use super::{
    context::{Context, Said, for_passing, strip},
    metric,
    pool::Pool,
    replica::{Replica, Ticket},
};
use crate::outcome::{Kept, Outcome, classify};
use axum::body::Body;
use bytes::Bytes;
use crosspoint_core::BoxError;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context as Task, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

pub(super) type Http = Client<HttpConnector, Body>;

/// A call that no replica has answered.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) outcome: Outcome,
    pub(super) why: &'static str,
}

const NO_REPLICA: Unanswered = Unanswered {
    outcome: Outcome::NotStarted,
    why: "no replica is in service",
};

/// Whether a request asks for another protocol than HTTP. `Upgrade: h2c`, which some clients send with every first
/// request, may be ignored.
pub(super) fn is_upgrade(parts: &Parts) -> bool {
    let upgrade = parts.headers.get(header::UPGRADE);
    parts.method == Method::CONNECT || upgrade.is_some_and(|to| !to.as_bytes().eq_ignore_ascii_case(b"h2c"))
}

/// The answer to such a request.
pub(super) fn refuse_upgrade() -> Response<Body> {
    let mut response = Response::new(Body::from("upgrades are not forwarded to replicas\n"));
    *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

/// Sends a call to a replica, and once to another one if it is known that the first has not started it.
pub(super) async fn forward(
    pool: &Arc<Pool>,
    http: &Http,
    parts: &Parts,
    kept: &Kept,
    context: Context,
) -> Result<Response<Body>, Unanswered> {
    let whole = context.left.map_or(pool.config.call, |left| left.min(pool.config.call));
    let until = crate::wait::from_now(whole);
    let mut first: Option<(Arc<Replica>, Unanswered)> = None;
    loop {
        let chosen = pool.choose(first.as_ref().map(|(replica, _)| replica));
        let (Some(ticket), Some(body)) = (chosen, kept.body()) else {
            return Err(first.map_or(NO_REPLICA, |(_, unanswered)| unanswered));
        };
        if first.is_some() {
            metric::retried(&pool.target);
        }
        let left = until.saturating_duration_since(Instant::now());
        let context = Context {
            left: Some(left),
            ..context.clone()
        };
        let request = address(parts, body, &ticket.replica().base, &context, pool);
        let sent = timeout(left.min(pool.config.head), http.request(request)).await;
        let unanswered = match judge(pool, kept, &ticket, sent.map_err(|_elapsed| ())) {
            Ok(response) => return Ok(pass(pool, response, ticket, until)),
            Err(unanswered) => unanswered,
        };
        if first.is_some() || !unanswered.outcome.is_not_started() {
            return Err(unanswered);
        }
        first = Some((Arc::clone(ticket.replica()), unanswered));
    }
}

/// The request as a replica gets it.
fn address(parts: &Parts, body: Body, base: &Uri, context: &Context, pool: &Pool) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = Version::HTTP_11;
    let prefix = base.path().trim_end_matches('/');
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut uri = base.clone().into_parts();
    uri.path_and_query = if prefix.is_empty() {
        parts.uri.path_and_query().cloned().or_else(|| path.parse().ok())
    } else {
        format!("{prefix}{path}").parse().ok()
    };
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_else(|_| base.clone());
    let mut headers = parts.headers.clone();
    for_passing(&mut headers);
    context.send(&mut headers);
    if let Some(secret) = &pool.config.secret {
        secret.send(&mut headers);
    }
    *request.headers_mut() = headers;
    request
}

type Sent = Result<Result<Response<Incoming>, hyper_util::client::legacy::Error>, ()>;

/// Tells an answer from a call that was not answered, and notes what that says about the replica.
fn judge(pool: &Pool, kept: &Kept, ticket: &Ticket, sent: Sent) -> Result<Response<Incoming>, Unanswered> {
    let replica = ticket.replica();
    let count = |outcome| metric::called(pool, &replica.base, outcome);
    let unanswered = |outcome, why| Err(Unanswered { outcome, why });
    let response = match sent {
        Ok(Ok(response)) => response,
        Ok(Err(_)) if kept.is_broken() => {
            count("cancelled");
            return unanswered(Outcome::Cancelled, "the request's own body broke off");
        }
        Ok(Err(error)) => {
            let outcome = classify(&error);
            tracing::debug!(replica = %replica.base, error = innermost(&error), ?outcome, "a replica did not answer");
            pool.failed(replica);
            if outcome == Outcome::NotStarted {
                count("not-started");
                return unanswered(outcome, "the replica could not be reached");
            }
            count("unknown");
            return unanswered(Outcome::Unknown, "the connection to the replica was lost");
        }
        Err(()) if kept.waits() => {
            count("cancelled");
            return unanswered(Outcome::Cancelled, "the request's own body did not arrive in time");
        }
        Err(()) => {
            pool.failed(replica);
            count("timeout");
            return unanswered(Outcome::Unknown, "the replica did not answer in time");
        }
    };
    match (
        Said::read(response.headers()),
        Outcome::of(response.status(), response.headers()),
    ) {
        (Some(Said::Full), outcome) => {
            replica.succeeded();
            count("full");
            let retry_after = match outcome {
                Outcome::Overloaded { retry_after } => retry_after,
                _ => None,
            };
            unanswered(Outcome::Overloaded { retry_after }, "the replica has no permit free")
        }
        (Some(Said::NotStarted), _) => {
            pool.failed(replica);
            count("not-started");
            unanswered(Outcome::NotStarted, "the replica did not begin the call")
        }
        (Some(Said::Unknown), _) => {
            replica.succeeded();
            count("unknown");
            unanswered(Outcome::Unknown, "the replica does not know how the call ended")
        }
        (None, Outcome::Failed) => {
            pool.failed(replica);
            count("failed");
            Ok(response)
        }
        (None, _) => {
            replica.succeeded();
            count("answered");
            Ok(response)
        }
    }
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// The response as the client gets it. The call is in flight until its last byte.
fn pass(pool: &Arc<Pool>, response: Response<Incoming>, ticket: Ticket, until: Instant) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    // Of use to answers without a body, where it cannot be counted anew.
    let length = parts.headers.remove(header::CONTENT_LENGTH);
    strip(&mut parts.headers);
    crate::http::for_reply(&mut parts.headers);
    if let Some(length) = length {
        parts.headers.insert(header::CONTENT_LENGTH, length);
    }
    parts.version = Version::HTTP_11;
    parts.extensions = http::Extensions::new();
    let body = Passing {
        body,
        pool: Arc::clone(pool),
        ticket,
        late: Box::pin(sleep_until(until)),
    };
    Response::from_parts(parts, Body::new(body))
}

/// A response's body, within the limit of the whole call.
struct Passing {
    body: Incoming,
    pool: Arc<Pool>,
    ticket: Ticket,
    late: Pin<Box<Sleep>>,
}

impl HttpBody for Passing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => {
                self.pool.failed(self.ticket.replica());
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending if self.late.as_mut().poll(cx).is_ready() => {
                self.pool.failed(self.ticket.replica());
                Poll::Ready(Some(Err("the call took longer than it may".into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Asks a replica whether it is well.
pub(super) async fn is_well(http: &Http, base: &Uri, path: &str, within: Duration) -> bool {
    let mut uri = base.clone().into_parts();
    let prefix = base.path().trim_end_matches('/');
    let slash = if path.starts_with('/') { "" } else { "/" };
    let Ok(path) = format!("{prefix}{slash}{path}").parse() else {
        return false;
    };
    uri.path_and_query = Some(path);
    let Ok(uri) = Uri::from_parts(uri) else { return false };
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    *request.headers_mut() = HeaderMap::new();
    let answer = timeout(within, http.request(request)).await;
    matches!(answer, Ok(Ok(response)) if response.status().is_success())
}
