//! What a heartbeat takes while several processes keep one file busy. Each is this program once more.

use crate::{
    load::REPLY,
    ours::{LEASE, envelope, target},
    rounds::Spread,
};
use bytes::Bytes;
use crosspoint_core::{
    CustomerId, DispatchStore, Enqueue, Enqueued, LeaseRequest, LeaseTerms, Reply, Settle, SystemClock, TargetId,
    WorkerId,
};
use crosspoint_sqlite::Sqlite;
use std::{
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep},
};

/// Names the file to a child.
const FILE: &str = "PEERS_BUSY_FILE";
const CALLERS: usize = 16;
/// Leases that each process extends, all at once.
const EXTENDED: usize = 32;
const EVERY: Duration = Duration::from_millis(50);
const PROCESSES: [usize; 3] = [1, 2, 4];

/// What this process does if it is a child; false if it is none.
pub fn is_child(runtime: &Runtime, works: Duration) -> bool {
    let Ok(file) = std::env::var(FILE) else { return false };
    runtime.block_on(work(&file, works));
    true
}

/// Prints a line for each number of processes.
pub fn print(works: Duration) {
    println!(
        "heartbeats: {CALLERS} callers and a worker in each process, {EXTENDED} leases of {LEASE:?} extended every {EVERY:?}, for {works:?}"
    );
    for processes in PROCESSES {
        let folder = tempfile::tempdir().unwrap();
        let child = || {
            let mut program = Command::new(std::env::current_exe().unwrap());
            let program = program.env(FILE, folder.path().join("busy.db"));
            program.stdout(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (0..processes).map(|_| child()).collect();
        let (mut settled, mut beats) = (0.0, Vec::new());
        for child in children {
            let told = child.wait_with_output().unwrap();
            assert!(told.status.success());
            let told = String::from_utf8(told.stdout).unwrap();
            let mut numbers = told.split_whitespace().map(|number| number.parse::<f64>().unwrap());
            settled += numbers.next().unwrap();
            beats.extend(numbers);
        }
        let count = beats.len();
        let (p50, p99, most) = (
            Spread::at(&mut beats, 0.50),
            Spread::at(&mut beats, 0.99),
            Spread::at(&mut beats, 1.0),
        );
        let aim = LEASE.as_secs_f64() * 100.0;
        println!(
            "heartbeats/{processes}_processes  {:>6.0} calls/s in all, {count} heartbeats: p50 {p50:.1} ms, p99 {p99:.1} ms, max {most:.1} ms; aim p99 {aim:.0} ms {}",
            settled / works.as_secs_f64(),
            if p99 < aim { "met" } else { "MISSED" }
        );
    }
}

/// Stores, leases, settles and sends heartbeats; says how many calls it settled and what each heartbeat took, in
/// milliseconds.
async fn work(file: &str, works: Duration) {
    let store = Sqlite::open(file).await.unwrap();
    let end = Instant::now() + works;
    let callers: Vec<_> = (0..CALLERS)
        .map(|n| tokio::spawn(call(store.clone(), n, end)))
        .collect();
    let worker = tokio::spawn(settle(store.clone(), end));
    let clock = SystemClock::new();
    let (long, acme) = (TargetId::new("long").unwrap(), CustomerId::new("acme").unwrap());
    let adopted = (0..EXTENDED).map(|_| {
        let mut envelope = envelope(&clock, &acme);
        envelope.invocation.meta.target = long.clone();
        Enqueue::adopted(envelope, terms())
    });
    let answers = store.enqueue(adopted.collect()).await.unwrap();
    let held: Vec<_> = answers
        .into_iter()
        .map(|answer| match answer {
            Enqueued::New(Some(lease)) => lease.reference,
            other => panic!("{other:?}"),
        })
        .collect();
    let mut beats = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        store.extend(&held, LEASE).await.unwrap();
        beats.push(format!("{:.3}", began.elapsed().as_secs_f64() * 1000.0));
        sleep(EVERY).await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    println!("{} {}", worker.await.unwrap(), beats.join(" "));
    store.close().await;
}

async fn call(store: Sqlite, n: usize, end: Instant) {
    let (clock, customer) = (SystemClock::new(), CustomerId::new(format!("customer-{n}")).unwrap());
    while Instant::now() < end {
        let call = Enqueue::queued(envelope(&clock, &customer));
        store.enqueue(vec![call]).await.unwrap();
    }
}

async fn settle(store: Sqlite, end: Instant) -> usize {
    let mut settled = 0;
    while Instant::now() < end {
        let mut request = LeaseRequest::new(target(), terms(), crate::load::BATCH);
        request.wait = Duration::from_millis(100);
        let leases = store.lease(request).await.unwrap();
        let settles = leases.iter().map(|lease| Settle::Complete {
            lease: lease.reference,
            reply: Reply::new(Bytes::from_static(REPLY)),
        });
        settled += store.settle(settles.collect()).await.unwrap().len();
    }
    settled
}

fn terms() -> LeaseTerms {
    LeaseTerms::new(WorkerId::new("worker").unwrap(), LEASE)
}
