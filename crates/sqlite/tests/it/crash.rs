//! Processes killed in the middle of everything: what was acknowledged is there.

use crate::world::{call, child, place, request, store_of_child};
use crosspoint_core::{
    CallState, DispatchStore, Enqueue, Enqueued, InvocationId, LeaseTerms, Settle, SystemClock, WorkerId,
};
use crosspoint_sqlite::Sqlite;
use crosspoint_testkit::{envelope, scope};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

const LEASE: Duration = Duration::from_millis(200);

/// Rounds of the ordinary test; the long one does as many as it is told.
const ROUNDS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    killed_again_and_again("crash::a_child_that_is_killed", ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; run by .ci/full"]
async fn what_was_acknowledged_survives_kill_9_for_long() {
    killed_again_and_again("crash::a_child_that_is_killed", 100).await;
}

async fn killed_again_and_again(worker: &'static str, rounds: usize) {
    if store_of_child().is_some() {
        return;
    }
    let (_folder, path) = place();
    let mut known: HashMap<InvocationId, &'static str> = HashMap::new();
    for round in 0..rounds {
        let store = path.clone();
        let lines = 40 + round % 10 * 37;
        let said = tokio::task::spawn_blocking(move || kill_after(worker, &store, lines));
        let mut new = HashMap::new();
        for (what, id) in said.await.unwrap() {
            new.insert(id, what);
        }
        check(&path, &new).await;
        known.extend(new);
    }
    check(&path, &known).await;
    assert!(known.len() > 50, "{} calls were acknowledged", known.len());
    assert!(known.values().any(|what| *what == "done"), "some were finished");
}

/// Runs a child, kills it after it has said so many lines, and answers with all that it said.
fn kill_after(worker: &str, store: &Path, lines: usize) -> Vec<(&'static str, InvocationId)> {
    let mut child = child(worker, store);
    let mut said = Vec::new();
    let output = BufReader::new(child.stdout.take().expect("piped"));
    for (n, line) in output.lines().enumerate() {
        // A line that was cut off by the kill says nothing.
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split(' ').collect();
        if let ["ACK", what, id] = words.as_slice()
            && let Ok(id) = id.parse()
        {
            said.push((if *what == "done" { "done" } else { "queued" }, id));
        }
        if n == lines {
            child.kill().expect("SIGKILL");
        }
    }
    child.wait().expect("gone");
    said
}

async fn check(path: &Path, known: &HashMap<InvocationId, &'static str>) {
    let db = rusqlite::Connection::open(path).unwrap();
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let orphans = "SELECT count(*) FROM cp_call c WHERE (SELECT count(*) FROM cp_queue q WHERE q.seq = c.seq)
                   + (SELECT count(*) FROM cp_done d WHERE d.seq = c.seq) <> 1";
    let orphans: i64 = db.query_row(orphans, [], |row| row.get(0)).unwrap();
    assert_eq!(orphans, 0, "every call is in the queue or has ended, and not both");
    drop(db);
    let store = Sqlite::open(path).await.unwrap();
    let fleet = scope::fleet();
    for (id, what) in known {
        let status = store.get((&fleet).into(), *id).await.unwrap();
        let status = status.unwrap_or_else(|| panic!("{id} was acknowledged as {what} and is lost"));
        if *what == "done" {
            assert_eq!(status.state, CallState::Completed, "{id}");
            assert!(status.reply.is_some());
        }
    }
    store.close().await;
}

/// Stores, leases and settles until it is killed, and says what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_killed() {
    let Some(path) = store_of_child() else {
        return;
    };
    let store = Arc::new(Sqlite::open(path).await.unwrap());
    for n in 0..4 {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            loop {
                let item = if n % 2 == 0 { call("t", "acme") } else { started() };
                let id = item.envelope.id();
                let answer = store.enqueue(vec![item]).await.unwrap();
                say("queued", id);
                if let Some(Enqueued::New(Some(lease))) = answer.into_iter().next() {
                    complete(&store, lease.reference).await;
                }
            }
        });
    }
    loop {
        let mut wanted = request("t", 8, LEASE);
        wanted.wait = Duration::from_millis(50);
        for lease in store.lease(wanted).await.unwrap() {
            complete(&store, lease.reference).await;
        }
    }
}

fn started() -> Enqueue {
    let call = envelope::service(&SystemClock::new(), "u", "globex");
    Enqueue::leased(call, LeaseTerms::new(WorkerId::new("child").unwrap(), LEASE))
}

async fn complete(store: &Sqlite, lease: crosspoint_core::LeaseRef) {
    let reply = envelope::reply("done");
    let settled = store.settle(vec![Settle::Complete { lease, reply }]).await.unwrap();
    if settled == [crosspoint_core::Settled::Applied] {
        say("done", lease.id);
    }
}

/// One write of one line, so that lines of several tasks do not mix.
fn say(what: &str, id: InvocationId) {
    let line = format!("ACK {what} {id}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}
