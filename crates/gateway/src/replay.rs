//! Replaying stored requests through the host's own router.

use crate::{
    Gateway, TargetConfig,
    gate::Gate,
    http::for_kept_reply,
    later::{self, Completion},
    layer::Passage,
    outcome::{Outcome, Returned, undelivered},
};
use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use crosspoint_core::{
    BoxError, Code, CustomerId, Error, Handler, Invocation, InvocationId, Reply, Result, Retry, RunKey, TargetId,
};
use http::{Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::{any::type_name, fmt, future::poll_fn, sync::Arc};
use tower_service::Service;

/// In the extensions of every request that is replayed from the store: who sent it when it was accepted.
///
/// Credentials are not stored, so a replay carries none. A host's own session layer lets a request with this extension
/// pass as the user that it names. Only the gateway can put it there: extensions do not come over the network.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replayed {
    /// The call.
    pub id: InvocationId,
    /// Whose request it was.
    pub customer: CustomerId,
    /// Which user sent it, if the layer was told.
    pub principal: Option<Arc<str>>,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// The key for effects outside: the same in every attempt of the call.
    pub run_key: RunKey,
    completion: Option<Completion>,
}

impl Replayed {
    /// What names this attempt to [`Gateway::complete`], for handlers that answer later; the same stands by itself in the
    /// extensions. `None` only if the request did not come from a store.
    #[must_use]
    pub const fn completion(&self) -> Option<&Completion> {
        self.completion.as_ref()
    }
}

impl Gateway {
    /// Serves a target's queued requests by replaying them through `service`, usually the whole router that the layer
    /// is part of, so that path parameters and extensions are there as they were for the first time.
    ///
    /// Replays pass the target's own layer under the permit of the drain; other layers see them as any request, with
    /// [`Replayed`] in the extensions. The target stays protected as [`DispatchLayer::policy`] has set.
    ///
    /// [`DispatchLayer::policy`]: crate::DispatchLayer::policy
    ///
    /// # Errors
    /// As [`Gateway::register`].
    pub fn serve_queued<S, B>(&self, target: TargetId, service: S) -> Result<()>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let gate = Arc::clone(&self.inner.target(&target).gate);
        let replay = Replay {
            service,
            gate,
            max_reply: self.inner.config.max_reply,
        };
        self.register(target, Arc::new(replay), TargetConfig::default())
    }

    /// [`Gateway::serve_queued`] for every target that has a layer and is not served yet.
    ///
    /// # Errors
    /// As [`Gateway::register`].
    #[expect(clippy::needless_pass_by_value, reason = "like `serve_queued`")]
    pub fn serve_all_queued<S, B>(&self, service: S) -> Result<()>
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        for target in self.inner.all() {
            if target.served().is_none() && target.is_layered() {
                self.serve_queued(target.id.clone(), service.clone())?;
            }
        }
        Ok(())
    }
}

/// In the extensions of a request: the id under which the call is known to whoever has seen it already, so that all its
/// attempts have one run key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent(pub(crate) InvocationId);

/// Marks the record of an adopted call, whose request went to the service and is not there to be sent again.
pub(crate) const WITHOUT_REQUEST: &str = "crosspoint-without-request";

/// What stands in the record of an adopted call for its request.
pub(crate) fn without_request() -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    let mark = http::HeaderValue::from_static("adopted");
    request.headers_mut().insert(WITHOUT_REQUEST, mark);
    request
}

/// A router as the handler of a target.
struct Replay<S> {
    service: S,
    gate: Arc<Gate>,
    max_reply: usize,
}

impl<S> fmt::Debug for Replay<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replay({})", type_name::<S>())
    }
}

#[async_trait]
impl<S, B> Handler for Replay<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        let Invocation { meta, request, .. } = invocation;
        if request.headers().contains_key(WITHOUT_REQUEST) {
            let message = "the call was adopted while it ran, and its request was not kept";
            return Err(Error::new(Code::OutcomeUnknown, message).with_retry(Retry::Never));
        }
        let target = meta.target.clone();
        let mut request = request.map(Body::from);
        let extensions = request.extensions_mut();
        let completion = Completion::of(&meta);
        extensions.insert(Passage(Arc::clone(&self.gate)));
        extensions.insert(Replayed {
            id: meta.id,
            customer: meta.customer,
            principal: meta.principal,
            attempt: meta.attempt,
            run_key: meta.run_key,
            completion: completion.clone(),
        });
        if let Some(completion) = completion {
            extensions.insert(completion);
        }
        let mut service = self.service.clone();
        let not_ready =
            |error: S::Error| undelivered(Outcome::NotStarted, &target, "the service is not ready").caused_by(error);
        poll_fn(|cx| service.poll_ready(cx)).await.map_err(not_ready)?;
        let response = service
            .call(request)
            .await
            .map_err(|error| Error::new(Code::OutcomeUnknown, "the service failed on the way").caused_by(error))?;
        collect(response, self.max_reply, &target).await
    }
}

/// A response with its whole body, as it is stored.
pub(crate) async fn collect<B>(response: Response<B>, most: usize, target: &TargetId) -> Result<Reply>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    if let Some(returned) = response.extensions().get::<Returned>() {
        // No answer of the target's, whatever the response says.
        return Err(undelivered(returned.outcome(), target, "the target did not answer"));
    }
    let (mut parts, body) = response.into_parts();
    let body = Limited::new(body, most).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            Error::new(Code::ResponseTooLarge, "the reply is too large to be stored").with("limit", most)
        } else {
            Error::new(Code::OutcomeUnknown, "the reply broke off").caused_by(error)
        }
    })?;
    later::keep_mark(&mut parts.extensions);
    let mut reply = Reply::from_parts(parts, body.to_bytes());
    for_kept_reply(&mut reply);
    Ok(reply)
}
