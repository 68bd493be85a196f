//! The protections that are compared. All but the first know how many workers are ready: their limit follows the
//! replicas, which a fixed number in a configuration file does not.

use crate::knative::{Buffer, refused};
use axum::body::Body;
use crosspoint::core::{Code, Error, Result};
use crosspoint_simulator::{Crosspoint, Door, Entry, Front, Pool, Site, case::Case, open};
use http::{Request, Response};
use std::{
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer, service_fn,
    util::BoxCloneSyncService,
};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

/// A call that takes longer than this part of the hold is a failure to the circuit breaker: one second of ten.
const SLOW: u32 = 10;
/// For this part of the hold an open circuit stays open: five seconds of ten.
const OPEN: u32 = 2;

/// What stands before the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Plain,
    Shed,
    Buffered,
    Retries,
    RetryBudget,
    Breaker,
    Knative30,
    Knative10,
    AlwaysQueue,
    Sticky,
    Known,
    Crosspoint,
}

impl Peer {
    pub const ALL: [Self; 12] = [
        Self::Plain,
        Self::Shed,
        Self::Buffered,
        Self::Retries,
        Self::RetryBudget,
        Self::Breaker,
        Self::Knative30,
        Self::Knative10,
        Self::AlwaysQueue,
        Self::Sticky,
        Self::Known,
        Self::Crosspoint,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Shed => "shed",
            Self::Buffered => "buffer",
            Self::Retries => "retries",
            Self::RetryBudget => "retries-budget",
            Self::Breaker => "breaker",
            Self::Knative30 => "knative-30s",
            Self::Knative10 => "knative-10s",
            Self::AlwaysQueue => "always-queue",
            Self::Sticky => "crosspoint-sticky",
            Self::Known => "crosspoint-known",
            Self::Crosspoint => "crosspoint",
        }
    }

    pub const fn title(self) -> &'static str {
        match self {
            Self::Plain => "nothing at all",
            Self::Shed => "tower: load_shed, concurrency_limit, timeout",
            Self::Buffered => "tower: load_shed, buffer of 1,024, concurrency_limit, timeout",
            Self::Retries => "shed, and clients that try four times more with jittered backoff",
            Self::RetryBudget => "the same with a budget: one retry for ten calls",
            Self::Breaker => "a circuit breaker: half of 100 calls slower than a second, open for 5 s",
            Self::Knative30 => "a buffer in memory for 10,000 calls, 30 s at most",
            Self::Knative10 => "the same for as long as Crosspoint holds, 10 s",
            Self::AlwaysQueue => "every call is stored and answered 202",
            Self::Sticky => "Crosspoint with Sticky: after a divert the next calls go to the queue",
            Self::Known => "Crosspoint that is told how many workers are ready",
            Self::Crosspoint => "Crosspoint as it comes: it learns the limit",
        }
    }

    /// The case with what the policy asks of clients and gateway.
    pub fn case(self, case: &Case) -> Case {
        let mut case = case.clone();
        match self {
            Self::Retries => case.load.client.retries = 4,
            Self::RetryBudget => {
                case.load.client.retries = 4;
                case.load.client.budget = Some(0.1);
            }
            Self::Sticky => "sticky".clone_into(&mut case.gateway.policy),
            Self::Known | Self::AlwaysQueue => "known".clone_into(&mut case.gateway.policy),
            _ => {}
        }
        case
    }

    /// The policy before any service that serves the pool.
    pub fn before<S>(self, site: &Site, number: usize, inner: S) -> Result<Door>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Unpin + Send + 'static,
    {
        let permits = || following(&site.pool);
        let door = match self {
            Self::Plain => Door::peer(BoxCloneSyncService::new(inner)),
            Self::Shed | Self::Retries | Self::RetryBudget => {
                let stack = ServiceBuilder::new()
                    .load_shed()
                    .timeout(hold(site))
                    .layer(GlobalConcurrencyLimitLayer::with_semaphore(permits()))
                    .service(inner);
                Door::peer(answering(stack))
            }
            Self::Buffered => {
                let stack = ServiceBuilder::new()
                    .load_shed()
                    .timeout(hold(site))
                    .buffer(1024)
                    .layer(GlobalConcurrencyLimitLayer::with_semaphore(permits()))
                    .service(inner);
                Door::peer(answering(stack))
            }
            Self::Breaker => Door::peer(breaker(inner, hold(site))?),
            Self::Knative30 | Self::Knative10 => {
                let wait = hold(site) * if self == Self::Knative30 { 3 } else { 1 };
                let waiting = Arc::default();
                let buffer = Buffer::new(inner, permits(), site, Arc::clone(&waiting), wait);
                let mut door = Door::peer(BoxCloneSyncService::new(buffer));
                door.waiting = waiting;
                door
            }
            Self::AlwaysQueue => {
                let mut door = open(site, number, inner)?;
                let service = door.service;
                let asks = move |mut request: Request<Body>| {
                    let asynchronous = http::HeaderValue::from_static("respond-async");
                    request.headers_mut().insert("prefer", asynchronous);
                    service.clone().oneshot(request)
                };
                door.service = BoxCloneSyncService::new(service_fn(asks));
                door
            }
            Self::Sticky | Self::Known | Self::Crosspoint => open(site, number, inner)?,
        };
        Ok(door)
    }
}

impl Front for Peer {
    fn open(&self, site: &Site, number: usize) -> Result<Door> {
        match self {
            Self::Crosspoint => Crosspoint.open(site, number),
            _ => self.before(site, number, site.pool.clone()),
        }
    }
}

fn hold(site: &Site) -> Duration {
    Duration::from_secs_f64(site.case.gateway.hold)
}

/// Permits for as many calls as there are workers, at any time.
fn following(pool: &Pool) -> Arc<Semaphore> {
    let mut given = pool.workers() as usize;
    let permits = Arc::new(Semaphore::new(given));
    let (weak, pool) = (Arc::downgrade(&permits), pool.clone());
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(100)).await;
            let Some(permits) = weak.upgrade() else { return };
            let workers = pool.workers() as usize;
            if workers > given {
                permits.add_permits(workers - given);
                given = workers;
            } else {
                given -= permits.forget_permits(given - workers);
            }
        }
    });
    permits
}

/// Errors of a stack as answers.
fn answering<S>(stack: S) -> Entry
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    BoxCloneSyncService::new(service_fn(move |request| {
        let stack = stack.clone();
        async move { Ok(stack.oneshot(request).await.unwrap_or_else(|_| refused())) }
    }))
}

/// In the extensions of an answer that took too long.
#[derive(Debug, Clone)]
struct TooSlow;

/// The crate reads the machine's clock, which hardly moves in a simulation: how slow a call was, and how long the
/// circuit stays open, is therefore measured here by tokio's clock; the rest is the crate's.
fn breaker<S>(inner: S, hold: Duration) -> Result<Entry>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let slow = |answer: &std::result::Result<Response<Body>, Infallible>| {
        let bad = |answer: &Response<Body>| {
            answer.extensions().get::<TooSlow>().is_some() || answer.status().is_server_error()
        };
        answer.as_ref().map_or_else(|never| match *never {}, bad)
    };
    let settings = CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_type(SlidingWindowType::CountBased)
        .sliding_window_size(100)
        .minimum_number_of_calls(20)
        .wait_duration_in_open(Duration::ZERO)
        .permitted_calls_in_half_open(5)
        .failure_classifier(slow);
    let (layer, handle) = settings
        .build_with_handle()
        .map_err(|error| Error::new(Code::SetupInvalid, error.to_string()))?;
    let timed = service_fn(move |request: Request<Body>| {
        let inner = inner.clone();
        timed(inner.oneshot(request), hold / SLOW)
    });
    let protected = ServiceBuilder::new().layer(layer).service(timed);
    let opened: Arc<Mutex<Option<Instant>>> = Arc::default();
    Ok(BoxCloneSyncService::new(service_fn(move |request| {
        let protected = protected.clone();
        let closed = {
            let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
            match *opened {
                _ if !handle.is_open() => {
                    *opened = None;
                    true
                }
                Some(since) => since.elapsed() >= hold / OPEN,
                None => {
                    *opened = Some(Instant::now());
                    false
                }
            }
        };
        async move {
            if !closed {
                return Ok(refused());
            }
            Ok(protected.oneshot(request).await.unwrap_or_else(|_| refused()))
        }
    })))
}

async fn timed(
    work: impl Future<Output = std::result::Result<Response<Body>, Infallible>>,
    slow: Duration,
) -> std::result::Result<Response<Body>, Infallible> {
    let began = Instant::now();
    let mut answer = work.await?;
    if began.elapsed() > slow {
        answer.extensions_mut().insert(TooSlow);
    }
    Ok(answer)
}
