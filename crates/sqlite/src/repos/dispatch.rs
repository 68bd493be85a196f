//! `DispatchStore` and `DispatchAdmin`.

use super::{Seen, cursor, one_more, owner, paged};
use crate::{
    Sqlite,
    fail::{damaged, store_error},
    ledger::{Parcel, RawLease, RawSettle},
    sql,
    writer::Inbox,
};
use async_trait::async_trait;
use crosspoint_core::{
    CallStatus, Cancel, Capabilities, CustomerId, DispatchAdmin, DispatchStore, Durability, Enqueue, Enqueued,
    Extended, InvocationId, LaneStats, Lease, LeaseRef, LeaseRequest, Page, Paged, Result, Scope, Settle, Settled,
    Start, TargetId, TargetStats, Timestamp,
};
use rusqlite::{Connection, OptionalExtension};
use std::time::Duration;

/// How many rows retention deletes in one group: everybody else waits for them.
const PURGED_AT_ONCE: usize = 100;

#[async_trait]
impl DispatchStore for Sqlite {
    fn capabilities(&self) -> Capabilities {
        Capabilities::complete(Durability::PowerLoss)
    }

    async fn enqueue(&self, items: Vec<Enqueue>) -> Result<Vec<Enqueued>> {
        let adopted: Vec<bool> = items.iter().map(|item| matches!(item.start, Start::Adopt(_))).collect();
        let parcels = items.into_iter().map(Parcel::new).collect();
        let left = move |answers: Vec<Enqueued>| {
            // What was adopted runs, whoever hears of it; the rest was started by nobody.
            let unheard = answers.into_iter().zip(adopted).filter(|(_, adopted)| !adopted);
            let leases = unheard.filter_map(|(answer, _)| match answer {
                Enqueued::New(Some(lease)) => Some(lease.reference),
                _ => None,
            });
            leases
                .map(|lease| (lease.token.cast_signed(), lease.fence.get().cast_signed()))
                .collect()
        };
        let stored = self
            .writer()
            .write_or(Inbox::Calls, move |ledger| ledger.enqueue_all(parcels), left);
        stored.await
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>> {
        loop {
            let raw = self.writer().lease(request.clone()).await?;
            let dry = raw.is_empty();
            let mut leases = Vec::with_capacity(raw.len());
            for lease in raw {
                let (seq, fence) = (lease.seq, lease.fence);
                match RawLease::decode(lease) {
                    Ok(lease) => leases.push(lease),
                    Err(error) => {
                        // One damaged call must not keep its whole lane from being served.
                        tracing::error!(%error, seq, "a stored call cannot be read and is set aside");
                        if let Err(error) = self.write(move |ledger| ledger.set_aside(seq, fence)).await {
                            // The others of the batch are leased to the caller already. This one is lost with its lease.
                            tracing::warn!(%error, seq, "a call that cannot be read could not be set aside");
                        }
                    }
                }
            }
            // If none of it could be read, what stands behind it is ready all the same.
            if dry || !leases.is_empty() {
                return Ok(leases);
            }
        }
    }

    async fn extend(&self, leases: &[LeaseRef], length: Duration) -> Result<Vec<Extended>> {
        let leases = leases.to_vec();
        let beat = self
            .writer()
            .write(Inbox::Heartbeats, move |ledger| ledger.extend(&leases, length));
        beat.await
    }

    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<Settled>> {
        let settles: Vec<_> = settles.into_iter().map(RawSettle::new).collect();
        let settled = self
            .writer()
            .write(Inbox::Calls, move |ledger| ledger.settle_all(&settles));
        settled.await
    }

    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<CallStatus>> {
        let owner = owner(scope);
        self.read(move |db| match Seen::find(db, sql::SEEN_BY_ID, id.as_bytes())? {
            Some(seen) => seen.status(owner.as_ref()),
            None => Ok(None),
        })
        .await
    }

    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel> {
        let owner = owner(scope);
        self.write(move |ledger| ledger.cancel(owner.as_ref(), id, false)).await
    }

    async fn ended(&self, ids: &[InvocationId]) -> Result<Vec<CallStatus>> {
        let ids = ids.to_vec();
        self.read(move |db| {
            let mut all = Vec::new();
            for id in ids {
                // Most have not ended: their rows are not read.
                let mut statement = db.prepare_cached(sql::ENDED).map_err(store_error)?;
                let found = statement.query_row([id.as_bytes()], |row| row.get::<_, i64>(0));
                if let Some(seq) = found.optional().map_err(store_error)? {
                    let seen = Seen::find(db, sql::SEEN_BY_SEQ, &seq)?.ok_or_else(|| damaged("call"))?;
                    all.extend(seen.status(None)?);
                }
            }
            Ok(all)
        })
        .await
    }

    fn admin(&self) -> Option<&dyn DispatchAdmin> {
        Some(self)
    }
}

#[async_trait]
impl DispatchAdmin for Sqlite {
    async fn stats(&self) -> Result<Vec<TargetStats>> {
        self.read(stats).await
    }

    async fn lane(&self, target: &TargetId, customer: &CustomerId) -> Result<LaneStats> {
        let (target, customer) = (target.clone(), customer.clone());
        self.read(move |db| {
            let mut waiting = LaneStats::default();
            for text in [sql::LANE_STATS, sql::LANE_PARKED] {
                let mut statement = db.prepare_cached(text).map_err(store_error)?;
                let counts = statement.query_row((target.as_str(), customer.as_str()), |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                });
                let (calls, bytes) = counts.map_err(store_error)?;
                let (calls, bytes) = (calls.unsigned_abs(), bytes.unsigned_abs());
                waiting = LaneStats::new(waiting.ready.saturating_add(calls), waiting.bytes.saturating_add(bytes));
            }
            Ok(waiting)
        })
        .await
    }

    async fn dead(&self, scope: Scope<'_>, page: Page) -> Result<Paged<CallStatus>> {
        let owner = owner(scope);
        self.read(move |db| {
            let mut found: Vec<(i64, CallStatus)> = Vec::new();
            let mut behind = cursor(&page, i64::MAX)?;
            // Others' dead letters are passed over, so one look may not fill the page.
            while found.len() <= page.limit {
                let seqs: Vec<i64> = {
                    let mut statement = db.prepare_cached(sql::DEAD).map_err(store_error)?;
                    let rows = statement.query_map((behind, one_more(&page)), |row| row.get(0));
                    rows.and_then(Iterator::collect).map_err(store_error)?
                };
                let Some(last) = seqs.last().copied() else {
                    break;
                };
                behind = last;
                for seq in seqs {
                    let seen = Seen::find(db, sql::SEEN_BY_SEQ, &seq)?.ok_or_else(|| damaged("call"))?;
                    found.extend(seen.status(owner.as_ref())?.map(|status| (seq, status)));
                }
            }
            Ok(paged(found, &page, |(seq, _)| seq.to_string()).map(|(_, status)| status))
        })
        .await
    }

    async fn redrive(&self, scope: Scope<'_>, ids: &[InvocationId]) -> Result<Vec<Option<InvocationId>>> {
        let mut new = Vec::with_capacity(ids.len());
        for id in ids.iter().copied() {
            let owner = owner(scope);
            new.push(self.write(move |ledger| ledger.redrive(owner.as_ref(), id)).await?);
        }
        Ok(new)
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize> {
        let mut gone = 0;
        while gone < limit {
            let share = PURGED_AT_ONCE.min(limit - gone);
            let deleted = self.write(move |ledger| ledger.purge_calls(before, share)).await?;
            gone += deleted;
            if deleted < share {
                break;
            }
        }
        while self.write(|ledger| ledger.purge_keys(PURGED_AT_ONCE)).await? == PURGED_AT_ONCE {}
        Ok(gone)
    }

    async fn recall(&self, target: &TargetId) -> Result<Option<String>> {
        let target = target.clone();
        self.read(move |db| {
            let mut statement = db.prepare_cached(sql::NOTE).map_err(store_error)?;
            let found = statement.query_row([target.as_str()], |row| row.get(0));
            found.optional().map_err(store_error)
        })
        .await
    }

    async fn remember(&self, target: &TargetId, note: &str) -> Result<()> {
        let (target, note) = (target.clone(), note.to_owned());
        self.write(move |ledger| {
            let mut statement = ledger.db.prepare_cached(sql::NOTE_PUT)?;
            statement.execute((target.as_str(), &note))?;
            Ok(())
        })
        .await
    }
}

fn stats(db: &Connection) -> Result<Vec<TargetStats>> {
    let mut statement = db.prepare_cached(sql::STATS).map_err(store_error)?;
    let mut rows = statement.query([]).map_err(store_error)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(store_error)? {
        let count = |at: usize| -> Result<u64> {
            let count: Option<i64> = row.get(at).map_err(store_error)?;
            Ok(count.map_or(0, i64::cast_unsigned))
        };
        let name: String = row.get(0).map_err(store_error)?;
        let mut stats = TargetStats::new(TargetId::new(name)?);
        (stats.ready, stats.delayed, stats.leased) = (count(1)?, count(2)?, count(3)?);
        stats.oldest = row
            .get::<_, Option<i64>>(4)
            .map_err(store_error)?
            .map(Timestamp::from_millis);
        (stats.dead, stats.held, stats.bytes) = (count(5)?, count(6)?, count(7)?);
        all.push(stats);
    }
    Ok(all)
}
