//! Files that are no store, or not one for this release.

use crate::world::{call, place, queue};
use crosspoint_core::{Code, DispatchStore, Error};
use crosspoint_sqlite::Sqlite;
use std::path::Path;

async fn refused(path: &Path) -> Error {
    Sqlite::open(path).await.expect_err("refused")
}

#[tokio::test]
async fn garbage_is_no_store() {
    let (_folder, path) = place();
    std::fs::write(
        &path,
        b"this is a letter to my aunt, and certainly no database; it goes on for a while",
    )
    .unwrap();
    let error = refused(&path).await;
    assert_eq!(error.code(), Code::StoreCorrupt);
    assert!(error.to_string().contains("app.db"), "it says which file: {error}");
    let kept = std::fs::read(&path).unwrap();
    assert!(kept.starts_with(b"this is a letter"), "what is refused is not touched");
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_says_so_later() {
    let (_folder, path) = place();
    let store = Sqlite::open(&path).await.unwrap();
    queue(&store, (0..50).map(|_| call("t", "acme")).collect()).await;
    store.close().await;
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in bytes.iter_mut().skip(100).step_by(3) {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, &bytes).unwrap();
    let error = match Sqlite::open(&path).await {
        Err(error) => error,
        Ok(store) => store.enqueue(vec![call("t", "acme")]).await.expect_err("damaged"),
    };
    assert_eq!(error.code(), Code::StoreCorrupt, "{error:?}");
}

#[tokio::test]
async fn a_file_of_a_newer_release_is_refused() {
    let (_folder, path) = place();
    Sqlite::open(&path).await.unwrap().close().await;
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute("INSERT INTO cp_schema VALUES (99, 'x', '999.0.0', '999.1.0')", [])
        .unwrap();
    drop(db);
    let error = refused(&path).await;
    assert_eq!(error.code(), Code::StoreTooNew);
    let text = error.to_string();
    assert!(
        text.contains("999.1.0") && text.contains("999.0.0"),
        "it says who may: {text}"
    );
}

#[tokio::test]
async fn a_read_only_file_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = place();
    Sqlite::open(&path).await.unwrap().close().await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    assert_eq!(refused(&path).await.code(), Code::StoreReadOnly);
}

#[tokio::test]
async fn a_folder_that_is_missing_is_named() {
    let (folder, _) = place();
    let error = refused(&folder.path().join("nowhere").join("app.db")).await;
    assert_eq!(error.code(), Code::StoreUnavailable);
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test]
async fn the_hosts_own_tables_are_left_alone() {
    let (_folder, path) = place();
    let host = rusqlite::Connection::open(&path).unwrap();
    host.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (7);")
        .unwrap();
    let store = Sqlite::open(&path).await.unwrap();
    queue(&store, vec![call("t", "acme")]).await;
    let id: i64 = host.query_row("SELECT id FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(id, 7);
}

#[tokio::test]
async fn what_was_stored_is_there_after_closing() {
    let (_folder, path) = place();
    let store = Sqlite::open(&path).await.unwrap();
    let ids = queue(&store, vec![call("t", "acme"), call("t", "globex")]).await;
    drop(store);
    let store = Sqlite::open(&path).await.unwrap();
    let fleet = crosspoint_testkit::scope::fleet();
    for id in ids {
        assert!(store.get((&fleet).into(), id).await.unwrap().is_some());
    }
}
