//! A call as somebody sees it who asks.

use super::covers;
use crate::{
    fail::{damaged, store_error},
    ledger::{DoneState, Note, state},
};
use bytes::Bytes;
use crosspoint_core::{
    CallState, CallStatus, CustomerId, Envelope, Execution, ExecutionStatus, Result, Timestamp, wire,
};
use rusqlite::{Connection, OptionalExtension, ToSql};

/// A call with where it stands: a row of the queue, or one of those that have ended.
#[derive(Debug)]
pub(crate) struct Seen {
    head: Vec<u8>,
    queued: Option<Queued>,
    done: Option<Done>,
}

#[derive(Debug)]
struct Queued {
    state: i64,
    due: Option<i64>,
    attempt: i64,
    stop: bool,
    started: Option<i64>,
    note: Note,
    progress: Option<String>,
}

#[derive(Debug)]
struct Done {
    state: DoneState,
    attempt: i64,
    started: Option<i64>,
    finished: i64,
    note: Note,
    reply: Option<Vec<u8>>,
}

impl Seen {
    /// Runs one of the statements made with `seen!` in [`crate::sql`].
    pub(super) fn find(db: &Connection, text: &str, key: &dyn ToSql) -> Result<Option<Self>> {
        let mut statement = db.prepare_cached(text).map_err(store_error)?;
        statement.query_row([key], Self::read).optional().map_err(store_error)
    }

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let note = |at: usize| -> rusqlite::Result<Note> {
            let text: Option<String> = row.get(at)?;
            Ok(Note::read(text.as_deref()))
        };
        let queued = match row.get(1)? {
            None => None,
            Some(state) => Some(Queued {
                state,
                due: row.get(2)?,
                attempt: row.get(3)?,
                stop: row.get(4)?,
                started: row.get(6)?,
                note: note(7)?,
                progress: row.get(14)?,
            }),
        };
        let done = match row.get::<_, Option<i64>>(8)?.and_then(DoneState::from_number) {
            None => None,
            Some(state) => Some(Done {
                state,
                attempt: row.get(9)?,
                started: row.get(10)?,
                finished: row.get(11)?,
                note: note(12)?,
                reply: row.get(13)?,
            }),
        };
        Ok(Self {
            head: row.get(0)?,
            queued,
            done,
        })
    }

    fn envelope(&self) -> Result<Envelope> {
        wire::decode_envelope(Bytes::copy_from_slice(&self.head), http::Request::new(Bytes::new()))
    }

    fn attempt(&self) -> u32 {
        let queued = self.queued.as_ref().map(|row| row.attempt);
        let attempt = queued.or_else(|| self.done.as_ref().map(|row| row.attempt));
        attempt.and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(0)
    }

    fn note(&self) -> Option<&Note> {
        let queued = self.queued.as_ref().map(|row| &row.note);
        queued.or_else(|| self.done.as_ref().map(|row| &row.note))
    }

    fn finished(&self) -> Option<Timestamp> {
        self.done.as_ref().map(|done| Timestamp::from_millis(done.finished))
    }

    fn call_state(&self) -> Result<CallState> {
        match (&self.queued, &self.done) {
            (Some(row), _) => Ok(match row.state {
                state::LEASED => CallState::Leased,
                state::DELAYED => CallState::Delayed,
                _ => CallState::Queued,
            }),
            (None, Some(done)) => Ok(done.state.call()),
            (None, None) => Err(damaged("call")),
        }
    }

    fn execution_status(&self) -> Result<ExecutionStatus> {
        match (&self.queued, &self.done) {
            (Some(row), _) => Ok(match row.state {
                _ if row.stop => ExecutionStatus::Cancelling,
                state::LEASED => ExecutionStatus::Running,
                _ if row.attempt > 0 => ExecutionStatus::Waiting,
                _ => ExecutionStatus::Queued,
            }),
            (None, Some(done)) => Ok(done.state.execution()),
            (None, None) => Err(damaged("execution")),
        }
    }

    /// As dispatch sees it; `None` for those whom it does not concern.
    pub(super) fn status(self, owner: Option<&CustomerId>) -> Result<Option<CallStatus>> {
        let envelope = self.envelope()?;
        if !covers(owner, envelope.customer().as_str()) {
            return Ok(None);
        }
        let meta = envelope.invocation.meta;
        let mut status = CallStatus::new(
            meta.id,
            meta.customer,
            meta.target,
            self.call_state()?,
            envelope.created,
        );
        status.principal = meta.principal;
        status.attempt = self.attempt();
        status.finished = self.finished();
        status.failure = self.note().and_then(Note::failure);
        status.origin = envelope.origin;
        if let Some(reply) = self.done.and_then(|done| done.reply) {
            status.reply = Some(wire::decode_reply(Bytes::from(reply))?);
        }
        Ok(Some(status))
    }

    /// As a run of a flow; `None` for services and for those whom it does not concern.
    pub(super) fn execution(&self, owner: Option<&CustomerId>) -> Result<Option<Execution>> {
        let envelope = self.envelope()?;
        let Some(flow) = envelope
            .flow
            .as_ref()
            .filter(|_| covers(owner, envelope.customer().as_str()))
        else {
            return Ok(None);
        };
        let started = self
            .queued
            .as_ref()
            .map_or_else(|| self.done.as_ref()?.started, |row| row.started);
        let waits = self.queued.as_ref().filter(|row| row.state == state::DELAYED);
        let mut execution = Execution::new(envelope.id(), envelope.customer().clone(), flow, envelope.created);
        execution.status = self.execution_status()?;
        execution.attempt = self.attempt();
        execution.max_attempts = envelope.max_attempts;
        execution.started = started.map(Timestamp::from_millis);
        execution.finished = self.finished();
        execution.next_attempt = waits.and_then(|row| row.due).map(Timestamp::from_millis);
        execution.timings = self.note().map(Note::timings).unwrap_or_default();
        execution.isolation = self.note().and_then(Note::isolation);
        execution.usage = self.note().map(Note::usage).unwrap_or_default();
        execution.failure = self.note().and_then(Note::failure);
        execution.origin = envelope.origin;
        execution.revision = self.note().and_then(Note::revision).or(flow.revision);
        let runs = self.queued.as_ref().filter(|row| row.state == state::LEASED);
        // What a newer release says of it may not be readable here; it is worth no error.
        execution.progress = runs
            .and_then(|row| row.progress.as_deref())
            .and_then(|text| serde_json::from_str(text).ok());
        Ok(Some(execution))
    }
}
