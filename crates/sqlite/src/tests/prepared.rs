//! No statement is prepared twice, neither by SQLite (STAT4 and bound limits) nor by a cache that is too small.

use super::{queued, request, store, terms};
use crate::sql;
use crosspoint_core::{Audience, Clock, CustomerId, CustomerTerms, ExecutionStatus, Level, Queue};
use crosspoint_core::{
    DispatchStore, Enqueue, Enqueued, Executions, Finish, FleetScope, LogEntry, MaxInFlight, Outcome, Rate, Settle,
    StateSnapshot,
};
use crosspoint_testkit::envelope;
use rusqlite::StatementStatus;
use std::time::Duration;

#[tokio::test]
async fn hot_statements_are_prepared_once() {
    let (_folder, clock, store) = store().await;
    for round in 0..20_u64 {
        let items = (0..8)
            .map(|n| queued(&clock, "t", if n % 2 == 0 { "acme" } else { "globex" }))
            .collect();
        store.enqueue(items).await.unwrap();
        let leases = store.lease(request("t", 5)).await.unwrap();
        let settles = leases.iter().map(|lease| Settle::Complete {
            lease: lease.reference,
            reply: envelope::reply("ok"),
        });
        store.settle(settles.collect()).await.unwrap();
        held(&store, &clock).await;
        flow(&store, &clock, round).await;
        bounded(&store, &clock).await;
        clock.advance(super::LEASE * 2);
    }
    let counts = store.write(|ledger| {
        let mut counts = Vec::new();
        for (name, text) in sql::HOT {
            let statement = ledger.db.prepare_cached(text)?;
            counts.push((
                *name,
                statement.get_status(StatementStatus::Run),
                statement.get_status(StatementStatus::RePrepare),
            ));
        }
        Ok(counts)
    });
    let counts = counts.await.unwrap();
    let again: Vec<_> = counts.iter().filter(|(_, _, prepared)| *prepared > 0).collect();
    assert!(again.is_empty(), "{again:?}");
    let ran = |name: &str| counts.iter().find(|(n, ..)| *n == name).map_or(0, |(_, runs, _)| *runs);
    for name in [
        "CALL_ADD",
        "QUEUE_ADD",
        "LANES_NEXT",
        "HELD_NEXT",
        "HELD_SET",
        "PRIO_NEXT",
        "LEASE_NEWEST",
        "QUEUE_ASIDE",
        "LEASE_ROWS",
        "LEASE_SET",
        "COMPLETE",
        "DONE_ADD",
        "STATE_PUT",
        "BOUNDS_OF",
        "BOUND_COUNT",
        "PARKED_FIRST",
        "QUEUE_PARK",
        "RATE_PUT",
    ] {
        assert!(
            ran(name) >= 20,
            "{name} ran {} times: it was dropped from the cache",
            ran(name)
        );
    }
}

/// Two held calls: the newer one is leased and comes back, the older one is not worth hurrying for.
async fn held(store: &crate::Sqlite, clock: &crosspoint_testkit::ManualClock) {
    for hold in [1, 60] {
        let mut item = queued(clock, "held", "acme");
        item.envelope.hold_until = Some(clock.now().plus(Duration::from_secs(hold)));
        store.enqueue(vec![item]).await.unwrap();
    }
    let mut wanted = request("held", 2);
    (wanted.queue, wanted.newest_first) = (Queue::Held, true);
    wanted.hopeless = Duration::from_secs(5);
    wanted.customers = [CustomerTerms::new(CustomerId::new("globex").unwrap()).skipped()].into();
    let leases = store.lease(wanted).await.unwrap();
    assert_eq!(leases.len(), 1);
    let lease = leases[0].reference;
    store.settle(vec![Settle::Release { lease }]).await.unwrap();
    let reply = envelope::reply("ok");
    for lease in store.lease(request("held", 9)).await.unwrap() {
        let (lease, reply) = (lease.reference, reply.clone());
        store.settle(vec![Settle::Complete { lease, reply }]).await.unwrap();
    }
}

/// Two calls of which one waits for the other, both of a rate.
async fn bounded(store: &crate::Sqlite, clock: &crosspoint_testkit::ManualClock) {
    for _ in 0..2 {
        let mut item = queued(clock, "bounded", "acme");
        item.envelope.bounds = vec![MaxInFlight::new("k", 1)];
        item.envelope.rate = Some(Rate::new("k", 10, Duration::from_secs(1)));
        store.enqueue(vec![item]).await.unwrap();
    }
    for _ in 0..2 {
        let leases = store.lease(request("bounded", 9)).await.unwrap();
        assert_eq!(leases.len(), 1);
        let (lease, reply) = (leases[0].reference, envelope::reply("ok"));
        store.settle(vec![Settle::Complete { lease, reply }]).await.unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test acts for the fleet")]
async fn flow(store: &crate::Sqlite, clock: &crosspoint_testkit::ManualClock, round: u64) {
    let item = Enqueue::leased(envelope::flow(clock, "flows", "acme"), terms());
    let answers = store.enqueue(vec![item]).await.unwrap();
    let [Enqueued::New(Some(lease))] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    let mut finish = Finish::new(
        lease.reference,
        Outcome::Ended {
            status: ExecutionStatus::Succeeded,
            reply: envelope::reply("ok"),
            failure: None,
        },
    );
    finish.state = Some(StateSnapshot::new(round, round.into()));
    finish.log = vec![LogEntry::new(lease.until, Level::Info, Audience::Customer, "sent")];
    store.finish(&FleetScope::trusted(), finish).await.unwrap();
}
