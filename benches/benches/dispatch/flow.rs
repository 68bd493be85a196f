//! Group `flow`: a Rust flow through the whole road, with its durable record on SQLite at `synchronous=FULL`: stored and
//! leased in one commit, run, finished and settled in a second one. Wall time, since it is the disk that costs; the
//! time of an append with fdatasync on the same disk is printed beside.

use async_trait::async_trait;
use criterion::Criterion;
use crosspoint::{
    core::{InstallationId, NoConfig},
    prelude::*,
};
use std::{
    io::{Seek, Write},
    path::Path,
    time::Duration,
};
use tokio::time::Instant;

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

pub fn group(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (platform, installation) = runtime.block_on(platform(folder.path()));
    let call = async || {
        let (acme, input) = (CustomerId::new("acme").unwrap(), serde_json::json!(7));
        let before = Instant::now();
        let answer = platform
            .call(&acme, installation, "nothing", &input, Duration::from_secs(30))
            .await
            .unwrap();
        let took = before.elapsed();
        assert!(
            matches!(answer, Submitted::Answered(reply) if reply.status() == 200),
            "no answer in time"
        );
        took
    };

    let (sync50, sync99) = percentiles((0..1000).map(|_| ()).collect::<Vec<()>>(), {
        let mut file = std::fs::File::create(folder.path().join("append")).unwrap();
        move |()| {
            let before = Instant::now();
            file.seek(std::io::SeekFrom::End(0)).unwrap();
            file.write_all(&[7; 4096]).unwrap();
            file.sync_data().unwrap();
            before.elapsed()
        }
    });
    let flows = runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..1000 {
            all.push(call().await);
        }
        all
    });
    let (flow50, flow99) = percentiles(flows, |took| took);
    let aim = sync50 * 3 + Duration::from_micros(500);
    println!("flow/in_process_sqlite_full: one caller, 1000 flows: p50 {flow50:?}, p99 {flow99:?}");
    println!("  append of 4 KiB with fdatasync: p50 {sync50:?}, p99 {sync99:?}; 3 x fdatasync + 0.5 ms = {aim:?}");

    let mut group = criterion.benchmark_group("flow");
    group.bench_function("in_process_sqlite_full", |bencher| {
        bencher.iter_custom(|calls| {
            runtime.block_on(async {
                let mut total = Duration::ZERO;
                for _ in 0..calls {
                    total += call().await;
                }
                total
            })
        });
    });
    group.finish();
    runtime.block_on(platform.shutdown()).unwrap();
}

async fn platform(folder: &Path) -> (Platform, InstallationId) {
    let flow = Integration::new("bench", "1.0.0").flow("nothing", Trigger::call::<u64>(), Nothing);
    let platform = Platform::builder()
        .store(Sqlite::open(folder.join("bench.db")).await.unwrap())
        .keys(KeyRing::generate().unwrap())
        .integration(flow)
        .start()
        .await
        .unwrap();
    let acme = CustomerId::new("acme").unwrap();
    let id = platform.install(&acme, "bench", serde_json::json!({})).await.unwrap();
    (platform, id)
}

fn percentiles<T>(items: Vec<T>, time: impl FnMut(T) -> Duration) -> (Duration, Duration) {
    let mut all: Vec<Duration> = items.into_iter().map(time).collect();
    all.sort();
    (all[all.len() / 2], all[all.len() * 99 / 100])
}
