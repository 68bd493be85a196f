//! The way through the store.

use super::{Passage, Route};
use crate::{
    Eligible, Settles,
    accept::{Accepted, Entrance, first},
    callback::{self, Ride, Wanted},
    dispatch::ended,
    gate::{Permit, Refusal},
    gateway::Stage,
    http::{
        KEY_HEADER, KeyScope, Prefer, for_storage, idempotency_key, json, problem, retry_after, well_formed,
        whole_seconds,
    },
    inbox::Answer,
    later::Completion,
    metric,
    outcome::{Outcome, Returned},
    replay::{self, Sent},
    wait::after,
    worker::{Job, conclude, supervise},
};
use axum::extract::OriginalUri;
use bytes::Bytes;
use crosspoint_core::{
    BoxError, Code, CustomerId, Enqueue, Enqueued, Envelope, Error, IdempotencyKey, Invocation, InvocationId, Meta,
    Reply, Result, RunKey,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request::Parts};
use http_body::Body;
use std::{convert::Infallible, future::poll_fn, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};
use tower_service::Service;

/// Whose request it is.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    customer: CustomerId,
    principal: Option<Arc<str>>,
}

/// Why a request goes through the store.
#[derive(Debug, Clone, Copy)]
pub(super) enum Why {
    Refused(Refusal),
    ClientAsked,
    Recorded,
    /// The service has given the request back.
    Returned(Outcome),
}

impl Why {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_str(),
            Self::ClientAsked => "client-asked",
            Self::Recorded => "recorded",
            Self::Returned(_) => "returned",
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::Refused(Refusal::Unavailable | Refusal::CoolOff) | Self::Returned(Outcome::NotStarted) => {
                Code::TargetUnavailable
            }
            Self::Returned(Outcome::Unknown) => Code::OutcomeUnknown,
            _ => Code::TargetSaturated,
        }
    }
}

impl Route {
    /// Whether the layer looks after a request at all.
    #[inline]
    pub(super) fn concerns<B>(&self, request: &Request<B>) -> bool {
        let extensions = request.extensions();
        let replayed = extensions.get::<Passage>();
        if replayed.is_some_and(|passage| passage.is_through(&self.gate)) {
            return false;
        }
        let Some(pattern) = &self.path else { return true };
        let uri = extensions
            .get::<OriginalUri>()
            .map_or_else(|| request.uri(), |original| &original.0);
        pattern.matches(uri.path())
    }

    /// Whether a request may be stored instead of being tried at once.
    pub(super) fn may_store(&self, parts: &Parts) -> bool {
        self.customer.as_ref().is_some_and(|of| of(parts).is_some()) && self.can_store(parts)
    }

    fn can_store(&self, parts: &Parts) -> bool {
        // A target that nobody drains here would keep its calls for ever.
        let drained = self
            .target
            .served()
            .is_some_and(|served| served.settles == Settles::Gateway);
        if !drained && self.customer.is_some() {
            self.target.warn_unserved();
        }
        let wanted = self.eligible == Eligible::Queueable
            || self.repeatable.unwrap_or_else(|| parts.method.is_idempotent())
            || parts.headers.contains_key(KEY_HEADER);
        drained && wanted && !streams(parts)
    }

    /// Whether nothing is lost if the call is made again, although nobody knows what became of it.
    fn may_repeat(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.repeatable.unwrap_or_else(|| method.is_idempotent())
            || self.honours_keys && headers.contains_key(KEY_HEADER)
    }

    /// The request of a call that its service has given back, if it may go to the queue, or if its client has to be told
    /// that nobody knows what became of it.
    pub(super) fn take_back(&self, returned: &Returned) -> Option<Request<axum::body::Body>> {
        let (parts, body) = returned.take()?.into_parts();
        let safe = returned.outcome().is_not_started() || returned.outcome() == Outcome::Unknown;
        (safe && self.may_store(&parts)).then(|| Request::from_parts(parts, body))
    }

    /// The answer to a request that the route does not take, whatever the target's state is.
    pub(super) fn refuse(&self, parts: &Parts) -> Option<Reply> {
        if !self.require_key && self.callbacks.is_none() {
            return None;
        }
        let checked = self.check_key(parts).and_then(|()| self.wanted(parts));
        let error = checked.err()?;
        tracing::info!(%error, target = %self.target.id, "a request was refused");
        Some(problem(&error, None))
    }

    fn check_key(&self, parts: &Parts) -> Result<()> {
        if !self.require_key || parts.method.is_safe() {
            return Ok(());
        }
        if !parts.headers.contains_key(KEY_HEADER) {
            return Err(Error::new(Code::KeyMissing, Code::KeyMissing.title()));
        }
        well_formed(&parts.headers)
    }

    /// Where the client wants to be called back, if the route allows it.
    pub(super) fn wanted(&self, parts: &Parts) -> Result<Option<Wanted>> {
        match self.callbacks {
            Some(contents) => Wanted::of(&self.gateway.inner, &parts.headers, contents),
            None => Ok(None),
        }
    }

    pub(super) fn caller(&self, parts: &Parts) -> Option<Caller> {
        Some(Caller {
            customer: self.customer.as_ref()?(parts)?,
            principal: self.principal.as_ref().and_then(|of| of(parts)),
        })
    }

    /// How long a client is kept waiting at most.
    pub(super) fn most(&self) -> Duration {
        let inner = &self.gateway.inner;
        match inner.stage() {
            Stage::Running => self.hold.unwrap_or(inner.config.hold),
            Stage::Draining | Stage::Closing => Duration::ZERO,
        }
    }

    pub(super) fn envelope(&self, caller: Caller, request: Request<Bytes>, key: Option<IdempotencyKey>) -> Envelope {
        let clock = &*self.gateway.inner.clock;
        let mut meta = Meta::new(InvocationId::mint(clock), caller.customer, self.target.id.clone());
        meta.principal = caller.principal;
        meta.idempotency_key = key;
        if let Some(pattern) = &self.path {
            meta.route_class = Arc::clone(pattern.text());
        }
        let trace = request
            .headers()
            .get("traceparent")
            .and_then(|value| value.to_str().ok());
        meta.trace = trace.map(Arc::from);
        let repeatable = self.may_repeat(request.method(), request.headers());
        let mut envelope = Envelope::service(Invocation::new(meta, request), clock.now());
        envelope.repeatable = repeatable;
        envelope.max_attempts = self.target.max_attempts();
        envelope
    }

    /// 202: it is stored, and this is where to ask for it. Or 303, for clients that only know how to be sent on.
    pub(super) fn accepted(&self, id: InvocationId, prefer: &Prefer, waited: Duration) -> Reply {
        let inner = &self.gateway.inner;
        let after = inner.ask_after(&self.target, self.target.backlog.waiting());
        let body = serde_json::json!({
            "id": id.to_string(),
            "status": "accepted",
            "retry_after": whole_seconds(after),
        });
        let mut location = id.to_string();
        let sent_on = self.redirects > 0 && !prefer.respond_async;
        let status = if sent_on {
            location = format!("{location}?hops={}", self.redirects - 1);
            StatusCode::SEE_OTHER
        } else {
            StatusCode::ACCEPTED
        };
        let mut reply = json(status, &body);
        self.locate(&mut reply, &location);
        let headers = reply.headers_mut();
        headers.insert(header::RETRY_AFTER, retry_after(after));
        if let Some(applied) = prefer.applied(waited).and_then(|applied| applied.try_into().ok()) {
            headers.insert("preference-applied", applied);
        }
        reply
    }

    /// Says where the status resource has something.
    fn locate(&self, reply: &mut Reply, below: &str) {
        let path = self.gateway.inner.config.requests_path.trim_end_matches('/');
        if let Ok(location) = HeaderValue::try_from(format!("{path}/{below}")) {
            reply.headers_mut().insert(header::LOCATION, location);
        }
    }

    /// The stored form of a request, with its key.
    fn stored(&self, caller: Caller, mut parts: Parts, body: Bytes) -> Result<Envelope> {
        if let Some(OriginalUri(uri)) = parts.extensions.remove() {
            parts.uri = uri;
        }
        if let Some(path) = parts.uri.path_and_query() {
            parts.uri = Uri::from(path.clone());
        }
        let inner = &self.gateway.inner;
        let scope = KeyScope {
            customer: &caller.customer,
            target: &self.target.id,
            route: self.path.as_ref().map_or("", |pattern| pattern.text()),
            principal: caller.principal.as_deref(),
        };
        let expires = inner.clock.now().plus(inner.config.key_retention);
        let key = idempotency_key(&parts, &body, &scope, expires)?;
        for_storage(&mut parts.headers, &self.never_store);
        let sent = parts.extensions.remove::<Sent>();
        parts.extensions = http::Extensions::new();
        let mut envelope = self.envelope(caller, Request::from_parts(parts, body), key);
        if let Some(Sent(id)) = sent {
            // Somebody may have seen it under this id.
            let meta = &mut envelope.invocation.meta;
            meta.id = id;
            meta.run_key = RunKey::from_uuid(*id.as_uuid());
        }
        Ok(envelope)
    }

    /// What the client is told, and what is counted.
    fn answer(&self, why: Why, prefer: &Prefer, began: Instant, accepted: Result<Accepted>) -> Reply {
        let (path, reply) = match accepted {
            Ok(Accepted {
                answer: Some(Answer::Reply(reply)),
                ..
            }) => (metric::Path::Queued, reply),
            Ok(Accepted {
                id,
                answer: Some(Answer::Ended(state, failure)),
            }) => {
                let mut reply = problem(&ended(state, failure), None);
                // There the end can be read again, and whoever finds out more writes it there.
                self.locate(&mut reply, &id.to_string());
                (metric::Path::Unknown, reply)
            }
            Ok(Accepted { id, answer: None }) => (metric::Path::Accepted, self.accepted(id, prefer, began.elapsed())),
            Err(error) => {
                tracing::warn!(%error, target = %self.target.id, reason = why.as_str(), "a call could not be queued");
                (metric::Path::Rejected, self.refused(&error))
            }
        };
        metric::answered(self.target.id.as_str(), path, why.as_str(), began.elapsed());
        reply
    }

    fn refused(&self, error: &Error) -> Reply {
        let after = matches!(error.code().status(), 413 | 429 | 503).then(|| self.gateway.inner.retry_after());
        problem(error, after)
    }
}

/// Whether a request is one end of something that goes on, so that a stored reply cannot stand for the other.
pub(super) fn streams(parts: &Parts) -> bool {
    // An answer to these that is not the target's own would mislead: a browser's preflight, a trace, a tunnel.
    matches!(parts.method, Method::CONNECT | Method::OPTIONS | Method::TRACE)
        // One pass over a handful of headers costs less than four look-ups.
        || parts.headers.iter().any(|(name, value)| {
            let says = |is: fn(&str) -> bool| value.to_str().is_ok_and(is);
            match name.as_str() {
                "accept" => says(|value| value.contains("text/event-stream")),
                "content-type" => says(|value| value.starts_with("application/grpc")),
                "te" => says(|value| value.contains("trailers")),
                // Some clients offer this one with every first request, and it may be ignored.
                "upgrade" => says(|value| !value.eq_ignore_ascii_case("h2c")),
                _ => false,
            }
        })
}

/// Stores a request and keeps the client for the answer.
pub(super) async fn divert<B>(route: Arc<Route>, request: Request<B>, why: Why) -> Reply
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let prefer = Prefer::of(&parts.headers);
    let held = prefer.hold(route.most());
    let mut ride = None;
    if let Why::Refused(refusal) = why {
        route.gate.note_divert(refusal);
        // A layer may be made before there is a runtime; without its control a gate would stay closed for ever.
        route.gateway.start_control(&route.target);
    }
    let accepted = async {
        let eligible = route.caller(&parts).filter(|_| route.can_store(&parts));
        let Some(caller) = eligible else {
            return Err(Error::new(why.code(), why.code().title()));
        };
        let again = route.may_repeat(&parts.method, &parts.headers);
        let inner = &route.gateway.inner;
        inner.intake.ask()?;
        let (body, room) = inner.read(body, route.max_body).await?;
        let wanted = route.wanted(&parts)?;
        let mut envelope = route.stored(caller, parts, body)?;
        if matches!(why, Why::Returned(outcome) if !outcome.is_not_started()) {
            // It may have been carried out: that was an attempt.
            envelope.max_attempts -= 1;
            if !again || envelope.max_attempts == 0 {
                return Err(Error::new(Code::OutcomeUnknown, Code::OutcomeUnknown.title()));
            }
        }
        ride = beside(wanted, &mut envelope, held)?;
        tracing::debug!(target = %route.target.id, id = %envelope.id(), reason = why.as_str(), "diverted");
        route.gateway.start_tasks();
        let left = held.saturating_sub(began.elapsed());
        let entrance = Entrance::Diverted(route.on_disconnect);
        inner.accept(envelope, entrance, left, Some(room)).await
    };
    let accepted = accepted.await;
    let accepted = arrived(ride, &route, accepted).await;
    route.answer(why, &prefer, began, accepted)
}

/// Puts the wish to be called back beside its call; it is looked at for the first time when nobody is held any more.
fn beside(wanted: Option<Wanted>, envelope: &mut Envelope, held: Duration) -> Result<Option<Ride>> {
    let first = envelope.created.plus(held.max(Duration::from_secs(1)));
    wanted.map(|wanted| Ride::beside(wanted, envelope, first)).transpose()
}

async fn arrived(ride: Option<Ride>, route: &Route, accepted: Result<Accepted>) -> Result<Accepted> {
    match ride {
        Some(ride) => ride.arrived(&route.gateway.inner, accepted).await,
        None => accepted,
    }
}

/// Tries a request directly, but under a record that is stored first ([`Keys::Gateway`](super::Keys::Gateway)).
pub(super) async fn record<S, B, R>(route: Arc<Route>, service: S, request: Request<B>, permit: Permit) -> Reply
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
    let prefer = Prefer::of(&parts.headers);
    let held = prefer.hold(route.most());
    let mut ride = None;
    let accepted = async {
        let Some(caller) = route.caller(&parts) else {
            return Err(Error::new(Code::TargetSaturated, Code::TargetSaturated.title()));
        };
        let inner = &route.gateway.inner;
        let (body, room) = inner.read(body, route.max_body).await?;
        let wanted = route.wanted(&parts)?;
        let mut envelope = route.stored(caller, parts.clone(), body.clone())?;
        ride = beside(wanted, &mut envelope, held)?;
        let request = Request::from_parts(parts, B::from(body));
        let seat = inner.seats.take(Some(envelope.customer()));
        let until = seat.as_ref().map_or_else(Instant::now, |_| after(began, held));
        let waiter = inner.inbox.register(envelope.id());
        let (tell, told) = oneshot::channel();
        tokio::spawn(attempt(Arc::clone(&route), envelope, service, request, permit, tell));
        let lost = |e| Error::new(Code::Internal, "storing the call failed").caused_by(e);
        let enqueued = told.await.map_err(lost)??;
        drop(room);
        inner.wait(waiter, enqueued, until).await
    };
    let accepted = accepted.await;
    let accepted = arrived(ride, &route, accepted).await;
    route.answer(Why::Recorded, &prefer, began, accepted)
}

/// Records the call as started and starts it; once recorded it no longer depends on its client.
async fn attempt<S, B, R>(
    route: Arc<Route>,
    envelope: Envelope,
    mut service: S,
    mut request: Request<B>,
    permit: Permit,
    tell: oneshot::Sender<Result<Enqueued>>,
) where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Send,
    S::Future: Send,
    B: Send,
    R: Body<Data = Bytes> + Send,
    R::Error: Into<BoxError>,
{
    let inner = &route.gateway.inner;
    let (id, created, repeatable) = (envelope.id(), envelope.created, envelope.repeatable);
    let class = Arc::clone(&envelope.invocation.meta.route_class);
    let sent = Instant::now();
    let stored = inner
        .store
        .enqueue(callback::batch(Enqueue::adopted(envelope, inner.terms())))
        .await;
    let lease = match stored.and_then(first) {
        Ok(Enqueued::New(Some(lease))) => lease,
        other => return drop(tell.send(other)),
    };
    let holding = inner.hold_lease(&lease, sent);
    request.extensions_mut().insert(Completion::under(lease.reference));
    request.extensions_mut().insert(Sent(id));
    drop(tell.send(Ok(Enqueued::New(None))));
    let work = async {
        let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
        let Ok(response) = service.call(request).await;
        replay::collect(response, inner.config.max_reply, &route.target.id).await
    };
    let ending = supervise(work, &holding, None, Some(inner.config.stop_grace)).await;
    permit.finish(ending.outcome(&route.target.id));
    let job = Job {
        id,
        attempt: lease.attempt,
        returned: lease.returned,
        created,
        repeatable,
        hold_until: None,
        kept: true,
        route: class,
    };
    conclude(inner, &route.target, &holding, &job, ending).await;
}
