//! Delays and holds that are over, and leases that were lost.

use super::{Ledger, Row, row::state};
use crate::{fail::Fail, sql};
use std::time::Duration;
use tokio::time::Instant;

/// The least time for which leases are left alone after a jump of the clock.
const HOLD: Duration = Duration::from_secs(30);

impl Ledger {
    /// Runs timers that are due, at most 256 of them; what is left keeps the ledger due.
    pub(crate) fn run_timers(&mut self) -> Result<(), Fail> {
        let now = self.now();
        if now < self.due {
            return Ok(());
        }
        let held = self.hold_leases.filter(|until| Instant::now() < *until);
        if held.is_none() {
            self.hold_leases = None;
        }
        let text = if held.is_some() { sql::DUE_DELAYS } else { sql::DUE };
        let mut statement = self.db.prepare_cached(text)?;
        let rows: Vec<Row> = statement
            .query_map([now], Row::read)?
            .collect::<rusqlite::Result<_>>()?;
        drop(statement);
        let all = rows.len() < 256;
        for row in rows {
            match row.state {
                state::LEASED => self.worker_lost(row, now)?,
                state::READY => self.sideline(row.seq, row.lane)?,
                _ => self.place(&row, None, now)?,
            }
        }
        self.due = if held.is_some() {
            // Leases that are held back stay due: look again soon.
            now.saturating_add(250)
        } else if all {
            self.next_due(now)?
        } else {
            now
        };
        Ok(())
    }

    /// The first timer after `now`; `i64::MAX` if there is none.
    pub(super) fn next_due(&self, now: i64) -> rusqlite::Result<i64> {
        let mut statement = self.db.prepare_cached(sql::DUE_NEXT)?;
        let mut rows = statement.query([now])?;
        rows.next()?.map_or(Ok(i64::MAX), |row| row.get(0))
    }

    /// The wall clock was moved by `millis` against the time that has really passed.
    ///
    /// Forwards, every lease looks lost, while its worker may be well: nothing is taken away for one lease. Backwards,
    /// leases would last longer than anybody asked for: they are cut to what this process grants at most.
    pub(crate) fn clock_jumped(&mut self, millis: i64) -> Result<(), Fail> {
        let lease = self.longest.max(HOLD);
        tracing::warn!(millis, "the wall clock has jumped");
        if millis > 0 {
            self.hold_leases = Some(Instant::now() + lease);
            return Ok(());
        }
        let longest = self.until(self.now(), lease);
        loop {
            let mut statement = self.db.prepare_cached(sql::LEASES_TOO_LONG)?;
            let rows: Vec<Row> = statement
                .query_map([longest], Row::read)?
                .collect::<rusqlite::Result<_>>()?;
            drop(statement);
            for row in &rows {
                self.db.prepare_cached(sql::DUE_SET)?.execute((row.seq, longest))?;
            }
            if rows.len() < 256 {
                break;
            }
        }
        self.due = self.due.min(longest);
        Ok(())
    }
}
