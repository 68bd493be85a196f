//! How many calls of a key run at once, and how often they start.
//!
//! A row counts at its bounds while it is leased and not only delivered to be closed. A row whose turn comes while one of
//! its bounds is full is parked there. Whoever is parked at a bound is so because it was full, so that one of the bound's
//! rows runs, or has been let in and is ready: whenever such a row goes elsewhere, [`Ledger::let_in`] is called for all its
//! bounds. None can be left parked for ever.

use super::{Ledger, Row, row::bounds};
use crate::{fail::Fail, sql};
use crosspoint_core::{Envelope, MaxInFlight, Timestamp};
use rusqlite::OptionalExtension;

/// A bound of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    id: i64,
    max: i64,
    running: i64,
}

impl Bound {
    const fn room(self) -> i64 {
        self.max.saturating_sub(self.running)
    }
}

impl Ledger {
    /// The bounds of a new call; made if they are the first of their key.
    pub(super) fn bounds_for(&self, wanted: &[MaxInFlight]) -> Result<Vec<Bound>, Fail> {
        let mut found: Vec<Bound> = Vec::with_capacity(wanted.len());
        for bound in wanted {
            let mut statement = self.db.prepare_cached(sql::BOUND_PUT)?;
            let (id, running) = statement.query_row([&*bound.key], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let max = i64::from(bound.max.get());
            match found.iter_mut().find(|known| known.id == id) {
                Some(known) => known.max = known.max.min(max),
                None => found.push(Bound { id, max, running }),
            }
        }
        Ok(found)
    }

    /// Records the bounds of a new row.
    pub(super) fn bind(&self, seq: i64, bounds: &[Bound], runs: bool) -> Result<(), Fail> {
        for bound in bounds {
            let row = (seq, bound.id, bound.max);
            self.db.prepare_cached(sql::BOUNDED_ADD)?.execute(row)?;
            if runs {
                self.count(bound.id, 1)?;
            }
        }
        Ok(())
    }

    fn count(&self, bound: i64, by: i64) -> Result<(), Fail> {
        self.db.prepare_cached(sql::BOUND_COUNT)?.execute((bound, by))?;
        Ok(())
    }

    fn bounds_of(&self, seq: i64) -> Result<Vec<Bound>, Fail> {
        let mut statement = self.db.prepare_cached(sql::BOUNDS_OF)?;
        let found = statement.query_map([seq], |row| {
            Ok(Bound {
                id: row.get(0)?,
                max: row.get(1)?,
                running: row.get(2)?,
            })
        })?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }

    /// Whether a ready row with bounds may be leased: then it counts as running. Else it is parked.
    pub(super) fn take_room(&mut self, seq: i64, now: i64) -> Result<bool, Fail> {
        let all = self.bounds_of(seq)?;
        let Some(full) = full(&all) else {
            for bound in &all {
                self.count(bound.id, 1)?;
            }
            self.db.prepare_cached(sql::QUEUE_COUNTED)?.execute([seq])?;
            return Ok(true);
        };
        self.db.prepare_cached(sql::QUEUE_PARK)?.execute((seq, full))?;
        self.let_all_in(&all, now)?;
        Ok(false)
    }

    /// A row has moved from where it was to `state`, which is not leased.
    pub(super) fn moved(&mut self, row: &Row, to_ready: bool, now: i64) -> Result<(), Fail> {
        if row.bounds == bounds::NONE {
            return Ok(());
        }
        let all = self.bounds_of(row.seq)?;
        if row.bounds == bounds::RUNS {
            for bound in &all {
                self.count(bound.id, -1)?;
            }
        } else if to_ready {
            return Ok(());
        }
        self.let_all_in(&all, now)
    }

    /// A row has left the queue.
    pub(super) fn unbind(&mut self, row: &Row, now: i64) -> Result<(), Fail> {
        if row.bounds == bounds::NONE {
            return Ok(());
        }
        let all = self.bounds_of(row.seq)?;
        self.db.prepare_cached(sql::BOUNDED_DELETE)?.execute([row.seq])?;
        if row.bounds == bounds::RUNS {
            for bound in &all {
                self.count(bound.id, -1)?;
            }
        }
        self.let_all_in(&all, now)
    }

    fn let_all_in(&mut self, all: &[Bound], now: i64) -> Result<(), Fail> {
        all.iter().try_for_each(|bound| self.let_in(bound.id, now))
    }

    /// Makes as many of those who are parked at a bound ready as it has room for.
    fn let_in(&mut self, bound: i64, now: i64) -> Result<(), Fail> {
        let mut let_in = 0;
        loop {
            let mut statement = self.db.prepare_cached(sql::PARKED_FIRST)?;
            let Some(first) = statement.query_row([bound], Row::read).optional()? else {
                return Ok(());
            };
            drop(statement);
            let its = self.bounds_of(first.seq)?;
            let room = its
                .iter()
                .find(|known| known.id == bound)
                .map_or(0, |known| known.room());
            if room <= let_in {
                return Ok(());
            }
            let_in += 1;
            self.place(&first, None, now)?;
        }
    }

    /// When a new call may start by its rate, if that is later than now.
    pub(super) fn admit(&self, envelope: &Envelope, now: i64) -> Result<Option<i64>, Fail> {
        let Some(rate) = &envelope.rate else { return Ok(None) };
        let wanted = envelope.not_before.map_or(now, |at| at.as_millis().max(now));
        let mut statement = self.db.prepare_cached(sql::RATE_GET)?;
        let kept: Option<i64> = statement.query_row([&*rate.key], |row| row.get(0)).optional()?;
        let (start, next) = rate.admit(kept, wanted);
        self.db.prepare_cached(sql::RATE_PUT)?.execute((&*rate.key, next))?;
        Ok((start > now).then_some(start))
    }
}

/// The first bound that is full.
pub(super) fn full(all: &[Bound]) -> Option<i64> {
    all.iter().find(|bound| bound.room() <= 0).map(|bound| bound.id)
}

/// The later of a call's own time and of its rate's.
pub(super) fn not_before(envelope: &Envelope, admitted: Option<i64>) -> i64 {
    let own = envelope.not_before.map_or(i64::MIN, Timestamp::as_millis);
    admitted.map_or(own, |at| at.max(own))
}
