//! Answers of handlers, and the headers that all of them carry.

use axum::{body::Body, response::Response};
use crosspoint_core::{Code, ErrorExt, Result};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

/// What a handler answers.
pub(crate) trait Gives: Send + 'static {
    /// The schema of the answer for the document; `None` if it has no body.
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;
    /// As a response; `base` is the path that the router is nested at.
    fn into_response(self, status: u16, base: &str) -> Result<Response>;
}

/// A JSON answer.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    body: T,
    revision: Option<u64>,
    location: Option<String>,
}

impl<T> Answer<T> {
    pub(crate) const fn of(body: T) -> Self {
        Self {
            body,
            revision: None,
            location: None,
        }
    }
    /// With the revision as its `ETag`.
    pub(crate) const fn revision(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }
    /// With the address of what was made, below the place where the router is nested.
    pub(crate) fn location(mut self, path: String) -> Self {
        self.location = Some(path);
        self
    }
}

impl<T: Serialize + JsonSchema + Send + 'static> Gives for Answer<T> {
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }

    fn into_response(self, status: u16, base: &str) -> Result<Response> {
        let body = serde_json::to_vec(&self.body).or_fail(Code::Internal, "an answer does not serialise")?;
        let mut response = with_status(status, Body::from(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(revision) = self.revision {
            insert(headers, header::ETAG, &format!("\"{revision}\""))?;
        }
        if let Some(location) = self.location {
            insert(headers, header::LOCATION, &format!("{base}/{location}"))?;
        }
        Ok(response)
    }
}

/// Success without anything to say.
#[derive(Debug)]
pub(crate) struct NoContent;

impl Gives for NoContent {
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn into_response(self, status: u16, _: &str) -> Result<Response> {
        Ok(with_status(status, Body::empty()))
    }
}

fn with_status(status: u16, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<()> {
    let value = HeaderValue::from_str(value).or_fail(Code::Internal, "a header has characters that it cannot have")?;
    headers.insert(name, value);
    Ok(())
}

/// What the page may do: load its own scripts and styles, call its own host, and be framed by it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors 'self'; \
    base-uri 'none'; form-action 'none'";
/// What anything that is not the page may do if a browser is made to show it as one.
const DATA_POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox";

/// Puts on every response, failures included, what keeps browsers from misreading it.
pub(crate) fn harden(mut response: Response) -> Response {
    let page = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            if page { PAGE_POLICY } else { DATA_POLICY },
        ),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}
