//! A body that streams through and can be sent again as long as little of it has passed.

use axum::body::Body;
use bytes::Bytes;
use crosspoint_core::BoxError;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

/// A request's body with a copy of what has been read of it, up to a limit. Each [`Kept::body`] begins at the start and
/// ends the one before; nothing is read from the client before somebody polls.
#[derive(Clone)]
pub(crate) struct Kept(Arc<Mutex<State>>);

struct State {
    rest: Body,
    seen: Vec<Bytes>,
    bytes: usize,
    most: usize,
    trailers: Option<HeaderMap>,
    /// More has passed than is kept: it cannot be sent again.
    spilt: bool,
    /// The client's own stream failed.
    broken: bool,
    /// Somebody wants more, and the client has not sent it yet.
    waits: bool,
    /// Which body may read on; an older one may still be in the hands of a connection that is being given up.
    turn: u64,
}

impl Kept {
    pub(crate) fn new(body: Body, most: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            rest: body,
            seen: Vec::new(),
            bytes: 0,
            most,
            trailers: None,
            spilt: false,
            broken: false,
            waits: false,
            turn: 0,
        })))
    }

    /// The body from its start; `None` if too much of it has gone.
    pub(crate) fn body(&self) -> Option<Body> {
        let turn = {
            let mut state = self.lock();
            if state.spilt || state.broken {
                return None;
            }
            state.turn += 1;
            state.turn
        };
        Some(Body::new(Again {
            kept: self.clone(),
            turn,
            next: 0,
        }))
    }

    /// Whether it is the client that everybody waits for.
    pub(crate) fn waits(&self) -> bool {
        self.lock().waits
    }

    /// Whether it was the client's stream that failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Kept")
            .field("bytes", &state.bytes)
            .field("spilt", &state.spilt)
            .finish_non_exhaustive()
    }
}

impl State {
    fn keep(&mut self, data: &Bytes) {
        self.bytes = self.bytes.saturating_add(data.len());
        if self.spilt || self.bytes > self.most {
            self.spilt = true;
            self.seen = Vec::new();
        } else {
            self.seen.push(data.clone());
        }
    }
}

struct Again {
    kept: Kept,
    turn: u64,
    next: usize,
}

impl HttpBody for Again {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let kept = self.kept.clone();
        let mut state = kept.lock();
        if state.turn != self.turn {
            return Poll::Ready(Some(Err("the request is sent again elsewhere".into())));
        }
        if let Some(data) = state.seen.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if let Some(trailers) = state.trailers.clone().filter(|_| self.next != usize::MAX) {
            self.next = usize::MAX;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let polled = Pin::new(&mut state.rest).poll_frame(cx);
        state.waits = polled.is_pending();
        let frame = match ready!(polled) {
            None => return Poll::Ready(None),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                state.broken = true;
                return Poll::Ready(Some(Err(error.into())));
            }
        };
        if let Some(data) = frame.data_ref() {
            state.keep(data);
            self.next = state.seen.len();
        } else if let Some(trailers) = frame.trailers_ref() {
            state.trailers = Some(trailers.clone());
            self.next = usize::MAX;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.kept.lock();
        let told = state.trailers.is_none() || self.next == usize::MAX;
        told && self.next >= state.seen.len() && state.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.kept.lock();
        let again: usize = state.seen.iter().skip(self.next).map(Bytes::len).sum();
        let again = u64::try_from(again).unwrap_or(u64::MAX);
        let rest = HttpBody::size_hint(&state.rest);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(again));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(again)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    fn chunks(texts: &[&'static str]) -> Body {
        let frames: Vec<_> = texts
            .iter()
            .map(|text| Ok::<_, BoxError>(Frame::data(Bytes::from_static(text.as_bytes()))))
            .collect();
        Body::new(StreamBody::new(futures_util::stream::iter(frames)))
    }

    async fn read(body: Body) -> String {
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn what_fits_is_sent_again_from_the_start_wherever_the_first_one_stopped() {
        let kept = Kept::new(chunks(&["ab", "cd", "ef"]), 6);
        let mut first = kept.body().unwrap();
        first.frame().await.unwrap().unwrap();
        let second = kept.body().unwrap();
        assert!(
            first.frame().await.unwrap().is_err(),
            "the older one reads nothing more"
        );
        assert_eq!(read(second).await, "abcdef");
        assert_eq!(read(kept.body().unwrap()).await, "abcdef");
    }

    #[tokio::test]
    async fn what_does_not_fit_passes_untouched_but_only_once() {
        let kept = Kept::new(chunks(&["ab", "cd", "ef"]), 5);
        let again = kept.body().unwrap();
        drop(again);
        assert_eq!(read(kept.body().unwrap()).await, "abcdef");
        assert!(kept.body().is_none());
        assert_eq!(kept.lock().seen.len(), 0, "nothing is held on to");
    }

    #[tokio::test]
    async fn the_length_stays_known() {
        let kept = Kept::new(Body::from("abcdef"), 6);
        let mut first = kept.body().unwrap();
        assert_eq!(first.size_hint().exact(), Some(6));
        first.frame().await.unwrap().unwrap();
        assert_eq!(kept.body().unwrap().size_hint().exact(), Some(6));
        assert!(Kept::new(Body::empty(), 6).body().unwrap().is_end_stream());
    }
}
