//! What a customer whose calls take far longer than those of others gets of a busy target: its few permits, by whichever
//! way its calls come, and no more.

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    routing::any,
};
use crosspoint_core::{CustomerId, Memory, TargetId};
use crosspoint_gateway::{Config, Gateway, Limit, Policy};
use crosspoint_testkit::VirtualClock;
use http::{Request, StatusCode};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tower::ServiceExt;

const QUICK: Duration = Duration::from_millis(50);
const SLOW: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Work {
    /// Whether the calls of the first customer are slow by now.
    slow: AtomicBool,
    running: AtomicUsize,
    most: AtomicUsize,
    begun: AtomicUsize,
}

async fn work(State(work): State<Arc<Work>>, Path(customer): Path<usize>) {
    if customer > 0 || !work.slow.load(Ordering::Relaxed) {
        return sleep(QUICK).await;
    }
    let running = work.running.fetch_add(1, Ordering::Relaxed) + 1;
    work.most.fetch_max(running, Ordering::Relaxed);
    work.begun.fetch_add(1, Ordering::Relaxed);
    sleep(SLOW).await;
    work.running.fetch_sub(1, Ordering::Relaxed);
}

struct Bench {
    gateway: Gateway,
    app: Router,
    work: Arc<Work>,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let store = Memory::with_clock(clock.clone());
        let gateway = Gateway::new(crosspoint_core::Store::from(store).dispatch, clock, Config::default());
        let target = TargetId::new("work").unwrap();
        let customer = |request: &http::request::Parts| {
            let name = request.uri.path().trim_start_matches('/');
            CustomerId::new(format!("customer-{name}")).ok()
        };
        let layer = gateway.layer(target.clone()).policy(policy).customer(customer);
        let work_done = Arc::new(Work::default());
        let app = Router::new()
            .route("/{customer}", any(work))
            .with_state(Arc::clone(&work_done))
            .layer(layer);
        gateway.serve_queued(target, app.clone()).unwrap();
        Self {
            gateway,
            app,
            work: work_done,
        }
    }

    fn send(&self, customer: u64) -> JoinHandle<(StatusCode, Duration)> {
        let request = Request::put(format!("/{customer}")).body(Body::empty()).unwrap();
        let app = self.app.clone();
        tokio::spawn(async move {
            let begun = Instant::now();
            let status = app.oneshot(request).await.unwrap().status();
            (status, begun.elapsed())
        })
    }

    /// 200 calls a second of 50 customers in turn; answers those of the others than the first.
    async fn load(&self, seconds: u64) -> Vec<JoinHandle<(StatusCode, Duration)>> {
        let begun = Instant::now();
        let mut calls = Vec::new();
        for at in 0..seconds * 200 {
            sleep_until(begun + Duration::from_millis(5 * at)).await;
            let call = self.send(at % 50);
            if at % 50 > 0 {
                calls.push(call);
            }
        }
        calls
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_customer_has_one_permit_of_twenty_by_every_way_and_delays_nobody() {
    let bench = Bench::new(Policy::default().limit(Limit::Fixed(20)).seed(1));
    bench.load(10).await;
    bench.work.slow.store(true, Ordering::Relaxed);
    // The first calls are not known to be slow yet; they end within this time.
    bench.load(10).await;
    bench.work.most.store(0, Ordering::Relaxed);
    bench.work.begun.store(0, Ordering::Relaxed);
    // Its calls wait in both queues by now, and are the next in turn again and again.
    let others = bench.load(30).await;
    assert_eq!(bench.work.most.load(Ordering::Relaxed), 1);
    let begun = bench.work.begun.load(Ordering::Relaxed);
    assert!((4..=7).contains(&begun), "but it has that one: {begun}");
    let mut longest = Duration::ZERO;
    for call in others {
        let (status, took) = call.await.unwrap();
        assert_eq!(status, StatusCode::OK);
        longest = longest.max(took);
    }
    assert!(longest <= 2 * QUICK, "{longest:?}");
    bench.gateway.drain(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_customer_that_has_its_share_is_told_429() {
    let bench = Bench::new(Policy::default().limit(Limit::Fixed(20)).seed(1));
    bench.load(10).await;
    bench.work.slow.store(true, Ordering::Relaxed);
    bench.load(10).await;
    let stream = |customer| {
        let request = Request::get(format!("/{customer}")).header("accept", "text/event-stream");
        bench.app.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let refused = stream(0).await.unwrap();
    assert_eq!(refused.status(), 429);
    let headers = refused.headers();
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["ratelimit-policy"], "\"share\";q=1;qu=\"concurrent-requests\"");
    assert!(headers.contains_key("ratelimit") && headers.contains_key("retry-after"));
    assert_eq!(stream(1).await.unwrap().status(), 200, "others have theirs");
}
