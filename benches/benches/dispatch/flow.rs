//! Group `flow`: a Rust flow through the whole road, with its durable record on SQLite at `synchronous=FULL`: stored and
//! leased in one commit, run, finished and settled in a second one. Wall time, since it is the disk that costs. Before
//! criterion's own figure a table is printed, of rounds in which the contenders take turns: one caller beside an append with
//! fdatasync on the same disk, 32 callers beside the raw [`floor`](crate::floor).

use crate::floor::Floor;
use async_trait::async_trait;
use criterion::Criterion;
use crosspoint::{
    core::{InstallationId, NoConfig},
    prelude::*,
};
use crosspoint_benches::{process_time, synced_append};
use std::{fs::File, path::Path, sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::Instant};

const ROUNDS: usize = 7;
/// Calls of a round with one caller, and with all of them together.
const ONE: usize = 300;
const MANY: usize = 6400;
const CALLERS: usize = 32;

struct Nothing;

#[async_trait]
impl Flow for Nothing {
    type Config = NoConfig;
    type Input = u64;
    type Output = u64;
    async fn run(&self, _: &FlowContext<Self::Config>, input: u64) -> Result<u64> {
        Ok(input)
    }
}

/// A platform with one installation.
struct Road {
    platform: Platform,
    installation: InstallationId,
    customer: CustomerId,
}

impl Road {
    async fn open(folder: &Path) -> Self {
        let flow = Integration::new("bench", "1.0.0").flow("nothing", Trigger::call::<u64>(), Nothing);
        let platform = Platform::builder()
            .store(Sqlite::open(folder.join("bench.db")).await.unwrap())
            .keys(KeyRing::generate().unwrap())
            .integration(flow)
            .start()
            .await
            .unwrap();
        let customer = CustomerId::new("acme").unwrap();
        let installation = platform.install(&customer, "bench", serde_json::json!({})).await;
        Self {
            installation: installation.unwrap(),
            platform,
            customer,
        }
    }

    async fn call(&self) {
        let (input, hold) = (serde_json::json!(7), Duration::from_secs(30));
        let call = self
            .platform
            .call(&self.customer, self.installation, "nothing", &input, hold);
        let answer = call.await.unwrap();
        assert!(
            matches!(answer, Submitted::Answered(reply) if reply.status() == 200),
            "no answer in time"
        );
    }
}

pub fn group(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let road = Arc::new(runtime.block_on(Road::open(folder.path())));
    if wanted() {
        runtime.block_on(one_caller(&road, folder.path()));
        runtime.block_on(many_callers(&road, folder.path()));
    }
    let mut group = criterion.benchmark_group("flow");
    group.bench_function("in_process_sqlite_full", |bencher| {
        bencher.iter_custom(|calls| {
            runtime.block_on(async {
                let before = Instant::now();
                for _ in 0..calls {
                    road.call().await;
                }
                before.elapsed()
            })
        });
    });
    group.finish();
    runtime.block_on(road.platform.shutdown()).unwrap();
}

/// Not for `cargo test --benches`, which only wants to know whether it starts, and not when another group was asked for.
fn wanted() -> bool {
    let mut arguments = std::env::args().skip(1);
    let mut bench = false;
    arguments.all(|argument| {
        bench |= argument == "--bench";
        argument.starts_with('-') || "flow/in_process_sqlite_full".contains(&argument)
    }) && bench
}

async fn one_caller(road: &Road, folder: &Path) {
    road.call().await;
    let mut file = File::create(folder.join("append")).unwrap();
    let mut rounds = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let (sync, _) = percentiles((0..ONE).map(|_| synced_append(&mut file).as_secs_f64() * 1e3).collect());
        let mut flows = Vec::with_capacity(ONE);
        for _ in 0..ONE {
            let before = Instant::now();
            road.call().await;
            flows.push(before.elapsed().as_secs_f64() * 1e3);
        }
        let (half, most) = percentiles(flows);
        let figures = [sync, half, most, half / sync.mul_add(3.0, 0.5)];
        for (rounds, figure) in rounds.iter_mut().zip(figures) {
            rounds.push(figure);
        }
    }
    println!("flow/in_process_sqlite_full, {ROUNDS} rounds; median round (range)");
    println!(" one caller, {ONE} calls a round");
    let [syncs, halves, most, ratios] = rounds;
    row("fdatasync after an append of 4 KiB, p50", "ms", 3, syncs);
    row("flow, p50", "ms", 3, halves);
    row("flow, p99", "ms", 3, most);
    row("flow's p50 to 3 x fdatasync + 0.5 ms (at most 1)", "", 2, ratios);
}

/// The floor and the road take turns, and every other round begins with the other one.
async fn many_callers(road: &Arc<Road>, folder: &Path) {
    let floor = Arc::new(Floor::open(&folder.join("floor.db")));
    let mut rounds = [const { Vec::new() }; 5];
    for round in 0..ROUNDS {
        let (mut raw, mut whole) = ((0.0, 0.0), (0.0, 0.0));
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                raw = rate(&floor, |floor| async move { floor.call().await }).await;
            } else {
                whole = rate(road, |road| async move { road.call().await }).await;
            }
        }
        let figures = [raw.0, whole.0, whole.0 / raw.0, raw.1, whole.1];
        for (rounds, figure) in rounds.iter_mut().zip(figures) {
            rounds.push(figure);
        }
    }
    println!(" {CALLERS} callers, {MANY} calls a round");
    let [raw, whole, ratios, raw_time, time] = rounds;
    row("raw floor: two group commits a call", "/s", 0, raw);
    row("flow (at least 2000)", "/s", 0, whole);
    row("flow's rate to the floor's (at least 0.30)", "", 2, ratios);
    row("processor time of a call at the floor", "us", 0, raw_time);
    row("processor time of a flow", "us", 0, time);
}

/// Calls a second, of all callers together, and the processor time of one in microseconds.
async fn rate<T, F>(on: &Arc<T>, call: impl Fn(Arc<T>) -> F + Copy + Send + 'static) -> (f64, f64)
where
    T: Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let (before, used) = (Instant::now(), process_time());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let on = Arc::clone(on);
        callers.spawn(async move {
            for _ in 0..MANY / CALLERS {
                call(Arc::clone(&on)).await;
            }
        });
    }
    callers.join_all().await;
    let used = process_time() - used;
    (
        MANY as f64 / before.elapsed().as_secs_f64(),
        used.as_secs_f64() * 1e6 / MANY as f64,
    )
}

/// The median and the 99th of a hundred.
fn percentiles(mut all: Vec<f64>) -> (f64, f64) {
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[all.len() * 99 / 100])
}

fn row(what: &str, unit: &str, digits: usize, mut rounds: Vec<f64>) {
    rounds.sort_by(f64::total_cmp);
    let (least, half, most) = (rounds[0], rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
    println!("  {what:<50} {half:>9.digits$} {unit:<3} ({least:.digits$} to {most:.digits$})");
}
