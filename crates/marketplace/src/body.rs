//! Bodies of requests: bounded in size and depth, JSON and nothing else, checked against the route's schema.

use crate::check::{Checker, problems_error};
use axum::body::Body;
use bytes::Bytes;
use crosspoint_core::{Code, Error, Result};
use http::{HeaderMap, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How many bytes a body may have.
pub(crate) const MAX_BYTES: usize = 1024 * 1024;
/// How deep its arrays and objects may be nested.
pub(crate) const MAX_DEPTH: usize = 32;

/// What a handler takes as the body of a request.
pub(crate) trait Takes: Sized + Send + 'static {
    /// Whether the request must have a body.
    const REQUIRED: bool;
    /// The schema of the body, for the document and for the check; `None` if the route takes none.
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema>;
    /// From a value that fits the schema; `None` if the body was empty.
    fn read(value: Option<Value>) -> Result<Self>;
}

/// A body that must be there.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned + JsonSchema + Send + 'static> Takes for Json<T> {
    const REQUIRED: bool = true;
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
    fn read(value: Option<Value>) -> Result<Self> {
        let value = value.ok_or_else(|| Error::new(Code::BodyMalformed, "this request needs a JSON body"))?;
        typed(value).map(Self)
    }
}

/// A body that may be left out.
#[derive(Debug)]
pub(crate) struct Optional<T>(pub(crate) T);

impl<T: DeserializeOwned + JsonSchema + Default + Send + 'static> Takes for Optional<T> {
    const REQUIRED: bool = false;
    fn schema(generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
    fn read(value: Option<Value>) -> Result<Self> {
        value.map_or_else(|| Ok(Self(T::default())), |value| typed(value).map(Self))
    }
}

/// No body; one that is sent all the same is bounded and ignored.
#[derive(Debug)]
pub(crate) struct NoBody;

impl Takes for NoBody {
    const REQUIRED: bool = false;
    fn schema(_: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
    fn read(_: Option<Value>) -> Result<Self> {
        Ok(Self)
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    // The value fits the schema already, so what is left is rare; serde's text is not passed on, because it quotes
    // values and these may be secrets.
    serde_json::from_value(value).map_err(|_| {
        Error::new(
            Code::InputInvalid,
            "the body does not have the form that this request takes",
        )
    })
}

/// Reads the JSON body of a request; `None` if it is empty.
pub(crate) async fn read(parts: &Parts, body: Body) -> Result<Option<Value>> {
    if declared_length(&parts.headers).is_some_and(|length| length > MAX_BYTES) {
        return Err(too_large());
    }
    let bytes = match Limited::new(body, MAX_BYTES).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(e) if e.is::<LengthLimitError>() => return Err(too_large()),
        Err(e) => return Err(Error::new(Code::BodyMalformed, "the body did not arrive whole").caused_by(e)),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    check_content_type(&parts.headers)?;
    parse(&bytes).map(Some)
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> Error {
    Error::new(Code::BodyTooLarge, format!("a body has at most {MAX_BYTES} bytes"))
}

fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let sent = values.next().and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = sent.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") && values.next().is_none() {
        return Ok(());
    }
    Err(Error::new(
        Code::ContentTypeUnsupported,
        "send the body as content-type: application/json",
    ))
}

fn parse(bytes: &Bytes) -> Result<Value> {
    if depth(bytes) > MAX_DEPTH {
        return Err(Error::new(
            Code::BodyMalformed,
            format!("the JSON is nested more than {MAX_DEPTH} levels deep"),
        ));
    }
    // Line and column are enough to find the place; serde's text may quote what was sent.
    serde_json::from_slice(bytes).map_err(|e| {
        let message = format!("the body is not JSON: see line {}, column {}", e.line(), e.column());
        Error::new(Code::BodyMalformed, message)
    })
}

/// How deep the brackets outside of strings are nested. For text that is not JSON any answer will do: the parser
/// refuses it.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Checks a body against the schema of its route, all problems at once.
pub(crate) fn check(checker: &Checker, value: &Value) -> Result<()> {
    let problems = checker.problems(value, "");
    problems_error(Code::InputInvalid, "the body is not what this request takes", problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_but_not_those_in_strings() {
        assert_eq!(depth(br#"{"a":[1,{"b":2}]}"#), 3);
        assert_eq!(depth(br#"{"a":"[[[[{{{\"[["}"#), 1);
        assert_eq!(depth(b"]]]]["), 1);
    }

    #[test]
    fn a_syntax_error_does_not_quote_the_body() {
        let error = parse(&Bytes::from_static(b"{\"api_key\": canary}")).unwrap_err();
        assert_eq!(error.code(), Code::BodyMalformed);
        assert!(!format!("{error:?}").contains("canary"));
    }
}
