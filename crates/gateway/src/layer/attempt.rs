//! The future of a dispatched request.

use super::{
    Admitted, Route,
    divert::{Caller, Why, divert_within},
    glance::Glance,
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
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

type Stored<R> = Pin<Box<dyn Future<Output = Response<R>> + Send>>;
type Polled<R> = Poll<Result<Response<R>, Infallible>>;

/// The future of [`Dispatch`](super::Dispatch).
///
/// On the direct way it is the inner service's own future beside a permit: nothing is boxed and nothing is allocated. Only
/// a call that is not ready when it is first polled, and may be adopted, gets a timer for its hold: one allocation.
#[must_use = "futures do nothing unless polled"]
pub struct Attempt<F, R> {
    /// Declared before the permit: what runs is dropped before the right to run is given back.
    work: Work<F, R>,
    /// Of a direct call, while it runs.
    admitted: Admitted,
    adoptable: Option<Adoptable>,
}

enum Work<F, R> {
    /// Of the inner service.
    Service(F),
    Stored(Stored<R>),
    Done,
}

/// What is needed to store a direct attempt as started.
pub(super) struct Adoptable {
    caller: Caller,
    wishes: Option<Box<Wishes>>,
    /// Until the hold is over; made when the service is not ready the first time.
    timer: Option<Pin<Box<Sleep>>>,
}

/// What few clients ask for.
struct Wishes {
    /// Where the client wants to be called back.
    callback: Option<Wanted>,
    /// The client's `wait`.
    wait: Option<Duration>,
}

impl<F, R> Attempt<F, R> {
    /// Of a call that is not ours to look after.
    pub(super) const fn bare(future: F) -> Self {
        Self::new(Work::Service(future), Admitted::none(), None)
    }

    #[inline]
    pub(super) const fn direct(future: F, admitted: Admitted, adoptable: Option<Adoptable>) -> Self {
        Self::new(Work::Service(future), admitted, adoptable)
    }

    pub(super) fn stored(future: impl Future<Output = Response<R>> + Send + 'static) -> Self {
        Self::new(Work::Stored(Box::pin(future)), Admitted::none(), None)
    }

    #[inline]
    const fn new(work: Work<F, R>, admitted: Admitted, adoptable: Option<Adoptable>) -> Self {
        Self {
            work,
            admitted,
            adoptable,
        }
    }
}

impl<F, R> Future for Attempt<F, R>
where
    F: Future<Output = Result<Response<R>, Infallible>> + Unpin + Send + 'static,
    R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Output = Result<Response<R>, Infallible>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The answer is written once, where the caller wants it, and looked at there.
        let mut polled = match &mut self.work {
            Work::Service(future) => Pin::new(future).poll(cx),
            Work::Stored(future) => future.as_mut().poll(cx).map(Ok),
            Work::Done => Poll::Pending,
        };
        if let Poll::Ready(Ok(response)) = &mut polled {
            self.work = Work::Done;
            if response.extensions().is_empty() {
                self.admitted.answered(response);
            } else {
                self.answer(&mut polled, cx);
            }
        } else {
            self.linger(&mut polled, cx);
        }
        polled
    }
}

impl<F, R> Attempt<F, R>
where
    F: Future<Output = Result<Response<R>, Infallible>> + Unpin + Send + 'static,
    R: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    /// The service has answered, and says more than its client is to see.
    #[inline(never)]
    fn answer(&mut self, polled: &mut Polled<R>, cx: &mut Context<'_>) {
        let (Poll::Ready(Ok(response)), Some(route)) = (&mut *polled, self.admitted.route()) else {
            return;
        };
        if let Some(returned) = response.extensions().get::<Returned>() {
            let outcome = returned.outcome();
            let route = self.admitted.finish(outcome);
            if let Some((request, route)) = route.and_then(|route| Some((route.take_back(returned)?, route))) {
                let timer = self.adoptable.as_ref().and_then(|adoptable| adoptable.timer.as_ref());
                let left = timer.map_or(Duration::MAX, |timer| {
                    timer.deadline().saturating_duration_since(Instant::now())
                });
                let most = route.most().min(left);
                let diverted = Box::pin(divert_within(route, request, Why::Returned(outcome), most));
                *polled = self.store(async move { diverted.await.map(R::from) }, cx);
            }
            return;
        }
        later::unrecorded(response.extensions(), &route.target.id);
        self.admitted.answered(response);
    }

    /// The service is not ready yet.
    #[inline(never)]
    fn linger(&mut self, polled: &mut Polled<R>, cx: &mut Context<'_>) {
        let since = self.admitted.waits();
        let (Some(adoptable), Some(route)) = (&mut self.adoptable, self.admitted.route()) else {
            return;
        };
        if adoptable.poll_hold(route, since, cx).is_pending() {
            return;
        }
        if let Work::Service(future) = mem::replace(&mut self.work, Work::Done)
            && let Some(adoptable) = self.adoptable.take()
            && let Some((route, permit)) = self.admitted.permit()
        {
            *polled = self.store(adoptable.start(route, future, permit), cx);
        }
    }

    /// Goes on through the store.
    fn store(&mut self, answer: impl Future<Output = Response<R>> + Send + 'static, cx: &mut Context<'_>) -> Polled<R> {
        *self = Self::stored(answer);
        Pin::new(self).poll(cx)
    }
}

impl Adoptable {
    pub(super) fn of(route: &Route, parts: &Parts, prefer: &Prefer) -> Option<Self> {
        if !route.may_adopt() || Glance::at(&parts.headers).streams(&parts.method) {
            return None;
        }
        let mut adoptable = Self::without_wishes(route, parts)?;
        let callback = route.wanted(parts).ok().flatten();
        let wait = prefer.wait;
        adoptable.wishes = (callback.is_some() || wait.is_some()).then(|| Box::new(Wishes { callback, wait }));
        Some(adoptable)
    }

    /// Of a client that is known to ask for nothing.
    #[inline]
    pub(super) fn without_wishes(route: &Route, parts: &Parts) -> Option<Self> {
        Some(Self {
            caller: route.caller(parts)?,
            wishes: None,
            timer: None,
        })
    }

    fn poll_hold(&mut self, route: &Route, since: Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() {
            let began = since.unwrap_or_else(Instant::now);
            self.timer = Some(Box::pin(sleep_until(after(began, self.hold(route)))));
        }
        self.timer
            .as_mut()
            .map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }

    fn prefer(&self) -> Prefer {
        Prefer {
            respond_async: false,
            wait: self.wishes.as_ref().and_then(|wishes| wishes.wait),
        }
    }

    fn hold(&self, route: &Route) -> Duration {
        self.prefer().hold(route.most_direct())
    }

    async fn start<F, R>(self, route: Arc<Route>, work: F, permit: Permit) -> Response<R>
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
        if let Some(wanted) = self.wishes.and_then(|wishes| wishes.callback) {
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
        f.write_str(match &self.work {
            Work::Service(_) if self.admitted.route().is_none() => "Attempt(bare)",
            Work::Service(_) => "Attempt(direct)",
            Work::Stored(_) => "Attempt(stored)",
            Work::Done => "Attempt(done)",
        })
    }
}
