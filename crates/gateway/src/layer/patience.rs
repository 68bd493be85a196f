//! A short wait in memory for a permit, before a call is stored.
//!
//! Most moments without a permit are shorter than a durable write is worth. Whoever gets a permit in time goes the direct
//! way as if it had been free at once.

use super::{
    Keys, Route,
    attempt::Adoptable,
    divert::{Why, divert, record, returned},
};
use crate::{
    adopt::Judged,
    gate::Permit,
    http::{KEY_HEADER, Prefer},
};
use bytes::Bytes;
use crosspoint_core::BoxError;
use http::{Request, Response};
use http_body::Body;
use std::{convert::Infallible, future::poll_fn, sync::Arc};
use tokio::time::sleep;
use tower_service::Service;

/// Waits for a permit and makes the call with it, or diverts the call.
pub(super) async fn patiently<S, B, R>(route: Arc<Route>, service: S, request: Request<B>) -> Response<R>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let prefer = Prefer::of(&parts.headers);
    let caller = route.caller(&parts);
    let customer = caller.as_ref().map(super::divert::Caller::customer);
    let patience = route.target.patience().min(prefer.hold(route.target.patience()));
    let entered = route.gate.admit_within(route.class(), customer, patience).await;
    let permit = match entered {
        Ok(permit) => permit,
        Err(refusal) => {
            let request = Request::from_parts(parts, body);
            return divert(route, request, Why::Refused(refusal)).await.map(R::from);
        }
    };
    if route.keys == Keys::Gateway && parts.headers.contains_key(KEY_HEADER) && route.may_store(&parts) {
        let request = Request::from_parts(parts, body);
        return record(route, service, request, permit).await.map(R::from);
    }
    let adoptable = caller.filter(|_| route.adopt).map(|caller| Adoptable {
        caller,
        wait: prefer.wait,
    });
    direct(route, service, Request::from_parts(parts, body), permit, adoptable).await
}

async fn direct<S, B, R>(
    route: Arc<Route>,
    mut service: S,
    request: Request<B>,
    permit: Permit,
    adoptable: Option<Adoptable>,
) -> Response<R>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
    R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let mut work = Box::pin(async move {
        let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
        service.call(request).await
    });
    let ended = match adoptable {
        None => work.await,
        Some(adoptable) => tokio::select! {
            biased;
            ended = &mut work => ended,
            () = sleep(adoptable.hold(&route)) => return adoptable.start(route, work, permit).await,
        },
    };
    permit.finish(ended.outcome());
    let Ok(response) = ended;
    match returned(&route, &response) {
        Some((request, why)) => divert(route, request, why).await.map(R::from),
        None => response,
    }
}
