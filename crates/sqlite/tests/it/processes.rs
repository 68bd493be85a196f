//! Several processes on one file.

use crate::world::{call, child, place, queue, request, store_of_child};
use crosspoint_core::{DispatchStore, Enqueued, InvocationId, Settle, Settled};
use crosspoint_sqlite::Sqlite;
use crosspoint_testkit::envelope;
use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::Child,
    time::Duration,
};

const CALLS: usize = 200;
const LEASE: Duration = Duration::from_secs(30);

/// Two processes that store and work share all of it between them, and each call is done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_share_the_work() {
    if store_of_child().is_some() {
        return;
    }
    let (_folder, path) = place();
    let store = Sqlite::open(&path).await.unwrap();
    queue(&store, (0..CALLS).map(|_| call("t", "acme")).collect()).await;
    let children: Vec<_> = (0..2).map(|_| listen(path.clone())).collect();
    let mut done = Vec::new();
    for child in children {
        done.extend(child.await.unwrap());
    }
    let once: HashSet<_> = done.iter().collect();
    assert_eq!(
        (done.len(), once.len()),
        (CALLS * 3, CALLS * 3),
        "each call once, by one of them"
    );
    assert!(store.lease(request("t", 1, LEASE)).await.unwrap().is_empty());
}

fn listen(path: PathBuf) -> tokio::task::JoinHandle<Vec<InvocationId>> {
    tokio::task::spawn_blocking(move || {
        let mut child: Child = child("processes::a_child_that_works", &path);
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let lines = output.lines().map_while(Result::ok);
        let done = lines
            .filter_map(|line| line.strip_prefix("DONE ")?.parse().ok())
            .collect();
        assert!(child.wait().expect("ends").success());
        done
    })
}

/// Adds as many calls as there were, and works until there is nothing left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_works() {
    let Some(path) = store_of_child() else {
        return;
    };
    let store = Sqlite::open(path).await.unwrap();
    let adding = tokio::spawn({
        let store = store.clone();
        async move {
            for _ in 0..CALLS / 10 {
                queue(&store, (0..10).map(|_| call("t", "globex")).collect()).await;
            }
        }
    });
    let mut added = false;
    let mut adding = Some(adding);
    loop {
        let leases = store.lease(request("t", 7, LEASE)).await.unwrap();
        if leases.is_empty() && added {
            break;
        }
        for lease in leases {
            let (lease, reply) = (lease.reference, envelope::reply("ok"));
            let settled = store.settle(vec![Settle::Complete { lease, reply }]).await.unwrap();
            assert_eq!(settled, [Settled::Applied]);
            let line = format!("\nDONE {}\n", lease.id);
            std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        }
        if adding.as_ref().is_some_and(tokio::task::JoinHandle::is_finished)
            && let Some(adding) = adding.take()
        {
            adding.await.unwrap();
            added = true;
        }
    }
    store.close().await;
}

/// A worker that waits in one process is woken by work that another one stores. Two stores opened on one file are to
/// each other what two processes are: they share nothing but the file.
#[tokio::test]
async fn work_from_another_process_wakes_a_waiting_worker() {
    let (_folder, path) = place();
    let (here, there) = (Sqlite::open(&path).await.unwrap(), Sqlite::open(&path).await.unwrap());
    let mut wanted = request("t", 1, LEASE);
    wanted.wait = Duration::from_secs(600);
    let waiting = tokio::spawn(async move { here.lease(wanted).await.unwrap().len() });
    tokio::task::yield_now().await;
    queue(&there, vec![call("t", "acme")]).await;
    assert_eq!(waiting.await.unwrap(), 1);
}

/// Turns, ids, keys and numbers are the file's, whoever writes.
#[tokio::test]
async fn processes_believe_the_file_and_not_what_they_remember() {
    let (_folder, path) = place();
    let (a, b) = (Sqlite::open(&path).await.unwrap(), Sqlite::open(&path).await.unwrap());
    let first = call("t", "acme");
    let again = first.clone();
    queue(&a, vec![first]).await;
    let answers = b.enqueue(vec![again, call("t", "acme")]).await.unwrap();
    assert!(
        matches!(answers.as_slice(), [Enqueued::Duplicate, Enqueued::New(None)]),
        "{answers:?}"
    );
    queue(&a, vec![call("t", "globex")]).await;
    let got = b.lease(request("t", 2, LEASE)).await.unwrap();
    let customers: HashSet<_> = got.iter().map(|lease| lease.envelope.customer().to_string()).collect();
    assert_eq!(customers.len(), 2, "b knows of the lane that a made");
    let lease = got[0].reference;
    let settle = || Settle::Complete {
        lease,
        reply: envelope::reply("ok"),
    };
    assert_eq!(
        a.settle(vec![settle()]).await.unwrap(),
        [Settled::Applied],
        "a lease is good in every process"
    );
    assert_eq!(b.settle(vec![settle()]).await.unwrap(), [Settled::Stale]);
    assert_eq!(a.lease(request("t", 9, LEASE)).await.unwrap().len(), 1);
}
