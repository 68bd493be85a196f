//! The future of a dispatched request.

use super::{
    Admitted, Route,
    divert::{Caller, Why, divert, divert_within, streams},
};
use crate::{
    adopt::{Adopted, Adoption},
    callback::{Ride, Wanted},
    gate::Permit,
    http::Prefer,
    later,
    outcome::Returned,
    replay,
    wait::after,
};
use bytes::Bytes;
use crosspoint_core::{BoxError, Reply};
use http::{Response, request::Parts};
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
use tokio::time::{Instant, Sleep, sleep_until};

type Stored<R> = Pin<Box<dyn Future<Output = Response<R>> + Send>>;

/// The future of [`Dispatch`](super::Dispatch).
///
/// On the direct way it is the inner service's own future beside a permit: nothing is boxed and nothing is allocated. Only
/// a call that is not ready when it is first polled, and may be adopted, gets a timer for its hold: one allocation.
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
    admitted: Admitted,
    adoptable: Option<Adoptable>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// What is needed to store a direct attempt as started.
pub(super) struct Adoptable {
    pub(super) caller: Caller,
    /// Whether and where the client wants to be called back.
    pub(super) callback: Option<Wanted>,
    /// The client's `wait`.
    pub(super) wait: Option<Duration>,
}

impl<F, R> Attempt<F, R> {
    pub(super) const fn bare(future: F) -> Self {
        Self(State::Bare(future))
    }

    pub(super) const fn direct(future: F, admitted: Admitted, adoptable: Option<Adoptable>) -> Self {
        Self(State::Direct(Direct {
            future,
            admitted,
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
                    if let Poll::Ready(Ok(mut response)) = Pin::new(&mut direct.future).poll(cx) {
                        let admitted = direct.admitted.take();
                        // What ran is dropped before the right to run is given back.
                        self.0 = State::Done;
                        if response.extensions().is_empty() {
                            admitted.answered(&mut response);
                            return Poll::Ready(Ok(response));
                        }
                        match self.answer(admitted, response) {
                            Some(response) => return Poll::Ready(Ok(response)),
                            None => continue,
                        }
                    }
                    let since = direct.admitted.waits();
                    let timer = match (&mut direct.timer, &direct.adoptable, direct.admitted.route()) {
                        (Some(timer), ..) => timer,
                        (timer, Some(adoptable), Some(route)) => {
                            let began = since.unwrap_or_else(Instant::now);
                            timer.insert(Box::pin(sleep_until(after(began, adoptable.hold(route)))))
                        }
                        _ => return Poll::Pending,
                    };
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
    /// The service has answered, and says more than its client is to see. `None`: it has given the request back, which goes
    /// through the store now.
    #[inline(never)]
    fn answer(&mut self, admitted: Admitted, mut response: Response<R>) -> Option<Response<R>> {
        if response.extensions().get::<Returned>().is_some() {
            return self.take_back(admitted, response);
        }
        if let Some(route) = admitted.route() {
            later::unrecorded(response.extensions(), &route.target.id);
        }
        admitted.answered(&mut response);
        Some(response)
    }

    #[cold]
    fn take_back(&mut self, admitted: Admitted, response: Response<R>) -> Option<Response<R>> {
        let Some(returned) = response.extensions().get::<Returned>() else {
            return Some(response);
        };
        let outcome = returned.outcome();
        let again = admitted
            .finish(outcome)
            .and_then(|route| Some((route.take_back(returned)?, route)));
        let Some((request, route)) = again else {
            return Some(response);
        };
        let diverted = Box::pin(divert(route, request, Why::Returned(outcome)));
        self.0 = State::Stored(Box::pin(async move { diverted.await.map(R::from) }));
        None
    }

    fn adopt(&mut self) {
        if let State::Direct(direct) = mem::replace(&mut self.0, State::Done)
            && let Some(adoptable) = direct.adoptable
            && let Some((route, permit)) = direct.admitted.into_permit()
        {
            self.0 = State::Stored(Box::pin(adoptable.start(route, direct.future, permit)));
        }
    }
}

impl Adoptable {
    pub(super) fn of(route: &Route, parts: &Parts, prefer: &Prefer) -> Option<Self> {
        let caller = route.adopt.then(|| route.caller(parts)).flatten()?;
        if streams(parts) {
            return None;
        }
        Some(Self {
            caller,
            callback: route.wanted(parts).ok().flatten(),
            wait: prefer.wait,
        })
    }

    fn prefer(&self) -> Prefer {
        Prefer {
            respond_async: false,
            wait: self.wait,
        }
    }

    pub(super) fn hold(&self, route: &Route) -> Duration {
        self.prefer().hold(route.most_direct())
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
        if let Some(wanted) = self.callback {
            // The hold has passed already.
            let first = envelope.created.plus(Duration::from_secs(1));
            if let Err(error) = Ride::beside(wanted, &mut envelope, first) {
                tracing::error!(%error, "a callback could not be noted");
            }
        }
        let most = inner.config.max_reply;
        let target = route.target.id.clone();
        let keep = move |response: Result<Response<R>, Infallible>| async move {
            let Ok(response) = response;
            replay::collect(response, most, &target).await
        };
        let adoption = Adoption::new(inner, &route.target, envelope, permit);
        let reply: Reply = match adoption.start(work, keep).await {
            Ok(Adopted::Finished(Ok(response)) | Adopted::Unrecorded(Ok(response))) => {
                let returned = response.extensions().get::<Returned>();
                if let Some((why, request)) = returned.and_then(|it| Some((it.outcome(), route.take_back(it)?))) {
                    // Its client has waited for the whole hold.
                    let diverted = divert_within(route, request, Why::Returned(why), Duration::ZERO);
                    return Box::pin(diverted).await.map(R::from);
                }
                later::unrecorded(response.extensions(), &route.target.id);
                return response;
            }
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
