//! A small pool of connections that only read.
//!
//! Reads go to a blocking thread, because any of them may have to wait for the disk. For a small read of what is in memory
//! anyway the way there and back costs several times the read: what was read [`Lately`] is read at once, on the thread of
//! whoever asks. Nothing is remembered but when it was read, so that what another process has changed is seen either way.

use crate::{
    connect,
    fail::{closed, store_error},
};
use crosspoint_core::{Code, Error, Result};
use rusqlite::Connection;
use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

/// For how long after a read its pages are taken to be in memory.
const LATELY: Duration = Duration::from_secs(60);

/// The most records whose reads are remembered.
const REMEMBERED: usize = 4096;

/// Connections for reading.
#[derive(Debug)]
pub(crate) struct Readers {
    idle: Mutex<Vec<Connection>>,
    free: Semaphore,
    lately: Lately,
}

impl Readers {
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        Self {
            free: Semaphore::new(connections.len()),
            idle: Mutex::new(connections),
            lately: Lately::default(),
        }
    }

    /// Reads in one snapshot. Short work only: while somebody reads, the WAL cannot start over.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, f: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.blocking(|db| snapshot(db, f)).await
    }

    /// Reads one record, in one statement; `key` names it among all there are.
    pub(crate) async fn read_one<T, F>(self: &Arc<Self>, key: impl Hash, f: F) -> Result<Option<T>>
    where
        F: Fn(&Connection) -> Result<Option<T>> + Send + 'static,
        T: Send + 'static,
    {
        let key = self.lately.number(key);
        if self.lately.again(key)
            && let Some(found) = self.at_once(&f)
        {
            return Ok(found);
        }
        let found = self.blocking(move |db| f(db)).await?;
        if found.is_some() {
            self.lately.add(key);
        }
        Ok(found)
    }

    /// Runs `f` on the thread of whoever asks. `None` where it would have to wait, or fails: then it is for a thread that
    /// may wait.
    fn at_once<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Option<T> {
        let _permit = self.free.try_acquire().ok()?;
        let db = self.take()?;
        let answer = connect::impatiently(&db, f);
        self.give_back(db);
        answer
    }

    async fn blocking<T, F>(self: &Arc<Self>, f: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let _permit = self.free.acquire().await.map_err(|_| closed())?;
        let this = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let db = this.take().ok_or_else(closed)?;
            let answer = f(&db);
            this.give_back(db);
            answer
        });
        work.await
            .map_err(|e| Error::new(Code::Internal, "a read of the store panicked").caused_by(e))?
    }

    fn take(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, db: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(db);
    }
}

/// Which records were read lately. They go by numbers made of their keys: if two were the same, the first read of one of
/// them would be made at once.
#[derive(Debug, Default)]
struct Lately {
    numbers: RandomState,
    reads: Mutex<HashMap<u64, Instant>>,
}

impl Lately {
    fn number(&self, key: impl Hash) -> u64 {
        self.numbers.hash_one(key)
    }

    /// Whether a record was read lately; if so, it was read again just now.
    fn again(&self, key: u64) -> bool {
        let mut reads = self.lock();
        let Some(read) = reads.get_mut(&key) else {
            return false;
        };
        let now = Instant::now();
        let lately = now.duration_since(*read) < LATELY;
        if lately {
            *read = now;
        }
        lately
    }

    fn add(&self, key: u64) {
        let now = Instant::now();
        let mut reads = self.lock();
        if reads.len() >= REMEMBERED {
            reads.retain(|_, read| now.duration_since(*read) < LATELY);
        }
        if reads.len() >= REMEMBERED {
            // So many are in use at a time that one read more of each is no matter.
            reads.clear();
        }
        reads.insert(key, now);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both ends are statements that a connection parses once: most reads are so small that parsing would cost more.
fn snapshot<T>(db: &Connection, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    let run = |sql| {
        let ran = db.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        ran.map_err(store_error)
    };
    run("BEGIN")?;
    let answer = read(db);
    // Some errors have ended it already.
    if !db.is_autocommit() {
        run("ROLLBACK")?;
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_counts_for_a_minute() {
        let lately = Lately::default();
        let (one, other) = (lately.number("one"), lately.number("other"));
        assert!(!lately.again(one));
        lately.add(one);
        for _ in 0..3 {
            tokio::time::advance(LATELY - Duration::from_secs(1)).await;
            assert!(lately.again(one));
        }
        tokio::time::advance(LATELY).await;
        assert!(!lately.again(one));
        assert!(!lately.again(one), "to ask is not to read");
        assert!(!lately.again(other));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_an_end_to_what_is_remembered() {
        let lately = Lately::default();
        for n in 0..3 * REMEMBERED {
            lately.add(lately.number(n));
            assert!(lately.lock().len() <= REMEMBERED);
        }
        tokio::time::advance(LATELY).await;
        lately.add(lately.number("new"));
        assert!(lately.lock().len() <= REMEMBERED);
    }
}
