//! Sends one notification.

use super::{SigningSecret, sign};
use async_trait::async_trait;
use bytes::Bytes;
use crosspoint_core::{Clock, Code, Deliver, Error, Handler, Invocation, Reply, Result, Retry};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What is sent, and where. The body is the same in every attempt.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Notification {
    pub(super) url: Arc<str>,
    pub(super) body: String,
}

#[derive(Debug)]
pub(super) struct Send {
    pub(super) deliver: Arc<dyn Deliver>,
    pub(super) secrets: Vec<SigningSecret>,
    pub(super) clock: Arc<dyn Clock>,
}

#[async_trait]
impl Handler for Send {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        let id = invocation.meta.id.to_string();
        let notification: Notification = serde_json::from_slice(invocation.request.body())
            .map_err(|e| Error::new(Code::Internal, "a notification cannot be read").caused_by(e))?;
        let body = Bytes::from(notification.body);
        let sent = self.clock.now().as_millis().div_euclid(1000);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [
            (sign::ID, id.clone()),
            (sign::TIMESTAMP, sent.to_string()),
            (sign::SIGNATURE, sign::all(&self.secrets, &id, sent, &body)),
        ] {
            let value = HeaderValue::try_from(value)
                .map_err(|e| Error::new(Code::Internal, "a notification has a header that is none").caused_by(e))?;
            headers.insert(name, value);
        }
        let target = &invocation.meta.target;
        let delivered = self.deliver.deliver(&notification.url, headers, body).await;
        // What the port could not send was not begun.
        let delivered = delivered.map_err(|error| error.with("target", target))?;
        if delivered.is_taken() {
            return Ok(Reply::default());
        }
        let code = match delivered.status {
            // By the specification: the endpoint wants no more of these.
            StatusCode::GONE => Code::ProviderRejected,
            _ => Code::ProviderError,
        };
        let error = Error::new(code, "the receiver did not take the notification");
        let error = error.with("status", delivered.status.as_u16());
        Err(match delivered.retry_at {
            Some(at) if code == Code::ProviderError => error.with_retry(Retry::At(at)),
            _ => error,
        })
    }
}
