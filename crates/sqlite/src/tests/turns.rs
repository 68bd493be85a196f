//! Sequence numbers, callers that left, and jumps of the machine's clock.

use super::{LEASE, queued, request, store, terms};
use crosspoint_core::{Clock, DispatchStore, Extended, Settle, Settled, Start};
use crosspoint_testkit::envelope;
use std::time::Duration;

#[tokio::test]
async fn a_number_is_not_used_again_after_retention() {
    let (_folder, clock, store) = store().await;
    store.enqueue(vec![queued(&clock, "t", "acme")]).await.unwrap();
    let first = store.lease(request("t", 1)).await.unwrap().remove(0);
    let complete = |lease| {
        let reply = envelope::reply("ok");
        store.settle(vec![Settle::Complete { lease, reply }])
    };
    complete(first.reference).await.unwrap();
    clock.advance(LEASE);
    assert_eq!(store.admin().unwrap().purge(clock.now(), 10).await.unwrap(), 1);
    // Forget what is cached, as a process does that opens the file now.
    let forget = store.write(|ledger| {
        ledger.commit()?;
        ledger.roll_back();
        ledger.start()?;
        Ok(())
    });
    forget.await.unwrap();
    store.enqueue(vec![queued(&clock, "t", "acme")]).await.unwrap();
    let second = store.lease(request("t", 1)).await.unwrap().remove(0);
    assert_eq!(first.reference.fence, second.reference.fence);
    assert_ne!(first.reference.token, second.reference.token);
    assert_eq!(complete(first.reference).await.unwrap(), [Settled::Stale]);
}

#[tokio::test]
async fn a_caller_that_left_gets_nothing() {
    let (_folder, clock, store) = store().await;
    let mut waits = request("t", 1);
    waits.wait = Duration::from_secs(3600);
    let mut waiting = Box::pin(store.lease(waits));
    // What was asked for first has been looked at when the second has its answer.
    tokio::select! {
        biased;
        leases = &mut waiting => panic!("there is nothing: {leases:?}"),
        answer = store.write(|_| Ok(())) => answer.unwrap(),
    }
    drop(waiting);
    store.enqueue(vec![queued(&clock, "t", "acme")]).await.unwrap();
    assert_eq!(
        store.lease(request("t", 1)).await.unwrap().len(),
        1,
        "not stuck with the one who left"
    );
}

#[tokio::test]
async fn a_start_that_nobody_hears_of_waits_for_a_worker() {
    let (_folder, clock, store) = store().await;
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let mut blocked = Box::pin(store.write(move |_| {
        held.recv().unwrap_or_default();
        Ok(())
    }));
    let mut item = queued(&clock, "t", "acme");
    item.start = Start::Lease(terms());
    let mut left = Box::pin(store.enqueue(vec![item]));
    tokio::select! {
        biased;
        _ = &mut blocked => panic!("it is held"),
        _ = &mut left => panic!("it stands behind the other"),
        () = tokio::task::yield_now() => {}
    }
    drop((left, hold));
    blocked.await.unwrap();
    // The call and what its caller left unheard were two groups.
    store.write(|_| Ok(())).await.unwrap();
    let lease = store.lease(request("t", 1)).await.unwrap().remove(0);
    assert_eq!((lease.attempt, lease.reference.fence.get()), (1, 2));
}

#[tokio::test]
async fn leases_that_nobody_took_come_back_uncounted() {
    let (_folder, clock, store) = store().await;
    store.enqueue(vec![queued(&clock, "t", "acme")]).await.unwrap();
    let lost = store
        .write(|ledger| ledger.lease(&request("t", 1)))
        .await
        .unwrap()
        .leases;
    assert!(store.lease(request("t", 1)).await.unwrap().is_empty());
    let back: Vec<_> = lost.iter().map(|lease| (lease.seq, lease.fence)).collect();
    store.write(move |ledger| ledger.give_back(&back)).await.unwrap();
    let lease = store.lease(request("t", 1)).await.unwrap().remove(0);
    assert_eq!((lease.attempt, lease.reference.fence.get()), (1, 2));
}

#[tokio::test]
async fn after_a_jump_forwards_no_lease_is_taken_away_at_once() {
    let (_folder, clock, store) = store().await;
    store
        .enqueue(vec![queued(&clock, "t", "acme"), queued(&clock, "t", "acme")])
        .await
        .unwrap();
    let lease = store.lease(request("t", 1)).await.unwrap().remove(0).reference;
    store.write(|ledger| ledger.clock_jumped(7_200_000)).await.unwrap();
    clock.advance(Duration::from_secs(7200));
    let other = store.lease(request("t", 9)).await.unwrap();
    assert_eq!(other.len(), 1, "what is ready goes on: {other:?}");
    assert_eq!(store.extend(&[lease], LEASE).await.unwrap(), [Extended::Extended]);
}

#[tokio::test]
async fn after_a_jump_backwards_no_lease_lasts_longer_than_any() {
    let (_folder, clock, store) = store().await;
    clock.advance(Duration::from_secs(7200));
    let mut call = queued(&clock, "t", "acme");
    call.envelope.repeatable = true;
    store.enqueue(vec![call]).await.unwrap();
    store.lease(request("t", 1)).await.unwrap();
    clock.set(clock.now().minus(Duration::from_secs(7200)));
    store.write(|ledger| ledger.clock_jumped(-7_200_000)).await.unwrap();
    clock.advance(LEASE + Duration::from_millis(1));
    assert_eq!(store.lease(request("t", 1)).await.unwrap().len(), 1);
}
