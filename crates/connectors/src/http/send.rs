//! The action that sends any request.

use async_trait::async_trait;
use bytes::Bytes;
use crosspoint_core::{Action, Code, ConnectionClient, Error, ErrorExt, Problem, Result, check_status};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use url::form_urlencoded;

/// Sends one request over a connection and gives back what came.
///
/// To POST and PATCH it adds `Idempotency-Key`, the same in every attempt of one effect, unless the headers have one.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "an action without settings is written as its name"
)]
pub struct Send;

/// A method of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum Method {
    /// Reads.
    #[default]
    Get,
    /// Reads the head of the answer.
    Head,
    /// Makes, or does.
    Post,
    /// Replaces.
    Put,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    const fn http(self) -> http::Method {
        match self {
            Self::Get => http::Method::GET,
            Self::Head => http::Method::HEAD,
            Self::Post => http::Method::POST,
            Self::Put => http::Method::PUT,
            Self::Patch => http::Method::PATCH,
            Self::Delete => http::Method::DELETE,
        }
    }

    /// Whether repeating it may have a second effect.
    const fn repeats(self) -> bool {
        matches!(self, Self::Post | Self::Patch)
    }
}

/// What [`Send`] sends.
///
/// ```
/// use crosspoint_connectors::http::SendRequest;
/// use serde_json::json;
/// let request = SendRequest::post("/orders").query("notify", "yes").body(json!({ "total": 12 }));
/// assert_eq!(request.path, "/orders");
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SendRequest {
    /// The method; GET unless given.
    pub method: Method,
    /// The path below the connection's base URL; it begins with `/`.
    pub path: String,
    /// Headers to send. Those that authenticate come from the connection.
    pub headers: BTreeMap<String, String>,
    /// Parameters of the query, not yet encoded.
    pub query: BTreeMap<String, String>,
    /// The body, sent as JSON; none if it is `null`.
    pub body: Value,
    /// Whether an answer with an error status is an answer like any other. Otherwise it is an error, whose verdict
    /// follows the status.
    pub accept_errors: bool,
}

impl SendRequest {
    /// A request.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            ..Self::default()
        }
    }

    /// A GET.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::Get, path)
    }

    /// A POST.
    #[must_use]
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::Post, path)
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Value>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sets a parameter of the query.
    #[must_use]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.insert(name.into(), value.into());
        self
    }

    /// Takes answers with an error status as they are.
    #[must_use]
    pub const fn accept_errors(mut self) -> Self {
        self.accept_errors = true;
        self
    }

    fn uri(&self) -> String {
        if self.query.is_empty() {
            return self.path.clone();
        }
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.query)
            .finish();
        let joint = if self.path.contains('?') { '&' } else { '?' };
        format!("{}{joint}{query}", self.path)
    }

    fn header_map(&self) -> Result<HeaderMap> {
        let mut map = HeaderMap::new();
        let mut problems = Vec::new();
        for (name, value) in &self.headers {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) => {
                    map.append(name, value);
                }
                _ => problems.push(Problem::new(
                    format!("/headers/{}", name.replace('~', "~0").replace('/', "~1")),
                    "is not a valid header",
                )),
            }
        }
        if problems.is_empty() {
            return Ok(map);
        }
        Err(Error::new(Code::InputInvalid, "the request is not valid").with_problems(problems))
    }

    fn build(&self, client: &ConnectionClient) -> Result<http::Request<Bytes>> {
        let mut headers = self.header_map()?;
        headers
            .entry(header::ACCEPT)
            .or_insert(HeaderValue::from_static("application/json, */*;q=0.5"));
        if let Some(key) = client.effect_key().filter(|_| self.method.repeats()) {
            let value = HeaderValue::try_from(key.to_string()).or_fail(Code::Internal, "a key is not a header")?;
            headers.entry("idempotency-key").or_insert(value);
        }
        let body = if self.body.is_null() {
            Bytes::new()
        } else {
            headers
                .entry(header::CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("application/json"));
            Bytes::from(serde_json::to_vec(&self.body).or_fail(Code::InputInvalid, "the body does not serialise")?)
        };
        let mut request = http::Request::builder()
            .method(self.method.http())
            .uri(self.uri())
            .body(body)
            .map_err(|_| {
                Error::new(Code::InputInvalid, "the request is not valid").with_problems(vec![Problem::new(
                    "/path",
                    "is a path that begins with `/`, with special characters percent-encoded",
                )])
            })?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// What [`Send`] gives back.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct SendResponse {
    /// The status.
    pub status: u16,
    /// The headers in lower case; several of one name are joined by commas.
    pub headers: BTreeMap<String, String>,
    /// The body: what it says if it is JSON, else its text; `null` if there is none.
    pub body: Value,
}

impl SendResponse {
    fn read(response: &http::Response<Bytes>) -> Result<Self> {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in response.headers() {
            let Ok(value) = value.to_str() else { continue };
            headers
                .entry(name.as_str().to_owned())
                .and_modify(|known| {
                    known.push_str(", ");
                    known.push_str(value);
                })
                .or_insert_with(|| value.to_owned());
        }
        Ok(Self {
            status: response.status().as_u16(),
            body: read_body(headers.get("content-type").map_or("", String::as_str), response.body())?,
            headers,
        })
    }
}

fn read_body(content_type: &str, body: &[u8]) -> Result<Value> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let kind = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if kind == "application/json" || kind.ends_with("+json") {
        return serde_json::from_slice(body).or_fail(
            Code::ProviderError,
            "the provider's answer says that it is JSON, and is not",
        );
    }
    match std::str::from_utf8(body) {
        Ok(text) => Ok(Value::String(text.to_owned())),
        Err(_) => Err(Error::new(
            Code::ProviderRejected,
            "the provider's answer is neither JSON nor text, which this action cannot give back",
        )
        .with("content_type", kind)),
    }
}

#[async_trait]
impl Action for Send {
    const NAME: &'static str = "send";
    type Input = SendRequest;
    type Output = SendResponse;

    async fn call(&self, client: &ConnectionClient, input: SendRequest) -> Result<SendResponse> {
        let response = client.send(input.build(client)?).await?;
        if !input.accept_errors {
            check_status(&response)?;
        }
        SendResponse::read(&response)
    }
}
