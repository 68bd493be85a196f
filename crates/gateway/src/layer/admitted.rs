//! The permit of a direct call, and until when it is kept.

use super::Route;
use crate::{
    gate::{Permit, Refusal, Ticket},
    outcome::Outcome,
};
use axum::body::Body;
use bytes::Bytes;
use http::{Response, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    any::Any,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;

/// Until when a direct call keeps its permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PermitUntil {
    /// Until the head of the response: what a handler does before it answers.
    #[default]
    Head,
    /// Until the end of the response's body, or until the client has left: for handlers that stream while they work.
    /// This takes an [`axum::body::Body`]; responses with a body of another type give the permit back at their head.
    Body,
}

/// A permit of the direct way: the route, which is needed anyway, keeps the gate alive, so that a call costs one
/// reference count instead of two.
pub(crate) struct Admitted {
    held: Option<(Arc<Route>, Ticket)>,
}

impl Admitted {
    #[inline]
    pub(super) fn new(route: &Arc<Route>, parts: &Parts) -> Result<Self, Refusal> {
        let customer = || route.customer.as_ref().and_then(|of| of(parts));
        let ticket = route.gate.admit(route.class, customer)?;
        Ok(Self::under(route, ticket))
    }

    /// With the ticket of an admission that has taken place.
    #[inline]
    pub(super) fn under(route: &Arc<Route>, ticket: Ticket) -> Self {
        Self {
            held: Some((Arc::clone(route), ticket)),
        }
    }

    /// Of a call that needs none.
    pub(super) const fn none() -> Self {
        Self { held: None }
    }

    /// With a permit that was waited for.
    pub(super) fn with(route: Arc<Route>, permit: Permit) -> Self {
        Self {
            held: permit.into_ticket().map(|ticket| (route, ticket)),
        }
    }

    pub(super) fn route(&self) -> Option<&Arc<Route>> {
        self.held.as_ref().map(|(route, _)| route)
    }

    /// The call has to wait for something; answers since when.
    pub(super) fn waits(&mut self) -> Option<Instant> {
        self.held.as_mut().map(|(_, ticket)| ticket.waits())
    }

    /// The call has ended; answers the route.
    #[inline]
    pub(super) fn finish(&mut self, outcome: Outcome) -> Option<Arc<Route>> {
        let (route, ticket) = self.held.as_ref()?;
        route.gate.note(ticket, outcome);
        let (route, ticket) = self.held.take()?;
        route.gate.give_back(ticket);
        Some(route)
    }

    #[cold]
    fn give_up(&mut self) {
        self.finish(Outcome::Cancelled);
    }

    /// The head of the response is there.
    #[inline]
    pub(super) fn answered<R: 'static>(&mut self, response: &mut Response<R>) {
        let Some((route, _)) = &self.held else { return };
        let outcome = Outcome::of(response.status(), response.headers());
        if route.permit_until == PermitUntil::Body {
            self.keep_until_end(response, outcome);
        } else {
            self.finish(outcome);
        }
    }

    #[cold]
    fn keep_until_end<R: 'static>(&mut self, response: &mut Response<R>, outcome: Outcome) {
        let response: &mut dyn Any = response;
        match response.downcast_mut::<Response<Body>>().map(Response::body_mut) {
            Some(body) if !body.is_end_stream() => {
                self.waits();
                let inner = std::mem::take(body);
                let admitted = Self { held: self.held.take() };
                *body = Body::new(Guarded {
                    inner,
                    admitted,
                    outcome,
                });
            }
            _ => drop(self.finish(outcome)),
        }
    }

    /// The route, with a permit of its own.
    pub(super) fn permit(&mut self) -> Option<(Arc<Route>, Permit)> {
        let (route, ticket) = self.held.take()?;
        let permit = route.gate.permit(ticket);
        Some((route, permit))
    }
}

impl Drop for Admitted {
    #[inline]
    fn drop(&mut self) {
        if self.held.is_some() {
            self.give_up();
        }
    }
}

/// A body that keeps a permit.
struct Guarded {
    inner: Body,
    admitted: Admitted,
    outcome: Outcome,
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let ended = match &frame {
            None => Some(self.outcome),
            // It broke off half-way, which is no success, whatever the head said.
            Some(Err(_)) => Some(Outcome::Unknown),
            // A server need not ask again for the end that the body has announced.
            Some(Ok(_)) => self.inner.is_end_stream().then_some(self.outcome),
        };
        if let Some(outcome) = ended {
            self.admitted.finish(outcome);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
