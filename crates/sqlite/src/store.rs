//! The handle.

use crate::{
    Options, connect,
    fail::Fail,
    ledger::Ledger,
    place,
    readers::Readers,
    schema,
    turnstile::Turnstile,
    writer::{Inbox, Writer},
};
use crosspoint_core::{Clock, Code, Error, Result, Store};
use rusqlite::Connection;
use std::{
    fmt,
    hash::Hash,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Every store of a platform in one SQLite file.
///
/// Clones share the connections. The file is closed when the last clone is dropped, or by [`Sqlite::close`], which
/// waits for it.
///
/// ```
/// use crosspoint_core::{Durability, Store};
/// use crosspoint_sqlite::Sqlite;
///
/// # #[tokio::main]
/// # async fn main() -> crosspoint_core::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("app.db");
/// let store: Store = Sqlite::open(path).await?.into();
/// assert_eq!(store.dispatch.capabilities().durability, Durability::PowerLoss);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    writer: Writer,
    readers: Arc<Readers>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens the file, makes it if there is none, and migrates it to this release's schema.
    ///
    /// Two lock files stand beside it (`-cp-lock`, `-cp-next`), and SQLite's own `-wal` and `-shm`. Other processes on
    /// the same host may have the same file open.
    ///
    /// # Errors
    /// - [`Code::StoreReadOnly`]: file or folder cannot be written
    /// - [`Code::StoreOnNetwork`]: the folder is on a network file system
    /// - [`Code::StoreTooNew`]: a newer release, on whose schema this one may not run, has written it
    /// - [`Code::StoreCorrupt`]: it is no database, is damaged, or was made by another migration
    /// - [`Code::StoreUnavailable`]: anything else that keeps the file from being opened
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Options::new()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`Sqlite::open`].
    pub async fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open_now(&path, options));
        opened
            .await
            .map_err(|e| Error::new(Code::Internal, "opening the store panicked").caused_by(e))?
    }

    fn open_now(path: &Path, options: Options) -> Result<Self> {
        let path = place::check(path, options.any_file_system)?;
        let at = |error: Error| error.with("path", path.display());
        let turnstile = Turnstile::open(&path)?;
        let turn = turnstile.enter()?;
        let db = connect::writer(&path).map_err(at)?;
        schema::migrate(&db).map_err(at)?;
        let readers = (0..options.readers.clamp(1, 16)).map(|_| connect::reader(&path));
        let readers: Vec<Connection> = readers.collect::<Result<_>>().map_err(at)?;
        drop(turn);
        let mut ledger = Ledger::open(db, Arc::clone(&options.clock)).map_err(at)?;
        // Looked for without a turn, because others would wait for it.
        if ledger.has_set_aside().map_err(at)? {
            let turn = turnstile.enter()?;
            ledger.take_up_now().map_err(at)?;
            drop(turn);
        }
        let writer = Writer::start(ledger, turnstile, options.machine_clock)?;
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                writer,
                readers: Arc::new(Readers::new(readers)),
                clock: options.clock,
            }),
        })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Finishes what was asked for, empties the write-ahead log into the file and stops writing; for a clean end, and
    /// before a copy of the file is made. Everything asked for later fails with [`Code::StoreUnavailable`].
    pub async fn close(&self) {
        self.inner.writer.close().await;
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.inner.writer
    }

    /// Runs an operation of the writer and answers when it is durable.
    pub(crate) async fn write<T, F>(&self, f: F) -> Result<T>
    where
        F: FnOnce(&mut Ledger) -> Result<T, Fail> + Send + 'static,
        T: Send + 'static,
    {
        self.inner.writer.write(Inbox::Work, f).await
    }

    /// Reads in one snapshot; timers that are due have run before.
    pub(crate) async fn read<T, F>(&self, f: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.run_timers().await?;
        self.inner.readers.read(f).await
    }

    /// The same for one record, in one statement; `key` names it among all there are.
    pub(crate) async fn read_one<T, F>(&self, key: impl Hash + Send, f: F) -> Result<Option<T>>
    where
        F: Fn(&Connection) -> Result<Option<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.run_timers().await?;
        self.inner.readers.read_one(key, f).await
    }

    /// Has the writer run timers that are due.
    async fn run_timers(&self) -> Result<()> {
        if self.inner.clock.now().as_millis() >= self.inner.writer.due() {
            self.write(|_| Ok(())).await?;
        }
        Ok(())
    }
}

impl From<Sqlite> for Store {
    fn from(sqlite: Sqlite) -> Self {
        Self::of(Arc::new(sqlite))
    }
}
