//! What the run gets to read: answers with a bounded body, and problems that say what a script should do.

use bytes::Bytes;
use crosspoint_core::{Code, Error, ProblemDetails, Timestamp, Verdict};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use serde_json::Value;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{sync::OwnedSemaphorePermit, task::JoinHandle};

/// Marks an answer that is ours and not the provider's, with the code of the error.
pub(super) const ERROR: HeaderName = HeaderName::from_static("xp-error");

/// The key under which the effect was made, in answers; the name of an effect, in requests.
pub(super) const EFFECT_KEY: HeaderName = HeaderName::from_static("xp-effect-key");

/// What is handed to the connection at once: the rest stays where it is counted.
const PIECE: usize = 32 * 1024;

/// When to come again if nobody knows better.
const PAUSE: Duration = Duration::from_secs(5);

/// Headers that belong to one connection between two machines.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Takes out what belongs to one connection, and what `Connection` names as such.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Content {
    /// Bytes in memory, and the place that they take up.
    Held(
        Bytes,
        #[expect(dead_code, reason = "it is given back with the body")] Option<OwnedSemaphorePermit>,
    ),
    /// What comes from elsewhere, and the task that brings it.
    Passing(
        Incoming,
        #[expect(dead_code, reason = "it ends the task with the body")] Carrier,
    ),
}

/// A task that ends with what it is for.
#[derive(Debug)]
pub(super) struct Carrier(pub(super) JoinHandle<()>);

impl Drop for Carrier {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Held(bytes, _) if bytes.is_empty() => Poll::Ready(None),
            Self::Held(bytes, _) => {
                let piece = bytes.split_to(bytes.len().min(PIECE));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Passing(incoming, _) => loop {
                let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
                // Trailers belong to the other connection.
                if !matches!(&frame, Some(Ok(frame)) if frame.is_trailers()) {
                    return Poll::Ready(frame);
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Held(bytes, _) => bytes.is_empty(),
            Self::Passing(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Held(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
            Self::Passing(incoming, _) => incoming.size_hint(),
        }
    }
}

/// An answer without a body.
pub(super) fn empty(status: StatusCode) -> Response<Content> {
    let mut response = Response::new(Content::Held(Bytes::new(), None));
    *response.status_mut() = status;
    response
}

/// The error as `application/problem+json`, with `Retry-After` where another try is worth it.
pub(super) fn problem(error: &Error, now: Timestamp) -> Response<Content> {
    let details = ProblemDetails::of(error);
    let wait = match (details.retry, details.retry_at) {
        (Verdict::Later, Some(at)) => Some(at.since(now)),
        (Verdict::Later, None) => Some(PAUSE),
        _ => None,
    };
    let (status, code) = (details.status, details.code);
    let mut json = serde_json::to_value(details).unwrap_or_default();
    if let (Value::Object(fields), Some(rule)) = (&mut json, rule(error)) {
        fields.insert("rule".to_owned(), rule.into());
    }
    let body = Bytes::from(json.to_string());
    let mut response = Response::new(Content::Held(body, None));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(ProblemDetails::CONTENT_TYPE),
    );
    headers.insert(ERROR, HeaderValue::from_static(code.as_str()));
    if let Some(wait) = wait {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(wait)));
    }
    response
}

/// Which rule an error is about.
pub(super) fn rule(error: &Error) -> Option<&str> {
    let rule = error.context().iter().find(|(key, _)| *key == "rule");
    rule.map(|(_, rule)| rule.as_str())
}

/// A refusal by a rule of the egress.
pub(super) fn refused(rule: &str, message: impl Into<String>) -> Error {
    Error::new(Code::EgressRefused, message.into()).with("rule", rule)
}

/// Whole seconds, at least one, and never too early.
fn seconds(wait: Duration) -> u64 {
    let whole = wait.as_secs();
    whole.saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosspoint_core::Retry;

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Own"),
            ("connection", "x-second, not a name"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic eA=="),
            ("proxy-connection", "close"),
            ("x-own", "1"),
            ("x-second", "2"),
            ("x-kept", "3"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["x-kept"]);
    }

    #[test]
    fn a_problem_says_when_to_come_again() {
        let now = Timestamp::from_millis(1000);
        let after = |error: Error| {
            let response = problem(&error, now);
            let wait = response.headers().get("retry-after");
            (
                response.status().as_u16(),
                wait.map(|wait| wait.to_str().unwrap().to_owned()),
            )
        };
        let at = |millis| Error::new(Code::RateLimited, "x").with_retry(Retry::At(Timestamp::from_millis(millis)));
        assert_eq!(after(at(31_001)), (429, Some("31".to_owned())));
        assert_eq!(after(at(31_000)), (429, Some("30".to_owned())));
        assert_eq!(after(at(0)), (429, Some("1".to_owned())));
        assert_eq!(
            after(Error::new(Code::ProviderUnreachable, "x")),
            (502, Some("5".to_owned()))
        );
        assert_eq!(after(Error::new(Code::CredentialsRefused, "x")), (424, None));
        assert_eq!(after(refused("loopback", "x")), (403, None));
    }
}
