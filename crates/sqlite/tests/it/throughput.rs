//! A table for people; nothing is asserted about time. The benches are in `benches/`.

use crate::world::{call, place, request};
use crosspoint_core::{DispatchStore, Enqueue, Enqueued, Executions, Finish, LeaseTerms, Outcome, Settle, SystemClock};
use crosspoint_core::{ExecutionStatus, WorkerId};
use crosspoint_sqlite::Sqlite;
use crosspoint_testkit::{envelope, scope};
use std::time::Duration;
use tokio::time::Instant;

const LEASE: Duration = Duration::from_secs(30);
const CALLERS: usize = 32;
const EACH: usize = 250;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints a table; run it with --release"]
async fn print_throughput() {
    let (_folder, path) = place();
    let store = Sqlite::open(&path).await.unwrap();
    println!("{CALLERS} callers, {EACH} operations each, synchronous=FULL");
    let began = Instant::now();
    each(&store, |store, n| async move {
        let customer = format!("customer-{}", n % 50);
        store.enqueue(vec![call("t", &customer)]).await.unwrap();
    })
    .await;
    report("enqueue", began, CALLERS * EACH);

    let began = Instant::now();
    let mut settled = 0;
    while settled < CALLERS * EACH {
        let leases = store.lease(request("t", 100, LEASE)).await.unwrap();
        let settles = leases.iter().map(|lease| Settle::Complete {
            lease: lease.reference,
            reply: envelope::reply("ok"),
        });
        settled += store.settle(settles.collect()).await.unwrap().len();
    }
    report("drain in batches of 100", began, settled);

    let began = Instant::now();
    each(&store, |store, _| flow(store)).await;
    report("flow: leased enqueue and finish", began, CALLERS * EACH);

    let began = Instant::now();
    for _ in 0..EACH {
        flow(store.clone()).await;
    }
    report("the same, one caller", began, EACH);
    store.close().await;
}

async fn flow(store: Sqlite) {
    let terms = LeaseTerms::new(WorkerId::new("w").unwrap(), LEASE);
    let item = Enqueue::leased(envelope::flow(&SystemClock::new(), "flows", "acme"), terms);
    let Some(Enqueued::New(Some(lease))) = store.enqueue(vec![item]).await.unwrap().pop() else {
        panic!("leased at once");
    };
    let (status, reply) = (ExecutionStatus::Succeeded, envelope::reply("ok"));
    let finish = Finish::new(
        lease.reference,
        Outcome::Ended {
            status,
            reply,
            failure: None,
        },
    );
    store.finish(&scope::fleet(), finish).await.unwrap();
}

async fn each<R: Future<Output = ()> + Send + 'static>(store: &Sqlite, work: fn(Sqlite, usize) -> R) {
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    work(store.clone(), caller * EACH + n).await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
}

fn report(what: &str, began: Instant, count: usize) {
    let took = began.elapsed();
    println!(
        "{what:32} {:>8.0}/s {:>8.3} ms each",
        count as f64 / took.as_secs_f64(),
        took.as_secs_f64() * 1000.0 / count as f64
    );
}
