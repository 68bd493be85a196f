//! Services that fail with an error instead of a response.

use super::{
    Outcome, Returned,
    classify::{classify, is_unreachable},
    keep::Kept,
};
use crate::http::problem;
use axum::body::Body;
use bytes::Bytes;
use crosspoint_core::{BoxError, Code, Error};
use http::{Request, Response, header, request::Parts};
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tower_service::Service;

/// When a caller without a queue should try again.
const AGAIN: Duration = Duration::from_secs(1);

/// Turns a service that fails with errors into one that always answers, so that a
/// [`DispatchLayer`](crate::DispatchLayer) can be put on it.
///
/// An error becomes a problem response that carries the request back as [`Returned`], with the outcome that
/// [`classify`](super::classify) has found: what was not started is queued, and what may have been started only if its
/// route allows a repeat. The body is streamed, and what has been read of it is kept up to a limit (256 KiB); a request
/// that has passed more is not returned.
///
/// ```
/// use axum::body::Body;
/// use crosspoint_gateway::outcome::{Fallible, Outcome, Returned};
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let crowded = ServiceBuilder::new()
///     .load_shed()
///     .concurrency_limit(0)
///     .service(service_fn(|_: Request<Body>| async { Ok::<_, std::io::Error>(Response::new(Body::empty())) }));
/// let response = Fallible::new(crowded).oneshot(Request::new(Body::from("kept"))).await.unwrap();
/// assert_eq!(response.status(), 503);
/// let returned = response.extensions().get::<Returned>().unwrap();
/// assert_eq!(returned.outcome(), Outcome::Overloaded { retry_after: None });
/// assert!(returned.take().is_some());
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Fallible<S> {
    inner: S,
    keep: usize,
    only_connects: bool,
}

impl<S> Fallible<S> {
    /// Wraps a service.
    pub const fn new(inner: S) -> Self {
        Self {
            inner,
            keep: 256 * 1024,
            only_connects: false,
        }
    }

    /// How many bytes of a body are kept while the call lasts, so that it can be returned. Default 256 KiB.
    #[must_use]
    pub const fn keep(mut self, bytes: usize) -> Self {
        self.keep = bytes;
        self
    }

    /// Says that the service does nothing but connect to its target and send the request there: then an address that
    /// could not be reached (`std::io`'s refused, unreachable, not available) means that the call was not started.
    /// Default: it may have worked before, and nothing is known.
    #[must_use]
    pub const fn only_connects(mut self) -> Self {
        self.only_connects = true;
        self
    }
}

impl<S, R> Service<Request<Body>> for Fallible<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: http_body::Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    /// Always ready: the inner service is waited for within the call, so that an idle clone reserves nothing.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut service, keep, only_connects) = (self.inner.clone(), self.keep, self.only_connects);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let kept = Kept::new(body, keep);
            let again = parts.clone();
            let mut called = false;
            let answer = async {
                poll_fn(|cx| service.poll_ready(cx)).await.map_err(Into::into)?;
                let request = Request::from_parts(parts, kept.body().unwrap_or_default());
                called = true;
                service.call(request).await.map_err(Into::<BoxError>::into)
            };
            let answer = answer.await;
            Ok(answer.map_or_else(
                |error| {
                    let outcome = match classify(&*error) {
                        // It has not seen the request at all.
                        Outcome::Unknown if !called => Outcome::NotStarted,
                        _ if kept.is_broken() => Outcome::Cancelled,
                        Outcome::Unknown if only_connects && is_unreachable(&*error) => Outcome::NotStarted,
                        outcome => outcome,
                    };
                    tracing::info!(%error, ?outcome, "the service failed");
                    unanswered(outcome, again, &kept)
                },
                |response| response.map(Body::new),
            ))
        })
    }
}

/// The response for a call that has none, with the request if it can still be sent.
pub(crate) fn unanswered(outcome: Outcome, parts: Parts, kept: &Kept) -> Response<Body> {
    let (code, message) = match outcome {
        Outcome::Overloaded { .. } => (Code::TargetSaturated, Code::TargetSaturated.title()),
        Outcome::NotStarted => (Code::TargetUnavailable, Code::TargetUnavailable.title()),
        Outcome::Cancelled => (Code::BodyMalformed, "the body could not be read to its end"),
        _ => (Code::OutcomeUnknown, Code::OutcomeUnknown.title()),
    };
    let after = match outcome {
        Outcome::Overloaded { retry_after } => Some(retry_after.unwrap_or(AGAIN)),
        Outcome::NotStarted => Some(AGAIN),
        _ => None,
    };
    let mut response = problem(&Error::new(code, message), after).map(Body::from);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    if outcome != Outcome::Cancelled
        && let Some(body) = kept.body()
    {
        let returned = Returned::new(outcome, Request::from_parts(parts, body));
        response.extensions_mut().insert(returned);
    }
    response
}
