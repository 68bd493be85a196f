//! The service: admission, and the way in either direction.

use super::{
    Admitted, Attempt, Keys, Route,
    attempt::Adoptable,
    divert::{Why, divert},
    record::record,
};
use crate::{
    gate::Refusal,
    http::{KEY_HEADER, Prefer},
};
use bytes::Bytes;
use crosspoint_core::BoxError;
use http::{Request, Response, request::Parts};
use http_body::Body;
use std::{
    convert::Infallible,
    future::{poll_fn, ready},
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

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (admitted, adopts) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(Other::NotOurs) => return self.pass(request),
            Err(Other::Closer) => return self.call_closely(request),
        };
        if !adopts {
            return self.start(request, admitted, None);
        }
        let (parts, body) = request.into_parts();
        let adoptable = Adoptable::without_wishes(&self.route, &parts);
        self.start(Request::from_parts(parts, body), admitted, adoptable)
    }
}

/// Why a call takes another way than the plain one.
enum Other {
    /// It is not ours to look after.
    NotOurs,
    /// It is more than a request for a free permit, or there is none.
    Closer,
}

impl<S> Dispatch<S> {
    /// Admits a request that asks for nothing but a free permit, and says whether its call may be adopted. Looks at the
    /// request where it lies: each move of one shows.
    #[inline(always)]
    fn admit<B>(&self, request: &Request<B>) -> Result<(Admitted, bool), Other> {
        let route = &self.route;
        if !route.concerns(request) {
            return Err(Other::NotOurs);
        }
        let glance = route.glance(request);
        if route.looks_closer() || glance.prefers {
            return Err(Other::Closer);
        }
        let ticket = route.gate.admit_plain(route.class).ok_or(Other::Closer)?;
        let adopts = route.may_adopt() && !glance.streams(request.method());
        Ok((Admitted::under(route, ticket), adopts))
    }

    /// The way of calls that are more than a request for a free permit.
    #[inline(never)]
    fn call_closely<B, R>(&mut self, request: Request<B>) -> Attempt<S::Future, R>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Unpin + Send + 'static,
        B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        if let Some(refused) = self.route.refuse(&parts) {
            return Attempt::stored(ready(refused.map(R::from)));
        }
        let prefer = Prefer::of(&parts.headers);
        if prefer.respond_async && self.route.may_store(&parts) {
            return self.divert(Request::from_parts(parts, body), Why::ClientAsked);
        }
        if self.is_recorded(&parts) {
            return self.record(Request::from_parts(parts, body), prefer);
        }
        let admitted = match Admitted::new(&self.route, &parts) {
            Ok(admitted) => admitted,
            Err(Refusal::Saturated) => return self.wait(Request::from_parts(parts, body), prefer),
            Err(refusal) => return self.divert(Request::from_parts(parts, body), Why::Refused(refusal)),
        };
        let adoptable = Adoptable::of(&self.route, &parts, &prefer);
        let request = Request::from_parts(parts, body);
        self.start(request, admitted, adoptable)
    }

    /// Whether the inner service takes a call right now. Routers always do.
    fn ready<B>(&mut self) -> bool
    where
        S: Service<Request<B>, Error = Infallible>,
    {
        let ready = self.inner.poll_ready(&mut Context::from_waker(Waker::noop()));
        ready.is_ready()
    }

    /// Makes an admitted call, at once if the inner service takes it now.
    #[inline(always)]
    fn start<B, R>(
        &mut self,
        request: Request<B>,
        admitted: Admitted,
        adoptable: Option<Adoptable>,
    ) -> Attempt<S::Future, R>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Unpin + Send + 'static,
        B: Send + 'static,
        R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        if self.ready() {
            Attempt::direct(self.inner.call(request), admitted, adoptable)
        } else {
            self.when_ready(request, admitted, adoptable)
        }
    }

    /// Waits for the inner service, however long that takes: its readiness is no sign of overload.
    fn when_ready<B, R>(
        &self,
        request: Request<B>,
        admitted: Admitted,
        adoptable: Option<Adoptable>,
    ) -> Attempt<S::Future, R>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Unpin + Send + 'static,
        B: Send + 'static,
        R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let mut inner = self.inner.clone();
        Attempt::stored(async move {
            let Ok(()) = poll_fn(|cx| inner.poll_ready(cx)).await;
            let Ok(response) = Attempt::direct(inner.call(request), admitted, adoptable).await;
            response
        })
    }

    /// The way of calls that are not ours to look after.
    #[inline(never)]
    fn pass<B, R>(&mut self, request: Request<B>) -> Attempt<S::Future, R>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Send + 'static,
    {
        if self.ready() {
            return Attempt::bare(self.inner.call(request));
        }
        let mut inner = self.inner.clone();
        Attempt::stored(async move {
            let Ok(()) = poll_fn(|cx| inner.poll_ready(cx)).await;
            let Ok(response) = inner.call(request).await;
            response
        })
    }

    /// Permits have run out: waits a moment in memory before it goes through the store.
    fn wait<B, R>(&self, request: Request<B>, prefer: Prefer) -> Attempt<S::Future, R>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Unpin + Send + 'static,
        B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let mut service = self.clone();
        Attempt::stored(async move {
            let route = Arc::clone(&service.route);
            let (parts, body) = request.into_parts();
            let customer = route.customer.as_ref().and_then(|of| of(&parts));
            let patience = prefer.hold(route.most()).min(route.patience());
            let waited = route.gate.admit_within(route.class, customer.as_ref(), patience).await;
            let admitted = match waited {
                Ok(permit) => Admitted::with(Arc::clone(&route), permit),
                Err(refusal) => {
                    let request = Request::from_parts(parts, body);
                    return divert(route, request, Why::Refused(refusal)).await.map(R::from);
                }
            };
            let adoptable = Adoptable::of(&route, &parts, &prefer);
            let request = Request::from_parts(parts, body);
            let Ok(response) = service.start(request, admitted, adoptable).await;
            response
        })
    }

    /// Whether a call is recorded before it is tried.
    fn is_recorded(&self, parts: &Parts) -> bool {
        let keyed = self.route.keys == Keys::Gateway && parts.headers.contains_key(KEY_HEADER);
        (keyed || self.route.recorded) && self.route.may_store(parts)
    }

    fn divert<B, R>(&self, request: Request<B>, why: Why) -> Attempt<S::Future, R>
    where
        S: Service<Request<B>>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: From<Bytes> + 'static,
    {
        let route = Arc::clone(&self.route);
        Attempt::stored(async move { divert(route, request, why).await.map(R::from) })
    }

    fn record<B, R>(&self, request: Request<B>, prefer: Prefer) -> Attempt<S::Future, R>
    where
        S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
        B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let (route, service) = (Arc::clone(&self.route), self.inner.clone());
        Attempt::stored(async move { record(route, service, request, prefer).await.map(R::from) })
    }
}
