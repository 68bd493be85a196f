//! The status resource: where a client with 202 asks for its answer.

use crate::{
    Gateway,
    dispatch::ended,
    gateway::Stage,
    http::{Prefer, json, problem, retry_after},
    inbox::Answer,
    wait::from_now,
};
use axum::{Router, extract::State, http::request::Parts, routing::get};
use crosspoint_core::{
    Authenticate, CallStatus, Cancel, Code, CustomerScope, Error, InvocationId, Principal, Reply, Result, Scope,
};
use http::{HeaderValue, Response, StatusCode, header};
use std::{sync::Arc, time::Duration};

#[derive(Debug, Clone)]
struct Requests {
    gateway: Gateway,
    auth: Arc<dyn Authenticate>,
}

impl Gateway {
    /// The status resource, to be mounted at [`Config::requests_path`](crate::Config::requests_path):
    ///
    /// * `GET /{id}`: 200 with the state while the call goes on (`Prefer: wait=N` waits for its end), 303 to the
    ///   response once it has ended.
    /// * `GET /{id}/response`: the stored reply, or a problem that says why there is none; 404 while the call goes on.
    /// * `DELETE /{id}`: 200 if the call was cancelled before it began, 409 if it runs (it is asked to stop) or has
    ///   ended.
    ///
    /// Calls of other customers, and of other users where the layer was told who sent them, answer 404, as do unknown
    /// ones. So do, for everybody, calls of the targets that settle by themselves here
    /// ([`Settles::Handler`](crate::Settles::Handler)): who may see or cancel a flow is for its own API to decide.
    pub fn requests(&self, auth: Arc<dyn Authenticate>) -> Router {
        let state = Requests {
            gateway: self.clone(),
            auth,
        };
        Router::new()
            .route("/{id}", get(show).delete(cancel))
            .route("/{id}/response", get(response))
            .with_state(state)
    }
}

type Page = Response<axum::body::Body>;

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

impl Requests {
    async fn show(&self, parts: &Parts) -> Result<Reply> {
        let (scope, status) = self.find(parts).await?;
        let prefer = Prefer::of(&parts.headers);
        let status = match prefer.wait {
            Some(wait) if !status.state.is_terminal() => self.wait(&scope, status, wait).await?,
            _ => status,
        };
        let after = self.gateway.inner.retry_after();
        if status.state.is_terminal() {
            let path = self.gateway.inner.config.requests_path.trim_end_matches('/');
            let location = format!("{path}/{}/response", status.id);
            let mut reply = json(StatusCode::SEE_OTHER, &describe(&status));
            if let Ok(location) = HeaderValue::try_from(location) {
                reply.headers_mut().insert(header::LOCATION, location);
            }
            return Ok(reply);
        }
        let mut body = describe(&status);
        body["retry_after"] = after.as_secs().max(1).into();
        let mut reply = json(StatusCode::OK, &body);
        let headers = reply.headers_mut();
        headers.insert(header::RETRY_AFTER, retry_after(after));
        if let Some(wait) = prefer.wait
            && let Ok(applied) = HeaderValue::try_from(format!("wait={}", wait.as_secs()))
        {
            headers.insert("preference-applied", applied);
        }
        Ok(reply)
    }

    async fn response(&self, parts: &Parts) -> Result<Reply> {
        let (_, status) = self.find(parts).await?;
        match Answer::of(status) {
            None => Err(Error::new(Code::NotFound, "the call has not ended yet")),
            Some(Answer::Reply(reply)) => Ok(reply),
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
            Cancel::NotFound => Err(not_found()),
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
        let until = from_now(wait.min(inner.config.hold));
        let mut waiter = inner.inbox.register(status.id);
        // It may have ended between the first look and the registration.
        inner.look(status.id).await;
        inner.hold(&mut waiter, until).await;
        let again = inner.store.get(Scope::Customer(scope), status.id).await?;
        again.ok_or_else(not_found)
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
            None => Err(not_found()),
        }
    }
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
