//! Held answers over SQLite at `synchronous=FULL` on a system that does nothing else: how long a client waits beyond the
//! handler's own time when its call goes through the store. `cargo bench -p crosspoint-benches --bench held`
//!
//! Two ways there. `recorded`: a permit is free, so the call is stored and leased in one commit, run, and settled in a second
//! one, after which the client has its answer. `diverted`: the gate is full; the call is in the queue, and the clock runs from
//! the moment a permit comes free, over lease, handler and settle, until the client has its answer. Wall time, since it is the
//! disk that costs; requests enter the router in this process, without a socket.

use axum::{Router, body::Body, extract::State, routing::post};
use crosspoint::{
    core::{DispatchStore, Store, TargetId},
    gateway::{Config, Gateway, Keys},
    prelude::*,
};
use crosspoint_benches::synced_append;
use http::{Request, StatusCode};
use std::{
    io::{IsTerminal, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tower::ServiceExt;

const ROUNDS: usize = 5;
const HOLD: Duration = Duration::from_secs(10);

/// A service with one permit. Calls of `/gated` end when the gate lets them.
struct Host {
    app: Router,
    store: Arc<dyn DispatchStore>,
    sqlite: Sqlite,
    gate: Arc<Occupied>,
    calls: u64,
}

/// The call that takes the only permit, and keeps it until it may go.
#[derive(Default)]
struct Occupied {
    begun: Notify,
    go: Notify,
}

async fn gated(State(gate): State<Arc<Occupied>>) -> &'static str {
    gate.begun.notify_one();
    gate.go.notified().await;
    "done"
}

fn main() {
    // `cargo test --benches` only wants to know whether it starts.
    let each = if std::env::args().any(|argument| argument == "--bench") {
        200
    } else {
        1
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut rows = [
        Row::new("fdatasync after an append of 4 KiB"),
        Row::new("recorded: stored, run, answered"),
        Row::new("diverted: permit free, run, answered"),
    ];
    runtime.block_on(async {
        let mut host = Host::open(folder.path()).await;
        host.recorded().await;
        for round in 0..ROUNDS {
            rows[0].add(fdatasync(folder.path(), each));
            rows[1].add(times(each, async || host.recorded().await).await);
            rows[2].add(times(each, async || host.diverted().await).await);
            if std::io::stdout().is_terminal() {
                print!("\rround {} of {ROUNDS}", round + 1);
                std::io::stdout().flush().unwrap();
            }
        }
        host.sqlite.close().await;
    });
    println!(
        "\nheld answers, SQLite at synchronous=FULL, one caller, idle; {ROUNDS} rounds of {each}; median round (range)"
    );
    for row in rows {
        row.print();
    }
}

impl Host {
    async fn open(folder: &Path) -> Self {
        let sqlite = Sqlite::open(folder.join("held.db")).await.unwrap();
        let store = Store::from(sqlite.clone()).dispatch;
        let mut config = Config::default();
        config.hold = HOLD;
        let gateway = Gateway::new(store.clone(), Arc::new(SystemClock::new()), config);
        let layer = gateway
            .layer(TargetId::new("host").unwrap())
            .permits(1)
            .keys(Keys::Gateway)
            .customer(|_| CustomerId::new("acme").ok());
        let gate = Arc::<Occupied>::default();
        let app = Router::new()
            .route("/free", post(|| async { "done" }))
            .route("/gated", post(gated))
            .with_state(gate.clone())
            .layer(layer);
        gateway.serve_all_queued(app.clone()).unwrap();
        Self {
            app,
            store,
            sqlite,
            gate,
            calls: 0,
        }
    }

    /// A call with a key, which the gateway records before it is tried.
    async fn recorded(&mut self) -> Duration {
        self.calls += 1;
        let key = format!("\"bench-{}\"", self.calls);
        let request = Request::post("/free").header("idempotency-key", key);
        let before = Instant::now();
        answer(self.app.clone(), request.body(Body::empty()).unwrap()).await;
        before.elapsed()
    }

    /// A call that finds the only permit taken.
    async fn diverted(&mut self) -> Duration {
        let occupied = tokio::spawn(answer(self.app.clone(), post_to("/gated")));
        self.gate.begun.notified().await;
        let (told, answered) = oneshot::channel();
        let app = self.app.clone();
        tokio::spawn(async move {
            answer(app, post_to("/free")).await;
            let _ = told.send(Instant::now());
        });
        while self.waiting().await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = Instant::now();
        self.gate.go.notify_one();
        let after = answered.await.unwrap();
        occupied.await.unwrap();
        after - before
    }

    /// How many calls the store has waiting.
    async fn waiting(&self) -> u64 {
        let stats = self.store.admin().unwrap().stats().await.unwrap();
        stats.iter().map(|stats| stats.ready).sum()
    }
}

fn post_to(path: &str) -> Request<Body> {
    Request::post(path).body(Body::empty()).unwrap()
}

async fn answer(app: Router, request: Request<Body>) {
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "answered in time");
    let body = axum::body::to_bytes(response.into_body(), 64).await.unwrap();
    assert_eq!(&body[..], b"done");
}

async fn times(count: usize, mut one: impl AsyncFnMut() -> Duration) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        times.push(one().await);
    }
    times
}

fn fdatasync(folder: &Path, count: usize) -> Vec<Duration> {
    let mut file = tempfile::tempfile_in(folder).unwrap();
    (0..count).map(|_| synced_append(&mut file)).collect()
}

/// One line of the table: p50 and p99 of each round.
struct Row {
    what: &'static str,
    p50: Vec<Duration>,
    p99: Vec<Duration>,
}

impl Row {
    const fn new(what: &'static str) -> Self {
        Self {
            what,
            p50: Vec::new(),
            p99: Vec::new(),
        }
    }

    fn add(&mut self, mut round: Vec<Duration>) {
        round.sort();
        self.p50.push(round[round.len() / 2]);
        self.p99.push(round[round.len() * 99 / 100]);
    }

    fn print(self) {
        let spread = |mut values: Vec<Duration>| {
            values.sort();
            let milliseconds: Vec<f64> = values.iter().map(|value| value.as_secs_f64() * 1000.0).collect();
            let (median, last) = (milliseconds[milliseconds.len() / 2], milliseconds.len() - 1);
            format!("{median:.3} ms ({:.3} to {:.3})", milliseconds[0], milliseconds[last])
        };
        println!(
            "  {:<38} p50 {:<32} p99 {}",
            self.what,
            spread(self.p50),
            spread(self.p99)
        );
    }
}
