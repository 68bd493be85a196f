//! `application/problem+json` (RFC 9457) and other small answers.

use super::retry_after;
use bytes::Bytes;
use crosspoint_core::{Error, Reply};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use std::time::Duration;

/// The answer that stands for an error. Details of failures on our side stay in the log.
pub(crate) fn problem(error: &Error, after: Option<Duration>) -> Reply {
    let code = error.code();
    let mut body = json!({
        "type": format!("{}/blob/main/docs/errors/{code}.md", env!("CARGO_PKG_REPOSITORY")),
        "title": code.title().trim(),
        "status": code.status(),
        "code": code.as_str(),
    });
    if code.status() < 500 && error.message() != code.title() {
        body["detail"] = Value::from(error.message());
    }
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if let Some(after) = after {
        headers.insert(header::RETRY_AFTER, retry_after(after));
    }
    response
}

/// A JSON answer that no cache keeps.
pub(crate) fn json(status: StatusCode, body: &Value) -> Reply {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
