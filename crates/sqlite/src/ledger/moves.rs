//! How rows of the queue move: ready, delayed, behind an ordering key, ended.

use super::{
    DoneState, Ledger, Note, Row,
    row::{close_number, state},
};
use crate::{fail::Fail, sql};
use crosspoint_core::{CloseReason, Code, Failure};
use rusqlite::OptionalExtension;

impl Ledger {
    /// The row, if it has not ended.
    pub(super) fn row(&self, seq: i64) -> Result<Option<Row>, Fail> {
        let mut statement = self.db.prepare_cached(sql::QUEUE_ROW)?;
        Ok(statement.query_row([seq], Row::read).optional()?)
    }

    /// The row that is leased under this fence.
    pub(super) fn leased(&self, seq: i64, fence: i64) -> Result<Option<Row>, Fail> {
        let mut statement = self.db.prepare_cached(sql::QUEUE_LEASED)?;
        Ok(statement.query_row((seq, fence), Row::read).optional()?)
    }

    /// Puts a row, as it now is, where it belongs: delayed until `at`, behind its ordering key, or ready.
    pub(super) fn place(&mut self, row: &Row, at: Option<i64>, now: i64) -> Result<(), Fail> {
        let home = row.lane.saturating_abs();
        let (place, lane, due) = match at {
            Some(at) if at > now => (state::DELAYED, home, Some(at)),
            _ if self.has_one_before(row)? => (state::BEHIND, home, None),
            _ => match row.hold {
                Some(hold) if hold > now => (state::READY, -home, Some(hold)),
                _ => (state::READY, home, None),
            },
        };
        if place == state::READY {
            self.land_lane(lane)?;
        }
        self.db.prepare_cached(sql::QUEUE_MOVE)?.execute((
            row.seq,
            place,
            due,
            row.attempt,
            row.close,
            now,
            row.note.as_deref(),
            lane,
        ))?;
        if let Some(due) = due {
            self.timer(due);
        }
        if place == state::READY {
            self.activate(lane)?;
        }
        self.moved(row, place == state::READY, now)
    }

    /// Takes a ready row out of the held line: nobody waits for it any more, or not long enough. It keeps its age.
    pub(super) fn sideline(&mut self, seq: i64, lane: i64) -> Result<(), Fail> {
        let home = lane.saturating_abs();
        self.land_lane(home)?;
        self.db.prepare_cached(sql::QUEUE_ASIDE)?.execute((seq, home))?;
        self.activate(home)
    }

    /// Whether another row of its ordering key stands before it. What is only to be closed runs nothing and waits for
    /// nobody.
    fn has_one_before(&self, row: &Row) -> Result<bool, Fail> {
        match row.okey {
            Some(okey) if !row.closing() => Ok(self.db.prepare_cached(sql::OKEY_BEFORE)?.exists((okey, row.seq))?),
            _ => Ok(false),
        }
    }

    /// Ends a row that is still in the queue.
    pub(super) fn end(&mut self, row: &Row, how: DoneState, reply: Option<&[u8]>, now: i64) -> Result<(), Fail> {
        self.db.prepare_cached(sql::QUEUE_DELETE)?.execute([row.seq])?;
        self.ended(row, how, reply, now)
    }

    /// Records the end of a row that has left the queue, and lets the next of its ordering key go.
    pub(super) fn ended(&mut self, row: &Row, how: DoneState, reply: Option<&[u8]>, now: i64) -> Result<(), Fail> {
        self.db.prepare_cached(sql::DONE_ADD)?.execute((
            row.seq,
            how.number(),
            row.fence,
            row.attempt,
            row.started,
            now,
            row.note.as_deref(),
            reply,
        ))?;
        if let Some(flow) = row.flow
            && let Some(revision) = Note::read(row.note.as_deref()).revision()
        {
            self.refer(flow, revision, now)?;
        }
        self.unbind(row, now)?;
        if let Some(okey) = row.okey {
            self.next_in_order(okey, now)?;
        }
        Ok(())
    }

    fn next_in_order(&mut self, okey: i64, now: i64) -> Result<(), Fail> {
        let mut statement = self.db.prepare_cached(sql::OKEY_HEAD)?;
        let head = statement.query_row([okey], Row::read).optional()?;
        drop(statement);
        match head {
            // While it stood behind its key, `since` was the time before which it is not delivered.
            Some(head) if head.state == state::BEHIND => self.place(&head, Some(head.since), now),
            _ => Ok(()),
        }
    }

    /// A flow is never ended here: it is delivered once more to be closed. A reason once given stays.
    pub(super) fn close(&mut self, mut row: Row, why: CloseReason, now: i64) -> Result<(), Fail> {
        if !row.closing() {
            row.close = close_number(why);
        }
        self.place(&row, None, now)
    }

    /// The attempt failed; the next comes at `at`, if there is one left and nobody wants it to stop. A dead letter keeps
    /// the failure of its last attempt.
    pub(super) fn retry(&mut self, row: Row, at: i64, now: i64) -> Result<(), Fail> {
        let (flow, running) = (row.flow.is_some(), !row.closing());
        if flow && running && row.stop {
            return self.close(row, CloseReason::Cancelled, now);
        }
        if flow && running && row.used_up() {
            return self.close(row, CloseReason::Exhausted, now);
        }
        if !flow && row.stop {
            return self.end(&row, DoneState::Cancelled, None, now);
        }
        if !flow && row.used_up() {
            return self.end(&row, DoneState::Dead, None, now);
        }
        self.place(&row, Some(at), now)
    }

    /// The attempt does not count; back at once, or not before a time.
    pub(super) fn release(&mut self, mut row: Row, not_before: Option<i64>, now: i64) -> Result<(), Fail> {
        if !row.closing() {
            row.attempt = row.attempt.saturating_sub(1);
            if row.stop && row.flow.is_some() {
                return self.close(row, CloseReason::Cancelled, now);
            }
        }
        if row.stop && row.flow.is_none() {
            return self.end(&row, DoneState::Cancelled, None, now);
        }
        self.place(&row, not_before, now)
    }

    /// The worker was not heard of in time.
    pub(super) fn worker_lost(&mut self, mut row: Row, now: i64) -> Result<(), Fail> {
        if row.flow.is_none() && row.begun && !row.repeatable {
            let failure = Failure::new(
                Code::OutcomeUnknown,
                "the worker was lost after it had started the call",
            );
            row.note = Note::default().failed(Some(&failure)).write();
            return self.end(&row, DoneState::Unknown, None, now);
        }
        if !row.closing() {
            let mut note = Note::read(row.note.as_deref());
            if row.begun {
                note = note.lost_once_more();
            }
            if note.failure().is_none() {
                let failure = Failure::new(Code::WorkersLost, "the worker was lost");
                note = note.failed(Some(&failure));
            }
            row.note = note.write();
        }
        self.retry(row, now, now)
    }
}
