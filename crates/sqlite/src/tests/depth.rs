//! How draining goes when much waits or much has ended. A table for people; nothing is asserted about time.
//!
//! `cargo test --release -p crosspoint-sqlite --lib -- --ignored --nocapture print_drain_by_depth`

use super::{request, store};
use crate::Sqlite;
use crosspoint_core::{DispatchStore, Queue, Settle};
use crosspoint_testkit::{ManualClock, envelope};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// So many calls are leased and settled for each line.
const DRAINED: usize = 4000;
const BATCH: usize = 100;
const SHALLOW: usize = 1000;
const DEEP: usize = 100_000;

/// What a drain took.
struct Cost {
    rate: f64,
    /// Of the writer's thread, in microseconds a job.
    cpu: f64,
    /// Written to the log, a job.
    pages: f64,
}

async fn fill(store: &Sqlite, clock: &ManualClock, calls: usize, customers: usize, held: bool) {
    let hold = held.then(|| crosspoint_core::Clock::now(clock).plus(Duration::from_secs(3600)));
    for first in (0..calls).step_by(500) {
        let calls = (first..calls.min(first + 500)).map(|n| {
            let mut item = super::queued(clock, "t", &format!("customer-{}", n % customers));
            let padding = vec![b'x'; 256];
            *item.envelope.invocation.request.body_mut() = padding.into();
            item.envelope.hold_until = hold;
            item
        });
        store.enqueue(calls.collect()).await.unwrap();
    }
}

/// Two workers lease and settle `jobs` calls, in batches.
async fn drain(store: &Sqlite, jobs: usize) {
    let left = Arc::new(AtomicUsize::new(jobs / BATCH));
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (store, left) = (store.clone(), Arc::clone(&left));
            tokio::spawn(async move {
                while left
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1))
                    .is_ok()
                {
                    let mut wanted = request("t", BATCH);
                    wanted.queue = Queue::HeldFirst;
                    let leases = store.lease(wanted).await.unwrap();
                    assert_eq!(leases.len(), BATCH);
                    let settles = leases.iter().map(|lease| Settle::Complete {
                        lease: lease.reference,
                        reply: envelope::reply("ok"),
                    });
                    store.settle(settles.collect()).await.unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
}

/// Processor time of the writer's thread, and the pages in its log, which is started anew.
async fn meter(store: &Sqlite) -> (f64, f64) {
    let log = store.path().with_extension("db-wal");
    let pages = log.metadata().map_or(0.0, |log| log.len() as f64 / 4120.0);
    let read = store.write(|ledger| {
        // Ends the group's transaction for a moment: a checkpoint cannot be inside one.
        ledger.commit().map_err(crate::fail::Fail::Group)?;
        ledger.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        ledger.db.pragma_update(None, "wal_autocheckpoint", 0)?;
        ledger.start().map_err(crate::fail::Fail::Group)?;
        Ok(std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
    });
    let text = read.await.unwrap();
    let nanos: f64 = text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    (nanos / 1000.0, pages)
}

async fn measured(store: &Sqlite, clock: &ManualClock, waiting: usize, customers: usize, held: bool) -> Cost {
    let (mut took, mut cpu, mut pages) = (Duration::ZERO, 0.0, 0.0);
    fill(store, clock, waiting, customers, held).await;
    // A round takes no more than keeps the depth what it is called.
    let round = SHALLOW / 2;
    for _ in 0..DRAINED / round {
        let before = meter(store).await;
        let began = Instant::now();
        drain(store, round).await;
        took += began.elapsed();
        let after = meter(store).await;
        cpu += after.0 - before.0;
        pages += after.1;
        fill(store, clock, round, customers, held).await;
    }
    let jobs = DRAINED as f64;
    Cost {
        rate: jobs / took.as_secs_f64(),
        cpu: cpu / jobs,
        pages: pages / jobs,
    }
}

fn report(what: &str, cost: &Cost, base: Option<&Cost>) {
    let kept = base.map_or(String::new(), |base| {
        format!(
            "{:4.0} % of the rate, {:4.0} % by processor time",
            cost.rate / base.rate * 100.0,
            base.cpu / cost.cpu * 100.0
        )
    });
    println!(
        "{what:42} {:>7.0}/s {:>5.1} us of the writer {:>5.2} pages a job {kept}",
        cost.rate, cost.cpu, cost.pages
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a table; run it with --release"]
async fn print_drain_by_depth() {
    for (customers, held) in [(1, false), (50, false), (5000, false), (50, true)] {
        let queue = if held { "held" } else { "sideline" };
        let (_folder, clock, shallow) = store().await;
        let base = measured(&shallow, &clock, SHALLOW, customers, held).await;
        report(
            &format!("{customers} customers, {queue}, {SHALLOW} waiting"),
            &base,
            None,
        );
        let (_folder, clock, deep) = store().await;
        let cost = measured(&deep, &clock, DEEP, customers, held).await;
        report(
            &format!("{customers} customers, {queue}, {DEEP} waiting"),
            &cost,
            Some(&base),
        );
        if customers == 50 && !held {
            fill(&shallow, &clock, DEEP, customers, held).await;
            drain(&shallow, DEEP).await;
            let cost = measured(&shallow, &clock, 0, customers, held).await;
            report(&format!("{customers} customers, {DEEP} ended"), &cost, Some(&base));
        }
    }
}
