//! What a flow's caller gets to read.

use bytes::Bytes;
use crosspoint_core::{Code, Error, Failure, ProblemDetails, Reply, Retry};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;

/// The output of a flow, as JSON.
pub(crate) fn success(output: &Value) -> Reply {
    reply(200, "application/json", output.to_string().into())
}

/// A failure as `application/problem+json` (RFC 9457).
pub(crate) fn failure(failure: &Failure) -> Reply {
    let details =
        ProblemDetails::of(&Error::new(failure.code, failure.message.clone()).with_retry(verdict(failure.code)));
    reply(details.status, ProblemDetails::CONTENT_TYPE, details.to_json().into())
}

/// An execution that has ended is not tried again by itself.
const fn verdict(code: Code) -> Retry {
    match code.retry() {
        Retry::Reauthorize => Retry::Reauthorize,
        _ => Retry::Never,
    }
}

fn reply(status: u16, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Reply::new(body);
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
