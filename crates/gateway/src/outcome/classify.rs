//! What an error says about the call that it ended.

use super::Outcome;
use hyper_util::client::legacy;
use std::{error::Error, io};
use tower::{load_shed::error::Overloaded, timeout::error::Elapsed};

/// How a call ended that ended with this error.
///
/// The chain of sources is walked from the outside to the inside, and the first error that is known decides: those of
/// `std::io`, hyper, hyper-util's client, reqwest (which wraps that) and tower's `load_shed` and `timeout`. Of what is
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
/// An address that cannot be reached counts as not started only where it was the connecting that failed: a network may
/// also report it in the middle of a call. Streams that an HTTP/2 peer refused count as `Unknown`, because hyper does not
/// show the reason.
///
/// ```
/// use crosspoint_gateway::outcome::{Outcome, classify};
/// use std::io;
///
/// let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
/// assert_eq!(classify(&refused), Outcome::NotStarted);
/// let reset = io::Error::from(io::ErrorKind::ConnectionReset);
/// assert_eq!(classify(&reset), Outcome::Unknown);
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
    match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable => Some(Outcome::NotStarted),
        io::ErrorKind::Other if error.get_ref().is_some() => None,
        _ => Some(Outcome::Unknown),
    }
}
