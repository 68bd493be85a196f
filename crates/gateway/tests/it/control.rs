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
    Config, CoolOff, Gateway, Limit, Policy, Replayed, Sticky, gate,
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
    time::{Instant, sleep, sleep_until},
};
use tower::ServiceExt;

/// Works on `slots` calls at once; further ones wait inside it, where nobody sees them.
#[derive(Debug)]
struct Work {
    slots: Semaphore,
    quick: Duration,
    slow: Duration,
    /// By how much everything takes longer, for a reason of its own.
    factor: AtomicU64,
    down: AtomicBool,
    direct: AtomicU64,
    replayed: AtomicU64,
    refused_direct: AtomicU64,
    refused_replayed: AtomicU64,
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
    if work.down.load(Ordering::Relaxed) {
        refused.fetch_add(1, Ordering::Relaxed);
        // Nobody to deliver it to; the request itself is gone.
        let lost = Returned::new(Outcome::NotStarted, Request::new(Body::empty()));
        drop(lost.take());
        return (StatusCode::SERVICE_UNAVAILABLE, Extension(lost)).into_response();
    }
    let _slot = work.slots.acquire().await.unwrap();
    let time = if kind == "slow" { work.slow } else { work.quick };
    sleep(time * u32::try_from(work.factor.load(Ordering::Relaxed)).unwrap()).await;
    carried_out.fetch_add(1, Ordering::Relaxed);
    "done".into_response()
}

struct Bench {
    gateway: Gateway,
    store: Store,
    clock: Arc<VirtualClock>,
    work: Arc<Work>,
    app: Router,
}

fn target() -> TargetId {
    TargetId::new("work").unwrap()
}

impl Bench {
    fn new(slots: usize, policy: &Policy) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let store = Memory::with_clock(clock.clone()).into();
        Self::over(store, clock, slots, policy)
    }

    fn over(store: Store, clock: Arc<VirtualClock>, slots: usize, policy: &Policy) -> Self {
        let gateway = Gateway::new(store.dispatch.clone(), clock.clone(), Config::default());
        let work_state = Arc::new(Work {
            slots: Semaphore::new(slots),
            quick: Duration::from_millis(200),
            slow: Duration::from_millis(900),
            factor: AtomicU64::new(1),
            down: AtomicBool::new(false),
            direct: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            refused_direct: AtomicU64::new(0),
            refused_replayed: AtomicU64::new(0),
        });
        let customer = CustomerId::new("acme").unwrap();
        let layer = |path: &str| {
            let customer = customer.clone();
            gateway
                .layer(target())
                .path(path)
                .policy(policy.clone())
                .customer(move |_| Some(customer.clone()))
        };
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

    fn send(&self, kind: &str, id: u64) -> JoinHandle<u16> {
        let request = Request::put(format!("/{kind}/{id}")).body(Body::empty()).unwrap();
        let app = self.app.clone();
        tokio::spawn(async move { app.oneshot(request).await.unwrap().status().as_u16() })
    }

    async fn call(&self) -> u16 {
        self.send("quick", 0).await.unwrap()
    }

    /// `rate` calls a second for `seconds`, evenly, of which every `slow`-th is a slow one.
    async fn load(&self, seconds: u64, rate: u64, slow: Option<u64>) -> Vec<JoinHandle<u16>> {
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

    fn gate(&self) -> gate::Snapshot {
        self.gateway.snapshot(&target()).unwrap()
    }

    async fn until(&self, state: gate::State) {
        while self.gate().state != state {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until nothing is queued any more.
    async fn empty(&self) {
        loop {
            let stats = self.store.dispatch.admin().unwrap().stats().await.unwrap();
            let left: u64 = stats
                .iter()
                .map(|stats| stats.ready + stats.leased + stats.delayed)
                .sum();
            if left == 0 {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn down(&self, down: bool) {
        self.work.down.store(down, Ordering::Relaxed);
    }
}

fn seen(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

async fn answered(calls: Vec<JoinHandle<u16>>) -> (usize, usize) {
    let (mut done, mut later) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
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
    assert_eq!(bench.gate().limit, 20);
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
    bench.gateway.drain(Duration::from_secs(200)).await;
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
    assert_eq!(bench.gate().limit, 20);
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
async fn three_refusals_close_the_gate_and_the_drain_opens_it() {
    let bench = Bench::new(16, &Policy::default().seed(1));
    assert_eq!(bench.call().await, 200);
    bench.down(true);
    for _ in 0..3 {
        assert_eq!(bench.gate().state, gate::State::Direct);
        assert_eq!(bench.call().await, 503);
    }
    assert_eq!(bench.gate().state, gate::State::CoolOff);
    let held: Vec<_> = (0..20).map(|id| bench.send("quick", id)).collect();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(
        seen(&bench.work.refused_direct),
        3,
        "no further call was tried on a dead target"
    );
    assert!(
        (1..=12).contains(&seen(&bench.work.refused_replayed)),
        "one probe after each cool-off"
    );
    bench.down(false);
    assert_eq!(answered(held).await.0, 20, "on their own connections");
    bench.until(gate::State::Ramping).await;
    assert_eq!(seen(&bench.work.direct), 1, "the drain was the probe");
    let calls = bench.load(3, 40, None).await;
    assert_eq!(answered(calls).await.0, 120);
    assert_eq!(bench.gate().state, gate::State::Direct);
}

#[tokio::test(start_paused = true)]
async fn with_nothing_queued_one_direct_call_is_the_probe() {
    let bench = Bench::new(16, &Policy::default().seed(1));
    bench.down(true);
    for _ in 0..3 {
        bench.call().await;
    }
    bench.down(false);
    bench.until(gate::State::Probing).await;
    assert_eq!(bench.call().await, 200);
    assert_eq!((seen(&bench.work.direct), seen(&bench.work.replayed)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_comes_and_goes_is_not_stampeded() {
    let bench = Bench::new(16, &Policy::default().seed(1));
    let calls = bench.load(5, 40, None).await;
    answered(calls).await;
    let mut calls = Vec::new();
    for _ in 0..4 {
        bench.down(true);
        calls.extend(bench.load(3, 40, None).await);
        bench.down(false);
        calls.extend(bench.load(3, 40, None).await);
    }
    // Three to notice each time; the others were queued.
    assert!(
        seen(&bench.work.refused_direct) <= 4 * 5,
        "{}",
        seen(&bench.work.refused_direct)
    );
    assert!(
        seen(&bench.work.refused_replayed) <= 4 * 30,
        "{}",
        seen(&bench.work.refused_replayed)
    );
    let mut refused = 0;
    for call in calls {
        refused += u64::from(call.await.unwrap() == 503);
    }
    assert!(refused <= 4 * 5, "{refused}");
    bench.empty().await;
    assert_eq!(bench.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_sticky_gate_sends_the_next_calls_to_the_queue_and_works_it_off_meanwhile() {
    let sticky = CoolOff::default().sticky(Sticky::default().calls(6).time(Duration::from_secs(600)));
    let policy = Policy::default()
        .limit(Limit::Fixed(2))
        .cool_off(sticky)
        .patience(Duration::ZERO);
    let bench = Bench::new(16, &policy);
    let first: Vec<_> = (0..3).map(|id| bench.send("quick", id)).collect();
    bench.until(gate::State::CoolOff).await;
    assert_eq!(answered(first).await.0, 3);
    assert_eq!((seen(&bench.work.direct), seen(&bench.work.replayed)), (2, 1));
    for _ in 0..6 {
        assert_eq!(bench.call().await, 200, "answered through the queue");
    }
    assert_eq!((seen(&bench.work.direct), seen(&bench.work.replayed)), (2, 7));
    bench.until(gate::State::Direct).await;
    assert_eq!(bench.call().await, 200);
    assert_eq!((seen(&bench.work.direct), seen(&bench.work.replayed)), (3, 7));
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
        let status = call.await.unwrap();
        assert!(status == 200 || status == 202, "{status}");
    }
}
