//! Reads that are made at once: which they are, and that they see what others have changed.

use super::store;
use crate::{Options, Sqlite};
use crosspoint_core::{
    Clock, CustomerId, Installation, InstallationId, InstallationState, Installations, Result, SaveInstallation, Saved,
    Sealed,
};
use crosspoint_testkit::{ManualClock, envelope, scope};
use serde_json::json;
use std::{future::ready, sync::Arc, time::Duration};
use tokio::sync::oneshot;

/// What a future answers without having been woken.
async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        answer = future => Some(answer),
        () = ready(()) => None,
    }
}

fn draft(clock: &ManualClock) -> Installation {
    let owner = CustomerId::new("acme").unwrap();
    let id = envelope::installation("acme");
    let mut draft = Installation::new(id, owner, "demo", "1.0.0", clock.now());
    draft.state = InstallationState::Active;
    draft
}

async fn save(store: &Sqlite, record: Installation) {
    let fleet = scope::fleet();
    let saved = store.save((&fleet).into(), SaveInstallation::new(record)).await;
    assert_eq!(saved.unwrap(), Saved::Applied);
}

async fn get(store: &Sqlite, id: InstallationId) -> Result<Option<Installation>> {
    Installations::get(store, (&scope::fleet()).into(), id).await
}

#[tokio::test]
async fn what_was_read_lately_needs_no_thread() {
    let (_folder, clock, store) = store().await;
    let mut record = draft(&clock);
    let id = record.id;
    record.config = json!({ "a": [1, null] });
    for (name, generation) in [("token", 7), ("key", 3)] {
        let sealed = Sealed::from_bytes(name.as_bytes().to_vec());
        record.secrets.insert(name.to_owned(), (generation, sealed));
    }
    assert!(get(&store, id).await.unwrap().is_none());
    save(&store, record).await;
    let first = get(&store, id).await.unwrap().unwrap();
    let again = now(get(&store, id)).await.expect("read at once");
    let again = again.unwrap().unwrap();
    assert_eq!((&again.config, again.secrets.len()), (&json!({ "a": [1, null] }), 2));
    assert_eq!(format!("{again:?}"), format!("{first:?}"));
    let secrets = again.secrets.iter();
    let secrets: Vec<_> = secrets
        .map(|(name, (n, with))| (name.as_str(), *n, with.as_bytes()))
        .collect();
    assert_eq!(secrets, [("key", 3, b"key".as_slice()), ("token", 7, b"token")]);
    // Nobody else's, however it is read.
    let other = scope::customer("globex");
    let found = now(Installations::get(&store, (&other).into(), id)).await;
    assert!(found.expect("read at once").unwrap().is_none());
}

/// Whoever changes an installation has been answered: from then on everybody sees the change, also another process, which
/// this is as good as.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_at_once_sees_what_was_answered_before_it() {
    let (folder, clock, store) = store().await;
    let options = || Options::new().clock(Arc::<ManualClock>::clone(&clock));
    let other = Sqlite::open_with(folder.path().join("app.db"), options());
    let other = other.await.unwrap();
    let (mut record, id) = (draft(&clock), draft(&clock).id);
    save(&other, record.clone()).await;
    for n in 1..200_u64 {
        let (writer, reader) = if n % 2 == 0 { (&store, &other) } else { (&other, &store) };
        for handle in [reader, writer] {
            // So that the next read of it is one at once.
            get(handle, id).await.unwrap().unwrap();
        }
        record.revision = n;
        record.state = match n % 3 {
            0 => InstallationState::Active,
            1 => InstallationState::Paused,
            _ => InstallationState::Removing,
        };
        record.config = json!({ "n": n });
        save(writer, record.clone()).await;
        for handle in [reader, writer] {
            let found = now(get(handle, id)).await.expect("read at once").unwrap().unwrap();
            assert_eq!((found.revision, found.state), (n + 1, record.state));
            assert_eq!(found.config, record.config);
        }
    }
    let fleet = scope::fleet();
    let removed = Installations::remove(&other, (&fleet).into(), id, 200).await;
    assert_eq!(removed.unwrap(), Saved::Applied);
    for handle in [&store, &other] {
        assert!(now(get(handle, id)).await.expect("read at once").unwrap().is_none());
    }
    // The same id again, at the same time and revision as the first.
    record.revision = 0;
    record.config = json!("new");
    save(&other, record).await;
    for handle in [&store, &other] {
        assert_eq!(get(handle, id).await.unwrap().unwrap().config, json!("new"));
    }
}

#[tokio::test]
async fn a_read_that_finds_no_connection_waits_for_one() {
    let (_folder, clock, store) = store().await;
    let record = draft(&clock);
    let id = record.id;
    save(&store, record).await;
    get(&store, id).await.unwrap().unwrap();
    let mut held = Vec::new();
    for _ in 0..Options::new().readers {
        let ((go, gone), (here, there)) = (std::sync::mpsc::channel::<()>(), oneshot::channel());
        let store = store.clone();
        held.push((
            go,
            tokio::spawn(async move {
                let read = store.read(move |_| {
                    here.send(()).unwrap();
                    // An error means that the other end is gone, which is what is waited for.
                    gone.recv().unwrap_err();
                    Ok(())
                });
                read.await
            }),
        ));
        there.await.unwrap();
    }
    let mut waiting = Box::pin(get(&store, id));
    assert!(now(&mut waiting).await.is_none());
    for (go, read) in held {
        drop(go);
        read.await.unwrap().unwrap();
    }
    assert!(waiting.await.unwrap().is_some());
    assert!(now(get(&store, id)).await.is_some(), "and its connection is back");
}

#[tokio::test]
async fn a_read_at_once_waits_for_nobody_and_the_next_one_does() {
    let (_folder, clock, store) = store().await;
    let record = draft(&clock);
    let id = record.id;
    save(&store, record).await;
    get(&store, id).await.unwrap().unwrap();
    now(get(&store, id)).await.expect("read at once").unwrap();
    let patience = store.read(|db| {
        let most: i64 = db.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap();
        Ok(Duration::from_millis(most.unsigned_abs()))
    });
    assert_eq!(patience.await.unwrap(), Duration::from_secs(10));
}
