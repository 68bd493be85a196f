//! A host that has both drivers in one program: its own tables through sqlx, Crosspoint's through rusqlite, each in a file of
//! its own. Both link SQLite, and only one copy of it may be linked: that this builds and runs is what it shows.
//! `cargo run --bin both-drivers`

use bytes::Bytes;
use crosspoint_core::{
    Clock, CustomerId, DispatchStore, Enqueue, Envelope, Invocation, InvocationId, Meta, SystemClock, TargetId,
};
use crosspoint_sqlite::Sqlite;
use sqlx::{
    Row,
    sqlite::{SqliteConnectOptions, SqlitePool},
};
use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("host.db"))
        .create_if_missing(true);
    let host = SqlitePool::connect_with(options).await?;
    let store = Sqlite::open(folder.path().join("crosspoint.db")).await?;

    sqlx::query("CREATE TABLE customer (id TEXT PRIMARY KEY)")
        .execute(&host)
        .await?;
    sqlx::query("INSERT INTO customer VALUES ('acme')")
        .execute(&host)
        .await?;
    let row = sqlx::query("SELECT id, sqlite_version() FROM customer")
        .fetch_one(&host)
        .await?;

    let clock = SystemClock::new();
    let customer = CustomerId::new(row.try_get::<String, _>(0)?)?;
    let meta = Meta::new(InvocationId::mint(&clock), customer, TargetId::new("scan")?);
    let request = http::Request::post("/v1/scan").body(Bytes::from_static(b"a file"))?;
    let envelope = Envelope::service(Invocation::new(meta, request), clock.now());
    let stored = store.enqueue(vec![Enqueue::queued(envelope)]).await?;

    println!(
        "SQLite {}: the host read its customer with sqlx",
        row.try_get::<String, _>(1)?
    );
    println!("Crosspoint stored a call of that customer with rusqlite: {stored:?}");
    host.close().await;
    store.close().await;
    Ok(())
}
