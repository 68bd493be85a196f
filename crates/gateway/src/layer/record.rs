//! The direct way under a record that is stored first.

use super::{
    Route,
    divert::{Caller, Why, arrived, beside, divert_within},
};
use crate::{
    accept::{Entrance, first},
    budget::Part,
    callback,
    gate::Permit,
    http::Prefer,
    later::Completion,
    replay::{self, Sent},
    wait::after,
    worker::{Holding, Job, conclude, settle, supervise},
    write::{Teller, ends_of, give_up},
};
use bytes::Bytes;
use crosspoint_core::{BoxError, Code, Enqueue, Enqueued, Envelope, Error, Reply, Result, Settle};
use http::{Request, Response, request::Parts};
use http_body::Body;
use std::{convert::Infallible, future::poll_fn, sync::Arc};
use tokio::time::Instant;
use tower_service::Service;

/// Tries a request directly, but under a record that is stored first ([`Keys::Gateway`](super::Keys::Gateway)). Its body is
/// read before it is admitted: one that trickles keeps nobody else from the target.
pub(super) async fn record<S, B, R>(route: Arc<Route>, service: S, request: Request<B>, prefer: Prefer) -> Reply
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let (caller, body, room) = match read(&route, &parts, body).await {
        Ok(read) => read,
        Err(error) => return route.answer(Why::Recorded, &prefer, began, Err(error)),
    };
    let most = prefer.hold(route.most()).saturating_sub(began.elapsed());
    let patience = most.min(route.patience());
    let admitted = route.gate.admit_within(route.class, Some(&caller.customer), patience);
    let permit = match admitted.await {
        Ok(permit) => permit,
        Err(refusal) => {
            // It takes room of its own.
            drop(room);
            let most = prefer.hold(route.most()).saturating_sub(began.elapsed());
            let request = Request::from_parts(parts, B::from(body));
            return divert_within(route, request, Why::Refused(refusal), most).await;
        }
    };
    let held = prefer.hold(route.most_direct());
    let mut ride = None;
    let accepted = async {
        let inner = &route.gateway.inner;
        let wanted = route.wanted(&parts)?;
        let mut envelope = route.stored(caller, parts.clone(), body.clone())?;
        let pass = inner.intake.enter()?;
        ride = beside(wanted, &mut envelope, held)?;
        let request = Request::from_parts(parts, B::from(body));
        let seat = inner.seats.take(1, Some(envelope.customer()));
        let until = if seat.is_ok() {
            after(began, held)
        } else {
            Instant::now()
        };
        let waiter = inner.inbox.register(envelope.id());
        let (teller, listener) = ends_of(&envelope, Entrance::Diverted(route.on_disconnect));
        let running = inner.loops.subscribe();
        let recording = Recording {
            route: Arc::clone(&route),
            permit,
            room,
            teller,
        };
        tokio::spawn(async move {
            if let Some(begun) = recording.store(envelope).await {
                drop(running);
                begun.run(service, request).await;
            }
        });
        let enqueued = listener.acknowledged(inner.config.enqueue_timeout, Some(pass)).await?;
        inner.wait(waiter, enqueued, until).await
    };
    let accepted = accepted.await;
    let accepted = arrived(ride, &route, accepted).await;
    route.answer(Why::Recorded, &prefer, began, accepted)
}

/// Whose request it is, and its body.
async fn read<B>(route: &Route, parts: &Parts, body: B) -> Result<(Caller, Bytes, Part)>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let Some(caller) = route.caller(parts) else {
        return Err(Error::new(Code::TargetSaturated, Code::TargetSaturated.title()));
    };
    let inner = &route.gateway.inner;
    inner.intake.ask()?;
    let (body, room) = inner.read(body, route.max_body, Some(&caller.customer)).await?;
    Ok((caller, body, room))
}

/// A call that is being recorded.
struct Recording {
    route: Arc<Route>,
    permit: Permit,
    /// Until it is stored.
    room: Part,
    teller: Teller,
}

/// A call that is recorded as started.
struct Begun {
    route: Arc<Route>,
    permit: Permit,
    holding: Holding,
    job: Job,
}

impl Recording {
    /// Records the call as started; from then on it no longer depends on its client. `None`: it is not to be made here and
    /// now.
    async fn store(self, envelope: Envelope) -> Option<Begun> {
        let Self {
            route,
            permit,
            room: _room,
            mut teller,
        } = self;
        let inner = Arc::clone(&route.gateway.inner);
        let sent = Instant::now();
        let items = callback::batch(Enqueue::adopted(envelope, inner.terms()));
        let storing = inner.store.enqueue(items);
        let most = inner.config.enqueue_timeout;
        let (stored, permit) = teller.under(storing, Some(permit), most).await;
        let lease = match stored.and_then(first) {
            Ok(Enqueued::New(Some(lease))) if teller.is_unwanted() => {
                drop(permit);
                give_up(&inner, *lease).await;
                return None;
            }
            Ok(Enqueued::New(Some(lease))) => lease,
            other => {
                teller.tell(&inner, other);
                return None;
            }
        };
        let holding = inner.hold_lease(&lease, sent);
        let job = Job::of(&lease);
        let Some(permit) = permit else {
            // Its client may come back for it: it waits for its turn like any other.
            let release = Settle::Release { lease: holding.lease };
            settle(&inner, &route.target, &holding, &job, release).await;
            teller.tell(&inner, Ok(Enqueued::New(None)));
            return None;
        };
        teller.tell(&inner, Ok(Enqueued::New(None)));
        Some(Begun {
            route,
            permit,
            holding,
            job,
        })
    }
}

impl Begun {
    async fn run<S, B, R>(self, mut service: S, mut request: Request<B>)
    where
        S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Send,
        S::Future: Send,
        B: Send,
        R: Body<Data = Bytes> + Send,
        R::Error: Into<BoxError>,
    {
        let Self {
            route,
            permit,
            holding,
            job,
        } = self;
        let inner = &route.gateway.inner;
        request.extensions_mut().insert(Completion::under(holding.lease));
        request.extensions_mut().insert(Sent(job.id));
        let work = async {
            let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
            let Ok(response) = service.call(request).await;
            replay::collect(response, inner.config.max_reply, &route.target.id).await
        };
        let ending = supervise(work, &holding, None, Some(inner.config.stop_grace)).await;
        permit.finish(ending.outcome(&route.target.id));
        conclude(inner, &route.target, &holding, &job, ending).await;
    }
}
