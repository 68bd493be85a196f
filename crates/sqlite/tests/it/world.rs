//! Stores in temporary folders, and children of this very binary.

use crosspoint_core::{Enqueue, InvocationId, LeaseRequest, LeaseTerms, SystemClock, TargetId, WorkerId};
use crosspoint_sqlite::Sqlite;
use crosspoint_testkit::envelope;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// A folder that goes with the test, and the path of a store in it.
pub(crate) fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("app.db");
    (folder, path)
}

/// The variable that tells a child which store it works on.
pub(crate) const STORE: &str = "CROSSPOINT_TEST_STORE";

/// Runs one test of this binary in a process of its own, on this store.
pub(crate) fn child(test: &str, store: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", test, "--nocapture"])
        .env(STORE, store)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("a child")
}

/// The store that this process was started on as a child; `None` in the parent.
pub(crate) fn store_of_child() -> Option<PathBuf> {
    std::env::var_os(STORE).map(PathBuf::from)
}

/// Up to `max` calls to `target`, for this worker, held for `length`.
pub(crate) fn request(target: &str, max: usize, length: Duration) -> LeaseRequest {
    let worker = WorkerId::new("worker").expect("an id");
    LeaseRequest::new(
        TargetId::new(target).expect("an id"),
        LeaseTerms::new(worker, length),
        max,
    )
}

/// A new call to a service of this target, as the machine's clock has it.
pub(crate) fn call(target: &str, customer: &str) -> Enqueue {
    Enqueue::queued(envelope::service(&SystemClock::new(), target, customer))
}

/// Stores calls and answers with their ids.
pub(crate) async fn queue(store: &Sqlite, items: Vec<Enqueue>) -> Vec<InvocationId> {
    use crosspoint_core::DispatchStore;
    let ids = items.iter().map(|item| item.envelope.id()).collect();
    store.enqueue(items).await.expect("stored");
    ids
}
