//! Rows that cannot be read, and groups that fail.

use super::{queued, request, store};
use crate::fail::Fail;
use crosspoint_core::{Code, DispatchStore, Error};

#[tokio::test]
async fn a_damaged_call_does_not_hold_up_its_lane() {
    let (_folder, clock, store) = store().await;
    store
        .enqueue(vec![queued(&clock, "t", "acme"), queued(&clock, "t", "acme")])
        .await
        .unwrap();
    let damage = store.write(|ledger| {
        ledger
            .db
            .execute("UPDATE cp_call SET request = x'51ff' WHERE seq = 1", [])?;
        Ok(())
    });
    damage.await.unwrap();
    assert_eq!(store.lease(request("t", 2)).await.unwrap().len(), 1, "the healthy one");
    clock.advance(super::LEASE * 2);
    let again = store.lease(request("t", 2)).await.unwrap();
    assert!(again.is_empty(), "the damaged one stays aside: {again:?}");
}

#[tokio::test]
async fn a_refusal_concerns_only_its_caller() {
    let (_folder, clock, store) = store().await;
    let (refused, stored) = tokio::join!(
        store.write(|_| -> Result<(), Fail> { Err(Fail::Refused(Error::new(Code::Conflict, "no"))) }),
        store.enqueue(vec![queued(&clock, "t", "acme")]),
    );
    assert_eq!(refused.unwrap_err().code(), Code::Conflict);
    stored.unwrap();
    assert_eq!(store.lease(request("t", 2)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_spoilt_group_leaves_nothing_and_the_next_one_works() {
    let (_folder, clock, store) = store().await;
    // While the first is in the writer's hands, the others gather behind it: one group.
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let blocked = store.write(move |_| {
        held.recv().unwrap_or_default();
        Ok(())
    });
    let lost = store.enqueue(vec![queued(&clock, "t", "acme")]);
    let spoilt = store.write(|ledger| {
        ledger.db.execute("INSERT INTO cp_nowhere VALUES (1)", [])?;
        Ok(())
    });
    let release = async move { drop(hold) };
    let (blocked, lost, spoilt, ()) = tokio::join!(biased; blocked, lost, spoilt, release);
    assert_eq!(spoilt.unwrap_err().code(), Code::StoreUnavailable);
    assert!(blocked.is_err() && lost.is_err(), "the whole group is told");
    assert!(store.lease(request("t", 2)).await.unwrap().is_empty());
    store.enqueue(vec![queued(&clock, "t", "acme")]).await.unwrap();
    assert_eq!(store.lease(request("t", 2)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (_folder, clock, store) = store().await;
    store.enqueue(vec![queued(&clock, "t", "acme")]).await.unwrap();
    store.close().await;
    store.close().await;
    let error = store.enqueue(vec![queued(&clock, "t", "acme")]).await.unwrap_err();
    assert_eq!(error.code(), Code::StoreUnavailable);
    let log = store.path().with_extension("db-wal");
    assert!(
        log.metadata().is_ok_and(|log| log.len() == 0),
        "the log is emptied into the file"
    );
}
