//! The service: admission, and the way in either direction.

use super::{
    Admitted, Attempt, Keys, Route,
    attempt::Adoptable,
    divert::{Why, divert, record},
    patience::patiently,
};
use crate::{
    gate::Refusal,
    http::{KEY_HEADER, Prefer},
};
use bytes::Bytes;
use crosspoint_core::BoxError;
use http::{Request, Response};
use http_body::Body;
use std::{
    convert::Infallible,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tower_service::Service;

/// A service behind a gate; made by [`DispatchLayer`](super::DispatchLayer).
///
/// It is always ready and reserves nothing: admission happens in `call`, on the gate's atomics. An idle clone, for
/// example of a kept-alive connection, therefore never occupies a permit.
#[derive(Debug, Clone)]
pub struct Dispatch<S> {
    inner: S,
    route: Arc<Route>,
}

impl<S> Dispatch<S> {
    pub(super) const fn new(inner: S, route: Arc<Route>) -> Self {
        Self { inner, route }
    }
}

impl<S, B, R> Service<Request<B>> for Dispatch<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Unpin + Send + 'static,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = Attempt<S::Future, R>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !self.route.concerns(&request) {
            return if self.ready() {
                Attempt::bare(self.inner.call(request))
            } else {
                self.when_ready(request, ())
            };
        }
        let (parts, body) = request.into_parts();
        let prefer = Prefer::of(&parts.headers);
        if prefer.respond_async && self.route.may_store(&parts) {
            return self.divert(Request::from_parts(parts, body), Why::ClientAsked);
        }
        let admitted = match Admitted::new(&self.route) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.divert(Request::from_parts(parts, body), Why::Refused(refusal)),
        };
        if self.route.keys == Keys::Gateway && parts.headers.contains_key(KEY_HEADER) && self.route.may_store(&parts) {
            return self.record(Request::from_parts(parts, body), admitted);
        }
        let caller = self.route.adopt.then(|| self.route.caller(&parts)).flatten();
        let adoptable = caller.map(|caller| Adoptable {
            caller,
            wait: prefer.wait,
        });
        let request = Request::from_parts(parts, body);
        if self.ready() {
            Attempt::direct(self.inner.call(request), admitted, adoptable)
        } else {
            self.when_ready(request, admitted)
        }
    }
}

impl<S> Dispatch<S> {
    /// Whether the inner service takes a call right now. Routers always do.
    fn ready<B>(&mut self) -> bool
    where
        S: Service<Request<B>, Error = Infallible>,
    {
        let ready = self.inner.poll_ready(&mut Context::from_waker(Waker::noop()));
        ready.is_ready()
    }

    /// Waits for the inner service, however long that takes: its readiness is no sign of overload.
    fn when_ready<B, R, P>(&self, request: Request<B>, permit: P) -> Attempt<S::Future, R>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Send + 'static,
        P: Send + 'static,
    {
        let mut inner = self.inner.clone();
        Attempt::stored(async move {
            let Ok(()) = poll_fn(|cx| inner.poll_ready(cx)).await;
            let Ok(response) = inner.call(request).await;
            drop(permit);
            response
        })
    }

    fn divert<B, R>(&self, request: Request<B>, why: Why) -> Attempt<S::Future, R>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Unpin + Send + 'static,
        B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let route = Arc::clone(&self.route);
        if matches!(why, Why::Refused(Refusal::Saturated)) {
            return Attempt::stored(patiently(route, self.inner.clone(), request));
        }
        Attempt::stored(async move { divert(route, request, why).await.map(R::from) })
    }

    fn record<B, R>(&self, request: Request<B>, admitted: Admitted) -> Attempt<S::Future, R>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let service = self.inner.clone();
        Attempt::stored(async move {
            match admitted.into_permit() {
                Some((route, permit)) => record(route, service, request, permit).await.map(R::from),
                None => Response::new(R::from(Bytes::new())),
            }
        })
    }
}
