//! Looks whether a call has ended, and stores the notification when it has.

use super::{
    DELIVERIES,
    order::{Order, stored},
    send::Notification,
};
use crate::{gate::Drain, gateway::Inner};
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use crosspoint_core::{
    CallStatus, Code, Enqueue, Error, Handler, Invocation, InvocationId, Meta, Reply, Result, Retry, Scope, TargetId,
};
use http::header;
use serde_json::{Value, json};
use std::{sync::Weak, time::Duration};

/// The longest time between two looks.
pub(super) const RARELY: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) gateway: Weak<Inner>,
}

#[async_trait]
impl Handler for Watch {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        let meta = invocation.meta;
        let gone = || Error::new(Code::ShuttingDown, Code::ShuttingDown.title()).with("target", &meta.target);
        let inner = self.gateway.upgrade().ok_or_else(gone)?;
        let order: Order = serde_json::from_slice(invocation.request.body())
            .map_err(|e| Error::new(Code::Internal, "the order of a callback cannot be read").caused_by(e))?;
        let Some(status) = inner.store.get(Scope::Fleet(&inner.fleet), order.call).await? else {
            // Its key belonged to an earlier call, or it was deleted.
            tracing::debug!(call = %order.call, "there is no such call, and nobody to call back for it");
            return Ok(Reply::default());
        };
        if !status.state.is_terminal() {
            let at = inner.clock.now().plus(pause(meta.attempt));
            let error = Error::new(Code::Conflict, "the call has not ended yet");
            return Err(error.with_retry(Retry::At(at)));
        }
        let target = TargetId::new(DELIVERIES)?;
        let target = inner.target(&target);
        let id = InvocationId::derive(&["callback-delivery", &meta.id.to_string()]);
        let mut next = Meta::new(id, meta.customer, target.id.clone());
        next.principal = meta.principal;
        let notification = Notification {
            url: order.url,
            body: describe(&status, order.with_reply).to_string(),
        };
        let envelope = stored(next, &notification, inner.clock.now(), None, target.max_attempts());
        // A second time it is a duplicate, which is as good.
        inner.store.enqueue(vec![Enqueue::queued(envelope)]).await?;
        target.announce(Drain::Sideline);
        Ok(Reply::default())
    }
}

/// The time until the next look: 1 s after the first, and twice as much after each other.
fn pause(attempt: u32) -> Duration {
    let doubled = 1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
    Duration::from_secs(doubled).min(RARELY)
}

/// What the receiver is told.
fn describe(status: &CallStatus, with_reply: bool) -> Value {
    let mut body = json!({ "id": status.id.to_string(), "status": status.state });
    if let Some(failure) = &status.failure
        && status.reply.is_none()
    {
        body["code"] = failure.code.as_str().into();
    }
    if let Some(finished) = status.finished {
        body["finished"] = finished.to_string().into();
    }
    if let Some(reply) = &status.reply
        && with_reply
    {
        let content_type = reply.headers().get(header::CONTENT_TYPE);
        let (name, text) = match std::str::from_utf8(reply.body()) {
            Ok(text) => ("body", text.to_owned()),
            Err(_) => ("body_base64", BASE64_STANDARD.encode(reply.body())),
        };
        body["reply"] = json!({
            "status": reply.status().as_u16(),
            "content_type": content_type.and_then(|value| value.to_str().ok()),
            name: text,
        });
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_rarer_until_there_is_one_in_a_minute() {
        let seconds: Vec<_> = (1..=9).map(|attempt| pause(attempt).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(u32::MAX), RARELY);
    }
}
