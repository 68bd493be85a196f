//! The floor of the flow's road: the least that a call costs which is durable before it is run and after it, with nothing
//! around it. One thread writes to a SQLite file at `synchronous=FULL`; what arrived while it was busy is committed
//! together. A call is a row, inserted and waited for, and then the same row deleted and its result inserted and waited
//! for. There is no lease, no execution's record, no log.

use rusqlite::{Connection, params};
use std::{
    path::Path,
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};
use tokio::sync::oneshot;

/// As long as what the platform keeps of a call with a small input.
const REQUEST: [u8; 256] = [b'q'; 256];
const REPLY: [u8; 64] = [b'r'; 64];

enum Write {
    Insert,
    Finish(i64),
}

/// A write, and where to say that it is durable: with the number of the call.
type Asked = (Write, oneshot::Sender<i64>);

pub struct Floor {
    ask: Option<Sender<Asked>>,
    writer: Option<JoinHandle<()>>,
}

impl Floor {
    #[expect(clippy::result_large_err, reason = "the size of rusqlite's own error")]
    pub fn open(path: &Path) -> Self {
        let db = Connection::open(path).unwrap();
        db.execute_batch(
            "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384;
             PRAGMA wal_autocheckpoint = 2000;
             CREATE TABLE call (number INTEGER PRIMARY KEY, request BLOB NOT NULL);
             CREATE TABLE result (number INTEGER PRIMARY KEY, reply BLOB NOT NULL);",
        )
        .unwrap();
        let full: i64 = db.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!(full, 2, "synchronous is not FULL");
        let (ask, asked) = channel();
        let writer = std::thread::spawn(move || write_all(&db, &asked));
        Self {
            ask: Some(ask),
            writer: Some(writer),
        }
    }

    /// One call: two commits, each shared with whoever else waits.
    pub async fn call(&self) {
        let number = self.write(Write::Insert).await;
        self.write(Write::Finish(number)).await;
    }

    async fn write(&self, write: Write) -> i64 {
        let (done, durable) = oneshot::channel();
        self.ask.as_ref().unwrap().send((write, done)).unwrap();
        durable.await.unwrap()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        drop(self.ask.take());
        self.writer.take().unwrap().join().unwrap();
    }
}

fn write_all(db: &Connection, asked: &Receiver<Asked>) {
    let (mut next, mut told) = (0, Vec::new());
    while let Ok(first) = asked.recv() {
        db.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
        for (write, done) in std::iter::once(first).chain(asked.try_iter()) {
            told.push((done, apply(db, write, &mut next)));
        }
        db.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
        for (done, number) in told.drain(..) {
            let _ = done.send(number);
        }
    }
}

fn apply(db: &Connection, write: Write, next: &mut i64) -> i64 {
    match write {
        Write::Insert => {
            *next += 1;
            let mut insert = db
                .prepare_cached("INSERT INTO call (number, request) VALUES (?, ?)")
                .unwrap();
            insert.execute(params![*next, REQUEST]).unwrap();
            *next
        }
        Write::Finish(number) => {
            let mut delete = db.prepare_cached("DELETE FROM call WHERE number = ?").unwrap();
            assert_eq!(delete.execute([number]).unwrap(), 1);
            let mut insert = db
                .prepare_cached("INSERT INTO result (number, reply) VALUES (?, ?)")
                .unwrap();
            insert.execute(params![number, REPLY]).unwrap();
            number
        }
    }
}
