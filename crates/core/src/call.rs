//! One call to a target, and who handles it.

use crate::{
    BoxError, CloseReason, Code, CustomerId, Error, FlowRef, InvocationId, LeaseRef, Result, RunKey, StopSignal,
    TargetId, Timestamp,
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    fmt::Debug,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower_service::Service;

/// The answer of a target.
pub type Reply = http::Response<Bytes>;

/// A call to a target: the request, and what dispatch knows about it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Invocation {
    /// Who, what, how long, how often.
    pub meta: Meta,
    /// The request as the target sees it.
    pub request: http::Request<Bytes>,
}

impl Invocation {
    /// Puts the two together.
    #[must_use]
    pub const fn new(meta: Meta, request: http::Request<Bytes>) -> Self {
        Self { meta, request }
    }
}

/// What dispatch knows about a call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Meta {
    /// The call's id. For a flow it is also the execution's id.
    pub id: InvocationId,
    /// Whose call it is.
    pub customer: CustomerId,
    /// Where it goes.
    pub target: TargetId,
    /// The class of routes whose latencies are comparable; empty for the target as a whole.
    pub route_class: Arc<str>,
    /// When the caller stops being interested.
    pub deadline: Option<Timestamp>,
    /// Recognises a repeat of the same call.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Calls of one target with the same ordering key run one after another, in the order of the store.
    pub ordering_key: Option<Arc<str>>,
    /// Higher goes first within a customer; 0 is ordinary.
    pub priority: i16,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// The key of outside effects: the same for every attempt and for a redrive.
    pub run_key: RunKey,
    /// `traceparent` of the caller (W3C Trace Context).
    pub trace: Option<Arc<str>>,
    /// Who called, in the host's words; a stored reply is shown to nobody else.
    pub principal: Option<Arc<str>>,
    /// How it was delivered, when it came through the store.
    pub delivery: Option<Delivery>,
}

impl Meta {
    /// The first attempt of a call without any options.
    #[must_use]
    pub fn new(id: InvocationId, customer: CustomerId, target: TargetId) -> Self {
        Self {
            id,
            customer,
            target,
            route_class: Arc::from(""),
            deadline: None,
            idempotency_key: None,
            ordering_key: None,
            priority: 0,
            attempt: 1,
            run_key: RunKey::from_uuid(*id.as_uuid()),
            trace: None,
            principal: None,
            delivery: None,
        }
    }
}

/// An `Idempotency-Key` in its scope.
///
/// The scope is customer, target, route, principal and the key itself; the fingerprint covers method, path with query,
/// content type and body. Both are hashes that whoever accepts the call has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct IdempotencyKey {
    /// Hash of the scope with the key.
    pub scope: [u8; 16],
    /// Hash of the request.
    pub fingerprint: [u8; 16],
    /// Until when a repeat is recognised. A key outlives its result.
    pub expires: Timestamp,
}

impl IdempotencyKey {
    /// From the two hashes.
    #[must_use]
    pub const fn new(scope: [u8; 16], fingerprint: [u8; 16], expires: Timestamp) -> Self {
        Self {
            scope,
            fingerprint,
            expires,
        }
    }
}

/// How a call reached its handler through the store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// The lease under which results are written.
    pub lease: LeaseRef,
    /// Whether the execution was begun by the same commit that made the lease.
    pub begun: bool,
    /// When set, the work is not to be run but closed for this reason.
    pub close: Option<CloseReason>,
    /// Since when it has been waiting for this attempt.
    pub queued: Timestamp,
    /// Fires when the attempt must stop.
    pub stop: StopSignal,
    /// Which flow it starts, when it starts one.
    pub flow: Option<FlowRef>,
    /// When the call was accepted, where that is known.
    pub created: Option<Timestamp>,
}

impl Delivery {
    /// A delivery under `lease`.
    #[must_use]
    pub const fn new(
        lease: LeaseRef,
        begun: bool,
        close: Option<CloseReason>,
        queued: Timestamp,
        stop: StopSignal,
    ) -> Self {
        Self {
            lease,
            begun,
            close,
            queued,
            stop,
            flow: None,
            created: None,
        }
    }

    /// Tells the handler which flow this is and when it was accepted, which saves it a read of the execution.
    #[must_use]
    pub fn of_flow(mut self, flow: FlowRef, created: Timestamp) -> Self {
        self.flow = Some(flow);
        self.created = Some(created);
        self
    }
}

/// Handles calls: a host's service, a runner pool, a forwarder to another process.
///
/// Dropping the future cancels the attempt. `Err` with [`Retry::Backoff`](crate::Retry::Backoff) or
/// [`Retry::At`](crate::Retry::At) asks for another attempt; any `Ok` is a final answer, whatever its status.
///
/// An error with [`Code::TargetUnavailable`](crate::Code::TargetUnavailable),
/// [`Code::TargetSaturated`](crate::Code::TargetSaturated) or [`Code::ShuttingDown`](crate::Code::ShuttingDown) says that the
/// call was *not begun*, so that it may be made again without harm, only if it names the call's own target:
/// `.with("target", &invocation.meta.target)`. The same codes without it, as they come from something that the handler has
/// called in the middle of its work, are failures, and are repeated only for calls that may be repeated.
///
/// ```
/// use crosspoint_core::{Handler, Invocation, Reply, Result};
///
/// #[derive(Debug)]
/// struct Echo;
///
/// #[async_trait::async_trait]
/// impl Handler for Echo {
///     async fn handle(&self, invocation: Invocation) -> Result<Reply> {
///         Ok(Reply::new(invocation.request.into_body()))
///     }
/// }
/// ```
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle calls",
    note = "implement `Handler`, or wrap a tower service in `FromService`"
)]
pub trait Handler: Send + Sync + Debug + 'static {
    /// Handles one call.
    async fn handle(&self, invocation: Invocation) -> Result<Reply>;
}

#[async_trait]
impl<H: Handler + ?Sized> Handler for Arc<H> {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        (**self).handle(invocation).await
    }
}

/// A tower service as a [`Handler`].
///
/// The service must be `Sync`: axum's `Router` and tower's `BoxCloneSyncService` are, `BoxCloneService` is not. Each
/// call runs on a clone that has been polled ready.
#[derive(Clone)]
pub struct FromService<S>(S);

impl<S> FromService<S> {
    /// Wraps a service over [`Invocation`].
    pub const fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S> Debug for FromService<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FromService({})", std::any::type_name::<S>())
    }
}

#[async_trait]
impl<S> Handler for FromService<S>
where
    S: Service<Invocation, Response = Reply> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        let mut service = self.0.clone();
        poll_fn(|cx| service.poll_ready(cx))
            .await
            .map_err(|e| failed(e, Code::TargetUnavailable, "the service is not ready"))?;
        service
            .call(invocation)
            .await
            .map_err(|e| failed(e, Code::OutcomeUnknown, "the service failed after it had been called"))
    }
}

fn failed(error: impl Into<BoxError>, code: Code, message: &str) -> Error {
    match error.into().downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => Error::new(code, message).caused_by(error),
    }
}

/// A [`Handler`] as a tower service.
#[derive(Clone, Debug)]
pub struct IntoService(Arc<dyn Handler>);

impl IntoService {
    /// Wraps a handler.
    #[must_use]
    pub fn new(handler: Arc<dyn Handler>) -> Self {
        Self(handler)
    }
}

impl Service<Invocation> for IntoService {
    type Response = Reply;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, invocation: Invocation) -> Self::Future {
        let handler = Arc::clone(&self.0);
        Box::pin(async move { handler.handle(invocation).await })
    }
}
