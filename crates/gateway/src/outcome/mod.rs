//! How a call ended, as far as dispatch is concerned.
//!
//! Two questions decide what may happen next: was the call started, and does its end say something about the target? A
//! call that is known not to have been started may go to the queue; one that may have been started must not be made
//! again unless its route allows it.

mod classify;
mod fallible;
mod keep;
mod undelivered;

pub use classify::classify;
pub use fallible::Fallible;
pub(crate) use fallible::unanswered;
pub(crate) use keep::Kept;
pub(crate) use undelivered::{undelivered, verdict_of};

use axum::body::Body;
use http::{HeaderMap, Request, StatusCode, header};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How a call ended.
///
/// ```
/// use crosspoint_gateway::outcome::Outcome;
/// use http::{HeaderMap, StatusCode};
/// use std::time::Duration;
///
/// let mut headers = HeaderMap::new();
/// assert_eq!(Outcome::of(StatusCode::NOT_FOUND, &headers), Outcome::Success);
/// assert_eq!(Outcome::of(StatusCode::SERVICE_UNAVAILABLE, &headers), Outcome::Failed);
/// headers.insert("retry-after", "2".parse().unwrap());
/// let overloaded = Outcome::Overloaded { retry_after: Some(Duration::from_secs(2)) };
/// assert_eq!(Outcome::of(StatusCode::SERVICE_UNAVAILABLE, &headers), overloaded);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The target answered; an answer that blames the caller is one, 429 included.
    Success,
    /// The target carried the call out and failed (5xx).
    Failed,
    /// The target has too much to do: it answered 503 with `Retry-After`, or whoever delivers calls to it found no room.
    /// Only in a [`Returned`] does it also say that the call was not started; an answer is the word of a handler, which
    /// may have begun.
    Overloaded {
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The call is known not to have reached the target's code.
    NotStarted,
    /// It was sent, and nobody can know what became of it.
    Unknown,
    /// The caller gave it up; it says nothing about the target.
    Cancelled,
}

impl Outcome {
    /// What the head of a response says.
    #[must_use]
    #[inline]
    pub fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        if status.is_server_error() {
            Self::of_error(status, headers)
        } else {
            Self::Success
        }
    }

    #[cold]
    fn of_error(status: StatusCode, headers: &HeaderMap) -> Self {
        let retry_after = || {
            let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
            Some(Duration::from_secs(seconds))
        };
        match status {
            StatusCode::SERVICE_UNAVAILABLE if headers.contains_key(header::RETRY_AFTER) => Self::Overloaded {
                retry_after: retry_after(),
            },
            _ => Self::Failed,
        }
    }

    /// Whether a call that came back with this ([`Returned`]) certainly did not reach the target's code, so that making it
    /// later repeats nothing.
    #[must_use]
    pub const fn is_not_started(self) -> bool {
        matches!(self, Self::NotStarted | Self::Overloaded { .. })
    }
}

/// In the extensions of a response: the target did not answer, and here is the request again.
///
/// A service that forwards calls puts this into its (otherwise ordinary, 502 or 503) response when it could not deliver
/// one. The layer then queues the request if that is safe: always when it was not started, and when nobody can know only
/// if the route allows the call to be repeated. Without a layer the client gets the response as it is.
///
/// ```
/// use crosspoint_gateway::outcome::{Outcome, Returned};
/// use axum::body::Body;
/// use http::{Request, Response};
///
/// let mut response = Response::new(Body::from("no replica is up"));
/// *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
/// response.extensions_mut().insert(Returned::new(Outcome::NotStarted, Request::new(Body::empty())));
/// ```
#[derive(Clone)]
pub struct Returned {
    outcome: Outcome,
    request: Arc<Mutex<Option<Request<Body>>>>,
}

impl Returned {
    /// A request that came back.
    #[must_use]
    pub fn new(outcome: Outcome, request: Request<Body>) -> Self {
        Self {
            outcome,
            request: Arc::new(Mutex::new(Some(request))),
        }
    }

    /// Why.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Takes the request out; `None` if somebody has taken it before.
    #[must_use]
    pub fn take(&self) -> Option<Request<Body>> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Returned({:?})", self.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_lack_of_capacity_is_told_from_a_failure() {
        let none = HeaderMap::new();
        let mut later = HeaderMap::new();
        later.insert(header::RETRY_AFTER, "3".parse().unwrap());
        let cases = [
            (200, &none, Outcome::Success),
            (422, &none, Outcome::Success),
            (431, &none, Outcome::Success),
            (429, &none, Outcome::Success),
            (429, &later, Outcome::Success),
            (500, &later, Outcome::Failed),
            (503, &none, Outcome::Failed),
            (
                503,
                &later,
                Outcome::Overloaded {
                    retry_after: Some(Duration::from_secs(3)),
                },
            ),
        ];
        for (status, headers, wanted) in cases {
            assert_eq!(
                Outcome::of(StatusCode::from_u16(status).unwrap(), headers),
                wanted,
                "{status}"
            );
        }
    }

    #[test]
    fn a_returned_request_is_taken_once() {
        let returned = Returned::new(Outcome::NotStarted, Request::new(Body::empty()));
        let copy = returned.clone();
        assert!(copy.take().is_some());
        assert!(returned.take().is_none());
    }
}
