//! The generic HTTP connector, and a builder of simple connectors.
//!
//! [`Http`] talks to any server that a customer names. [`HttpConnector`] is for the host's programmer who knows the
//! provider: a few lines give its base URL, its way to authenticate and its own typed actions.

mod send;

pub use send::{Method, Send, SendRequest, SendResponse};

use crosspoint_core::{Action, AuthScheme, BaseUrl, Connector, ConnectorDescriptor, DataSource, DynAction};
use std::sync::Arc;

/// A connector made of a descriptor, the action [`Send`] and what is added to it.
///
/// ```
/// use crosspoint_connectors::http::HttpConnector;
/// use crosspoint_core::{AuthScheme, Connector};
///
/// let erp = HttpConnector::new("acme-erp", "Acme ERP", "https://erp.acme.example/api")
///     .auth(AuthScheme::bearer())
///     .probe("/me");
/// assert_eq!(erp.descriptor().id, "acme-erp");
/// ```
#[derive(Debug)]
#[must_use]
pub struct HttpConnector {
    descriptor: ConnectorDescriptor,
    actions: Vec<Arc<dyn DynAction>>,
    data_sources: Vec<Arc<dyn DataSource>>,
}

impl HttpConnector {
    /// A connector to one provider. The id is lower case letters, digits and hyphens; without a scheme its connections
    /// do not authenticate.
    pub fn new(id: impl Into<String>, title: impl Into<String>, base_url: impl Into<String>) -> Self {
        Self::of(ConnectorDescriptor::new(id, title, BaseUrl::Fixed(base_url.into())))
    }

    /// A connector whose connections each name their own server (variable `base_url`).
    pub fn per_connection(id: impl Into<String>, title: impl Into<String>) -> Self {
        Self::of(ConnectorDescriptor::new(id, title, BaseUrl::PerConnection))
    }

    fn of(descriptor: ConnectorDescriptor) -> Self {
        Self {
            descriptor,
            actions: vec![Arc::new(Send)],
            data_sources: Vec::new(),
        }
    }

    /// Adds a way to authenticate; the first one is the default, and there is at most one of each kind.
    pub fn auth(mut self, scheme: AuthScheme) -> Self {
        self.descriptor = self.descriptor.auth(scheme);
        self
    }

    /// Sets a line about the provider.
    pub fn summary(mut self, summary: impl Into<String>) -> Self {
        self.descriptor = self.descriptor.summary(summary);
        self
    }

    /// Sets a path that answers 2xx to valid credentials and 401 or 403 to others, for the connection test.
    pub fn probe(mut self, path: impl Into<String>) -> Self {
        self.descriptor = self.descriptor.probe(path);
        self
    }

    /// Adds an action.
    pub fn action(mut self, action: impl Action) -> Self {
        self.actions.push(Arc::new(action));
        self
    }

    /// Adds choices for forms.
    pub fn data_source(mut self, source: impl DataSource) -> Self {
        self.data_sources.push(Arc::new(source));
        self
    }
}

impl Connector for HttpConnector {
    fn descriptor(&self) -> &ConnectorDescriptor {
        &self.descriptor
    }
    fn actions(&self) -> Vec<Arc<dyn DynAction>> {
        self.actions.clone()
    }
    fn data_sources(&self) -> Vec<Arc<dyn DataSource>> {
        self.data_sources.clone()
    }
}

/// The connector to any HTTP server that a customer names.
///
/// A connection has the variable `base_url`. Its key goes into `Authorization: Bearer` unless the variables `header`
/// and `prefix` say otherwise, or into the query parameter that the variable `parameter` names (`api_key` unless given);
/// or it has a user name and password, or nothing.
#[derive(Debug)]
pub struct Http(HttpConnector);

impl Http {
    /// Its id.
    pub const ID: &'static str = "http";

    /// The connector.
    #[must_use]
    pub fn new() -> Self {
        let query = AuthScheme::ApiKeyQuery {
            parameter: "api_key".to_owned(),
        };
        Self(
            HttpConnector::per_connection(Self::ID, "HTTP")
                .summary("Any server that speaks HTTP")
                .auth(AuthScheme::bearer())
                .auth(query)
                .auth(AuthScheme::Basic)
                .auth(AuthScheme::None),
        )
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

impl Connector for Http {
    fn descriptor(&self) -> &ConnectorDescriptor {
        self.0.descriptor()
    }
    fn actions(&self) -> Vec<Arc<dyn DynAction>> {
        self.0.actions()
    }
    fn data_sources(&self) -> Vec<Arc<dyn DataSource>> {
        self.0.data_sources()
    }
}
