//! A buffer in memory before a fixed number of calls at once, in the way of Knative's activator: one word of capacity
//! and calls, a queue of ten thousand, first come first served, and 503 when it is full or the wait is over.

use axum::body::Body;
use crosspoint_simulator::Site;
use http::{Request, Response, StatusCode};
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};
use tower_service::Service;

/// How many calls may wait for each worker of one replica: 10,000 where these have eight.
const QUEUE: u64 = 1_250;

#[derive(Clone)]
pub struct Buffer<S> {
    inner: S,
    shared: Arc<Shared>,
    wait: Duration,
}

struct Shared {
    /// Capacity in the upper half, calls inside (running and waiting) in the lower half.
    word: AtomicU64,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    queue: u64,
}

impl<S> Buffer<S> {
    pub fn new(inner: S, permits: Arc<Semaphore>, site: &Site, waiting: Arc<AtomicUsize>, wait: Duration) -> Self {
        let shared = Arc::new(Shared {
            word: AtomicU64::new(u64::from(site.pool.workers()) << 32),
            permits,
            waiting,
            queue: QUEUE * u64::from(site.case.pool.workers),
        });
        let (weak, pool) = (Arc::downgrade(&shared), site.pool.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let Some(shared) = weak.upgrade() else { return };
                shared.resize(u64::from(pool.workers()));
            }
        });
        Self { inner, shared, wait }
    }
}

impl Shared {
    fn resize(&self, capacity: u64) {
        let resized = |word: u64| Some(word & 0xFFFF_FFFF | capacity << 32);
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, resized);
    }

    fn enter(self: &Arc<Self>) -> Option<Inside> {
        let more = |word: u64| ((word & 0xFFFF_FFFF) < (word >> 32) + self.queue).then_some(word + 1);
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Inside(Arc::clone(self)))
    }
}

struct Inside(Arc<Shared>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.word.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Service<Request<Body>> for Buffer<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut inner, shared, wait) = (self.inner.clone(), Arc::clone(&self.shared), self.wait);
        Box::pin(async move {
            let Some(_inside) = shared.enter() else {
                return Ok(refused());
            };
            let waits = Waits::new(&shared.waiting);
            let permit = timeout(wait, Arc::clone(&shared.permits).acquire_owned()).await;
            drop(waits);
            match permit {
                Ok(Ok(_permit)) => inner.call(request).await,
                _ => Ok(refused()),
            }
        })
    }
}

pub fn refused() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}
