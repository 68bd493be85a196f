//! Connectors: code that talks to one third-party provider.
//!
//! Authors write typed actions; the registry holds their erased twins over JSON. An action gets a
//! [`ConnectionClient`] that already carries credentials, limits and the egress guard; it never sees a secret.

use crate::{Code, Error, ErrorExt, Problem, Result, Retry, RunKey, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use schemars::{JsonSchema, Schema, schema_for};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

/// What can be an input or output: it goes to JSON and back and describes itself.
pub trait Data: Serialize + DeserializeOwned + JsonSchema + Send + 'static {}
impl<T: Serialize + DeserializeOwned + JsonSchema + Send + 'static> Data for T {}

/// What one call to a provider knows about itself.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// When the answer is of no use any more.
    pub deadline: Option<Timestamp>,
    /// The key under which this effect happens: the same in every attempt, different for two equal calls of one run.
    pub effect_key: Option<RunKey>,
    /// Whether whoever reads the answer must not learn the credential. A transport that knows it then masks it where a
    /// provider has copied it into the answer, as those do whose links to the next page carry a key.
    pub conceal: bool,
}

/// Carries requests of one connection to the provider. Implemented over reqwest by `crosspoint-connectors`.
#[async_trait]
pub trait Transport: Send + Sync + Debug + 'static {
    /// Sends a request whose URI is a path below the connection's base URL, or an absolute URL of the same origin.
    async fn send(&self, request: http::Request<Bytes>, options: &CallOptions) -> Result<http::Response<Bytes>>;
}

/// The client of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionClient {
    transport: Arc<dyn Transport>,
    options: CallOptions,
}

impl ConnectionClient {
    /// A client over a transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self {
            transport,
            options: CallOptions::default(),
        }
    }

    /// The same client with a deadline.
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Timestamp) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// The same client for one effect.
    #[must_use]
    pub const fn with_effect_key(mut self, key: RunKey) -> Self {
        self.options.effect_key = Some(key);
        self
    }

    /// The same client for a caller that must not learn the credential from an answer.
    #[must_use]
    pub const fn concealing(mut self) -> Self {
        self.options.conceal = true;
        self
    }

    /// The key of the effect that is being made, for providers that take one.
    #[must_use]
    pub const fn effect_key(&self) -> Option<RunKey> {
        self.options.effect_key
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Whatever the transport met: unreachable, refused, too large, deadline. A response with an error status is a
    /// response.
    pub async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>> {
        self.transport.send(request, &self.options).await
    }

    /// Sends JSON and reads JSON; a status that is not 2xx is an error whose verdict follows the status.
    ///
    /// # Errors
    /// As [`ConnectionClient::send`]; [`Code::ProviderRejected`], [`Code::ProviderError`], [`Code::RateLimited`] or
    /// [`Code::CredentialsRefused`] by status; [`Code::ProviderError`] if the answer is not the JSON that is expected.
    pub async fn json<I: Serialize + Sync, O: DeserializeOwned>(
        &self,
        method: http::Method,
        path: &str,
        body: Option<&I>,
    ) -> Result<O> {
        let mut builder = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::ACCEPT, "application/json");
        let bytes = match body {
            Some(body) => {
                builder = builder.header(http::header::CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(body).or_fail(Code::InputInvalid, "the body does not serialise")?)
            }
            None => Bytes::new(),
        };
        if let Some(key) = self.options.effect_key {
            builder = builder.header("idempotency-key", key.to_string());
        }
        let request = builder
            .body(bytes)
            .or_fail(Code::InputInvalid, "the request is not valid")?;
        let response = self.send(request).await?;
        check_status(&response)?;
        serde_json::from_slice(response.body()).or_fail(
            Code::ProviderError,
            "the provider's answer is not the JSON that was expected",
        )
    }
}

/// When the provider is ready for another attempt. A [`Transport`] puts it into the extensions of a response that said
/// so (`Retry-After`), as a time of its own clock; [`check_status`] makes it the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "it is a time with a meaning and nothing else")]
pub struct RetryAt(pub Timestamp);

/// Turns a status that is not 2xx into an error with the fitting verdict. Where the verdict is to try again later, and
/// the response carries [`RetryAt`], it is not before that time.
///
/// # Errors
/// [`Code::CredentialsRefused`] for 401, [`Code::RateLimited`] for 429, [`Code::ProviderError`] for 408, 425 and 5xx,
/// else [`Code::ProviderRejected`].
pub fn check_status(response: &http::Response<Bytes>) -> Result<()> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let code = match status.as_u16() {
        401 => Code::CredentialsRefused,
        429 => Code::RateLimited,
        408 | 425 | 500..=599 => Code::ProviderError,
        _ => Code::ProviderRejected,
    };
    let error = Error::new(code, format!("the provider answered {status}")).with("status", status.as_u16());
    Err(match response.extensions().get::<RetryAt>() {
        Some(RetryAt(time)) if error.retry() == Retry::Backoff => error.with_retry(Retry::At(*time)),
        _ => error,
    })
}

/// One thing that a connector can do.
///
/// ```
/// use crosspoint_core::{Action, ConnectionClient, Result};
/// # use serde::{Serialize, Deserialize}; use schemars::JsonSchema;
/// #[derive(Debug)]
/// struct Ping;
/// #[derive(Serialize, Deserialize, JsonSchema)]
/// struct Pong { ok: bool }
///
/// #[async_trait::async_trait]
/// impl Action for Ping {
///     const NAME: &'static str = "ping";
///     type Input = ();
///     type Output = Pong;
///     async fn call(&self, client: &ConnectionClient, _: ()) -> Result<Pong> {
///         client.json(http::Method::GET, "/ping", None::<&()>).await
///     }
/// }
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(message = "`{Self}` is not an action", note = "implement `Action`")]
pub trait Action: Send + Sync + Debug + 'static {
    /// Its name within the connector.
    const NAME: &'static str;
    /// What it takes.
    type Input: Data;
    /// What it answers.
    type Output: Data;
    /// Does it.
    async fn call(&self, client: &ConnectionClient, input: Self::Input) -> Result<Self::Output>;
}

/// The erased twin of [`Action`]; made from one by itself, or implemented by actions that exist only at run time.
#[async_trait]
pub trait DynAction: Send + Sync + Debug + 'static {
    /// Its name within the connector.
    fn name(&self) -> &str;
    /// JSON Schema of the input.
    fn input_schema(&self) -> Schema;
    /// JSON Schema of the output.
    fn output_schema(&self) -> Schema;
    /// Does it.
    async fn call_value(&self, client: &ConnectionClient, input: Value) -> Result<Value>;
}

#[async_trait]
impl<A: Action> DynAction for A {
    fn name(&self) -> &str {
        A::NAME
    }
    fn input_schema(&self) -> Schema {
        schema_for!(A::Input)
    }
    fn output_schema(&self) -> Schema {
        schema_for!(A::Output)
    }
    async fn call_value(&self, client: &ConnectionClient, input: Value) -> Result<Value> {
        let output = self.call(client, from_value(input, "the input of the action")?).await?;
        to_value(&output)
    }
}

/// One choice in a form.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Choice {
    /// What is stored.
    pub value: String,
    /// What is shown.
    pub label: String,
}

impl Choice {
    /// A value and its label.
    pub fn new(value: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            value: value.into(),
            label: label.into(),
        }
    }
}

/// What a form asks a data source for.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ChoiceQuery {
    /// What was typed so far.
    pub search: String,
    /// The `next` of the page before.
    pub after: Option<String>,
    /// Values of the fields that it depends on.
    pub depends: BTreeMap<String, Value>,
}

/// A page of choices.
#[derive(Debug, Clone, Default, serde::Serialize, JsonSchema)]
#[non_exhaustive]
pub struct ChoicePage {
    /// The choices.
    pub items: Vec<Choice>,
    /// Where the next page starts.
    pub next: Option<String>,
}

impl ChoicePage {
    /// A page of choices.
    #[must_use]
    pub const fn new(items: Vec<Choice>, next: Option<String>) -> Self {
        Self { items, next }
    }
}

/// Dynamic choices for a configuration form: always searchable, always in pages.
#[async_trait]
pub trait DataSource: Send + Sync + Debug + 'static {
    /// Its name within the connector (`channels`).
    fn name(&self) -> &str;
    /// A page of choices.
    async fn page(&self, client: &ConnectionClient, query: &ChoiceQuery) -> Result<ChoicePage>;
}

/// Where requests of a connector go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseUrl {
    /// Always there.
    Fixed(String),
    /// Each connection has its own, in its variable `base_url`.
    PerConnection,
}

/// How a connection proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(tag = "scheme", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuthScheme {
    /// It does not.
    None,
    /// A key in a header, behind an optional prefix such as `Bearer `. Field: `api_key`.
    ApiKeyHeader {
        /// The header's name.
        header: String,
        /// What stands before the key.
        prefix: String,
    },
    /// A key as a query parameter. Field: `api_key`.
    ApiKeyQuery {
        /// The parameter's name.
        parameter: String,
    },
    /// HTTP basic authentication. Fields: `username`, `password`.
    Basic,
}

impl AuthScheme {
    /// `Authorization: Bearer <key>`.
    #[must_use]
    pub fn bearer() -> Self {
        Self::ApiKeyHeader {
            header: "authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
        }
    }

    /// The scheme's name in records: `none`, `api-key-header`, `api-key-query`, `basic`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ApiKeyHeader { .. } => "api-key-header",
            Self::ApiKeyQuery { .. } => "api-key-query",
            Self::Basic => "basic",
        }
    }

    /// The fields of its credential.
    #[must_use]
    pub const fn fields(&self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::ApiKeyHeader { .. } | Self::ApiKeyQuery { .. } => &["api_key"],
            Self::Basic => &["username", "password"],
        }
    }
}

/// What is known about a connector without running it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectorDescriptor {
    /// Its id: lower case, digits and hyphens.
    pub id: String,
    /// Its name for people.
    pub title: String,
    /// One line about the provider.
    pub summary: String,
    /// Where requests go.
    pub base_url: BaseUrl,
    /// How connections can authenticate; the first is the default.
    pub auth: Vec<AuthScheme>,
    /// A path that answers 2xx to valid credentials, for the connection test.
    pub probe: Option<String>,
}

impl ConnectorDescriptor {
    /// A connector with a fixed base URL.
    #[must_use]
    pub fn new(id: impl Into<String>, title: impl Into<String>, base_url: BaseUrl) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            summary: String::new(),
            base_url,
            auth: Vec::new(),
            probe: None,
        }
    }
    /// Adds a way to authenticate.
    #[must_use]
    pub fn auth(mut self, scheme: AuthScheme) -> Self {
        self.auth.push(scheme);
        self
    }
    /// Sets the line about the provider.
    #[must_use]
    pub fn summary(mut self, summary: impl Into<String>) -> Self {
        self.summary = summary.into();
        self
    }
    /// Sets the path of the connection test.
    #[must_use]
    pub fn probe(mut self, path: impl Into<String>) -> Self {
        self.probe = Some(path.into());
        self
    }
}

/// Code that talks to one provider.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a connector", note = "implement `Connector`")]
pub trait Connector: Send + Sync + Debug + 'static {
    /// What is known about it without running it.
    fn descriptor(&self) -> &ConnectorDescriptor;

    /// What it can do.
    fn actions(&self) -> Vec<Arc<dyn DynAction>> {
        Vec::new()
    }

    /// The dynamic choices that it offers to forms.
    fn data_sources(&self) -> Vec<Arc<dyn DataSource>> {
        Vec::new()
    }
}

pub(crate) fn from_value<T: DeserializeOwned>(value: Value, what: &str) -> Result<T> {
    serde_json::from_value(value).map_err(|e| {
        Error::new(Code::InputInvalid, format!("{what} has the wrong shape"))
            .with_problems(vec![Problem::new("", e.to_string())])
    })
}

pub(crate) fn to_value<T: Serialize>(value: &T) -> Result<Value> {
    serde_json::to_value(value).or_fail(Code::FlowFailed, "the output does not serialise")
}
