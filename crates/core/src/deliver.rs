//! Notifying other systems: one request to a URL that somebody outside has named.

use crate::{Result, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::fmt::Debug;

/// Sends notifications to URLs that customers name. Implemented by the connectors over the guarded HTTP client.
///
/// A URL of a customer can point into the host's own network, so an implementation refuses whatever is not public, checks
/// the addresses that a name resolves to and not only the name, and follows no redirect.
///
/// ```
/// use bytes::Bytes;
/// use crosspoint_core::{Code, Deliver, Delivered, Error, Result};
/// use http::{HeaderMap, StatusCode};
///
/// /// Writes notifications to the log.
/// #[derive(Debug)]
/// struct Logged;
///
/// #[async_trait::async_trait]
/// impl Deliver for Logged {
///     fn check(&self, url: &str) -> Result<()> {
///         let https = url.starts_with("https://");
///         https.then_some(()).ok_or_else(|| Error::new(Code::EgressRefused, "only https is called"))
///     }
///
///     async fn deliver(&self, url: &str, _: HeaderMap, body: Bytes) -> Result<Delivered> {
///         tracing::info!(url, bytes = body.len(), "notified");
///         Ok(Delivered::new(StatusCode::NO_CONTENT))
///     }
/// }
/// ```
#[async_trait]
pub trait Deliver: Send + Sync + Debug + 'static {
    /// Refuses a URL that could never be called: not a URL, not `https`, with a password in it, or an address that is not
    /// public. Nothing is resolved and nobody is called.
    ///
    /// # Errors
    /// [`Code::EgressRefused`](crate::Code::EgressRefused) or [`Code::InputInvalid`](crate::Code::InputInvalid) with what is
    /// wrong.
    fn check(&self, url: &str) -> Result<()>;

    /// Sends `body` by POST and reads the head of the answer. Any status is `Ok`: what it means is for the caller to say.
    ///
    /// # Errors
    /// [`Code::EgressRefused`](crate::Code::EgressRefused) if the address is not public;
    /// [`Code::ProviderUnreachable`](crate::Code::ProviderUnreachable) if there was no answer.
    async fn deliver(&self, url: &str, headers: HeaderMap, body: Bytes) -> Result<Delivered>;
}

/// What a receiver answered.
///
/// ```
/// use crosspoint_core::Delivered;
/// assert!(Delivered::new(http::StatusCode::ACCEPTED).is_taken());
/// assert!(!Delivered::new(http::StatusCode::FOUND).is_taken());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivered {
    /// The status of its answer.
    pub status: StatusCode,
    /// When it wants to be asked again, if it said so.
    pub retry_at: Option<Timestamp>,
}

impl Delivered {
    /// An answer with this status.
    #[must_use]
    pub const fn new(status: StatusCode) -> Self {
        Self { status, retry_at: None }
    }

    /// Sets when the receiver wants to be asked again.
    #[must_use]
    pub const fn retry_at(mut self, at: Option<Timestamp>) -> Self {
        self.retry_at = at;
        self
    }

    /// Whether the receiver has taken the notification: any 2xx.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.status.is_success()
    }
}
