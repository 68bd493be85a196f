//! The floor: the least that a durable queue on SQLite must do, with nothing around it. One thread writes; what has arrived
//! while it was busy is committed together. A call is one row in `queue`, a column of it is written when it is leased, and at
//! the end the row is deleted and its result inserted.

use crate::{
    cpu::{Meter, Took},
    load::{BATCH, CALLERS, CALLS, REPLY, REQUEST},
};
use rusqlite::{Connection, config::DbConfig, params};
use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};
use tokio::{
    runtime::Runtime,
    sync::{Notify, oneshot},
    time::Instant,
};

const WRITER: &str = "floor-writer";

enum Ask {
    Enqueue(oneshot::Sender<()>),
    Lease(oneshot::Sender<Vec<i64>>),
    Settle(Vec<i64>, oneshot::Sender<()>),
}

enum Answer {
    Done(oneshot::Sender<()>),
    Leased(oneshot::Sender<Vec<i64>>, Vec<i64>),
}

/// The time from the first enqueue to the last settle.
pub fn end_to_end(runtime: &Runtime) -> Took {
    let folder = tempfile::tempdir().unwrap();
    let (ask, writer) = start(&folder.path().join("floor.db"));
    let meter = Meter::start(WRITER);
    let wall = runtime.block_on(async {
        let before = Instant::now();
        let queued = std::sync::Arc::new(Notify::new());
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (ask, queued) = (ask.clone(), queued.clone());
                tokio::spawn(async move {
                    for _ in 0..CALLS / CALLERS {
                        let (answer, stored) = oneshot::channel();
                        ask.send(Ask::Enqueue(answer)).unwrap();
                        stored.await.unwrap();
                        queued.notify_one();
                    }
                })
            })
            .collect();
        work(&ask, &queued).await;
        let took = before.elapsed();
        for caller in callers {
            caller.await.unwrap();
        }
        took
    });
    let writer_used = meter.stop();
    drop(ask);
    writer.join().unwrap();
    Took {
        wall,
        writer: writer_used,
    }
}

/// Leases the next batch while the last one is settled.
async fn work(ask: &Sender<Ask>, queued: &Notify) {
    let (mut settled, mut batch) = (0, Vec::new());
    while settled < CALLS {
        let (answer, leased) = oneshot::channel();
        if batch.is_empty() {
            ask.send(Ask::Lease(answer)).unwrap();
            batch = leased.await.unwrap();
            if batch.is_empty() {
                queued.notified().await;
            }
            continue;
        }
        let (done, written) = oneshot::channel();
        settled += batch.len();
        ask.send(Ask::Settle(std::mem::take(&mut batch), done)).unwrap();
        ask.send(Ask::Lease(answer)).unwrap();
        written.await.unwrap();
        batch = leased.await.unwrap();
    }
}

fn start(path: &Path) -> (Sender<Ask>, JoinHandle<()>) {
    let db = Connection::open(path).unwrap();
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).unwrap();
    db.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;
         PRAGMA wal_autocheckpoint = 2000;
         CREATE TABLE queue (seq INTEGER PRIMARY KEY, leased INTEGER NOT NULL, request BLOB NOT NULL);
         CREATE TABLE result (seq INTEGER PRIMARY KEY, reply BLOB NOT NULL);",
    )
    .unwrap();
    let sync: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
    assert_eq!(sync, 2, "synchronous is not FULL");
    let (ask, asked) = channel();
    let writer = std::thread::Builder::new().name(WRITER.to_owned());
    (ask, writer.spawn(move || write(&db, &asked)).unwrap())
}

fn write(db: &Connection, asked: &Receiver<Ask>) {
    let (mut answers, mut next) = (Vec::new(), 0);
    while let Ok(first) = asked.recv() {
        db.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
        answers.push(apply(db, &mut next, first));
        answers.extend(asked.try_iter().map(|ask| apply(db, &mut next, ask)));
        db.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
        for answer in answers.drain(..) {
            match answer {
                Answer::Done(done) => drop(done.send(())),
                Answer::Leased(leased, batch) => drop(leased.send(batch)),
            }
        }
    }
}

fn apply(db: &Connection, next: &mut i64, ask: Ask) -> Answer {
    match ask {
        Ask::Enqueue(done) => {
            let mut insert = db
                .prepare_cached("INSERT INTO queue (seq, leased, request) VALUES (?, 0, ?)")
                .unwrap();
            // Not SQLite's own numbers: it would begin again at 1 whenever the queue is empty.
            *next += 1;
            insert.execute(params![*next, REQUEST]).unwrap();
            Answer::Done(done)
        }
        Ask::Lease(leased) => {
            let mut ready = db
                .prepare_cached("SELECT seq, request FROM queue WHERE leased = 0 ORDER BY seq LIMIT ?")
                .unwrap();
            let rows = ready.query_map([i64::try_from(BATCH).unwrap()], |row| {
                std::hint::black_box(row.get::<_, Vec<u8>>(1)?);
                row.get(0)
            });
            let batch: Vec<i64> = rows.unwrap().map(Result::unwrap).collect();
            let mut take = db.prepare_cached("UPDATE queue SET leased = ? WHERE seq = ?").unwrap();
            for seq in &batch {
                take.execute([1_700_000_000_000, *seq]).unwrap();
            }
            Answer::Leased(leased, batch)
        }
        Ask::Settle(batch, done) => {
            let mut delete = db.prepare_cached("DELETE FROM queue WHERE seq = ?").unwrap();
            let mut insert = db
                .prepare_cached("INSERT INTO result (seq, reply) VALUES (?, ?)")
                .unwrap();
            for seq in batch {
                assert_eq!(delete.execute([seq]).unwrap(), 1);
                insert.execute(params![seq, REPLY]).unwrap();
            }
            Answer::Done(done)
        }
    }
}
