//! What the writer thread does to the file. One `Ledger` is used by one thread, inside one transaction per group.
//!
//! Every operation makes all its refusals before its first write, so that a group needs no savepoints. What is cached
//! here is dropped when another process has written (`PRAGMA data_version`) and when a group is rolled back.

mod admin;
mod bounds;
mod enqueue;
mod fresh;
mod lanes;
mod lease;
mod moves;
mod past;
mod platform;
mod row;
mod settle;
mod timers;

pub(crate) use enqueue::Parcel;
pub(crate) use lease::RawLease;
pub(crate) use past::first;
pub(crate) use row::{DoneState, Note, Row, state};
pub(crate) use settle::{RawFinish, RawSettle};

use crate::fail::{Fail, store_error};
use crosspoint_core::{Clock, Result, Timestamp};
use fresh::Fresh;
use lanes::Lanes;
use rusqlite::Connection;
use std::{sync::Arc, time::Duration};

/// The writer's view of the file.
pub(crate) struct Ledger {
    pub(crate) db: Connection,
    clock: Arc<dyn Clock>,
    lanes: Lanes,
    fresh: Fresh,
    /// The next sequence number, once known.
    next_seq: Option<i64>,
    /// `data_version` as of the last transaction.
    version: i64,
    /// No timer is due before this; `i64::MAX` if there is none.
    due: i64,
    /// The longest lease granted or extended by this process.
    longest: Duration,
    /// Until when lost leases are left alone (after a jump of the wall clock).
    hold_leases: Option<tokio::time::Instant>,
}

impl Ledger {
    /// Reads what timers there are; writes nothing.
    pub(crate) fn open(db: Connection, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut ledger = Self {
            db,
            clock,
            lanes: Lanes::default(),
            fresh: Fresh::default(),
            next_seq: None,
            version: 0,
            due: i64::MAX,
            longest: Duration::ZERO,
            hold_leases: None,
        };
        ledger.version = ledger.data_version().map_err(store_error)?;
        ledger.due = ledger.next_due(i64::MIN).map_err(store_error)?;
        Ok(ledger)
    }

    /// Starts a transaction that may write. The caller holds the turnstile.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.db
            .prepare_cached("BEGIN IMMEDIATE")
            .and_then(|mut begin| begin.execute([]))
            .map_err(store_error)?;
        self.look_around().map_err(store_error)?;
        Ok(())
    }

    /// Whether another connection has written since we last looked; then nothing cached is believed any more.
    pub(crate) fn look_around(&mut self) -> rusqlite::Result<bool> {
        let version = self.data_version()?;
        if version == self.version {
            return Ok(false);
        }
        self.version = version;
        self.next_seq = None;
        self.lanes.doubt();
        self.due = self.next_due(i64::MIN)?;
        Ok(true)
    }

    /// Makes everything since [`Ledger::start`] durable.
    pub(crate) fn commit(&mut self) -> Result<()> {
        match self.land().and_then(|()| self.flush_lanes()) {
            Ok(()) => {}
            Err(Fail::Refused(error) | Fail::Group(error)) => return Err(error),
        }
        self.db
            .prepare_cached("COMMIT")
            .and_then(|mut commit| commit.execute([]))
            .map_err(store_error)?;
        Ok(())
    }

    /// [`Ledger::take_up`] in a transaction of its own. The caller holds the turnstile.
    pub(crate) fn take_up_now(&mut self) -> Result<()> {
        self.start()?;
        let done = match self.take_up() {
            Ok(()) => self.commit(),
            Err(Fail::Refused(error) | Fail::Group(error)) => Err(error),
        };
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    /// Undoes everything since [`Ledger::start`] and forgets what it had learnt.
    pub(crate) fn roll_back(&mut self) {
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
        self.next_seq = None;
        self.fresh.clear();
        self.lanes = Lanes::default();
        self.due = self.next_due(i64::MIN).unwrap_or(i64::MIN);
    }

    /// Now, by the store's clock, in milliseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.clock.now().as_millis()
    }

    /// The store's clock.
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// When the next timer may be due.
    pub(crate) const fn due(&self) -> i64 {
        self.due
    }

    fn data_version(&self) -> rusqlite::Result<i64> {
        self.db
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))
    }

    /// The number of the next call. Numbers are never used twice, because leases name rows by them.
    fn seq(&mut self) -> Result<i64, Fail> {
        if let Some(seq) = self.next_seq {
            return Ok(seq);
        }
        let last: Option<i64> = self
            .db
            .prepare_cached(crate::sql::SEQ_LAST)?
            .query_row([], |row| row.get(0))?;
        let floor = self.meta("next_seq")?.unwrap_or(1);
        let seq = last.map_or(1, |last| last.saturating_add(1)).max(floor);
        self.next_seq = Some(seq);
        Ok(seq)
    }

    fn until(&mut self, now: i64, length: Duration) -> i64 {
        self.longest = self.longest.max(length);
        Timestamp::from_millis(now).plus(length).as_millis()
    }

    fn timer(&mut self, due: i64) {
        self.due = self.due.min(due);
    }
}
