//! The way through the store.

use super::{Passage, Route, glance::Glance};
use crate::{
    Eligible, Settles,
    accept::{Accepted, Entrance},
    callback::{Ride, Wanted},
    dispatch::ended,
    gate::Refusal,
    gateway::Stage,
    http::{
        KEY_HEADER, KeyScope, Prefer, for_storage, idempotency_key, json, problem, retry_after, well_formed,
        whole_seconds,
    },
    inbox::Answer,
    metric,
    outcome::{Outcome, Returned},
    quota::Quota,
    replay::Sent,
};
use axum::extract::OriginalUri;
use bytes::Bytes;
use crosspoint_core::{
    BoxError, Code, CustomerId, Envelope, Error, IdempotencyKey, Invocation, InvocationId, Meta, Reply, Result, RunKey,
};
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header, request::Parts};
use http_body::Body;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Whose request it is.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) customer: CustomerId,
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
        self.path.is_none() && extensions.is_empty() || self.is_ours(request.uri(), extensions)
    }

    fn is_ours(&self, uri: &Uri, extensions: &Extensions) -> bool {
        let replayed = extensions.get::<Passage>();
        if replayed.is_some_and(|passage| passage.is_through(&self.gate)) {
            return false;
        }
        let Some(pattern) = &self.path else { return true };
        let original = extensions.get::<OriginalUri>();
        pattern.matches(original.map_or(uri, |original| &original.0).path())
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
        drained && wanted && !Glance::at(&parts.headers).streams(&parts.method)
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

    #[inline]
    pub(super) fn caller(&self, parts: &Parts) -> Option<Caller> {
        Some(Caller {
            customer: self.customer.as_ref()?(parts)?,
            principal: self.principal.as_ref().and_then(|of| of(parts)),
        })
    }

    /// How long a client is kept waiting at most for a call that has to be queued. While the process shuts down nobody
    /// new is kept.
    pub(super) fn most(&self) -> Duration {
        match self.gateway.inner.stage() {
            Stage::Running => self.most_direct(),
            Stage::Draining | Stage::Closing => Duration::ZERO,
        }
    }

    /// How long a client is kept waiting at most for a call that has begun. A shutdown does not shorten that: the 202 that
    /// would take its place is worth less than an answer on the connection.
    pub(super) fn most_direct(&self) -> Duration {
        self.hold.unwrap_or(self.gateway.inner.config.hold)
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
    pub(super) fn stored(&self, caller: Caller, mut parts: Parts, body: Bytes) -> Result<Envelope> {
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
        parts.extensions = Extensions::new();
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
    pub(super) fn answer(&self, why: Why, prefer: &Prefer, began: Instant, accepted: Result<Accepted>) -> Reply {
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

    /// The error for a call that has no permit and cannot be stored.
    fn has_no_way(&self, parts: &Parts, why: Why) -> Error {
        if let (Why::Refused(Refusal::CustomerShare), Some(caller)) = (why, self.caller(parts)) {
            let share = self.gate.share(&caller.customer);
            return Quota::share(share.into()).used_up().with("customer", caller.customer);
        }
        Error::new(why.code(), why.code().title())
    }

    fn refused(&self, error: &Error) -> Reply {
        let after = matches!(error.code().status(), 413 | 429 | 503).then(|| self.gateway.inner.retry_after());
        problem(error, after)
    }
}

/// Stores a request and keeps the client for the answer.
pub(super) async fn divert<B>(route: Arc<Route>, request: Request<B>, why: Why) -> Reply
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let most = route.most();
    divert_within(route, request, why, most).await
}

/// Stores a request and keeps the client for at most `most`.
pub(super) async fn divert_within<B>(route: Arc<Route>, request: Request<B>, why: Why, most: Duration) -> Reply
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let prefer = Prefer::of(&parts.headers);
    let held = prefer.hold(most);
    let mut ride = None;
    if let Why::Refused(refusal) = why {
        route.gate.note_divert(refusal);
        // A layer may be made before there is a runtime; without its control a gate would stay closed for ever.
        route.gateway.start_control(&route.target);
    }
    let accepted = async {
        let eligible = route.caller(&parts).filter(|_| route.can_store(&parts));
        let Some(caller) = eligible else {
            return Err(route.has_no_way(&parts, why));
        };
        let begun = matches!(why, Why::Returned(outcome) if !outcome.is_not_started());
        if begun && !(route.may_repeat(&parts.method, &parts.headers) && route.target.max_attempts() > 1) {
            // Whatever stands in the way of another attempt: it must not be taken for a call that was not begun.
            return Err(Error::new(Code::OutcomeUnknown, Code::OutcomeUnknown.title()));
        }
        let inner = &route.gateway.inner;
        inner.intake.ask()?;
        inner.may_wait(&route.target.id, &caller.customer).await?;
        let (body, room) = inner.read(body, route.max_body, Some(&caller.customer)).await?;
        inner.waiting.comes(&route.target.id, &caller.customer, body.len());
        let wanted = route.wanted(&parts)?;
        let mut envelope = route.stored(caller, parts, body)?;
        // If it may have been carried out, that was an attempt.
        envelope.max_attempts -= u32::from(begun);
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
pub(super) fn beside(wanted: Option<Wanted>, envelope: &mut Envelope, held: Duration) -> Result<Option<Ride>> {
    let first = envelope.created.plus(held.max(Duration::from_secs(1)));
    wanted.map(|wanted| Ride::beside(wanted, envelope, first)).transpose()
}

/// Brings the wish to where its call has gone.
pub(super) async fn arrived(ride: Option<Ride>, route: &Route, accepted: Result<Accepted>) -> Result<Accepted> {
    match ride {
        Some(ride) => ride.arrived(&route.gateway.inner, accepted).await,
        None => accepted,
    }
}
