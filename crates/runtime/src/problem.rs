//! What a flow's caller gets to read.

use bytes::Bytes;
use crosspoint_core::{Failure, Reply, Retry};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// Where the pages of the codes are.
const PAGES: &str = "https://docs.rs/crosspoint/latest/crosspoint/errors/#";

/// The output of a flow, as JSON.
pub(crate) fn success(output: &Value) -> Reply {
    reply(StatusCode::OK, "application/json", output)
}

/// A failure as `application/problem+json` (RFC 9457).
pub(crate) fn failure(failure: &Failure) -> Reply {
    let code = failure.code;
    let body = json!({
        "type": format!("{PAGES}{code}"),
        "title": code.title().trim(),
        "status": code.status(),
        "detail": failure.message,
        "code": code,
        "retry": match code.retry() {
            Retry::Reauthorize => "reauthorize",
            _ => "never",
        },
    });
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply(status, "application/problem+json", &body)
}

fn reply(status: StatusCode, content_type: &'static str, body: &Value) -> Reply {
    let mut reply = Reply::new(Bytes::from(body.to_string()));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}
