//! Connecting and connecting again.

use super::{ConnectorEngine, check, chosen};
use async_trait::async_trait;
use crosspoint_core::{
    AuthScheme, Authorizer, Code, ConnectRequest, Connection, ConnectionId, ConnectionTest, CustomerScope, Error,
    Health, Problem, Result, Saved, Scope, SealContext,
};

#[async_trait]
impl Authorizer for ConnectorEngine {
    fn schemes(&self, connector: &str) -> Result<Vec<AuthScheme>> {
        Ok(check::schemes(self.connector(connector)?.descriptor()))
    }

    async fn connect(&self, scope: &CustomerScope, mut request: ConnectRequest) -> Result<Connection> {
        let descriptor = self.connector(&request.connector)?.descriptor();
        let known = match request.reconnect {
            Some(id) => Some(self.reconnected(scope, id, &request.connector).await?),
            None => None,
        };
        if let Some(known) = known.as_ref().filter(|_| request.variables.is_empty()) {
            request.variables.clone_from(&known.variables);
        }
        let wanted = request
            .scheme
            .as_deref()
            .or_else(|| known.as_ref().map(|known| known.scheme.as_str()));
        let scheme = chosen(descriptor, wanted).ok_or_else(|| {
            let offered: Vec<_> = check::schemes(descriptor).iter().map(AuthScheme::name).collect();
            refused(vec![Problem::new(
                "/scheme",
                format!("is one of: {}", offered.join(", ")),
            )])
        })?;
        let problems = check::request(descriptor, &scheme, &request, &self.http);
        if !problems.is_empty() {
            return Err(refused(problems).with("connector", &request.connector));
        }
        let connection = self.sealed(scope, known, &scheme, &descriptor.title, request).await?;
        let scope = Scope::Customer(scope);
        match self.connections.save(scope, &connection).await? {
            Saved::Applied => {}
            _ => {
                return Err(Error::new(
                    Code::RevisionStale,
                    "somebody else connected this connection at the same moment; look at it and try again",
                )
                .with("connection", connection.id));
            }
        }
        if request_was_reconnect(&connection) {
            self.connections
                .set_health(scope, connection.id, connection.health)
                .await?;
        }
        tracing::info!(connection = %connection.id, connector = connection.connector, "connected");
        Ok(connection)
    }

    async fn test(&self, scope: &CustomerScope, connection: ConnectionId) -> Result<ConnectionTest> {
        self.run_test(scope, connection).await
    }
}

/// The health of the old credential says nothing about the new one.
const fn request_was_reconnect(connection: &Connection) -> bool {
    connection.generation > 1
}

fn refused(problems: Vec<Problem>) -> Error {
    Error::new(Code::InputInvalid, "the connection cannot be made like this").with_problems(problems)
}

impl ConnectorEngine {
    /// The connection whose credential is to be replaced.
    async fn reconnected(&self, scope: &CustomerScope, id: ConnectionId, connector: &str) -> Result<Connection> {
        let known = self.found(scope, id).await?;
        if known.connector == connector {
            return Ok(known);
        }
        Err(refused(vec![Problem::new(
            "/connector",
            "is not the connector of the connection",
        )])
        .with("connection", id))
    }

    /// The record to save: the known one with its next generation, or a new one.
    async fn sealed(
        &self,
        scope: &CustomerScope,
        known: Option<Connection>,
        scheme: &AuthScheme,
        title: &str,
        request: ConnectRequest,
    ) -> Result<Connection> {
        let now = self.clock.now();
        let mut connection = match known {
            Some(known) => known,
            None => {
                let id = ConnectionId::mint(&*self.clock);
                let mut new = Connection::new(id, scope.customer().clone(), request.connector, "", now);
                title.clone_into(&mut new.label);
                new
            }
        };
        connection.generation += 1;
        connection.updated = now;
        connection.health = Health::Unknown;
        connection.variables = request.variables;
        scheme.name().clone_into(&mut connection.scheme);
        if let Some(label) = request.label {
            label.trim().clone_into(&mut connection.label);
        }
        connection.sealed = None;
        if !scheme.fields().is_empty() {
            let context = SealContext::credential(connection.customer.clone(), connection.id, connection.generation);
            connection.sealed = Some(self.vault.seal(&context, &request.fields.to_plaintext()).await?);
        }
        Ok(connection)
    }
}
