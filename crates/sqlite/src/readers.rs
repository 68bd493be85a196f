//! A small pool of connections that only read, used from blocking threads.

use crate::fail::{closed, store_error};
use crosspoint_core::{Code, Error, Result};
use rusqlite::Connection;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Connections for reading.
#[derive(Debug)]
pub(crate) struct Readers {
    idle: Mutex<Vec<Connection>>,
    free: Semaphore,
}

impl Readers {
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        Self {
            free: Semaphore::new(connections.len()),
            idle: Mutex::new(connections),
        }
    }

    /// Reads in one snapshot. Short work only: while somebody reads, the WAL cannot start over.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, f: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let _permit = self.free.acquire().await.map_err(|_| closed())?;
        let this = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let db = this.take().ok_or_else(closed)?;
            let answer = db
                .unchecked_transaction()
                .map_err(store_error)
                .and_then(|snapshot| f(&snapshot));
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
