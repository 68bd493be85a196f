//! The status resource: where a client with 202 asks for its answer.

use crate::{
    Gateway,
    dispatch::ended,
    estimate::{Counts, Estimate},
    gateway::{Inner, Stage},
    http::{Prefer, json, problem, retry_after, whole_seconds},
    inbox::Answer,
    layer::MOST_REDIRECTS,
    wait::from_now,
};
use axum::{
    Router,
    extract::State,
    http::request::Parts,
    routing::{MethodRouter, get},
};
use crosspoint_core::{
    Authenticate, CallState, CallStatus, Cancel, Code, CustomerScope, Error, InvocationId, Principal, Reply, Result,
    Scope,
};
use http::{HeaderValue, Response, StatusCode, header};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

#[derive(Debug, Clone)]
struct Requests {
    gateway: Gateway,
    auth: Arc<dyn Authenticate>,
    counts: Arc<Counts>,
}

impl Gateway {
    /// The status resource, to be mounted at [`Config::requests_path`](crate::Config::requests_path):
    ///
    /// * `GET /{id}`: 200 with the state while the call goes on (`Prefer: wait=N` waits for its end, at most for
    ///   [`Config::hold`](crate::Config::hold)), 303 to the response once it has ended. While it waits for its turn, the body
    ///   has an `estimate`: the `position` in the queue and the `seconds` until it begins, guessed from the queue's length
    ///   and age.
    /// * `GET /{id}?hops=N`: waits without being asked to, then 303 to itself with one hop less, for clients of routes with
    ///   [`DispatchLayer::redirects`](crate::DispatchLayer::redirects).
    /// * `GET /{id}/response`: the stored reply, or a problem that says why there is none; 404 while the call goes on.
    /// * `DELETE /{id}`: 200 if the call was cancelled before it began, 409 if it runs (it is asked to stop) or has
    ///   ended.
    /// * `HEAD` as `GET` without the body; `OPTIONS`: 204 with `Allow`.
    ///
    /// Once an id is older than [`Config::retention`](crate::Config::retention) and nothing is kept of it, it is answered 410,
    /// whoever asks: ids carry the time at which they were made. Calls that somebody else sent answer exactly as if there
    /// were none.
    ///
    /// Calls of other customers, and of other users where the layer was told who sent them, answer 404, as do unknown
    /// ones. So do, for everybody, calls of the targets that settle by themselves here
    /// ([`Settles::Handler`](crate::Settles::Handler)): who may see or cancel a flow is for its own API to decide.
    pub fn requests(&self, auth: Arc<dyn Authenticate>) -> Router {
        let state = Requests {
            gateway: self.clone(),
            auth,
            counts: Arc::default(),
        };
        Router::new()
            .route("/{id}", only(get(show).delete(cancel), "GET, HEAD, DELETE, OPTIONS"))
            .route("/{id}/response", only(get(response), "GET, HEAD, OPTIONS"))
            .with_state(state)
    }
}

type Page = Response<axum::body::Body>;

/// Answers the other methods: OPTIONS with what there is, the rest with a problem.
fn only(methods: MethodRouter<Requests>, allow: &'static str) -> MethodRouter<Requests> {
    let with_allow = move |mut reply: Reply| {
        reply
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static(allow));
        reply.map(axum::body::Body::from)
    };
    let options = move || async move {
        let mut reply = Reply::default();
        *reply.status_mut() = StatusCode::NO_CONTENT;
        with_allow(reply)
    };
    let refuse = move || async move {
        let error = Error::new(Code::MethodNotAllowed, Code::MethodNotAllowed.title());
        with_allow(problem(&error, None))
    };
    methods.options(options).fallback(refuse)
}

async fn show(State(requests): State<Requests>, parts: Parts) -> Page {
    page(requests.show(&parts).await)
}

async fn response(State(requests): State<Requests>, parts: Parts) -> Page {
    page(requests.response(&parts).await)
}

async fn cancel(State(requests): State<Requests>, parts: Parts) -> Page {
    page(requests.cancel(&parts).await)
}

fn page(reply: Result<Reply>) -> Page {
    let reply = reply.unwrap_or_else(|error| {
        let unavailable = error.code().status() == 503;
        if error.code().status() >= 500 {
            tracing::error!(%error, "the status of a call could not be read");
        }
        problem(&error, unavailable.then(|| Duration::from_secs(1)))
    });
    reply.map(axum::body::Body::from)
}

fn not_found() -> Error {
    Error::new(Code::NotFound, Code::NotFound.title())
}

impl Inner {
    /// The error for a call that the caller may not see, or that is not there. Which of the two, nobody learns: only the
    /// time that the id itself carries decides between "not" and "no longer".
    pub(crate) fn missing(&self, id: InvocationId) -> Error {
        let made = id.as_uuid().get_timestamp().map(|made| made.to_unix());
        let now = self.clock.now().as_millis().div_euclid(1000);
        let age = made.and_then(|(seconds, _)| now.checked_sub(i64::try_from(seconds).ok()?));
        let kept = i64::try_from(self.config.retention.as_secs()).unwrap_or(i64::MAX);
        match age {
            Some(age) if age > kept => Error::new(Code::Gone, Code::Gone.title()),
            _ => not_found(),
        }
    }
}

impl Requests {
    async fn show(&self, parts: &Parts) -> Result<Reply> {
        let (scope, status) = self.find(parts).await?;
        let prefer = Prefer::of(&parts.headers);
        let hops = hops(&parts.uri);
        let wait = prefer.wait.or_else(|| hops.map(|_| self.gateway.inner.config.hold));
        let began = Instant::now();
        let status = match wait {
            Some(wait) if !status.state.is_terminal() => self.wait(&scope, status, wait).await?,
            _ => status,
        };
        let waited = began.elapsed();
        if status.state.is_terminal() {
            return Ok(self.sent_on(&describe(&status), &format!("{}/response", status.id)));
        }
        let mut body = describe(&status);
        let estimate = self.estimate(&status).await;
        let after = self.ask_after(&status, estimate);
        body["retry_after"] = whole_seconds(after).into();
        // Whoever was not kept waiting (shutdown, too many others) would only run through its redirects.
        let kept_waiting = wait.is_some_and(|wait| waited >= wait.min(self.gateway.inner.config.hold));
        let mut reply = match hops.and_then(|hops| hops.checked_sub(1)) {
            Some(left) if kept_waiting => self.sent_on(&body, &format!("{}?hops={left}", status.id)),
            _ => {
                if let Some(estimate) = estimate {
                    body["estimate"] = estimate.to_json();
                }
                json(StatusCode::OK, &body)
            }
        };
        let headers = reply.headers_mut();
        headers.insert(header::RETRY_AFTER, retry_after(after));
        let asked = Prefer {
            respond_async: false,
            ..prefer
        };
        if let Some(applied) = asked.applied(waited).and_then(|applied| applied.try_into().ok()) {
            headers.insert("preference-applied", applied);
        }
        Ok(reply)
    }

    /// 303 to something below this resource.
    fn sent_on(&self, body: &serde_json::Value, below: &str) -> Reply {
        let path = self.gateway.inner.config.requests_path.trim_end_matches('/');
        let mut reply = json(StatusCode::SEE_OTHER, body);
        if let Ok(location) = HeaderValue::try_from(format!("{path}/{below}")) {
            reply.headers_mut().insert(header::LOCATION, location);
        }
        reply
    }

    /// Where a call stands in its queue, as far as that can be guessed.
    async fn estimate(&self, status: &CallStatus) -> Option<Estimate> {
        if status.state != CallState::Queued {
            return None;
        }
        let inner = &self.gateway.inner;
        let stats = self.counts.of(&*inner.store, &status.target).await?;
        Estimate::of(&stats, status.created, inner.clock.now())
    }

    /// When to ask again: sooner for what already runs.
    fn ask_after(&self, status: &CallStatus, estimate: Option<Estimate>) -> Duration {
        let inner = &self.gateway.inner;
        let target = inner.all().into_iter().find(|target| target.id == status.target);
        let ahead = estimate.map_or(0, Estimate::ahead);
        target.map_or_else(|| inner.retry_after(), |target| inner.ask_after(&target, ahead))
    }

    async fn response(&self, parts: &Parts) -> Result<Reply> {
        let (_, status) = self.find(parts).await?;
        match Answer::of(status) {
            None => Err(Error::new(Code::NotFound, "the call has not ended yet")),
            Some(Answer::Reply(mut reply)) => {
                if reply.body().is_empty() {
                    // The length of what a `HEAD` had asked about; this answers another request.
                    reply.headers_mut().remove(header::CONTENT_LENGTH);
                }
                Ok(reply)
            }
            Some(Answer::Ended(state, failure)) => Ok(problem(&ended(state, failure), None)),
        }
    }

    async fn cancel(&self, parts: &Parts) -> Result<Reply> {
        let (scope, status) = self.find(parts).await?;
        let store = &self.gateway.inner.store;
        match store.cancel(Scope::Customer(&scope), status.id).await? {
            Cancel::Cancelled => {
                self.gateway.inner.look(status.id).await;
                let body = serde_json::json!({ "id": status.id.to_string(), "status": "cancelled" });
                Ok(json(StatusCode::OK, &body))
            }
            Cancel::NotFound => Err(self.gateway.inner.missing(status.id)),
            Cancel::Requested => Err(Error::new(Code::Conflict, "the call runs; it was asked to stop")),
            _ => Err(Error::new(Code::Conflict, "the call has ended")),
        }
    }

    /// Waits for the end of a call, at most as long as any client is held.
    async fn wait(&self, scope: &CustomerScope, status: CallStatus, wait: Duration) -> Result<CallStatus> {
        let inner = &self.gateway.inner;
        if inner.stage() != Stage::Running {
            return Ok(status);
        }
        self.gateway.start_tasks();
        let (until, id) = (from_now(wait.min(inner.config.hold)), status.id);
        let mut waiter = inner.inbox.register(status.id);
        // It may have ended between the first look and the registration.
        inner.look(status.id).await;
        inner.hold(scope.customer(), &mut waiter, until).await;
        let again = inner.store.get(Scope::Customer(scope), status.id).await?;
        again.ok_or_else(|| inner.missing(id))
    }

    /// The call that a request is about, if the caller may see it.
    async fn find(&self, parts: &Parts) -> Result<(CustomerScope, CallStatus)> {
        let principal: Principal = self.auth.authenticate(parts).await?;
        #[expect(
            clippy::disallowed_methods,
            reason = "right after the host has authenticated the caller"
        )]
        let scope = CustomerScope::trusted(principal.customer.clone());
        let id = id(parts.uri.path()).ok_or_else(not_found)?;
        let status = self.gateway.inner.store.get(Scope::Customer(&scope), id).await?;
        let owned = |status: &CallStatus| status.principal.as_deref().is_none_or(|owner| owner == principal.user);
        let plain = |status: &CallStatus| !self.gateway.inner.settles_itself(&status.target);
        match status.filter(owned).filter(plain) {
            Some(status) => Ok((scope, status)),
            None => Err(self.gateway.inner.missing(id)),
        }
    }
}

/// How often a client may still be sent on, if it is one that is sent on at all.
fn hops(uri: &http::Uri) -> Option<u8> {
    let mut pairs = uri.query()?.split('&');
    let hops = pairs.find_map(|pair| pair.strip_prefix("hops="))?;
    Some(hops.parse::<u8>().ok()?.min(MOST_REDIRECTS))
}

/// The id in `/{id}` or `/{id}/response`, however deep the router is nested.
fn id(path: &str) -> Option<InvocationId> {
    let mut segments = path.trim_end_matches('/').rsplit('/');
    let last = segments.next()?;
    let segment = if last == "response" { segments.next()? } else { last };
    segment.parse().ok()
}

fn describe(status: &CallStatus) -> serde_json::Value {
    let mut body = serde_json::json!({
        "id": status.id.to_string(),
        "status": status.state,
        "attempt": status.attempt,
        "created": status.created,
    });
    if let Some(failure) = &status.failure {
        body["code"] = failure.code.as_str().into();
    }
    if let Some(finished) = status.finished {
        body["finished"] = finished.to_string().into();
    }
    body
}
