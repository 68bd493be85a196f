//! `application/problem+json` (RFC 9457) and other small answers.

use super::retry_after;
use crate::quota::Quota;
use bytes::Bytes;
use crosspoint_core::{Error, ProblemDetails, Reply};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use std::time::Duration;

/// The answer that stands for an error. Details of failures on our side stay in the log.
pub(crate) fn problem(error: &Error, after: Option<Duration>) -> Reply {
    let mut details = ProblemDetails::of(error);
    if details.status >= 500 {
        details = details.withheld();
    }
    let mut response = bytes(details.status, details.to_json().into());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(ProblemDetails::CONTENT_TYPE),
    );
    if let Some(after) = after {
        headers.insert(header::RETRY_AFTER, retry_after(after));
        if let Some(quota) = Quota::behind(error) {
            quota.tell(headers, after);
        }
    }
    response
}

/// A JSON answer that no cache keeps.
pub(crate) fn json(status: StatusCode, body: &Value) -> Reply {
    bytes(status.as_u16(), body.to_string().into())
}

fn bytes(status: u16, body: Bytes) -> Reply {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
