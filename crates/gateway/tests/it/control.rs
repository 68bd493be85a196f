//! What the control makes of a target, with a small service behind the real gateway and its layer.

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::any,
};
use crosspoint_core::{CustomerId, Memory, Store, TargetId};
use crosspoint_gateway::{
    Config, DispatchLayer, Gateway, Knee, Policy, Replayed, gate,
    outcome::{Outcome, Returned},
};
use crosspoint_testkit::VirtualClock;
use http::{Request, StatusCode};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};
use tower::ServiceExt;

/// Works on `slots` calls at once; further ones wait inside it, where nobody sees them.
#[derive(Debug)]
pub(crate) struct Work {
    slots: Semaphore,
    quick: Duration,
    slow: Duration,
    /// By how much everything takes longer, for a reason of its own.
    pub(crate) factor: AtomicU64,
    down: AtomicBool,
    /// Whether calls that find no slot are turned away.
    pub(crate) full: AtomicBool,
    pub(crate) direct: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) refused_direct: AtomicU64,
    pub(crate) refused_replayed: AtomicU64,
}

async fn work(
    State(work): State<Arc<Work>>,
    Path((kind, _)): Path<(String, u64)>,
    replayed: Option<Extension<Replayed>>,
) -> Response {
    let (carried_out, refused) = if replayed.is_some() {
        (&work.replayed, &work.refused_replayed)
    } else {
        (&work.direct, &work.refused_direct)
    };
    let full = work.full.load(Ordering::Relaxed) && work.slots.available_permits() == 0;
    if full || work.down.load(Ordering::Relaxed) {
        refused.fetch_add(1, Ordering::Relaxed);
        let outcome = if full {
            Outcome::Overloaded { retry_after: None }
        } else {
            Outcome::NotStarted
        };
        // Nobody to deliver it to; the request itself is gone.
        let lost = Returned::new(outcome, Request::new(Body::empty()));
        drop(lost.take());
        return (StatusCode::SERVICE_UNAVAILABLE, Extension(lost)).into_response();
    }
    let _slot = work.slots.acquire().await.unwrap();
    let time = if kind == "slow" { work.slow } else { work.quick };
    sleep(time * u32::try_from(work.factor.load(Ordering::Relaxed)).unwrap()).await;
    carried_out.fetch_add(1, Ordering::Relaxed);
    "done".into_response()
}

pub(crate) struct Bench {
    pub(crate) gateway: Gateway,
    store: Store,
    clock: Arc<VirtualClock>,
    pub(crate) work: Arc<Work>,
    pub(crate) app: Router,
}

pub(crate) fn target() -> TargetId {
    TargetId::new("work").unwrap()
}

impl Bench {
    pub(crate) fn new(slots: usize, policy: &Policy) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let store = Memory::with_clock(clock.clone()).into();
        Self::over(store, clock, slots, policy)
    }

    fn over(store: Store, clock: Arc<VirtualClock>, slots: usize, policy: &Policy) -> Self {
        let customer = CustomerId::new("acme").unwrap();
        Self::with(store, clock, slots, |layer| {
            let customer = customer.clone();
            layer.policy(policy.clone()).customer(move |_| Some(customer.clone()))
        })
    }

    /// Without a customer: no call can be stored.
    pub(crate) fn nameless(slots: usize, policy: &Policy) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let store = Memory::with_clock(clock.clone()).into();
        Self::with(store, clock, slots, |layer| layer.policy(policy.clone()))
    }

    fn with(
        store: Store,
        clock: Arc<VirtualClock>,
        slots: usize,
        set: impl Fn(DispatchLayer) -> DispatchLayer,
    ) -> Self {
        let gateway = Gateway::new(store.dispatch.clone(), clock.clone(), Config::default());
        let work_state = Arc::new(Work {
            slots: Semaphore::new(slots),
            quick: Duration::from_millis(200),
            slow: Duration::from_millis(900),
            factor: AtomicU64::new(1),
            down: AtomicBool::new(false),
            full: AtomicBool::new(false),
            direct: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            refused_direct: AtomicU64::new(0),
            refused_replayed: AtomicU64::new(0),
        });
        let layer = |path: &str| set(gateway.layer(target()).path(path));
        let app = Router::new()
            .route("/{kind}/{id}", any(work))
            .with_state(Arc::clone(&work_state))
            .layer(layer("/quick/{id}"))
            .layer(layer("/slow/{id}"));
        gateway.serve_queued(target(), app.clone()).unwrap();
        Self {
            gateway,
            store,
            clock,
            work: work_state,
            app,
        }
    }

    pub(crate) fn send(&self, kind: &str, id: u64) -> JoinHandle<u16> {
        let request = Request::put(format!("/{kind}/{id}")).body(Body::empty()).unwrap();
        let app = self.app.clone();
        tokio::spawn(async move { app.oneshot(request).await.unwrap().status().as_u16() })
    }

    pub(crate) async fn call(&self) -> u16 {
        in_time(self.send("quick", 0)).await.unwrap()
    }

    /// `rate` calls a second for `seconds`, evenly, of which every `slow`-th is a slow one.
    pub(crate) async fn load(&self, seconds: u64, rate: u64, slow: Option<u64>) -> Vec<JoinHandle<u16>> {
        let begin = Instant::now();
        let mut calls = Vec::new();
        for at in 0..seconds * rate {
            sleep_until(begin + Duration::from_micros(at * 1_000_000 / rate)).await;
            let kind = if slow.is_some_and(|nth| at % nth == 0) {
                "slow"
            } else {
                "quick"
            };
            calls.push(self.send(kind, at));
        }
        calls
    }

    pub(crate) fn gate(&self) -> gate::Snapshot {
        self.gateway.snapshot(&target()).unwrap()
    }

    pub(crate) async fn until(&self, state: gate::State) {
        let reached = async {
            while self.gate().state != state {
                sleep(Duration::from_millis(10)).await;
            }
        };
        in_time(reached).await;
    }

    /// Until the tasks of the gateway have looked at both queues. On the paused clock nobody can do more before this ends.
    pub(crate) async fn started(&self) {
        sleep(Duration::from_millis(1)).await;
        assert_eq!(self.gate().in_flight, 0);
    }

    /// Waits until nothing is queued any more.
    pub(crate) async fn empty(&self) {
        let left = async || {
            let stats = self.store.dispatch.admin().unwrap().stats().await.unwrap();
            let waiting = stats.iter().map(|stats| stats.ready + stats.leased + stats.delayed);
            waiting.sum::<u64>()
        };
        let emptied = async {
            while left().await > 0 {
                sleep(Duration::from_millis(100)).await;
            }
        };
        in_time(emptied).await;
    }

    pub(crate) fn down(&self, down: bool) {
        self.work.down.store(down, Ordering::Relaxed);
    }
}

/// What takes longer than this (on the paused clock) does not come.
pub(crate) async fn in_time<T>(it: impl Future<Output = T>) -> T {
    let within = Duration::from_secs(300);
    timeout(within, it).await.unwrap()
}

pub(crate) fn seen(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

pub(crate) async fn answered(calls: Vec<JoinHandle<u16>>) -> (usize, usize) {
    let (mut done, mut later) = (0, 0);
    for call in calls {
        match in_time(call).await.unwrap() {
            200 => done += 1,
            202 => later += 1,
            other => panic!("{other}"),
        }
    }
    (done, later)
}

#[tokio::test(start_paused = true)]
async fn a_limit_near_the_capacity_is_learnt_and_remembered() {
    let bench = Bench::new(16, &Policy::default().seed(1));
    assert_eq!(bench.gate().limit, Knee::default().initial);
    // 8 in flight: enough to know how long calls take.
    let mut calls = bench.load(10, 40, None).await;
    calls.extend(bench.load(20, 200, None).await);
    let limit = bench.gate().limit;
    assert!((15..=27).contains(&limit), "{limit}");
    let demand = bench.gateway.demand(&target()).unwrap();
    assert!(
        (38.0..70.0).contains(&demand),
        "200 a second of 200 ms, and a backlog: {demand}"
    );
    let (done, later) = answered(calls).await;
    // 400 before, and 80 a second from then on with what was held for up to 10 s.
    assert!(done > 400 + 1900, "{done} {later}");
    in_time(bench.gateway.drain(Duration::from_secs(200))).await;
    let learnt = bench.gate().limit;
    let next = Bench::over(
        bench.store.clone(),
        Arc::clone(&bench.clock),
        16,
        &Policy::default().seed(2),
    );
    sleep(Duration::from_millis(10)).await;
    assert!(
        next.gate().limit.abs_diff(learnt) <= 3,
        "{} after {learnt}",
        next.gate().limit
    );
}

#[tokio::test(start_paused = true)]
async fn a_damaged_note_is_ignored() {
    let clock = Arc::new(VirtualClock::new());
    let store: Store = Memory::with_clock(clock.clone()).into();
    let admin = store.dispatch.admin().unwrap();
    admin.remember(&target(), r#"{"version":1,"limit":1e9"#).await.unwrap();
    let bench = Bench::over(store.clone(), clock, 16, &Policy::default().seed(1));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.gate().limit, Knee::default().initial);
    assert_eq!(bench.call().await, 200);
}

#[tokio::test(start_paused = true)]
async fn slowness_that_is_not_ours_does_not_cost_permits() {
    let bench = Bench::new(16, &Policy::default().seed(1));
    let calls = bench.load(15, 40, None).await;
    answered(calls).await;
    bench.work.factor.store(3, Ordering::Relaxed);
    let before = seen(&bench.work.direct) + seen(&bench.work.replayed);
    let calls = bench.load(40, 60, None).await;
    let done = seen(&bench.work.direct) + seen(&bench.work.replayed) - before;
    // 16 at once of 600 ms each are 26 a second.
    assert!(done > 40 * 20, "{done}");
    assert!(bench.gate().limit >= 13, "{}", bench.gate().limit);
    answered(calls).await;
}

#[tokio::test(start_paused = true)]
async fn a_shift_of_a_healthy_mix_diverts_nothing() {
    let bench = Bench::new(64, &Policy::default().seed(1));
    // From 4.8 to 11 calls in flight: 20 a second of 200 ms, of which first every twentieth takes 900 ms, then half.
    let mut calls = bench.load(20, 20, Some(20)).await;
    calls.extend(bench.load(30, 20, Some(2)).await);
    calls.extend(bench.load(20, 20, Some(20)).await);
    assert_eq!(answered(calls).await.1, 0);
    assert_eq!(seen(&bench.work.replayed), 0);
    assert!(bench.gate().limit >= 20, "{}", bench.gate().limit);
}

#[tokio::test(start_paused = true)]
async fn a_start_in_the_middle_of_an_overload_finds_the_capacity() {
    let bench = Bench::new(5, &Policy::default().seed(1));
    let calls = bench.load(45, 100, None).await;
    let limit = bench.gate().limit;
    assert!(limit <= 9, "{limit}");
    for call in calls {
        let status = in_time(call).await.unwrap();
        assert!(status == 200 || status == 202, "{status}");
    }
}
