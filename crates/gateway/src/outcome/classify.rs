//! What an error says about the call that it ended.

use super::Outcome;
use hyper_util::client::legacy;
use std::{error::Error, io};
use tower::{load_shed::error::Overloaded, timeout::error::Elapsed};

/// How a call ended that ended with this error.
///
/// The chain of sources is walked from the outside to the inside, and the first error that is known decides: those of
/// hyper, hyper-util's client, reqwest (which wraps that) and tower's `load_shed` and `timeout`. Of what is
/// not known, and of another major version of these crates, nothing is assumed: [`Outcome::Unknown`].
///
/// | Error | Outcome |
/// |---|---|
/// | connecting failed: refused, no route, TLS, its timeout | `NotStarted` |
/// | a kept connection was closed before the request was written | `NotStarted` |
/// | `load_shed` | `Overloaded` |
/// | the connection was lost, or what came was no HTTP | `Unknown` |
/// | a timeout of the whole call | `Unknown` |
/// | the request's own body failed | `Cancelled` |
///
/// A bare `std::io::Error` says nothing: "connection refused" may be that of something which the service had called
/// half-way through its work. It counts as not started only where a client says that it was the connecting that failed.
/// ([`Fallible::only_connects`](super::Fallible::only_connects) is for services that do nothing else.) Streams that an HTTP/2 peer refused count as `Unknown`, because hyper does not
/// show the reason.
///
/// ```
/// use crosspoint_gateway::outcome::{Outcome, classify};
/// use std::io;
///
/// let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
/// assert_eq!(classify(&refused), Outcome::Unknown, "by whom?");
/// let slow = tower::timeout::error::Elapsed::new();
/// assert_eq!(classify(&slow), Outcome::Unknown);
/// ```
#[must_use]
pub fn classify(error: &(dyn Error + 'static)) -> Outcome {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(outcome) = known(error) {
            return outcome;
        }
        next = inside(error);
    }
    Outcome::Unknown
}

/// What an error wraps. An I/O error names as its source what lies beneath the error that it wraps.
fn inside<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped))
}

fn known(error: &(dyn Error + 'static)) -> Option<Outcome> {
    if let Some(error) = error.downcast_ref::<legacy::Error>() {
        return error.is_connect().then_some(Outcome::NotStarted);
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return Some(of_hyper(error));
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return of_io(error);
    }
    if error.is::<Overloaded>() {
        return Some(Outcome::Overloaded { retry_after: None });
    }
    error.is::<Elapsed>().then_some(Outcome::Unknown)
}

/// There was a connection, so whatever lies beneath, the request may have been sent, unless hyper knows better.
fn of_hyper(error: &hyper::Error) -> Outcome {
    if error.is_canceled() || error.is_closed() {
        // Neither is used once a byte of the request was written.
        Outcome::NotStarted
    } else if error.is_user() {
        Outcome::Cancelled
    } else {
        Outcome::Unknown
    }
}

/// `None`: ask what it wraps.
fn of_io(error: &io::Error) -> Option<Outcome> {
    let wraps = error.kind() == io::ErrorKind::Other && error.get_ref().is_some();
    (!wraps).then_some(Outcome::Unknown)
}

/// Whether an address could not be reached, as far as anything in the chain says.
pub(super) fn is_unreachable(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if let Some(
            io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable,
        ) = kind
        {
            return true;
        }
        next = inside(error);
    }
    false
}
