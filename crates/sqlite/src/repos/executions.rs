//! `Executions`, `BusinessLog` and `FlowState`.

use super::{Seen, covers, cursor, from_json, from_word, json, one_more, owner, paged, word};
use crate::{
    Sqlite,
    fail::{damaged, store_error},
    ledger::RawFinish,
    sql,
};
use async_trait::async_trait;
use bytes::Bytes;
use crosspoint_core::{
    Audience, Begun, BusinessLog, Cancel, Checkpointed, CustomerId, Envelope, Execution, ExecutionFilter, Executions,
    Finish, Finished, FleetScope, FlowState, InstallationId, InvocationId, LeaseRef, LogEntry, Page, Paged, Progress,
    Result, Scope, StateSnapshot, Timestamp, wire,
};
use rusqlite::{Connection, OptionalExtension};

#[async_trait]
impl Executions for Sqlite {
    async fn begin(&self, _: &FleetScope, lease: LeaseRef) -> Result<Begun> {
        self.write(move |ledger| ledger.begin_call(lease)).await
    }

    async fn finish(&self, _: &FleetScope, finish: Finish) -> Result<Finished> {
        let finish = RawFinish::new(finish);
        self.write(move |ledger| ledger.finish(finish)).await
    }

    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel> {
        let owner = owner(scope);
        self.write(move |ledger| ledger.cancel(owner.as_ref(), id, true)).await
    }

    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<Execution>> {
        let owner = owner(scope);
        self.read(move |db| match Seen::find(db, sql::SEEN_BY_ID, id.as_bytes())? {
            Some(seen) => seen.execution(owner.as_ref()),
            None => Ok(None),
        })
        .await
    }

    async fn envelope(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<Envelope>> {
        let owner = owner(scope);
        self.read(move |db| {
            let mut statement = db.prepare_cached(sql::CALL_WHOLE).map_err(store_error)?;
            let found: Option<(Vec<u8>, Vec<u8>, Option<i64>)> = statement
                .query_row([id.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
                .map_err(store_error)?;
            let Some((head, request, Some(_))) = found else {
                return Ok(None);
            };
            let request = wire::decode_request(Bytes::from(request))?;
            let envelope = wire::decode_envelope(Bytes::from(head), request)?;
            Ok(Some(envelope).filter(|envelope| covers(owner.as_ref(), envelope.customer().as_str())))
        })
        .await
    }

    async fn list(&self, scope: Scope<'_>, filter: &ExecutionFilter, page: Page) -> Result<Paged<Execution>> {
        let (owner, filter) = (owner(scope), filter.clone());
        self.read(move |db| list(db, owner.as_ref(), &filter, &page)).await
    }

    async fn active(&self, _: &FleetScope, installation: InstallationId, flow: &str) -> Result<u64> {
        let flow = flow.to_owned();
        self.read(move |db| {
            let mut statement = db.prepare_cached(sql::FLOW_BY_NAME).map_err(store_error)?;
            let id: Option<i64> = statement
                .query_row((installation.as_bytes(), &flow), |row| row.get(0))
                .optional()
                .map_err(store_error)?;
            let Some(id) = id else {
                return Ok(0);
            };
            let mut statement = db.prepare_cached(sql::FLOW_ACTIVE_COUNT).map_err(store_error)?;
            let count: i64 = statement.query_row([id], |row| row.get(0)).map_err(store_error)?;
            Ok(count.cast_unsigned())
        })
        .await
    }
}

fn list(
    db: &Connection,
    owner: Option<&CustomerId>,
    filter: &ExecutionFilter,
    page: &Page,
) -> Result<Paged<Execution>> {
    let behind = cursor(page, i64::MAX)?;
    let seqs = match flows(db, owner, filter)? {
        Some(flows) => newest_of(db, &flows, filter.active, behind, one_more(page))?,
        None => newest(db, filter.active, behind, page)?,
    };
    let mut found = Vec::with_capacity(seqs.len());
    for seq in seqs {
        let seen = Seen::find(db, sql::SEEN_BY_SEQ, &seq)?.ok_or_else(|| damaged("execution"))?;
        found.extend(seen.execution(owner)?.map(|execution| (seq, execution)));
    }
    Ok(paged(found, page, |(seq, _)| seq.to_string()).map(|(_, execution)| execution))
}

/// The flows that a list is about; `None` if it is about all there are.
fn flows(db: &Connection, owner: Option<&CustomerId>, filter: &ExecutionFilter) -> Result<Option<Vec<i64>>> {
    let wanted = |name: &str| filter.flow.as_deref().is_none_or(|flow| flow == name);
    let rows: Vec<(i64, bool, String)> = match (filter.installation, owner) {
        (Some(installation), _) => {
            let mut statement = db.prepare_cached(sql::FLOWS_OF_INSTALLATION).map_err(store_error)?;
            let rows = statement.query_map([installation.as_bytes()], |row| {
                Ok((row.get(0)?, covers(owner, &row.get::<_, String>(1)?), row.get(2)?))
            });
            rows.and_then(Iterator::collect).map_err(store_error)?
        }
        (None, Some(owner)) => {
            let mut statement = db.prepare_cached(sql::FLOWS_OF_CUSTOMER).map_err(store_error)?;
            let rows = statement.query_map([owner.as_str()], |row| Ok((row.get(0)?, true, row.get(2)?)));
            rows.and_then(Iterator::collect).map_err(store_error)?
        }
        (None, None) if filter.flow.is_none() => return Ok(None),
        (None, None) => {
            let mut statement = db.prepare_cached(sql::FLOWS_BY_NAME).map_err(store_error)?;
            let rows = statement.query_map([&filter.flow], |row| Ok((row.get(0)?, true, row.get(1)?)));
            rows.and_then(Iterator::collect).map_err(store_error)?
        }
    };
    let visible = rows.into_iter().filter(|(_, visible, name)| *visible && wanted(name));
    Ok(Some(visible.map(|(id, ..)| id).collect()))
}

/// The newest runs of some flows: each flow's newest from its part of the index, merged.
fn newest_of(db: &Connection, flows: &[i64], active: bool, behind: i64, limit: i64) -> Result<Vec<i64>> {
    let text = if active { sql::FLOW_ACTIVE } else { sql::FLOW_CALLS };
    let mut statement = db.prepare_cached(text).map_err(store_error)?;
    let mut seqs: Vec<i64> = Vec::new();
    for flow in flows {
        let rows = statement.query_map((flow, behind, limit), |row| row.get(0));
        let mut of_flow: Vec<i64> = rows.and_then(Iterator::collect).map_err(store_error)?;
        seqs.append(&mut of_flow);
    }
    seqs.sort_unstable_by(|a, b| b.cmp(a));
    seqs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(seqs)
}

/// The newest runs of all, for operators: walks back over the calls, of which some are services'.
fn newest(db: &Connection, active: bool, mut behind: i64, page: &Page) -> Result<Vec<i64>> {
    let text = if active { sql::ALL_ACTIVE } else { sql::ALL_CALLS };
    let mut statement = db.prepare_cached(text).map_err(store_error)?;
    let mut seqs = Vec::new();
    while seqs.len() <= page.limit {
        let rows = statement.query_map((behind, one_more(page)), |row| Ok((row.get(0)?, row.get(1)?)));
        let some: Vec<(i64, Option<i64>)> = rows.and_then(Iterator::collect).map_err(store_error)?;
        let Some((last, _)) = some.last() else {
            break;
        };
        behind = *last;
        seqs.extend(some.iter().filter(|(_, flow)| flow.is_some()).map(|(seq, _)| *seq));
    }
    Ok(seqs)
}

#[async_trait]
impl BusinessLog for Sqlite {
    async fn report(&self, _: &FleetScope, lease: LeaseRef, progress: Progress) -> Result<bool> {
        let text = json(&progress)?;
        self.write(move |ledger| ledger.report(lease, &text)).await
    }

    async fn lines(
        &self,
        scope: Scope<'_>,
        execution: InvocationId,
        audience: Audience,
        page: Page,
    ) -> Result<Paged<LogEntry>> {
        let owner = owner(scope);
        let behind = cursor(&page, 0)?;
        self.read(move |db| {
            let mut statement = db.prepare_cached(sql::CALL_OWNER).map_err(store_error)?;
            let call: Option<(i64, String)> = statement
                .query_row([execution.as_bytes()], |row| Ok((row.get(0)?, row.get(2)?)))
                .optional()
                .map_err(store_error)?;
            match call {
                Some((seq, customer)) if covers(owner.as_ref(), &customer) => lines(db, seq, audience, behind, &page),
                _ => Ok(Paged::new(Vec::new(), None)),
            }
        })
        .await
    }
}

fn lines(db: &Connection, seq: i64, audience: Audience, behind: i64, page: &Page) -> Result<Paged<LogEntry>> {
    type Line = (i64, i64, String, String, String);
    let limit = one_more(page);
    let line = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Line> {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
    };
    let all = audience == Audience::Developer;
    let text = if all { sql::LOG_LINES } else { sql::LOG_LINES_FOR };
    let mut statement = db.prepare_cached(text).map_err(store_error)?;
    let rows = if all {
        statement.query_map((seq, behind, limit), line)
    } else {
        statement.query_map((seq, behind, word(&audience), limit), line)
    };
    let rows: Vec<Line> = rows.and_then(Iterator::collect).map_err(store_error)?;
    let mut found = Vec::with_capacity(rows.len());
    for (n, at, level, audience, message) in rows {
        let at = Timestamp::from_millis(at);
        found.push((n, LogEntry::new(at, from_word(level)?, from_word(audience)?, message)));
    }
    Ok(paged(found, page, |(n, _)| n.to_string()).map(|(_, line)| line))
}

#[async_trait]
impl FlowState for Sqlite {
    async fn state(&self, scope: Scope<'_>, installation: InstallationId, flow: &str) -> Result<StateSnapshot> {
        let name = flow.to_owned();
        let one = move |db: &Connection| {
            let mut statement = db.prepare_cached(sql::STATE_GET).map_err(store_error)?;
            let found: Option<(String, i64, String)> = statement
                .query_row((installation.as_bytes(), &name), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })
                .optional()
                .map_err(store_error)?;
            let Some((customer, version, value)) = found else {
                return Ok(None);
            };
            let state = StateSnapshot::new(version.cast_unsigned(), from_json(&value)?);
            Ok(Some((customer, state)))
        };
        let found = self.read_one((installation, flow), one).await?;
        let visible = found.filter(|(customer, _)| covers(owner(scope).as_ref(), customer));
        Ok(visible.map(|(_, state)| state).unwrap_or_default())
    }

    async fn checkpoint(&self, _: &FleetScope, lease: LeaseRef, state: StateSnapshot) -> Result<Checkpointed> {
        let value = state.value.to_string();
        self.write(move |ledger| ledger.checkpoint(lease, state.version, &value))
            .await
    }
}
