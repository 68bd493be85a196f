//! The other end: a service that takes calls both ways, straight from a gateway and from the queue.

use super::{
    SharedSecret,
    context::{Context, Said, strip},
};
use crate::{
    Gateway, Settles, TargetConfig,
    budget::Part,
    gateway::Inner,
    http::{KeyScope, idempotency_key, problem},
    outcome::{Outcome, verdict_of},
    replay::WITHOUT_REQUEST,
    target::Target,
    worker::outcome_of,
};
use async_trait::async_trait;
use axum::{Router, body::Body, extract::OriginalUri};
use crosspoint_core::{
    Code, CustomerId, Error, Handler, Invocation, InvocationId, Meta, Reply, Result, Retry, TargetId,
};
use futures_util::FutureExt;
use http::{Request, Response, Uri};
use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context as Task, Poll},
    time::Duration,
};
use tower_service::Service;

/// When a gateway should come again after it was refused.
const AGAIN: Duration = Duration::from_secs(1);

/// How [`Gateway::serve`] takes calls.
///
/// ```
/// use crosspoint_core::CustomerId;
/// use crosspoint_gateway::{TargetConfig, remote::{Serve, SharedSecret}};
///
/// let secret = SharedSecret::new("0123456789abcdef0123456789abcdef")?;
/// let serve = Serve::with_secret(secret)
///     .target(TargetConfig::default().permits(8))
///     .max_body(1024 * 1024)
///     .nobody(CustomerId::new("public")?);
/// # let _ = serve;
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "it says how to serve; `Gateway::serve` does it"]
pub struct Serve {
    secret: Option<SharedSecret>,
    config: TargetConfig,
    max_body: usize,
    route: Arc<str>,
    nobody: Option<CustomerId>,
}

impl Serve {
    /// Takes direct calls only with this secret, which the gateway's
    /// [`RemoteConfig::secret`](super::RemoteConfig::secret) sends.
    pub fn with_secret(secret: SharedSecret) -> Self {
        Self::new(Some(secret))
    }

    /// Takes direct calls from whoever can connect, and believes which customer they name. For a listener on the
    /// loopback interface, or where something in front admits nobody but the gateway.
    pub fn open_to_all_who_connect() -> Self {
        Self::new(None)
    }

    fn new(secret: Option<SharedSecret>) -> Self {
        Self {
            secret,
            config: TargetConfig::default(),
            max_body: 2 * 1024 * 1024,
            route: Arc::from(""),
            nobody: None,
        }
    }

    /// Permits and retries. Direct calls and queued work share the permits.
    pub fn target(mut self, config: TargetConfig) -> Self {
        self.config = config;
        self
    }

    /// The largest body of a direct call, in bytes. Default 2 MiB. It is read to its end before the call gets a permit, within
    /// [`Config::body_timeout`](crate::Config::body_timeout) and [`Config::max_buffered`](crate::Config::max_buffered).
    pub const fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// The path that the gateway's layer was given ([`DispatchLayer::path`](crate::DispatchLayer::path)), if it was: an
    /// `Idempotency-Key` counts within its route, and so it is the same key by both doors. Default: none.
    pub fn path(mut self, pattern: &str) -> Self {
        self.route = Arc::from(pattern);
        self
    }

    /// The customer in whose name calls are handled that name none. Default: they are refused.
    pub fn nobody(mut self, customer: CustomerId) -> Self {
        self.nobody = Some(customer);
        self
    }
}

impl Gateway {
    /// Serves a target to gateways in other processes, by both doors: the router takes the calls that an
    /// [`HttpTarget`](super::HttpTarget) forwards, and queued work is leased from the store that this gateway shares with
    /// them. Both use the same permits, and the handler does not see which way a call came.
    ///
    /// A direct call without a free permit is answered 503 with `Retry-After` and a header that tells the gateway that it
    /// was not started; one without the secret is answered 401 in the same way. Mount the router where the paths of the
    /// calls lead; a health check belongs beside it, not behind it.
    ///
    /// ```
    /// use crosspoint_core::{Handler, Invocation, Memory, Reply, Result, SystemClock, TargetId};
    /// use crosspoint_gateway::{Config, Gateway, TargetConfig, remote::{Serve, SharedSecret}};
    /// use std::sync::Arc;
    ///
    /// #[derive(Debug)]
    /// struct Scan;
    ///
    /// #[async_trait::async_trait]
    /// impl Handler for Scan {
    ///     async fn handle(&self, call: Invocation) -> Result<Reply> {
    ///         Ok(Reply::new(format!("clean, for {}", call.meta.customer).into()))
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
    /// let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
    /// let secret = SharedSecret::new("0123456789abcdef0123456789abcdef")?;
    /// let serve = Serve::with_secret(secret).target(TargetConfig::default().permits(8));
    /// let app = gateway
    ///     .serve(TargetId::new("scan")?, Arc::new(Scan), serve)?
    ///     .route("/health", axum::routing::get(|| async {}));
    /// # let _ = app; Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Gateway::register`]; [`Code::SetupInvalid`] for a target that settles by itself.
    pub fn serve(&self, target: TargetId, handler: Arc<dyn Handler>, serve: Serve) -> Result<Router> {
        if serve.config.settles != Settles::Gateway {
            let message = "a target that settles by itself takes no direct calls";
            return Err(Error::new(Code::SetupInvalid, message).with("target", target));
        }
        let handler: Arc<dyn Handler> = Arc::new(Whole(handler));
        self.register(target.clone(), Arc::clone(&handler), serve.config.clone())?;
        let door = Door {
            inner: Arc::clone(&self.inner),
            target: self.inner.target(&target),
            handler,
            serve: Arc::new(serve),
        };
        Ok(Router::new().fallback_service(door))
    }
}

/// Refuses what is stored without its request: an adopted call whose gateway is gone.
#[derive(Debug)]
struct Whole(Arc<dyn Handler>);

#[async_trait]
impl Handler for Whole {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        if invocation.request.headers().contains_key(WITHOUT_REQUEST) {
            let message = "the call was adopted while it ran, and its request was not kept";
            return Err(Error::new(Code::OutcomeUnknown, message).with_retry(Retry::Never));
        }
        self.0.handle(invocation).await
    }
}

/// The direct door.
#[derive(Debug, Clone)]
struct Door {
    inner: Arc<Inner>,
    target: Arc<Target>,
    handler: Arc<dyn Handler>,
    serve: Arc<Serve>,
}

impl Door {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let secret = self.serve.secret.as_ref();
        if secret.is_some_and(|secret| !secret.is_in(request.headers())) {
            tracing::warn!(target = %self.target.id, "a direct call came without the shared secret");
            let error = Error::new(
                Code::SessionMissing,
                "the shared secret of gateway and service is missing or wrong",
            );
            return refuse(&error, Said::NotStarted);
        }
        // First the whole body: a permit is for work, not for waiting until a client has sent something.
        let (invocation, room) = match self.invocation(request).await {
            Ok(read) => read,
            Err(error) if error.code() == Code::TargetSaturated => return refuse(&error, Said::Full),
            Err(error) => return problem(&error, None).map(Body::from),
        };
        let Ok(permit) = self.target.gate.enter() else {
            return refuse(
                &Error::new(Code::TargetSaturated, Code::TargetSaturated.title()),
                Said::Full,
            );
        };
        drop(room);
        let result = AssertUnwindSafe(self.handler.handle(invocation)).catch_unwind().await;
        permit.finish(match &result {
            Ok(result) => outcome_of(result, &self.target.id),
            Err(_panic) => Outcome::Failed,
        });
        match result {
            Ok(Ok(mut reply)) => {
                // Only this door says what became of a call.
                strip(reply.headers_mut());
                reply.map(Body::from)
            }
            Ok(Err(error)) => self.failed(&error),
            Err(_panic) => {
                tracing::error!(target = %self.target.id, "the handler panicked");
                problem(&Error::new(Code::Internal, "the handler panicked"), None).map(Body::from)
            }
        }
    }

    /// The call as the handler gets it from either door, and the room that its body takes.
    async fn invocation(&self, request: Request<Body>) -> Result<(Invocation, Part)> {
        let now = self.inner.clock.now();
        let (mut parts, body) = request.into_parts();
        let context = Context::read(&parts.headers);
        strip(&mut parts.headers);
        let Some(customer) = context.customer.or_else(|| self.serve.nobody.clone()) else {
            return Err(Error::new(
                Code::InputInvalid,
                "the gateway did not say whose call this is",
            ));
        };
        let (body, room) = self.inner.read(body, self.serve.max_body, None).await?;
        // The path that the gateway has sent, also where this door is nested in a router.
        if let Some(OriginalUri(uri)) = parts.extensions.remove() {
            parts.uri = uri;
        }
        let scope = KeyScope {
            customer: &customer,
            target: &self.target.id,
            route: &self.serve.route,
            principal: context.principal.as_deref(),
        };
        let expires = now.plus(self.inner.config.key_retention);
        let key = idempotency_key(&parts, &body, &scope, expires)?;
        let id = context.id.unwrap_or_else(|| InvocationId::mint(&*self.inner.clock));
        let mut meta = Meta::new(id, customer, self.target.id.clone());
        meta.route_class = Arc::clone(&self.serve.route);
        meta.attempt = context.attempt.unwrap_or(1);
        meta.run_key = context.run_key.unwrap_or(meta.run_key);
        meta.principal = context.principal;
        meta.deadline = context.left.map(|left| now.plus(left));
        meta.idempotency_key = key;
        let trace = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
        meta.trace = trace.map(Arc::from);
        if let Some(path) = parts.uri.path_and_query() {
            parts.uri = Uri::from(path.clone());
        }
        parts.extensions = http::Extensions::new();
        Ok((Invocation::new(meta, Request::from_parts(parts, body)), room))
    }

    fn failed(&self, error: &Error) -> Response<Body> {
        tracing::info!(%error, target = %self.target.id, "a direct call failed");
        let said = match verdict_of(error, &self.target.id) {
            Outcome::Overloaded { .. } => Said::Full,
            Outcome::NotStarted => Said::NotStarted,
            Outcome::Unknown => Said::Unknown,
            _ => return problem(error, None).map(Body::from),
        };
        refuse(error, said)
    }
}

/// An answer of ours rather than of the handler, with what became of the call.
fn refuse(error: &Error, said: Said) -> Response<Body> {
    let after = (said != Said::Unknown).then_some(AGAIN);
    let mut response = problem(error, after).map(Body::from);
    said.send(response.headers_mut());
    response
}

impl Service<Request<Body>> for Door {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.clone().answer(request);
        Box::pin(async move { Ok(answer.await) })
    }
}
