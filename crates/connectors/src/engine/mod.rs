//! The engine of connections: seals what a customer enters, and makes clients that carry it.

mod check;
mod connect;
mod probe;

use crate::transport::{ConnectionTransport, Credential, HttpClient, Watch};
use async_trait::async_trait;
use crosspoint_core::{
    AuthScheme, BaseUrl, CallOptions, ChoicePage, ChoiceQuery, Choices, Clock, Code, Connection, ConnectionClient,
    ConnectionId, Connections, Connector, ConnectorDescriptor, CredentialFields, Credentials, CustomerScope, Error,
    Registry, Result, Scope, SealContext, Vault,
};
use std::{fmt, sync::Arc, time::Duration};

/// How long a person in front of a form waits for a provider.
const FORM_PATIENCE: Duration = Duration::from_secs(15);

/// Connects customers to providers, and makes clients of their connections.
///
/// It implements the ports [`Credentials`] (for the runtime), [`Authorizer`](crosspoint_core::Authorizer) and
/// [`Choices`] (for the marketplace). A connection of another customer is answered exactly as one that does not exist.
pub struct ConnectorEngine {
    registry: Arc<Registry>,
    connections: Arc<dyn Connections>,
    vault: Arc<dyn Vault>,
    clock: Arc<dyn Clock>,
    http: HttpClient,
}

impl fmt::Debug for ConnectorEngine {
    /// Without the store: one in memory would print everything that it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connectors: Vec<_> = self.registry.connectors().map(|one| &one.descriptor().id).collect();
        f.debug_struct("ConnectorEngine")
            .field("connectors", &connectors)
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

/// A stored connection with everything that a client of it needs.
struct Opened {
    connection: Connection,
    connector: Arc<dyn Connector>,
    fields: CredentialFields,
}

impl ConnectorEngine {
    /// An engine over the registered connectors and the repository of connections.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if a connector has two schemes of one name, a malformed base URL or a probe that is not a
    /// path; [`Code::EgressRefused`] if the fixed base URL of a connector is one that the client may not call.
    pub fn new(
        registry: Arc<Registry>,
        connections: Arc<dyn Connections>,
        vault: Arc<dyn Vault>,
        clock: Arc<dyn Clock>,
        http: HttpClient,
    ) -> Result<Self> {
        for connector in registry.connectors() {
            check::descriptor(connector.descriptor(), &http)?;
        }
        Ok(Self {
            registry,
            connections,
            vault,
            clock,
            http,
        })
    }

    fn connector(&self, id: &str) -> Result<&Arc<dyn Connector>> {
        self.registry
            .connector(id)
            .ok_or_else(|| Error::new(Code::NotFound, "there is no such connector").with("connector", id))
    }

    async fn stored(&self, scope: &CustomerScope, id: ConnectionId) -> Result<Option<Connection>> {
        let found = self.connections.get(Scope::Customer(scope), id).await?;
        // The store filters by scope; a backend that forgets to must not become a hole.
        Ok(found.filter(|connection| connection.customer == *scope.customer()))
    }

    /// The connection for somebody who named it in a request.
    async fn found(&self, scope: &CustomerScope, id: ConnectionId) -> Result<Connection> {
        self.stored(scope, id)
            .await?
            .ok_or_else(|| Error::new(Code::NotFound, "there is no such connection").with("connection", id))
    }

    /// The connection for work that depends on it.
    async fn needed(&self, scope: &CustomerScope, id: ConnectionId) -> Result<Connection> {
        self.stored(scope, id).await?.ok_or_else(|| {
            Error::new(
                Code::ConnectionMissing,
                "the connection does not exist any more; connect again",
            )
            .with("connection", id)
        })
    }

    async fn open(&self, connection: Connection) -> Result<Opened> {
        let connector = self.registry.connector(&connection.connector).ok_or_else(|| {
            Error::new(Code::SetupInvalid, "the connector of this connection is not registered")
                .with("connector", &connection.connector)
                .with("connection", connection.id)
        })?;
        let fields = match &connection.sealed {
            Some(sealed) => {
                let context =
                    SealContext::credential(connection.customer.clone(), connection.id, connection.generation);
                CredentialFields::from_plaintext(&self.vault.open(&context, sealed).await?)?
            }
            None => CredentialFields::default(),
        };
        Ok(Opened {
            connector: Arc::clone(connector),
            connection,
            fields,
        })
    }

    fn transport(&self, scope: &CustomerScope, opened: &Opened) -> Result<(Arc<ConnectionTransport>, Arc<Watch>)> {
        let connection = &opened.connection;
        let descriptor = opened.connector.descriptor();
        let scheme = check::schemes(descriptor)
            .into_iter()
            .find(|scheme| scheme.name() == connection.scheme)
            .ok_or_else(|| {
                Error::new(
                    Code::CredentialsRefused,
                    "the connector does not authenticate in this way any more; connect again",
                )
                .with("connector", &descriptor.id)
                .with("scheme", &connection.scheme)
            })?;
        if connection.sealed.is_none() && !scheme.fields().is_empty() {
            return Err(Error::new(
                Code::ConnectionMissing,
                "the connection has no credential; connect again",
            )
            .with("connection", connection.id));
        }
        let scheme = check::adjusted(scheme, descriptor, &connection.variables);
        let base = check::base_of(descriptor, &connection.variables)
            .map_err(|why| Error::new(Code::SetupInvalid, format!("the connection's base URL {why}")))?;
        let credential = Credential::new(&scheme, &opened.fields)?;
        let watch = Arc::new(Watch::new(Arc::clone(&self.connections), scope.clone(), connection));
        let transport = ConnectionTransport::new(self.http.clone(), base, credential, Arc::clone(&self.clock))
            .stored(&descriptor.id, Arc::clone(&watch));
        Ok((Arc::new(transport), watch))
    }

    /// Options of a call for which somebody waits in front of a form.
    fn patience(&self) -> CallOptions {
        let mut options = CallOptions::default();
        options.deadline = Some(self.clock.now().plus(FORM_PATIENCE));
        options
    }
}

#[async_trait]
impl Credentials for ConnectorEngine {
    async fn client(&self, scope: &CustomerScope, connection: ConnectionId) -> Result<ConnectionClient> {
        let opened = self.open(self.needed(scope, connection).await?).await?;
        let (transport, _) = self.transport(scope, &opened)?;
        Ok(ConnectionClient::new(transport))
    }

    async fn fields(&self, scope: &CustomerScope, connection: ConnectionId) -> Result<CredentialFields> {
        let opened = self.open(self.needed(scope, connection).await?).await?;
        Ok(opened.fields)
    }
}

#[async_trait]
impl Choices for ConnectorEngine {
    async fn choices(
        &self,
        scope: &CustomerScope,
        connection: ConnectionId,
        source: &str,
        query: &ChoiceQuery,
    ) -> Result<ChoicePage> {
        let missing = || Error::new(Code::NotFound, "there is no such data source").with("source", source);
        let (connector, name) = source.split_once('.').ok_or_else(missing)?;
        let connection = self.found(scope, connection).await?;
        if connection.connector != connector {
            return Err(Error::new(
                Code::NotFound,
                "the connection is not one of this data source's connector",
            )
            .with("source", source)
            .with("connection", connection.id));
        }
        let sources = self.connector(connector)?.data_sources();
        let found = sources.iter().find(|known| known.name() == name).ok_or_else(missing)?;
        let opened = self.open(connection).await?;
        let (transport, _) = self.transport(scope, &opened)?;
        let deadline = self.clock.now().plus(FORM_PATIENCE);
        let client = ConnectionClient::new(transport).with_deadline(deadline);
        found.page(&client, query).await
    }
}

/// Where the requests of a connector's connections go, in words.
fn per_connection(descriptor: &ConnectorDescriptor) -> bool {
    descriptor.base_url == BaseUrl::PerConnection
}

/// The scheme that is meant: by name, or the first.
fn chosen(descriptor: &ConnectorDescriptor, name: Option<&str>) -> Option<AuthScheme> {
    let mut schemes = check::schemes(descriptor).into_iter();
    match name {
        Some(name) => schemes.find(|scheme| scheme.name() == name),
        None => schemes.next(),
    }
}
