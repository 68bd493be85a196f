//! The connection test.

use super::ConnectorEngine;
use bytes::Bytes;
use crosspoint_core::{Code, ConnectionId, ConnectionTest, CustomerScope, Error, Health, Result, Transport};
use http::StatusCode;
use tokio::time::Instant;

impl ConnectorEngine {
    /// Asks the probe of the connector; what it answers becomes the health. Without a probe the base URL is asked, which
    /// shows that there is a server and, by 401 or 403, that it refuses the credential.
    pub(super) async fn run_test(&self, scope: &CustomerScope, id: ConnectionId) -> Result<ConnectionTest> {
        let opened = self.open(self.found(scope, id).await?).await?;
        let before = opened.connection.health;
        let (transport, watch) = self.transport(scope, &opened)?;
        let probe = opened.connector.descriptor().probe.as_deref();
        let request = http::Request::get(probe.unwrap_or("/"))
            .header(http::header::ACCEPT, "application/json, */*;q=0.5")
            .body(Bytes::new())
            .map_err(|e| Error::new(Code::SetupInvalid, "the path of the connection test is not valid").caused_by(e))?;
        let started = Instant::now();
        let answer = transport.send(request, &self.patience()).await;
        let took = started.elapsed();
        let (health, ok, message) = match &answer {
            Ok(response) => judged(response.status(), probe.is_some()),
            Err(error) => (
                Health::Degraded,
                false,
                format!("{} ({})", error.code().title().trim(), error.message()),
            ),
        };
        // Only an answer to the credential itself ends the need to connect again.
        let known_bad = before == Health::NeedsReconnect && health != Health::Connected;
        if health != Health::Unknown && !known_bad {
            watch.note(health).await;
        }
        Ok(ConnectionTest::new(ok, message, took))
    }
}

fn judged(status: StatusCode, probed: bool) -> (Health, bool, String) {
    match status.as_u16() {
        401 | 403 => (
            Health::NeedsReconnect,
            false,
            format!("The provider refused the credential ({status}). Check it and connect again."),
        ),
        200..=299 if probed => (
            Health::Connected,
            true,
            "The provider accepted the credential.".to_owned(),
        ),
        429 | 500..=599 => (
            Health::Degraded,
            false,
            format!("The provider has trouble ({status}); whether the credential works is not known. Try again later."),
        ),
        _ if probed => (
            Health::Degraded,
            false,
            format!("The provider answered {status} where success was expected."),
        ),
        _ => (
            Health::Unknown,
            true,
            "There is a server, and it did not refuse the credential; this connector has no test of its own."
                .to_owned(),
        ),
    }
}
