//! The transport of one connection.

use super::{Base, Credential, HttpClient, Watch, exchange::Exchange, retry_after};
use async_trait::async_trait;
use bytes::Bytes;
use crosspoint_core::{CallOptions, Clock, Code, Error, Result, RetryAt, Transport};
use std::{sync::Arc, time::Duration};
use tracing::{Instrument, Span, field};

/// Sends requests below a base URL, with a credential, within the limits.
#[derive(Debug)]
pub(crate) struct ConnectionTransport {
    client: HttpClient,
    base: Base,
    credential: Credential,
    clock: Arc<dyn Clock>,
    connector: String,
    watch: Option<Arc<Watch>>,
}

impl ConnectionTransport {
    pub(crate) const fn new(client: HttpClient, base: Base, credential: Credential, clock: Arc<dyn Clock>) -> Self {
        Self {
            client,
            base,
            credential,
            clock,
            connector: String::new(),
            watch: None,
        }
    }

    /// For a stored connection: its connector, for the trace, and what becomes of its health.
    pub(crate) fn stored(mut self, connector: &str, watch: Arc<Watch>) -> Self {
        connector.clone_into(&mut self.connector);
        self.watch = Some(watch);
        self
    }

    /// How long an exchange may take, and whether that is the caller's deadline.
    fn time_left(&self, options: &CallOptions) -> Result<(Duration, bool)> {
        let most = self.client.limits().timeout;
        let Some(deadline) = options.deadline else {
            return Ok((most, false));
        };
        let left = deadline.since(self.clock.now());
        if left.is_zero() {
            return Err(Error::new(
                Code::DeadlineExceeded,
                "the deadline passed before the provider was called",
            ));
        }
        Ok((left.min(most), left < most))
    }

    async fn exchange(
        &self,
        mut request: http::Request<Bytes>,
        options: &CallOptions,
    ) -> Result<http::Response<Bytes>> {
        if options.conceal {
            // What is compressed cannot be searched.
            request.headers_mut().remove(http::header::ACCEPT_ENCODING);
        }
        let (size, most) = (request.body().len(), self.client.limits().max_request);
        if size > most {
            return Err(Error::new(
                Code::BodyTooLarge,
                "the request is larger than what may be sent to a provider",
            )
            .with("size", size)
            .with("limit", most));
        }
        let url = self.base.join(request.uri())?;
        Span::current().record("path", self.base.below(url.path()).unwrap_or_default());
        let (left, is_deadline) = self.time_left(options)?;
        let exchange = Exchange {
            client: &self.client,
            credential: &self.credential,
            home: self.base.url(),
        };
        let mut response = tokio::time::timeout(left, Box::pin(exchange.run(url, request)))
            .await
            .map_err(|_| timed_out(left, is_deadline))??;
        if let Some(time) = retry_after(response.status(), response.headers(), self.clock.now()) {
            response.extensions_mut().insert(RetryAt(time));
        }
        if options.conceal {
            self.credential.conceal(&mut response);
        }
        Ok(response)
    }
}

fn timed_out(after: Duration, is_deadline: bool) -> Error {
    if is_deadline {
        return Error::new(
            Code::DeadlineExceeded,
            "the deadline passed before the provider had answered",
        );
    }
    Error::new(Code::ProviderUnreachable, "the provider did not answer in time").with("timeout_ms", after.as_millis())
}

#[async_trait]
impl Transport for ConnectionTransport {
    async fn send(&self, request: http::Request<Bytes>, options: &CallOptions) -> Result<http::Response<Bytes>> {
        // Neither query nor headers: both may hold keys. Nor the base's own path, for the same reason.
        let span = tracing::info_span!(
            "provider.request",
            connector = self.connector,
            connection = self.watch.as_ref().map(|watch| field::display(watch.id())),
            method = %request.method(),
            host = self.base.url().host_str(),
            path = field::Empty,
            status = field::Empty,
            error = field::Empty,
        );
        async {
            let result = self.exchange(request, options).await;
            match &result {
                Ok(response) => {
                    Span::current().record("status", response.status().as_u16());
                    if let Some(watch) = &self.watch {
                        watch.answered(response.status()).await;
                    }
                }
                Err(error) => {
                    Span::current().record("error", error.code().as_str());
                }
            }
            result
        }
        .instrument(span)
        .await
    }
}
