//! The target: replicas with workers, queues, cold starts and faults, behind a balancer.

mod replica;

use crate::{
    Random, RunTime,
    case::{Case, Choice, Health, Plan},
    ledger::{Ledger, mean_work},
};
use axum::body::Body;
use crosspoint_gateway::{
    Replayed,
    outcome::{Outcome, Returned},
};
use http::{Request, Response, StatusCode};
use replica::{Replica, Seat};
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tower_service::Service;

/// In every simulated request: its number in the ledger.
pub const REQUEST: &str = "x-request";
/// In every answer of the target: `direct` or `queued`.
pub const WAY: &str = "x-way";

/// What refusing or failing at once takes.
const QUICK: Duration = Duration::from_millis(5);
/// After so many seconds without an answer a connection is given up.
const ATTEMPT: f64 = 30.0;

/// The pool of replicas, a tower service. Cheap to clone; all clones are one pool.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    case: Arc<Case>,
    plan: Plan,
    seed: u64,
    time: Arc<RunTime>,
    ledger: Arc<Ledger>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    replicas: Vec<Replica>,
    turn: usize,
    random: Random,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was done.
    Done,
    /// The replica failed.
    Error,
    /// Nobody took it.
    NotStarted,
    /// The connection was lost on the way.
    Lost,
}

impl Pool {
    pub(crate) fn new(case: &Arc<Case>, seed: u64, time: &Arc<RunTime>, ledger: &Arc<Ledger>) -> Self {
        let replicas = (0..case.pool.replicas).map(|_| Replica::new(&case.pool, 0.0, 0.0));
        Self(Arc::new(Inner {
            plan: Plan::new(&case.faults),
            seed,
            time: Arc::clone(time),
            ledger: Arc::clone(ledger),
            state: Mutex::new(State {
                replicas: replicas.collect(),
                turn: 0,
                random: Random::keyed(seed, 2),
            }),
            case: Arc::clone(case),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request comes from the queue.
    #[must_use]
    pub fn is_queued<B>(request: &Request<B>) -> bool {
        request.extensions().get::<Replayed>().is_some()
    }

    /// Replicas that exist, ready or not.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.state().replicas.iter().filter(|replica| !replica.removed).count()
    }

    /// The workers of the replicas that are ready.
    #[must_use]
    pub fn workers(&self) -> u32 {
        let now = self.0.time.now();
        let ready = self
            .state()
            .replicas
            .iter()
            .filter(|replica| replica.is_there(now))
            .count();
        u32::try_from(ready)
            .unwrap_or(u32::MAX)
            .saturating_mul(self.0.case.pool.workers)
    }

    /// The workers that can do something now, counted in ordinary speed: a cold one counts for less.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        let (now, pool, plan) = (self.0.time.now(), &self.0.case.pool, &self.0.plan);
        if plan.is_down(now) {
            return 0.0;
        }
        let slowness = plan.slowness(now);
        let speed = |(index, replica): (usize, &Replica)| {
            if !replica.is_there(now) || plan.health(index, now) != Health::Well {
                return 0.0;
            }
            let cold = now < replica.cold_until || plan.is_cold(now, pool.cold);
            f64::from(pool.workers) / (slowness * if cold { pool.cold_factor } else { 1.0 })
        };
        self.state().replicas.iter().enumerate().map(speed).sum()
    }

    /// Adds a replica that is ready, and cold, `after` seconds from now.
    pub(crate) fn add(&self, after: f64) {
        let (ready, pool) = (self.0.time.now() + after, &self.0.case.pool);
        self.state().replicas.push(Replica::new(pool, ready, ready + pool.cold));
    }

    /// Takes the newest replica away. Calls that it has are finished.
    pub(crate) fn remove(&self) {
        let mut state = self.state();
        if let Some(replica) = state.replicas.iter_mut().rev().find(|replica| !replica.removed) {
            replica.removed = true;
        }
    }

    /// Replaces one replica by a cold one that takes over at once; the old one finishes what it has.
    pub(crate) fn replace(&self, index: usize) {
        if let Some(replica) = self.state().replicas.get_mut(index) {
            replica.removed = true;
        }
        self.add(0.0);
    }

    /// Makes a replica stand still.
    pub(crate) fn pause(&self, index: usize, length: f64) {
        let now = self.0.time.now();
        if let Some(replica) = self.state().replicas.get_mut(index) {
            replica.pause(now, length);
        }
    }

    /// The replica that gets the next call, with a place in it.
    fn seat(&self) -> Option<Seat> {
        let (now, pool) = (self.0.time.now(), &self.0.case.pool);
        let mut state = self.state();
        let State { replicas, turn, random } = &mut *state;
        let open = |ejected: bool| -> Vec<usize> {
            let there = replicas.iter().enumerate();
            let there = there.filter(|(_, replica)| replica.is_there(now) && (ejected || replica.ejected_until <= now));
            there.map(|(index, _)| index).collect()
        };
        let mut open_now = open(false);
        if open_now.is_empty() {
            open_now = open(true);
        }
        if open_now.is_empty() {
            return None;
        }
        *turn += 1;
        let load = |index: &usize| replicas.get(*index).map_or(u32::MAX, |replica| replica.load);
        let count = open_now.len();
        let at = |k: usize| open_now.get(k % count).copied().unwrap_or_default();
        let index = match pool.choice {
            Choice::RoundRobin => at(*turn),
            Choice::TwoChoices => {
                let (one, two) = (at(random.below(count)), at(random.below(count)));
                if load(&one) <= load(&two) { one } else { two }
            }
            Choice::LeastLoaded => (0..count).map(|k| at(k + *turn)).min_by_key(load).unwrap_or_default(),
        };
        let replica = replicas.get_mut(index)?;
        replica.load += 1;
        drop(state);
        Some(Seat::new(self.clone(), index))
    }

    /// Sends a request to a replica in this process.
    pub async fn attempt(&self, request: usize, queued: bool) -> Fate {
        self.attempt_by(request, queued, |index| self.work(index, request))
            .await
    }

    /// Sends a request to the replica that the balancer chooses; `way` takes it there, given the replica's number.
    pub async fn attempt_by<F>(&self, request: usize, queued: bool, way: impl FnOnce(usize) -> F) -> Fate
    where
        F: Future<Output = Fate>,
    {
        let inner = &*self.0;
        let at_target = inner.ledger.at_target(request, queued);
        let seat = if inner.plan.is_down(inner.time.now()) {
            None
        } else {
            self.seat()
        };
        let fate = match seat {
            Some(seat) => {
                let fate = way(seat.index()).await;
                seat.note(fate);
                fate
            }
            None => {
                tokio::time::sleep(QUICK).await;
                Fate::NotStarted
            }
        };
        if matches!(fate, Fate::NotStarted | Fate::Lost) {
            inner.ledger.failed(queued);
        }
        drop(at_target);
        fate
    }

    /// How long a request takes on a replica that has nothing else to do: the same in every run of this seed.
    fn service_time(&self, request: usize) -> (f64, bool) {
        let inner = &*self.0;
        let book = inner.ledger.book();
        let Some(sent) = book.tries.get(request) else {
            return (0.0, false);
        };
        let Some(call) = book.calls.get(sent.call) else {
            return (0.0, false);
        };
        let (mean, sigma) = mean_work(&inner.case, call.customer, call.class, call.intended);
        let key = (sent.call as u64) << 8 | u64::from(call.tries.min(255));
        let mut random = Random::keyed(inner.seed ^ 0x5EED, key);
        (random.lognormal(mean, sigma), call.poison)
    }
}

impl Service<Request<Body>> for Pool {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let pool = self.clone();
        Box::pin(async move {
            let queued = Self::is_queued(&request);
            let number = number_of(&request);
            let fate = if pool.0.case.pool.notices {
                pool.attempt(number, queued).await
            } else {
                let working = tokio::spawn(async move { pool.attempt(number, queued).await });
                working.await.unwrap_or(Fate::Lost)
            };
            Ok(answer(fate, request, queued))
        })
    }
}

/// The number of a request in the ledger.
#[must_use]
pub fn number_of<B>(request: &Request<B>) -> usize {
    let header = request.headers().get(REQUEST).and_then(|value| value.to_str().ok());
    header.and_then(|text| text.parse().ok()).unwrap_or(usize::MAX)
}

/// What a forwarding service answers.
#[must_use]
pub fn answer(fate: Fate, request: Request<Body>, queued: bool) -> Response<Body> {
    let (status, outcome) = match fate {
        Fate::Done => (StatusCode::OK, None),
        Fate::Error => (StatusCode::INTERNAL_SERVER_ERROR, None),
        Fate::NotStarted => (StatusCode::SERVICE_UNAVAILABLE, Some(Outcome::NotStarted)),
        Fate::Lost => (StatusCode::BAD_GATEWAY, Some(Outcome::Unknown)),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let way = http::HeaderValue::from_static(if queued { "queued" } else { "direct" });
    response.headers_mut().insert(WAY, way);
    if let Some(outcome) = outcome {
        response.extensions_mut().insert(Returned::new(outcome, request));
    }
    response
}
