//! The future of a dispatched request.

use super::{Admitted, Route, divert::Caller};
use crate::{
    adopt::{Adopted, Adoption},
    gate::Permit,
    http::Prefer,
    replay,
};
use bytes::Bytes;
use crosspoint_core::{BoxError, Reply};
use http::Response;
use http_body::Body;
use std::{
    convert::Infallible,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Sleep, sleep};

type Stored<R> = Pin<Box<dyn Future<Output = Response<R>> + Send>>;

/// The future of [`Dispatch`](super::Dispatch).
///
/// On the direct way it is the inner service's own future beside a permit: nothing is boxed, and nothing is allocated
/// unless the future is not ready when it is first polled, when the timer of the hold is armed.
#[must_use = "futures do nothing unless polled"]
pub struct Attempt<F, R>(State<F, R>);

enum State<F, R> {
    /// Not ours to look after.
    Bare(F),
    Direct(Direct<F>),
    Stored(Stored<R>),
    Done,
}

struct Direct<F> {
    /// Declared before the permit: what runs is dropped before the right to run is given back.
    future: F,
    permit: Admitted,
    adoptable: Option<Adoptable>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What is needed to store a direct attempt as started.
pub(super) struct Adoptable {
    pub(super) caller: Caller,
    /// The client's `wait`.
    pub(super) wait: Option<Duration>,
}

impl<F, R> Attempt<F, R> {
    pub(super) const fn bare(future: F) -> Self {
        Self(State::Bare(future))
    }

    pub(super) const fn direct(future: F, permit: Admitted, adoptable: Option<Adoptable>) -> Self {
        Self(State::Direct(Direct {
            future,
            permit,
            adoptable,
            timer: None,
        }))
    }

    pub(super) fn stored(future: impl Future<Output = Response<R>> + Send + 'static) -> Self {
        Self(State::Stored(Box::pin(future)))
    }
}

impl<F, R> Future for Attempt<F, R>
where
    F: Future<Output = Result<Response<R>, Infallible>> + Unpin + Send + 'static,
    R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                State::Bare(future) => return Pin::new(future).poll(cx),
                State::Direct(direct) => {
                    if let Poll::Ready(response) = Pin::new(&mut direct.future).poll(cx) {
                        self.0 = State::Done;
                        return Poll::Ready(response);
                    }
                    let (Some(adoptable), Some(route)) = (&direct.adoptable, direct.permit.route()) else {
                        return Poll::Pending;
                    };
                    let timer = direct
                        .timer
                        .get_or_insert_with(|| Box::pin(sleep(adoptable.hold(route))));
                    ready!(timer.as_mut().poll(cx));
                    self.adopt();
                }
                State::Stored(future) => return future.as_mut().poll(cx).map(Ok),
                State::Done => return Poll::Pending,
            }
        }
    }
}

impl<F, R> Attempt<F, R>
where
    F: Future<Output = Result<Response<R>, Infallible>> + Unpin + Send + 'static,
    R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    fn adopt(&mut self) {
        if let State::Direct(direct) = mem::replace(&mut self.0, State::Done)
            && let Some(adoptable) = direct.adoptable
            && let Some((route, permit)) = direct.permit.into_permit()
        {
            self.0 = State::Stored(Box::pin(adoptable.start(route, direct.future, permit)));
        }
    }
}

impl Adoptable {
    fn prefer(&self) -> Prefer {
        Prefer {
            respond_async: false,
            wait: self.wait,
        }
    }

    pub(super) fn hold(&self, route: &Route) -> Duration {
        self.prefer().hold(route.most())
    }

    pub(super) async fn start<F, R>(self, route: Arc<Route>, work: F, permit: Permit) -> Response<R>
    where
        F: Future<Output = Result<Response<R>, Infallible>> + Unpin + Send + 'static,
        R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let (prefer, held) = (self.prefer(), self.hold(&route));
        // The request went to the service, so this call can neither be repeated nor redriven, however harmless it is.
        let mut envelope = route.envelope(self.caller, replay::without_request(), None);
        envelope.repeatable = false;
        let id = envelope.id();
        let inner = &route.gateway.inner;
        route.gateway.start_tasks();
        let most = inner.config.max_reply;
        let keep = move |response: Result<Response<R>, Infallible>| async move {
            let Ok(response) = response;
            replay::collect(response, most).await
        };
        let adoption = Adoption::new(inner, &route.target, envelope, permit);
        let reply: Reply = match adoption.start(work, keep).await {
            Ok(Adopted::Finished(Ok(response))) => return response,
            Ok(Adopted::Accepted) => route.accepted(id, &prefer, held),
            Err(error) => crate::http::problem(&error, None),
        };
        reply.map(R::from)
    }
}

impl<F, R> fmt::Debug for Attempt<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            State::Bare(_) => "Attempt(bare)",
            State::Direct(_) => "Attempt(direct)",
            State::Stored(_) => "Attempt(stored)",
            State::Done => "Attempt(done)",
        })
    }
}
