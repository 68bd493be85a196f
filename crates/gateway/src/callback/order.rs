//! The wish to be called back: read from a request, checked, and stored beside the call.

use super::{CALLBACKS, Contents, HEADER};
use crate::{accept::Accepted, gate::Drain, gateway::Inner};
use bytes::Bytes;
use crosspoint_core::{
    Code, CustomerId, Enqueue, Envelope, Error, Invocation, InvocationId, Meta, Result, Scope, TargetId, Timestamp,
};
use http::{HeaderMap, Request};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The longest URL that is taken.
const LONGEST: usize = 2048;

/// As good as no limit, and a number that every store can keep.
pub(super) const ATTEMPTS: u32 = i32::MAX.unsigned_abs();

/// What a request asks for, checked.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(super) url: Arc<str>,
    /// Whether the stored reply goes along.
    pub(super) with_reply: bool,
}

/// What `crosspoint.callbacks` is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) call: InvocationId,
    pub(super) url: Arc<str>,
    pub(super) with_reply: bool,
}

impl Wanted {
    /// The wish in these headers, if its URL may be called.
    pub(crate) fn of(inner: &Inner, headers: &HeaderMap, contents: Contents) -> Result<Option<Self>> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let Some(deliver) = inner.callbacks.get() else {
            return Err(Error::new(
                Code::SetupInvalid,
                "the route allows callbacks, and `Gateway::serve_callbacks` was not called",
            ));
        };
        let wrong = |why: &str| Error::new(Code::InputInvalid, format!("no callback is made to this URL: {why}"));
        let url = value.to_str().map_err(|_| wrong("it is not ASCII"))?.trim();
        if values.next().is_some() {
            return Err(wrong("there is more than one"));
        }
        if url.len() > LONGEST {
            return Err(wrong("it is longer than 2048 characters"));
        }
        deliver.check(url).map_err(|error| wrong(error.message()))?;
        Ok(Some(Self {
            url: url.into(),
            with_reply: contents == Contents::Reply,
        }))
    }

    /// The envelope that stands for the wish, looked at for the first time at `first`.
    fn envelope(&self, call: InvocationId, whose: &Whose, now: Timestamp, first: Timestamp) -> Result<Envelope> {
        let id = InvocationId::derive(&["callback", &call.to_string(), &self.url]);
        let mut meta = Meta::new(id, whose.customer.clone(), TargetId::new(CALLBACKS)?);
        meta.principal.clone_from(&whose.principal);
        let order = Order {
            call,
            url: Arc::clone(&self.url),
            with_reply: self.with_reply,
        };
        Ok(stored(meta, &order, now, Some(first), ATTEMPTS))
    }
}

/// An envelope of one of the two targets.
pub(super) fn stored(
    meta: Meta,
    body: &impl Serialize,
    now: Timestamp,
    not_before: Option<Timestamp>,
    max_attempts: u32,
) -> Envelope {
    // Ids, texts and numbers always serialise.
    let body = serde_json::to_vec(body).unwrap_or_default();
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = http::Method::POST;
    let mut envelope = Envelope::service(Invocation::new(meta, request), now);
    envelope.not_before = not_before;
    envelope.repeatable = true;
    envelope.max_attempts = max_attempts;
    envelope
}

#[derive(Debug, Clone)]
struct Whose {
    customer: CustomerId,
    principal: Option<Arc<str>>,
}

/// A wish on its way beside its call.
#[derive(Debug)]
pub(crate) struct Ride {
    wanted: Wanted,
    whose: Whose,
    call: InvocationId,
    watch: InvocationId,
}

/// In the extensions of a call's request until it is stored: what is stored with it.
#[derive(Debug, Clone)]
struct Rider(Arc<Envelope>);

impl Ride {
    /// Puts the wish beside the call.
    pub(crate) fn beside(wanted: Wanted, call: &mut Envelope, first: Timestamp) -> Result<Self> {
        let meta = &call.invocation.meta;
        let whose = Whose {
            customer: meta.customer.clone(),
            principal: meta.principal.clone(),
        };
        let envelope = wanted.envelope(meta.id, &whose, call.created, first)?;
        let ride = Self {
            wanted,
            whose,
            call: meta.id,
            watch: envelope.id(),
        };
        call.invocation
            .request
            .extensions_mut()
            .insert(Rider(Arc::new(envelope)));
        Ok(ride)
    }

    /// What becomes of the wish now that it is known what the client is told.
    pub(crate) async fn arrived(self, inner: &Arc<Inner>, accepted: Result<Accepted>) -> Result<Accepted> {
        match &accepted {
            Ok(Accepted { id, answer: None }) if *id == self.call => {}
            Ok(Accepted { id, answer: None }) => {
                // Its key belongs to an earlier call. Before the client is told 202, its wish is stored for that one.
                let now = inner.clock.now();
                let envelope = self.wanted.envelope(*id, &self.whose, now, now)?;
                inner.store.enqueue(vec![Enqueue::queued(envelope)]).await?;
                inner.target(&TargetId::new(CALLBACKS)?).announce(Drain::Sideline);
                cancel(inner, self.watch);
            }
            _ => cancel(inner, self.watch),
        }
        accepted
    }
}

/// The wish that rides beside a call, by its id.
pub(crate) fn rider(call: &Envelope) -> Option<InvocationId> {
    let rider = call.invocation.request.extensions().get::<Rider>();
    rider.map(|rider| rider.0.id())
}

/// An item to be stored, with whatever belongs into the same commit. The answer to the item is the first.
pub(crate) fn batch(mut item: Enqueue) -> Vec<Enqueue> {
    let extensions = item.envelope.invocation.request.extensions_mut();
    match extensions.remove::<Rider>() {
        Some(Rider(envelope)) => vec![item, Enqueue::queued(Arc::unwrap_or_clone(envelope))],
        None => vec![item],
    }
}

/// Nobody needs this callback. If that cannot be written, the receiver is told once too often.
pub(crate) fn cancel(inner: &Arc<Inner>, watch: InvocationId) {
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        if let Err(error) = inner.store.cancel(Scope::Fleet(&inner.fleet), watch).await {
            tracing::warn!(%error, id = %watch, "a callback that nobody needs could not be cancelled");
        }
    });
}
