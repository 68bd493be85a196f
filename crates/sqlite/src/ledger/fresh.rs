//! Rows that have come in this group, are ready, and find their lane asleep: most of them are leased before the group ends,
//! by a worker that waits, so they are kept back until then, and go into the queue once and leased, instead of ready
//! first and leased afterwards.
//!
//! A lane has either fresh rows or ready rows in the queue, never both, and fresh rows of one priority only: so their
//! order is the order in which they came. Whoever looks at rows that are not leased lands them first
//! ([`Ledger::land`]); the writer does it before every operation but those that are known to look at nothing else
//! (enqueues, settles, heartbeats, leases), and before each commit.

use super::{
    Ledger,
    row::{bounds, state},
};
use crate::{fail::Fail, sql};
use std::collections::{HashMap, VecDeque};

/// A row as it goes into the queue.
#[derive(Debug, Clone)]
pub(super) struct NewRow {
    pub(super) seq: i64,
    /// Negative in the held line.
    pub(super) lane: i64,
    pub(super) flow: Option<i64>,
    /// The priority, negated.
    pub(super) prio: i64,
    pub(super) state: i64,
    pub(super) due: Option<i64>,
    pub(super) begun: bool,
    pub(super) max_attempts: i64,
    pub(super) repeatable: bool,
    pub(super) okey: Option<i64>,
    pub(super) since: i64,
    pub(super) started: Option<i64>,
    pub(super) expires: Option<i64>,
    pub(super) hold: Option<i64>,
    pub(super) size: i64,
    pub(super) bounds: i64,
    pub(super) note: Option<String>,
    pub(super) pin: Option<i64>,
}

/// A row that is kept back, with what a lease tells of its call.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) row: NewRow,
    pub(super) id: [u8; 16],
    pub(super) head: Vec<u8>,
    pub(super) request: Vec<u8>,
}

/// By lane, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Fresh(HashMap<i64, VecDeque<Newcomer>>);

impl Fresh {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// How many a lane has.
    pub(super) fn of(&self, lane: i64) -> usize {
        self.0.get(&lane).map_or(0, VecDeque::len)
    }

    /// Takes up to so many of a lane, oldest or newest first.
    pub(super) fn take(&mut self, lane: i64, limit: usize, newest_first: bool) -> VecDeque<Newcomer> {
        let Some(waiting) = self.0.get_mut(&lane) else {
            return VecDeque::new();
        };
        let limit = limit.min(waiting.len());
        let taken = if newest_first {
            waiting.split_off(waiting.len() - limit).into_iter().rev().collect()
        } else {
            waiting.drain(..limit).collect()
        };
        if waiting.is_empty() {
            self.0.remove(&lane);
        }
        taken
    }
}

impl Ledger {
    /// Puts rows into the queue.
    pub(super) fn add_all<'a>(&self, rows: impl IntoIterator<Item = &'a NewRow>) -> Result<(), Fail> {
        let mut add = self.db.prepare_cached(sql::QUEUE_ADD)?;
        for row in rows {
            // Its first fence and its first attempt, if it is leased as it is stored.
            let leased = i64::from(row.state == state::LEASED);
            add.execute(rusqlite::params![
                row.seq,
                row.lane,
                row.flow,
                row.prio,
                row.state,
                row.due,
                leased,
                leased,
                row.max_attempts,
                row.repeatable,
                row.begun,
                row.okey,
                row.since,
                row.started,
                row.expires,
                row.hold,
                row.size,
                row.bounds,
                row.note.as_deref(),
                row.pin,
            ])?;
        }
        Ok(())
    }

    /// Keeps a new row back if it can be, or puts it into the queue.
    pub(super) fn arrive(&mut self, newcomer: Newcomer) -> Result<(), Fail> {
        let row = &newcomer.row;
        if row.state != state::READY {
            return self.add_all([row]);
        }
        let lane = row.lane;
        let plain = row.okey.is_none() && row.expires.is_none() && row.pin.is_none() && row.bounds == bounds::NONE;
        let fits = match self.fresh.0.get(&lane).and_then(VecDeque::front) {
            Some(first) => first.row.prio == row.prio,
            None => !self.lane_is_active(lane)?,
        };
        if plain && fits {
            self.fresh.0.entry(lane).or_default().push_back(newcomer);
            return Ok(());
        }
        self.land_lane(lane)?;
        self.add_all([row])
    }

    /// Puts what a lane has kept back into the queue: a row that stands there already becomes ready in this lane.
    pub(super) fn land_lane(&mut self, lane: i64) -> Result<(), Fail> {
        let kept = self.fresh.take(lane, usize::MAX, false);
        self.add_all(kept.iter().map(|newcomer| &newcomer.row))
    }

    /// Puts all that was kept back into the queue.
    pub(crate) fn land(&mut self) -> Result<(), Fail> {
        if self.fresh.0.is_empty() {
            return Ok(());
        }
        let mut rows: Vec<Newcomer> = self.fresh.0.drain().flat_map(|(_, waiting)| waiting).collect();
        rows.sort_unstable_by_key(|newcomer| newcomer.row.seq);
        self.add_all(rows.iter().map(|newcomer| &newcomer.row))
    }
}
