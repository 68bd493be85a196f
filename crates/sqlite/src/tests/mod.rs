//! Tests that look inside: plans, prepared statements, the writer's own behaviour.

mod damage;
mod depth;
mod fresh;
mod past;
mod plans;
mod prepared;
mod reads;
mod turns;

use crate::{Options, Sqlite, connect, schema};
use crosspoint_core::{Enqueue, LeaseRequest, LeaseTerms, TargetId, WorkerId};
use crosspoint_testkit::ManualClock;
use rusqlite::Connection;
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

const LEASE: Duration = Duration::from_secs(30);

/// A new file of this release's schema, and a connection that writes to it.
fn database() -> (TempDir, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let db = connect::writer(&folder.path().join("app.db")).unwrap();
    schema::migrate(&db).unwrap();
    (folder, db)
}

async fn store() -> (TempDir, Arc<ManualClock>, Sqlite) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new());
    let options = Options::new().clock(clock.clone());
    let store = Sqlite::open_with(folder.path().join("app.db"), options).await.unwrap();
    (folder, clock, store)
}

fn terms() -> LeaseTerms {
    LeaseTerms::new(WorkerId::new("worker").unwrap(), LEASE)
}

fn request(target: &str, max: usize) -> LeaseRequest {
    LeaseRequest::new(TargetId::new(target).unwrap(), terms(), max)
}

fn queued(clock: &ManualClock, target: &str, customer: &str) -> Enqueue {
    Enqueue::queued(crosspoint_testkit::envelope::service(clock, target, customer))
}
