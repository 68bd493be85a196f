//! What the answers of a provider say about a connection's health.

use crosspoint_core::{Connection, ConnectionId, Connections, CustomerScope, Health, Result, Scope};
use http::StatusCode;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Notes the health of one connection as its calls are answered.
pub(crate) struct Watch {
    connections: Arc<dyn Connections>,
    scope: CustomerScope,
    id: ConnectionId,
    /// Of the credential that is being sent: what an old one meets says nothing about its successor.
    generation: u64,
    last: Mutex<Health>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({}, generation {})", self.id, self.generation)
    }
}

impl Watch {
    pub(crate) fn new(connections: Arc<dyn Connections>, scope: CustomerScope, connection: &Connection) -> Self {
        Self {
            connections,
            scope,
            id: connection.id,
            generation: connection.generation,
            last: Mutex::new(connection.health),
        }
    }

    pub(crate) const fn id(&self) -> ConnectionId {
        self.id
    }

    /// A provider answered an ordinary call. 401 means that somebody must connect again, success that all is well;
    /// everything else (403 too: it may be about this one resource) says nothing about the credential.
    pub(super) async fn answered(&self, status: StatusCode) {
        if status == StatusCode::UNAUTHORIZED {
            self.note(Health::NeedsReconnect).await;
        } else if status.is_success() {
            self.note(Health::Connected).await;
        }
    }

    /// Writes the health if it changed. A store that fails here does not fail the call that was made.
    pub(crate) async fn note(&self, health: Health) {
        if *self.last.lock().unwrap_or_else(PoisonError::into_inner) == health {
            return;
        }
        match self.write(health).await {
            Ok(()) => *self.last.lock().unwrap_or_else(PoisonError::into_inner) = health,
            Err(error) => {
                tracing::warn!(connection = %self.id, health = health.as_str(), %error, "health was not noted");
            }
        }
    }

    async fn write(&self, health: Health) -> Result<()> {
        let scope = Scope::Customer(&self.scope);
        match self.connections.get(scope, self.id).await? {
            Some(stored) if stored.generation == self.generation => {
                self.connections.set_health(scope, self.id, health).await
            }
            _ => Ok(()),
        }
    }
}
