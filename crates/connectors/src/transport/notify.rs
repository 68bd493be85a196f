//! Notifications to URLs that customers name.

use super::{HttpClient, check_url, guard::unreachable, retry_after};
use async_trait::async_trait;
use bytes::Bytes;
use crosspoint_core::{Clock, Code, Deliver, Delivered, Error, Result};
use http::HeaderMap;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use url::Url;

/// A receiver has to answer within this time: it should take a notification, not work on it.
const LONGEST: Duration = Duration::from_secs(15);

/// Sends notifications through an [`HttpClient`], within its egress rules: what they do not permit is not called, whatever
/// a name resolves to, and no redirect is followed. The answer's body is not read.
///
/// ```
/// use crosspoint_connectors::{HttpClient, Notifier};
/// use crosspoint_core::{Deliver, SystemClock};
/// use std::sync::Arc;
///
/// let notifier = Notifier::new(HttpClient::new()?, Arc::new(SystemClock::new()));
/// assert!(notifier.check("https://hooks.example.com/x").is_ok());
/// assert!(notifier.check("https://169.254.169.254/latest").is_err());
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Notifier {
    client: HttpClient,
    clock: Arc<dyn Clock>,
}

impl Notifier {
    /// Sends through `client`; `clock` turns a receiver's `Retry-After` into a time.
    #[must_use]
    pub const fn new(client: HttpClient, clock: Arc<dyn Clock>) -> Self {
        Self { client, clock }
    }

    fn parse(&self, url: &str) -> Result<Url> {
        let mut url = Url::parse(url).map_err(|_| Error::new(Code::InputInvalid, "it is not a URL"))?;
        check_url(self.client.egress(), &url)?;
        url.set_fragment(None);
        Ok(url)
    }
}

#[async_trait]
impl Deliver for Notifier {
    fn check(&self, url: &str) -> Result<()> {
        self.parse(url).map(drop)
    }

    async fn deliver(&self, url: &str, headers: HeaderMap, body: Bytes) -> Result<Delivered> {
        // Once more: the rules of this process may be stricter than those of the one that accepted the URL.
        let url = self.parse(url)?;
        let pool = self.client.pool(&url);
        let mut request = reqwest::Request::new(http::Method::POST, url);
        *request.headers_mut() = headers;
        *request.body_mut() = Some(body.into());
        let most = self.client.limits().timeout.min(LONGEST);
        let late = |_| Error::new(Code::ProviderUnreachable, "the receiver did not answer in time");
        let answer = timeout(most, pool.execute(request))
            .await
            .map_err(late)?
            .map_err(unreachable)?;
        let again = retry_after(answer.status(), answer.headers(), self.clock.now());
        Ok(Delivered::new(answer.status()).retry_at(again))
    }
}
