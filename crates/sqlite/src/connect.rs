//! Connections as this store needs them; what SQLite leaves to each connection is said for each.

use crate::fail::store_error;
use crosspoint_core::{Code, Error, Result};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::{path::Path, time::Duration};

/// More than the statements of this crate.
const STATEMENTS: usize = 160;

/// Pages of WAL after which it is copied back: 8 MiB.
const CHECKPOINT_PAGES: u32 = 2000;

/// How long a connection waits for others. Writers wait at the turnstile; this is for whoever else has the file open.
const PATIENCE: Duration = Duration::from_secs(10);

/// The connection that writes; the caller holds the turnstile, because switching to WAL needs the file alone.
pub(crate) fn writer(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(store_error)?;
    common(&db)?;
    db.pragma_update(None, "page_size", 4096).map_err(store_error)?;
    let mode: String = db
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(store_error)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Error::new(Code::StoreUnsupported, "the file cannot use a write-ahead log").with("mode", mode));
    }
    db.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
        .map_err(store_error)?;
    Ok(db)
}

/// A connection that only reads.
pub(crate) fn reader(path: &Path) -> Result<Connection> {
    // Not SQLITE_OPEN_READ_ONLY: a reader takes part in the WAL's shared memory.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(store_error)?;
    common(&db)?;
    db.pragma_update(None, "query_only", true).map_err(store_error)?;
    Ok(db)
}

/// Runs `f` without waiting for anybody; `None` if it fails.
pub(crate) fn impatiently<T>(db: &Connection, f: impl FnOnce(&Connection) -> Result<T>) -> Option<T> {
    let waits = |most| db.busy_timeout(most).is_ok();
    let answer = if waits(Duration::ZERO) { f(db).ok() } else { None };
    waits(PATIENCE).then_some(answer).flatten()
}

fn common(db: &Connection) -> Result<()> {
    db.busy_timeout(PATIENCE).map_err(store_error)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without it the planner looks at bound values (the bundled SQLite has STAT4) and prepares every statement with a
    // bound LIMIT again at each use.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(store_error)?;
    for (name, value) in [
        ("synchronous", "FULL"),
        ("temp_store", "MEMORY"),
        ("cache_size", "-16384"),
    ] {
        db.pragma_update(None, name, value).map_err(store_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_says_what_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let writer = writer(&path).unwrap();
        let reader = reader(&path).unwrap();
        let pragma = |db: &Connection, name: &str| -> String {
            db.query_row(&format!("PRAGMA {name}"), [], |row| {
                row.get::<_, rusqlite::types::Value>(0)
            })
            .map(|value| format!("{value:?}"))
            .unwrap()
        };
        for db in [&writer, &reader] {
            assert_eq!(pragma(db, "synchronous"), "Integer(2)");
            assert_eq!(pragma(db, "journal_mode"), "Text(\"wal\")");
            assert_eq!(pragma(db, "busy_timeout"), "Integer(10000)");
            assert!(db.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG).unwrap());
        }
        assert_eq!(pragma(&writer, "page_size"), "Integer(4096)");
        assert!(reader.execute_batch("CREATE TABLE t (x)").is_err(), "readers only read");
    }
}
