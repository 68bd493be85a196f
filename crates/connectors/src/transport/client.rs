//! The process-wide client and its limits.

use super::{Base, ConnectionTransport, Credential, SystemResolver, check_url, guard::Guard, target::host_and_port};
use crosspoint_core::{
    AuthScheme, Clock, Code, ConnectionClient, CredentialFields, EgressPolicy, Error, ErrorExt, Resolve, Result,
};
use std::{fmt, sync::Arc, time::Duration};
use url::Url;

/// Makes the HTTP requests of all connections: rustls, HTTP/1.1 and 2, no proxy from the environment, no cookies.
///
/// Clones share one pool. Make one per process.
///
/// ```
/// use crosspoint_connectors::HttpClient;
/// use crosspoint_core::EgressPolicy;
/// use std::time::Duration;
///
/// let client = HttpClient::builder()
///     .egress(EgressPolicy::new().allow_host("127.0.0.1:4000")?)
///     .timeout(Duration::from_secs(10))
///     .build()?;
/// # let _ = client;
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Clone)]
pub struct HttpClient(Arc<Inner>);

struct Inner {
    /// Connects to public addresses only.
    guarded: reqwest::Client,
    /// Connects to any address; used for hosts that a rule permits, and for nothing else.
    open: Option<reqwest::Client>,
    egress: EgressPolicy,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) timeout: Duration,
    pub(super) max_request: usize,
    pub(super) max_response: usize,
}

impl HttpClient {
    /// A client with the default limits: 30 s, 10 MiB in either direction, public addresses over https.
    ///
    /// # Errors
    /// As [`HttpClientBuilder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// A client with other limits.
    pub fn builder() -> HttpClientBuilder {
        HttpClientBuilder::default()
    }

    /// The rules on which hosts may be called.
    #[must_use]
    pub fn egress(&self) -> &EgressPolicy {
        &self.0.egress
    }

    /// A client for a base URL and a credential that no store knows, for tests of actions and for the host's own calls.
    /// The guard and the limits hold as for any connection.
    ///
    /// # Errors
    /// [`Code::InputInvalid`] if the base URL or the credential cannot be used; [`Code::EgressRefused`].
    pub fn client_for(
        &self,
        base_url: &str,
        scheme: &AuthScheme,
        fields: &CredentialFields,
        clock: Arc<dyn Clock>,
    ) -> Result<ConnectionClient> {
        let base =
            Base::parse(base_url).map_err(|why| Error::new(Code::InputInvalid, format!("the base URL {why}")))?;
        self.check(base.url())?;
        let credential = Credential::new(scheme, fields)?;
        let transport = ConnectionTransport::new(self.clone(), base, credential, clock);
        Ok(ConnectionClient::new(Arc::new(transport)))
    }

    pub(super) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Checks what a URL itself says.
    pub(crate) fn check(&self, url: &Url) -> Result<()> {
        check_url(&self.0.egress, url)
    }

    /// The pool for a URL that was checked.
    pub(super) fn pool(&self, url: &Url) -> &reqwest::Client {
        let (host, port) = host_and_port(url);
        match &self.0.open {
            Some(open) if self.0.egress.permits(host, port) => open,
            _ => &self.0.guarded,
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("egress", &self.0.egress)
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}

/// Settings of an [`HttpClient`].
#[derive(Debug)]
#[must_use]
pub struct HttpClientBuilder {
    egress: EgressPolicy,
    resolver: Arc<dyn Resolve>,
    limits: Limits,
    user_agent: String,
}

impl Default for HttpClientBuilder {
    fn default() -> Self {
        Self {
            egress: EgressPolicy::new(),
            resolver: Arc::new(SystemResolver::new()),
            limits: Limits {
                timeout: Duration::from_secs(30),
                max_request: 10 * 1024 * 1024,
                max_response: 10 * 1024 * 1024,
            },
            user_agent: concat!("crosspoint/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

impl HttpClientBuilder {
    /// Sets which hosts may be called; public ones over https unless set.
    pub fn egress(mut self, policy: EgressPolicy) -> Self {
        self.egress = policy;
        self
    }

    /// Sets how names become addresses; the machine's own resolver unless set. What it answers is checked.
    pub fn resolver(mut self, resolver: Arc<dyn Resolve>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Sets how long one exchange may take from its start to the last byte of the answer, redirects included; 30 s
    /// unless set. A call's own deadline can shorten that, never lengthen it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.limits.timeout = timeout;
        self
    }

    /// Sets how many bytes the body of a request may have; 10 MiB unless set.
    pub fn max_request(mut self, bytes: usize) -> Self {
        self.limits.max_request = bytes;
        self
    }

    /// Sets how many bytes the body of an answer may have; 10 MiB unless set.
    pub fn max_response(mut self, bytes: usize) -> Self {
        self.limits.max_response = bytes;
        self
    }

    /// Sets what requests give as `User-Agent`; providers like to see the host's name and a way to reach it.
    pub fn user_agent(mut self, text: impl Into<String>) -> Self {
        self.user_agent = text.into();
        self
    }

    /// Makes the client.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if TLS cannot be set up (most often: the machine has no root certificates), or the user
    /// agent is not a valid header.
    pub fn build(self) -> Result<HttpClient> {
        let open = match self.egress.has_exceptions() {
            true => Some(self.pool(true)?),
            false => None,
        };
        Ok(HttpClient(Arc::new(Inner {
            guarded: self.pool(false)?,
            open,
            egress: self.egress,
            limits: self.limits,
        })))
    }

    fn pool(&self, open: bool) -> Result<reqwest::Client> {
        let guard = Guard {
            resolver: Arc::clone(&self.resolver),
            open,
        };
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .dns_resolver(guard)
            .connect_timeout(self.limits.timeout.min(Duration::from_secs(10)))
            .pool_max_idle_per_host(16)
            .user_agent(self.user_agent.as_str())
            .build()
            .or_fail(
                Code::SetupInvalid,
                "the HTTP client cannot be set up; are the root certificates of the system installed?",
            )
    }
}
