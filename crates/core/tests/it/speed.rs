//! What the in-memory store does in a second: `cargo test --release -p crosspoint-core --test it -- --ignored --nocapture speed`.

#![cfg(test)]

use crosspoint_core::{
    DispatchStore, Enqueue, LeaseRequest, LeaseTerms, Memory, Settle, TargetId, Timestamp, WorkerId,
};
use crosspoint_testkit::{LEASE, ManualClock, envelope};
use std::{sync::Arc, time::Duration};

/// So many calls wait all the time.
const WAITING: u32 = 20_000;
/// So many are leased one by one and released again.
const TURNS: u32 = 20_000;

#[expect(clippy::disallowed_methods, reason = "this measures real time")]
fn per_second(turns: u32, since: std::time::Instant) -> f64 {
    f64::from(turns) / since.elapsed().as_secs_f64()
}

async fn fill(store: &Memory, clock: &ManualClock, customers: u32, hold: Option<Timestamp>) {
    for n in 0..WAITING {
        let mut call = envelope::service(clock, "target", &format!("customer-{:05}", n % customers));
        call.hold_until = hold;
        store.enqueue(vec![Enqueue::queued(call)]).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "measures and prints; run it in a release build"]
#[expect(clippy::disallowed_methods, reason = "this measures real time")]
async fn print_speed_of_memory() {
    for customers in [1, 50, 1_000] {
        let clock = Arc::new(ManualClock::new());
        let store = Memory::with_clock(clock.clone());
        let start = std::time::Instant::now();
        fill(&store, &clock, customers, None).await;
        let enqueue = per_second(WAITING, start);

        let target = TargetId::new("target").unwrap();
        let terms = LeaseTerms::new(WorkerId::new("w").unwrap(), LEASE);
        let request = LeaseRequest::new(target, terms, 1);
        let mut done = 0;
        let start = std::time::Instant::now();
        while done < TURNS && start.elapsed() < Duration::from_secs(10) {
            for lease in store.lease(request.clone()).await.unwrap() {
                let released = Settle::Release { lease: lease.reference };
                store.settle(vec![released]).await.unwrap();
                done += 1;
            }
        }
        let leases = per_second(done, start);
        println!("{customers} customers, {WAITING} waiting: enqueue {enqueue:.0}/s, lease and release {leases:.0}/s");
    }
}
