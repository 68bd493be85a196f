//! Heartbeats while several processes keep one file busy. A table for people; nothing is asserted about time.
//!
//! `cargo test --release -p crosspoint-sqlite --test it -- --ignored --nocapture print_heartbeats`

use crate::world::{call, child, place, request, store_of_child};
use crosspoint_core::{DispatchStore, Enqueue, Enqueued, LeaseTerms, Settle, WorkerId};
use crosspoint_sqlite::Sqlite;
use crosspoint_testkit::envelope;
use std::{
    io::{BufRead, BufReader, Write},
    time::Duration,
};
use tokio::{task::JoinHandle, time::Instant};

const LEASE: Duration = Duration::from_secs(30);
const CALLERS: usize = 16;
/// How long each child works.
const WORKS: Duration = Duration::from_secs(5);
/// Leases that each child extends all the time.
const EXTENDED: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a table; run it with --release"]
async fn print_heartbeats() {
    if store_of_child().is_some() {
        return;
    }
    println!("{CALLERS} callers and a worker each, {EXTENDED} leases extended every 50 ms, leases of {LEASE:?}");
    for processes in [1, 2, 4] {
        let (_folder, path) = place();
        let children: Vec<JoinHandle<Vec<String>>> = (0..processes)
            .map(|_| {
                let path = path.clone();
                tokio::task::spawn_blocking(move || {
                    let mut child = child("busy::a_busy_child", &path);
                    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
                    let told = lines
                        .map_while(Result::ok)
                        .filter(|line| line.starts_with("TOLD "))
                        .collect();
                    assert!(child.wait().expect("ends").success());
                    told
                })
            })
            .collect();
        let (mut beats, mut jobs) = (Vec::new(), Vec::new());
        for child in children {
            for line in child.await.unwrap() {
                let numbers: Vec<u64> = line.split(' ').skip(1).filter_map(|n| n.parse().ok()).collect();
                jobs.extend(numbers.first().copied());
                beats.extend(numbers.iter().skip(1).copied());
            }
        }
        beats.sort_unstable();
        let at = |share: f64| {
            beats
                .get(((beats.len() - 1) as f64 * share) as usize)
                .copied()
                .unwrap_or(0) as f64
                / 1000.0
        };
        let rate = jobs.iter().sum::<u64>() as f64 / WORKS.as_secs_f64();
        println!(
            "{processes} processes: {rate:>6.0} jobs/s (each {jobs:?}), {} heartbeats: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            beats.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

/// Stores, leases, settles and sends heartbeats for a while; tells how many jobs it settled and what each heartbeat took,
/// in microseconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_child() {
    let Some(path) = store_of_child() else {
        return;
    };
    let store = Sqlite::open(path).await.unwrap();
    let end = Instant::now() + WORKS;
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                while Instant::now() < end {
                    let customer = format!("customer-{n}");
                    store.enqueue(vec![call("t", &customer)]).await.unwrap();
                }
            })
        })
        .collect();
    let worker = tokio::spawn({
        let store = store.clone();
        async move {
            let mut jobs = 0;
            while Instant::now() < end {
                let mut wanted = request("t", 100, LEASE);
                wanted.wait = Duration::from_millis(100);
                let leases = store.lease(wanted).await.unwrap();
                let settles = leases.iter().map(|lease| Settle::Complete {
                    lease: lease.reference,
                    reply: envelope::reply("ok"),
                });
                jobs += store.settle(settles.collect()).await.unwrap().len();
            }
            jobs
        }
    });
    let mut held = Vec::new();
    for _ in 0..EXTENDED {
        let terms = LeaseTerms::new(WorkerId::new("w").unwrap(), LEASE);
        let item = Enqueue::adopted(call("long", "acme").envelope, terms);
        for answer in store.enqueue(vec![item]).await.unwrap() {
            if let Enqueued::New(Some(lease)) = answer {
                held.push(lease.reference);
            }
        }
    }
    let mut beats = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        store.extend(&held, LEASE).await.unwrap();
        beats.push(began.elapsed().as_micros().to_string());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let line = format!("\nTOLD {} {}\n", worker.await.unwrap(), beats.join(" "));
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    store.close().await;
}
