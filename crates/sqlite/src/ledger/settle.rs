//! Under a lease: heartbeats, ends, and everything that an attempt of a flow leaves behind.

use super::{DoneState, Ledger, Note, Parcel, Row, lease::is_leased};
use crate::{fail::Fail, repos::word, sql};
use bytes::Bytes;
use crosspoint_core::{
    Begun, Cancel, Checkpointed, CloseReason, Code, CustomerId, Extended, Failure, Finish, Finished, InvocationId,
    LeaseRef, LogEntry, Outcome, Settle, Settled, Timestamp, wire,
};
use rusqlite::OptionalExtension;
use std::time::Duration;

/// How a lease ends; replies are encoded outside the writer's thread.
#[derive(Debug)]
pub(crate) enum End {
    Complete(Vec<u8>),
    Retry(Timestamp, Failure),
    Release,
    Dead(Failure),
    Unknown,
}

/// A settle for the writer.
#[derive(Debug)]
pub(crate) struct RawSettle {
    lease: LeaseRef,
    end: End,
}

impl RawSettle {
    pub(crate) fn new(settle: Settle) -> Self {
        let lease = settle.lease();
        let end = match settle {
            Settle::Complete { reply, .. } => End::Complete(wire::encode_reply(&reply)),
            Settle::Retry { at, failure, .. } => End::Retry(at, failure),
            Settle::Release { .. } => End::Release,
            Settle::Dead { failure, .. } => End::Dead(failure),
            // `Settle` may grow; what a later core means is not guessed at here.
            _ => End::Unknown,
        };
        Self { lease, end }
    }

    const fn completes(&self) -> bool {
        matches!(self.end, End::Complete(_))
    }
}

/// What a flow's attempt writes, for the writer.
#[derive(Debug)]
pub(crate) struct RawFinish {
    finish: Finish,
    reply: Vec<u8>,
    state: Option<(u64, String)>,
    starts: Vec<Parcel>,
}

impl RawFinish {
    pub(crate) fn new(mut finish: Finish) -> Self {
        let reply = match &finish.outcome {
            Outcome::Ended { reply, .. } => wire::encode_reply(reply),
            _ => Vec::new(),
        };
        let state = finish
            .state
            .take()
            .map(|state| (state.version, state.value.to_string()));
        let starts = Parcel::all_queued(std::mem::take(&mut finish.starts));
        Self {
            finish,
            reply,
            state,
            starts,
        }
    }
}

/// Fence and reply of a flow that has ended.
type FinishedFlow = (i64, Option<Vec<u8>>);

/// The row and the fence that a lease names.
const fn names(lease: LeaseRef) -> (i64, i64) {
    (lease.token.cast_signed(), lease.fence.get().cast_signed())
}

impl Ledger {
    /// Heartbeats.
    pub(crate) fn extend(&mut self, leases: &[LeaseRef], length: Duration) -> Result<Vec<Extended>, Fail> {
        let now = self.now();
        let until = self.until(now, length);
        let mut answers = Vec::with_capacity(leases.len());
        for lease in leases {
            let (seq, fence) = names(*lease);
            let mut statement = self.db.prepare_cached(sql::EXTEND)?;
            let row: Option<(bool, i64)> = statement
                .query_row((seq, fence, until), |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            answers.push(match row {
                None => Extended::Stale,
                Some((true, 0)) => Extended::CancelRequested,
                Some(_) => Extended::Extended,
            });
        }
        self.timer(until);
        Ok(answers)
    }

    /// Ends leases.
    pub(crate) fn settle_all(&mut self, settles: &[RawSettle]) -> Result<Vec<Settled>, Fail> {
        let mut answers = Vec::with_capacity(settles.len());
        for alike in settles.chunk_by(|one, next| one.completes() && next.completes()) {
            for (settle, done) in alike.iter().zip(self.complete_all(alike)?) {
                answers.push(if done { Settled::Applied } else { self.settle(settle)? });
            }
        }
        Ok(answers)
    }

    /// Completes those that nothing waits behind, which are most. Answers for each whether it has.
    fn complete_all(&self, settles: &[RawSettle]) -> Result<Vec<bool>, Fail> {
        let now = self.now();
        let mut add = self.db.prepare_cached(sql::COMPLETE)?;
        let mut delete = self.db.prepare_cached(sql::QUEUE_DELETE)?;
        let complete = |settle: &RawSettle| {
            let End::Complete(reply) = &settle.end else {
                return Ok(false);
            };
            let (seq, fence) = names(settle.lease);
            let done = add.execute((seq, fence, now, reply))? > 0;
            if done {
                delete.execute([seq])?;
            }
            Ok(done)
        };
        settles.iter().map(complete).collect()
    }

    fn settle(&mut self, settle: &RawSettle) -> Result<Settled, Fail> {
        let now = self.now();
        let (seq, fence) = names(settle.lease);
        let Some(mut row) = self.leased(seq, fence)? else {
            return self.settled(settle);
        };
        match &settle.end {
            // A flow's end is written by `finish`.
            End::Complete(_) if row.flow.is_some() => return Ok(Settled::Stale),
            End::Complete(reply) => self.end(&row, DoneState::Completed, Some(reply), now)?,
            End::Retry(at, failure) => {
                row.note = note_failure(&row, failure);
                self.retry(row, at.as_millis(), now)?;
            }
            End::Release => self.release(row, None, now)?,
            End::Dead(failure) => {
                row.note = note_failure(&row, failure);
                self.give_up(row, DoneState::Dead, now)?;
            }
            End::Unknown => self.give_up(row, DoneState::Unknown, now)?,
        }
        Ok(Settled::Applied)
    }

    /// What becomes of a settle whose lease is not there. A flow's reply was written by `finish` under the same fence: the
    /// envelope went with it.
    fn settled(&self, settle: &RawSettle) -> Result<Settled, Fail> {
        let fence = names(settle.lease).1;
        Ok(match self.finished_flow(settle.lease)? {
            Some((finished, _)) if finished == fence && settle.completes() => Settled::Applied,
            _ => Settled::Stale,
        })
    }

    fn give_up(&mut self, row: Row, how: DoneState, now: i64) -> Result<(), Fail> {
        if row.flow.is_none() {
            return self.end(&row, how, None, now);
        }
        let why = if row.stop {
            CloseReason::Cancelled
        } else {
            CloseReason::Exhausted
        };
        self.close(row, why, now)
    }

    /// The fence under which a flow ended, and its reply.
    fn finished_flow(&self, lease: LeaseRef) -> Result<Option<FinishedFlow>, Fail> {
        let mut statement = self.db.prepare_cached(sql::DONE_OF_FLOW)?;
        let key = (names(lease).0, lease.id.as_bytes());
        Ok(statement
            .query_row(key, |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?)
    }

    /// Claims a call for its lease.
    pub(crate) fn begin_call(&mut self, lease: LeaseRef) -> Result<Begun, Fail> {
        if self.db.prepare_cached(sql::BEGIN)?.execute(names(lease))? > 0 {
            return Ok(Begun::Run);
        }
        match self.finished_flow(lease)? {
            Some((_, Some(reply))) => Ok(Begun::Finished(wire::decode_reply(Bytes::from(reply))?)),
            _ => Ok(Begun::Stale),
        }
    }

    /// Writes everything that an attempt leaves behind, or nothing.
    pub(crate) fn finish(&mut self, raw: RawFinish) -> Result<Finished, Fail> {
        let now = self.now();
        let (seq, fence) = names(raw.finish.lease);
        let Some(mut row) = self.leased(seq, fence)? else {
            return Ok(Finished::Stale);
        };
        let Some(flow) = row.flow else {
            return Ok(Finished::Stale);
        };
        if let Some((read_at, value)) = &raw.state
            && self.replace_state(flow, *read_at, value)?.is_none()
        {
            return Ok(Finished::StateConflict);
        }
        self.log(seq, &raw.finish.log)?;
        let note = Note::read(row.note.as_deref()).took(&raw.finish.timings, raw.finish.isolation);
        let note = note.used(&raw.finish.usage).ran(raw.finish.revision);
        match raw.finish.outcome {
            Outcome::Ended { status, failure, .. } => {
                row.note = note.failed(failure.as_ref()).write();
                self.end(&row, DoneState::of(status), Some(&raw.reply), now)?;
            }
            Outcome::Retry { at, failure } => {
                row.note = note.failed(Some(&failure)).write();
                self.retry(row, at.as_millis(), now)?;
            }
            Outcome::Postponed { at } => {
                row.note = note.write();
                self.release(row, Some(at.as_millis()), now)?;
            }
            // `Released`, and whatever a later core adds: the attempt comes again.
            _ => {
                row.note = note.write();
                self.release(row, None, now)?;
            }
        }
        self.enqueue_all(raw.starts)?;
        Ok(Finished::Applied { settled: true })
    }

    /// Writes a flow's state if it replaces the version that it was made from. The new version.
    fn replace_state(&self, flow: i64, read_at: u64, value: &str) -> Result<Option<u64>, Fail> {
        let mut statement = self.db.prepare_cached(sql::STATE_VERSION)?;
        let version: i64 = statement.query_row([flow], |row| row.get(0)).optional()?.unwrap_or(0);
        if version.cast_unsigned() != read_at {
            return Ok(None);
        }
        let next = version.saturating_add(1);
        self.db.prepare_cached(sql::STATE_PUT)?.execute((flow, next, value))?;
        Ok(Some(next.cast_unsigned()))
    }

    /// Keeps the state of a leased flow before it ends.
    pub(crate) fn checkpoint(&mut self, lease: LeaseRef, read_at: u64, value: &str) -> Result<Checkpointed, Fail> {
        let (seq, fence) = names(lease);
        let Some(flow) = self.leased(seq, fence)?.and_then(|row| row.flow) else {
            return Ok(Checkpointed::Stale);
        };
        Ok(match self.replace_state(flow, read_at, value)? {
            Some(version) => Checkpointed::Applied { version },
            None => Checkpointed::StateConflict,
        })
    }

    /// Keeps how far a leased flow is.
    pub(crate) fn report(&self, lease: LeaseRef, progress: &str) -> Result<bool, Fail> {
        let (seq, fence) = names(lease);
        Ok(self
            .db
            .prepare_cached(sql::PROGRESS_SET)?
            .execute((seq, fence, progress))?
            > 0)
    }

    fn log(&self, seq: i64, lines: &[LogEntry]) -> Result<(), Fail> {
        if lines.is_empty() {
            return Ok(());
        }
        let last: Option<i64> = self
            .db
            .prepare_cached(sql::LOG_LAST)?
            .query_row([seq], |row| row.get(0))?;
        let mut add = self.db.prepare_cached(sql::LOG_ADD)?;
        for (n, line) in (last.unwrap_or(0).saturating_add(1)..).zip(lines) {
            let (level, audience) = (word(&line.level), word(&line.audience));
            add.execute((seq, n, line.at.as_millis(), level, audience, &line.message))?;
        }
        Ok(())
    }

    /// Asks for a call to stop; `owner` is the only customer who may, `flows` leaves services alone.
    pub(crate) fn cancel(&mut self, owner: Option<&CustomerId>, id: InvocationId, flows: bool) -> Result<Cancel, Fail> {
        let now = self.now();
        let mut statement = self.db.prepare_cached(sql::CALL_OWNER)?;
        let found: Option<(i64, Option<i64>, String)> = statement
            .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        drop(statement);
        let Some((seq, flow, customer)) = found else {
            return Ok(Cancel::NotFound);
        };
        if owner.is_some_and(|owner| owner.as_str() != customer) || (flows && flow.is_none()) {
            return Ok(Cancel::NotFound);
        }
        let Some(mut row) = self.row(seq)? else {
            return Ok(Cancel::Finished);
        };
        if flow.is_none() && !is_leased(&row) {
            let failure = Failure::new(Code::Cancelled, "it was cancelled");
            row.note = note_failure(&row, &failure);
            self.end(&row, DoneState::Cancelled, None, now)?;
            return Ok(Cancel::Cancelled);
        }
        self.db.prepare_cached(sql::QUEUE_STOP)?.execute([seq])?;
        if !is_leased(&row) && !row.closing() {
            self.close(row, CloseReason::Cancelled, now)?;
        }
        Ok(Cancel::Requested)
    }
}

fn note_failure(row: &Row, failure: &Failure) -> Option<String> {
    Note::read(row.note.as_deref()).failed(Some(failure)).write()
}
