//! Answering later: a handler ends its attempt without an answer, and somebody gives the answer afterwards.
//!
//! For work that goes on elsewhere: a batch system that calls back, a person who approves, a job in another process. The
//! handler takes the [`Completion`] of its call, hands it to whoever does the work, and returns [`reply`] with the time
//! within which the answer must come. [`Gateway::complete`] gives it, in this process or in any other on the same store.
//!
//! # What holds
//!
//! 1. The attempt ends when the handler returns: its permit is free, and its lease, extended once by `within`, is no longer
//!    in the heartbeat. No heartbeat that was already on its way can shorten it.
//! 2. Whoever waits for the call keeps waiting; with 202 it finds the answer at the status resource.
//! 3. An answer is written under the fence of the attempt that asked for it: the first one is stored, every later one, and
//!    every one of an attempt that has been replaced, is [`Settled::Stale`] and changes nothing.
//! 4. The answer may come before the handler has returned. What the handler then returns is `Stale`.
//! 5. Without an answer in time the lease runs out, as if the worker had been lost: a call that may be repeated is begun
//!    again (and counts an attempt), any other ends as `outcome-unknown`.
//! 6. Nothing of this lives in the memory of a process: the lease is in the store, and the token names it.
//!
//! A call that goes straight to its target has no record under which an answer could be stored. A route whose handler answers
//! later says so with [`DispatchLayer::recorded`](crate::DispatchLayer::recorded); without that the client gets 500, and the
//! log says why.
//!
//! A wish to cancel such a call reaches nobody before the lease ends, and an answer that comes first counts.

use crate::{
    Gateway,
    gateway::Inner,
    http::{for_stored_reply, problem},
    inbox::Answer,
    worker::Held,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use crosspoint_core::{
    Code, Delivery, Error, Extended, Fence, InvocationId, LeaseRef, Meta, Reply, Result, Settle, Settled,
};
use http::Extensions;
use std::{fmt, str::FromStr, time::Duration};
use tokio::time::sleep;

/// Names the attempt that an answer belongs to.
///
/// Handlers find it in the extensions of replayed and recorded requests (`Extension<Completion>`, or
/// [`Replayed::completion`](crate::Replayed::completion)), and in the metadata of an invocation ([`Completion::of`]). As
/// text it has 43 characters of the URL-safe alphabet of base64, and may be stored or sent elsewhere.
///
/// It says where an answer goes and proves no right to give one: an endpoint that takes tokens from outside authenticates
/// its callers.
///
/// ```
/// use crosspoint_core::{Handler, Invocation, Reply, Result};
/// use crosspoint_gateway::later::{self, Completion};
/// use std::time::Duration;
///
/// #[derive(Debug)]
/// struct Batch;
///
/// #[async_trait::async_trait]
/// impl Handler for Batch {
///     async fn handle(&self, invocation: Invocation) -> Result<Reply> {
///         let Some(token) = Completion::of(&invocation.meta) else {
///             return Ok(Reply::new("done at once".into()));
///         };
///         tracing::info!(job = %token, "handed to the batch system");
///         Ok(later::reply(Duration::from_secs(3600)))
///     }
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Completion(LeaseRef);

impl Completion {
    /// The token of a call that came through the store; `None` for a direct one, which cannot be answered later.
    #[must_use]
    pub fn of(meta: &Meta) -> Option<Self> {
        meta.delivery.as_ref().map(Self::from)
    }

    pub(crate) const fn under(lease: LeaseRef) -> Self {
        Self(lease)
    }

    /// The call.
    #[must_use]
    pub const fn id(&self) -> InvocationId {
        self.0.id
    }
}

impl From<&Delivery> for Completion {
    fn from(delivery: &Delivery) -> Self {
        Self(delivery.lease)
    }
}

impl fmt::Display for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 32];
        let parts = self.0.id.as_bytes().iter().copied();
        let parts = parts.chain(self.0.fence.get().to_be_bytes());
        let parts = parts.chain(self.0.token.to_be_bytes());
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Completion({self})")
    }
}

impl FromStr for Completion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
            let bytes: [u8; 32] = bytes.try_into().ok()?;
            let (id, rest) = bytes.split_first_chunk::<16>()?;
            let (fence, token) = rest.split_first_chunk::<8>()?;
            let fence = Fence::new(u64::from_be_bytes(*fence));
            let token = u64::from_be_bytes(token.try_into().ok()?);
            Some(LeaseRef::new(InvocationId::from_slice(id).ok()?, fence, token))
        };
        let malformed = || {
            Error::new(
                Code::IdMalformed,
                "this is not the token of a call that is answered later",
            )
        };
        read().map(Self).ok_or_else(malformed)
    }
}

impl serde::Serialize for Completion {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Completion {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// In the extensions of a reply that is none yet.
#[derive(Debug, Clone, Copy)]
struct Later(Duration);

/// What a handler returns that has passed its [`Completion`] on: the answer will be given within this time.
///
/// To a client that it reaches all the same, because nothing was recorded, it is an answer 500.
#[must_use]
pub fn reply(within: Duration) -> Reply {
    let message = "the handler answers later, and the call was not recorded";
    let mut reply = problem(&Error::new(Code::SetupInvalid, message), None);
    reply.extensions_mut().insert(Later(within));
    reply
}

/// [`reply`] as handlers of axum return it.
///
/// ```
/// use axum::{Extension, response::Response};
/// use crosspoint_gateway::later::{self, Completion};
/// use std::time::Duration;
///
/// async fn approve(Extension(token): Extension<Completion>) -> Response {
///     tracing::info!(%token, "somebody has to approve this");
///     later::response(Duration::from_secs(24 * 3600))
/// }
/// ```
pub fn response(within: Duration) -> axum::response::Response {
    reply(within).map(axum::body::Body::from)
}

impl Gateway {
    /// Gives the answer of a call whose handler has said that it comes later ([`reply`]), and wakes whoever waits for it:
    /// at once in this process, within [`Config::poll`](crate::Config::poll) in others. May be called again with the same
    /// answer when the store did not say what became of it.
    ///
    /// [`Settled::Stale`] says that nothing was written: there is an answer already, or the time was over.
    ///
    /// # Errors
    /// [`Code::ResponseTooLarge`] above [`Config::max_reply`](crate::Config::max_reply); [`Code::InputInvalid`] if the
    /// answer is itself one that comes later; whatever the store meets.
    pub async fn complete(&self, completion: &Completion, mut reply: Reply) -> Result<Settled> {
        let inner = &self.inner;
        if within(reply.extensions()).is_some() {
            return Err(Error::new(
                Code::InputInvalid,
                "a later answer cannot be put off once more",
            ));
        }
        if reply.body().len() > inner.config.max_reply {
            let error = Error::new(Code::ResponseTooLarge, "the reply is too large to be stored");
            return Err(error.with("limit", inner.config.max_reply));
        }
        for_stored_reply(&mut reply);
        *reply.extensions_mut() = Extensions::new();
        let lease = completion.0;
        let settle = Settle::Complete {
            lease,
            reply: reply.clone(),
        };
        let settled = crate::accept::first(inner.store.settle(vec![settle]).await?)?;
        if settled == Settled::Applied {
            inner.inbox.answer(lease.id, Answer::Reply(reply));
        }
        Ok(settled)
    }
}

/// How long the answer may take, if it comes later.
pub(crate) fn within(extensions: &Extensions) -> Option<Duration> {
    extensions.get::<Later>().map(|later| later.0)
}

/// Takes everything out of a reply's extensions but the mark that it comes later.
pub(crate) fn keep_mark(extensions: &mut Extensions) {
    let mark = extensions.remove::<Later>();
    *extensions = Extensions::new();
    if let Some(mark) = mark {
        extensions.insert(mark);
    }
}

/// Whether a direct answer is one that cannot be given later, because nothing was recorded. Says so in the log.
pub(crate) fn unrecorded(extensions: &Extensions, target: &crosspoint_core::TargetId) -> bool {
    let marked = within(extensions).is_some();
    if marked {
        tracing::error!(
            %target,
            "a handler answers later, but its call was not recorded: set `.recorded(true)` on the route's layer"
        );
    }
    marked
}

/// Ends an attempt without an answer: its lease goes on by itself for `within`.
pub(crate) async fn leave(inner: &Inner, held: &Held, within: Duration) {
    inner.leases.let_be(held).await;
    let mut pause = Duration::from_millis(50);
    loop {
        match inner.store.extend(&[held.lease], within).await {
            Ok(answers) if answers.first().is_some_and(|answer| *answer != Extended::Stale) => {
                tracing::debug!(?within, "the answer comes later");
                return;
            }
            Ok(_) => {
                // Mostly because the answer came before the handler had returned.
                tracing::debug!("the lease was over already");
                break;
            }
            Err(error) => {
                tracing::warn!(%error, id = %held.lease.id, "the time for a later answer could not be stored yet");
                tokio::select! {
                    () = sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
                    () = held.lapsed() => break,
                }
            }
        }
    }
    if inner.inbox.is_awaited(held.lease.id) {
        inner.look(held.lease.id).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_being_written_down() {
        let lease = LeaseRef::new(InvocationId::derive(&["call"]), Fence::new(7), u64::MAX - 1);
        let token = Completion::under(lease);
        let text = token.to_string();
        assert_eq!(text.len(), 43);
        assert_eq!(text.parse::<Completion>().unwrap(), token);
        let json = serde_json::to_string(&token).unwrap();
        assert_eq!(serde_json::from_str::<Completion>(&json).unwrap(), token);
        for nonsense in [
            "",
            "x",
            text.strip_suffix(|_: char| true).unwrap(),
            &format!("{text}A"),
            "/".repeat(43).as_str(),
        ] {
            let error = nonsense.parse::<Completion>().unwrap_err();
            assert_eq!(error.code(), Code::IdMalformed, "{nonsense}");
        }
    }

    #[test]
    fn only_the_mark_is_kept() {
        let mut reply = reply(Duration::from_secs(5));
        reply.extensions_mut().insert("anything");
        keep_mark(reply.extensions_mut());
        assert_eq!(within(reply.extensions()), Some(Duration::from_secs(5)));
        assert_eq!(reply.extensions().len(), 1);
        assert_eq!(reply.status(), 500);
    }
}
