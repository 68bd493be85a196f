//! Services whose futures cannot be moved.

use super::{Dispatch, DispatchLayer, Route};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// A [`DispatchLayer`] for services whose futures are not `Unpin`; made by [`DispatchLayer::boxed`].
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing until it is put on a router or a service"]
pub struct BoxedDispatchLayer {
    pub(super) route: Arc<Route>,
}

impl DispatchLayer {
    /// The same for a service whose future is not `Unpin`, such as a hand-written `async` one: each call's future is put
    /// into a box, at the price of one allocation. axum's own routes and routers do not need it.
    ///
    /// ```
    /// use axum::body::Body;
    /// use crosspoint_core::{Memory, SystemClock, TargetId};
    /// use crosspoint_gateway::{Config, Gateway};
    /// use http::{Request, Response};
    /// use std::{convert::Infallible, sync::Arc};
    /// use tower::{Layer, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
    /// let scan = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::from("clean"))) });
    /// let protected = gateway.layer(TargetId::new("scan")?).boxed().layer(scan);
    /// let response = protected.oneshot(Request::new(Body::empty())).await?;
    /// assert_eq!(response.status(), 200);
    /// # Ok(()) }
    /// ```
    pub fn boxed(self) -> BoxedDispatchLayer {
        BoxedDispatchLayer { route: self.route }
    }
}

impl<S> Layer<S> for BoxedDispatchLayer {
    type Service = Dispatch<Boxed<S>>;

    fn layer(&self, inner: S) -> Self::Service {
        Dispatch::new(Boxed { inner }, Arc::clone(&self.route))
    }
}

/// A service whose futures are boxed; made by [`BoxedDispatchLayer`].
#[derive(Debug, Clone)]
pub struct Boxed<S> {
    inner: S,
}

impl<S, Q> Service<Q> for Boxed<S>
where
    S: Service<Q>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Q) -> Self::Future {
        Box::pin(self.inner.call(request))
    }
}
