//! Signed callbacks: whoever was answered 202 is told when its call has ended.
//!
//! A client asks with `Crosspoint-Callback: https://..` on a route that allows it
//! ([`DispatchLayer::callbacks`](crate::DispatchLayer::callbacks)). The wish is an envelope of its own, stored in the commit
//! that stores the call, so that there is never a 202 whose callback could be forgotten.
//!
//! Two targets do the rest. `crosspoint.callbacks` looks whether the call has ended, first when the hold is over and then
//! ever more rarely (1 s to 60 s), without an end to its attempts; when it has, the notification is stored for
//! `crosspoint.deliveries`, which sends it, again by its [`RetryPolicy`] until the receiver takes it, and leaves a dead letter
//! if it does not. Both ids are derived from the call's, so that a crash between two steps stores nothing twice. The receiver
//! may still see a notification more than once, under the same `webhook-id`.
//!
//! Whoever was answered while it was held gets no callback. A client that has gone away before it could be answered does.
//!
//! Notifications are signed as [Standard Webhooks](https://www.standardwebhooks.com) say, see [`SigningSecret`].

mod order;
mod send;
mod sign;
mod watch;

pub use sign::SigningSecret;

pub(crate) use order::{Ride, Wanted, batch, cancel, rider};

use crate::{Gateway, TargetConfig};
use crosspoint_core::{Deliver, Result, RetryPolicy, TargetId};
use send::Send;
use std::{sync::Arc, time::Duration};
use watch::Watch;

/// The header by which a client asks to be called back.
pub const HEADER: &str = "crosspoint-callback";

/// The target whose work is to look whether calls have ended.
pub const CALLBACKS: &str = "crosspoint.callbacks";

/// The target that sends notifications; those that nobody has taken are its dead letters.
pub const DELIVERIES: &str = "crosspoint.deliveries";

/// What a client is told that has asked to be called back; chosen for a route by
/// [`DispatchLayer::callbacks`](crate::DispatchLayer::callbacks).
///
/// ```
/// # use crosspoint_core::{Memory, SystemClock, TargetId};
/// # use crosspoint_gateway::{Config, Gateway};
/// # use std::sync::Arc;
/// use crosspoint_gateway::callback::Contents;
///
/// # let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
/// let layer = gateway.layer(TargetId::new("scan")?).callbacks(Contents::Status);
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Contents {
    /// That the call has ended, and how; the answer itself is shown by the status resource only, to whoever may see it.
    Status,
    /// The stored reply as well: whoever stands behind the URL that the client names gets the answer itself.
    Reply,
}

/// How callbacks are made; given to [`Gateway::serve_callbacks`].
///
/// ```
/// # use bytes::Bytes; use crosspoint_core::*; use http::{HeaderMap, StatusCode};
/// use crosspoint_gateway::{Config, Gateway, callback::{Callbacks, SigningSecret}};
/// use std::sync::Arc;
/// # #[derive(Debug)] struct Http;
/// # #[async_trait::async_trait] impl Deliver for Http {
/// #     fn check(&self, _: &str) -> Result<()> { Ok(()) }
/// #     async fn deliver(&self, _: &str, _: HeaderMap, _: Bytes) -> Result<Delivered> { Ok(Delivered::new(StatusCode::OK)) }
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
/// // `Http` stands for crosspoint-connectors' `HttpClient`.
/// let secret = SigningSecret::parse("whsec_YSBzZWNyZXQgb2Ygd2Vlay1lbmRzIGFuZCB3aW5k")?;
/// gateway.serve_callbacks(Callbacks::new(Arc::new(Http), secret))?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Callbacks {
    deliver: Arc<dyn Deliver>,
    secrets: Vec<SigningSecret>,
    retry: RetryPolicy,
    at_once: u32,
}

impl Callbacks {
    /// Sends by `deliver`, signed with `secret`: eight attempts within about three hours, sixteen at once.
    pub fn new(deliver: Arc<dyn Deliver>, secret: SigningSecret) -> Self {
        let retry = RetryPolicy::default().with_max_attempts(8).with_factor(5.0);
        let retry = retry
            .with_initial(Duration::from_secs(2))
            .with_cap(Duration::from_secs(3600));
        Self {
            deliver,
            secrets: vec![secret],
            retry,
            at_once: 16,
        }
    }

    /// Also signs with another secret, while receivers change from one to the other.
    pub fn also(mut self, secret: SigningSecret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Sets when a delivery that failed is tried again. A receiver's own `Retry-After` may be later.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how many notifications this process sends at once.
    pub const fn at_once(mut self, permits: u32) -> Self {
        self.at_once = permits;
        self
    }
}

impl Gateway {
    /// Makes callbacks in this process, for the calls of every process on the same store. Must be called within a tokio
    /// runtime, before a route that allows callbacks gets its first request.
    ///
    /// # Errors
    /// As [`Gateway::register`].
    pub fn serve_callbacks(&self, callbacks: Callbacks) -> Result<()> {
        let Callbacks {
            deliver,
            secrets,
            retry,
            at_once,
        } = callbacks;
        let gateway = Arc::downgrade(&self.inner);
        let send = Send {
            deliver: Arc::clone(&deliver),
            secrets,
            clock: Arc::clone(&self.inner.clock),
        };
        let sending = TargetConfig::default().permits(at_once).retry(retry);
        self.register(TargetId::new(DELIVERIES)?, Arc::new(send), sending)?;
        // How often a call is looked at is no measure of anything; a store that fails is asked again like one that waits.
        let forever = RetryPolicy::default()
            .with_max_attempts(order::ATTEMPTS)
            .with_total(None)
            .with_cap(watch::RARELY);
        let watching = TargetConfig::default().permits(8).retry(forever);
        self.register(TargetId::new(CALLBACKS)?, Arc::new(Watch { gateway }), watching)?;
        // Only now may routes accept the wish.
        self.inner.callbacks.get_or_init(|| deliver);
        Ok(())
    }
}
