//! Redrive and retention.

use super::{DoneState, Ledger, Parcel};
use crate::{fail::Fail, sql};
use bytes::Bytes;
use crosspoint_core::{CustomerId, InvocationId, Origin, Timestamp, wire};
use rusqlite::OptionalExtension;

impl Ledger {
    /// A number that no row tells.
    pub(super) fn meta(&self, key: &str) -> Result<Option<i64>, Fail> {
        let mut statement = self.db.prepare_cached(sql::META_GET)?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }

    /// Puts an ended call that did not succeed back to work under a new id.
    pub(crate) fn redrive(
        &mut self,
        owner: Option<&CustomerId>,
        id: InvocationId,
    ) -> Result<Option<InvocationId>, Fail> {
        let mut statement = self.db.prepare_cached(sql::DONE_BY_ID)?;
        let found: Option<(i64, Vec<u8>, Vec<u8>)> = statement
            .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        drop(statement);
        let Some((ended, head, request)) = found else {
            return Ok(None);
        };
        if ended == DoneState::Completed.number() {
            return Ok(None);
        }
        let request = wire::decode_request(Bytes::from(request))?;
        let envelope = wire::decode_envelope(Bytes::from(head), request)?;
        if owner.is_some_and(|owner| owner != envelope.customer()) {
            return Ok(None);
        }
        let new = InvocationId::mint(self.clock());
        let now = Timestamp::from_millis(self.now());
        self.enqueue(Parcel::queued(envelope.again(new, now, Origin::Redrive(id))))?;
        Ok(Some(new))
    }

    /// Deletes up to `limit` calls that ended before `before`, oldest first, with their logs.
    pub(crate) fn purge_calls(&mut self, before: Timestamp, limit: usize) -> Result<usize, Fail> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.db.prepare_cached(sql::ENDED_BEFORE)?;
        let ended: Vec<i64> = statement
            .query_map((before.as_millis(), limit), |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        drop(statement);
        // As long as there are more of them, one of those may have run with it.
        if i64::try_from(ended.len()).unwrap_or(i64::MAX) < limit {
            self.purge_past(before.as_millis(), limit)?;
        }
        if ended.is_empty() {
            return Ok(0);
        }
        // The highest numbers may go with their rows; they are not used again.
        let next = self.seq()?;
        self.db.prepare_cached(sql::META_PUT)?.execute(("next_seq", next))?;
        for seq in &ended {
            self.db.prepare_cached(sql::LOG_DELETE)?.execute([seq])?;
            self.db.prepare_cached(sql::DONE_DELETE)?.execute([seq])?;
            self.db.prepare_cached(sql::CALL_DELETE)?.execute([seq])?;
        }
        Ok(ended.len())
    }

    /// Deletes up to `limit` idempotency keys that have expired.
    pub(crate) fn purge_keys(&mut self, limit: usize) -> Result<usize, Fail> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.db.prepare_cached(sql::KEYS_EXPIRED)?;
        let expired: Vec<i64> = statement
            .query_map((self.now(), limit), |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        drop(statement);
        for n in &expired {
            self.db.prepare_cached(sql::KEY_DELETE)?.execute([n])?;
        }
        Ok(expired.len())
    }
}
