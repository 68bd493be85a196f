//! `DispatchStore` and `DispatchAdmin`.

use super::{
    Data, Memory,
    lanes::Side,
    page_of,
    queue::{Granted, Order},
    row::{Done, Key, Place, Row},
};
use crate::{
    CallState, CallStatus, Cancel, Capabilities, CloseReason, CustomerId, DispatchAdmin, DispatchStore, Durability,
    Enqueue, Enqueued, Envelope, ExecutionStatus, Extended, InvocationId, LaneStats, Lease, LeaseRef, LeaseRequest,
    Origin, Page, Paged, Result, Scope, Settle, Settled, Start, TargetId, TargetStats, Timestamp,
};
use async_trait::async_trait;
use std::{sync::Arc, time::Duration};

impl Data {
    pub(super) fn enqueue(&mut self, item: Enqueue, now: Timestamp) -> Enqueued {
        let Enqueue { envelope, start } = item;
        if self.queue.row(envelope.id()).is_some() {
            return Enqueued::Duplicate;
        }
        let key = envelope.invocation.meta.idempotency_key;
        if let Some(key) = key
            && let Some(known) = self.queue.keys.get(&key.scope).filter(|known| known.expires > now)
        {
            return if known.fingerprint == key.fingerprint {
                Enqueued::Attached(known.id)
            } else {
                Enqueued::KeyReused(known.id)
            };
        }
        let id = envelope.id();
        let not_before = self.queue.admit(&envelope, now).or(envelope.not_before);
        let Some(seq) = self.queue.insert(envelope, now) else {
            return Enqueued::Duplicate;
        };
        if let Some(key) = key {
            self.queue.add_key(
                key.scope,
                Key {
                    fingerprint: key.fingerprint,
                    id,
                    expires: key.expires,
                },
            );
        }
        let granted = self.queue.row(id).is_some_and(|row| match &start {
            Start::Queue => false,
            Start::Adopt(_) => true,
            Start::Lease(_) => {
                !self.queue.lane_waits(row, now)
                    && self.queue.is_head(row)
                    && self.queue.full(row).is_none()
                    && not_before.is_none_or(|at| at <= now)
                    && row.envelope.expires.is_none_or(|at| at > now)
            }
        });
        match start {
            Start::Lease(terms) | Start::Adopt(terms) if granted => {
                let granted = Granted {
                    length: terms.length,
                    begin: true,
                    charge: 1,
                };
                Enqueued::New(self.queue.lease(seq, now, granted).map(Box::new))
            }
            _ => {
                self.queue.place(seq, not_before, now);
                Enqueued::New(None)
            }
        }
    }

    fn lease(&mut self, request: &LeaseRequest, now: Timestamp) -> Vec<Lease> {
        let target = self.queue.target(&request.target);
        let Some(terms) = self.queue.targets.get(target).map(|t| t.terms(&request.customers)) else {
            return Vec::new();
        };
        let order = Order {
            newest_first: request.newest_first,
            hopeless: now.plus(request.hopeless),
        };
        let sides: &[Side] = match request.queue {
            crate::Queue::HeldFirst => &[Side::Held, Side::Sideline],
            crate::Queue::Held => &[Side::Held],
            crate::Queue::Sideline => &[Side::Sideline],
        };
        let mut leases = Vec::new();
        for side in sides {
            while leases.len() < request.max {
                let Some((seq, lane)) = self.queue.turn(target, *side, &terms, order) else {
                    break;
                };
                if self.queue.expire(seq, now) || self.queue.bounded(seq) {
                    continue;
                }
                let granted = Granted {
                    length: request.terms.length,
                    begin: request.begin,
                    charge: terms.charge(lane),
                };
                leases.extend(self.queue.lease(seq, now, granted));
            }
        }
        leases
    }

    fn settle(&mut self, settle: Settle, now: Timestamp) -> Settled {
        let lease = settle.lease();
        let Some(row) = self.queue.leased(lease) else {
            // A flow's reply was written by `finish` under the same fence: the envelope went with it.
            let row = self
                .queue
                .row(lease.id)
                .filter(|row| row.is_flow() && row.fence == lease.fence.get());
            let finished = row.is_some_and(|row| row.done().is_some());
            return if finished && matches!(settle, Settle::Complete { .. }) {
                Settled::Applied
            } else {
                Settled::Stale
            };
        };
        let (seq, flow, stop) = (row.seq, row.is_flow(), row.stop);
        let close = flow.then_some(if stop {
            CloseReason::Cancelled
        } else {
            CloseReason::Exhausted
        });
        match settle {
            Settle::Complete { .. } if flow => return Settled::Stale,
            Settle::Complete { reply, .. } => self.queue.end(
                seq,
                Done {
                    state: CallState::Completed,
                    status: None,
                    reply: Some(reply),
                    at: now,
                },
            ),
            Settle::Retry { at, failure, .. } => {
                self.queue.fail(seq, failure);
                self.queue.retry(seq, at, now);
            }
            Settle::Release { .. } => self.queue.release(seq, None, now),
            Settle::Dead { failure, .. } => {
                self.queue.fail(seq, failure);
                self.give_up(seq, close, CallState::Dead, now);
            }
            Settle::Unknown { .. } => self.give_up(seq, close, CallState::Unknown, now),
        }
        Settled::Applied
    }

    /// A flow is closed, for the reason given; a service has ended.
    fn give_up(&mut self, seq: u64, close: Option<CloseReason>, state: CallState, now: Timestamp) {
        if let Some(why) = close {
            self.queue.close(seq, why, now);
        } else {
            self.queue.end(
                seq,
                Done {
                    state,
                    status: None,
                    reply: None,
                    at: now,
                },
            );
        }
    }

    pub(super) fn cancel(&mut self, scope: Scope<'_>, id: InvocationId, now: Timestamp) -> Cancel {
        let Some(row) = self
            .queue
            .row_mut(id)
            .filter(|row| scope.covers(row.envelope.customer()))
        else {
            return Cancel::NotFound;
        };
        let (seq, flow) = (row.seq, row.is_flow());
        match row.place {
            Place::Done(_) => Cancel::Finished,
            Place::Leased { .. } => {
                row.stop = true;
                Cancel::Requested
            }
            _ if flow => {
                row.stop = true;
                if row.close.is_none() {
                    self.queue.close(seq, CloseReason::Cancelled, now);
                }
                Cancel::Requested
            }
            _ => {
                self.queue.cancel_service(seq, now);
                Cancel::Cancelled
            }
        }
    }

    fn extend(&mut self, lease: LeaseRef, until: Timestamp) -> Extended {
        let Some(row) = self.queue.leased(lease) else {
            return Extended::Stale;
        };
        let (seq, stop) = (row.seq, row.stop && row.close.is_none());
        self.queue.extend(seq, until);
        if stop {
            Extended::CancelRequested
        } else {
            Extended::Extended
        }
    }

    fn redrive(&mut self, scope: Scope<'_>, id: InvocationId, clock: &dyn crate::Clock) -> Option<InvocationId> {
        let row = self.queue.row(id).filter(|row| scope.covers(row.envelope.customer()))?;
        let done = row.done()?;
        let succeeded = done.status.map_or(done.state == CallState::Completed, |status| {
            status == ExecutionStatus::Succeeded
        });
        if succeeded {
            return None;
        }
        let now = clock.now();
        let again: Envelope = row.envelope.again(InvocationId::mint(clock), now, Origin::Redrive(id));
        let new = again.id();
        self.enqueue(Enqueue::queued(again), now);
        Some(new)
    }
}

#[async_trait]
impl DispatchStore for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities::complete(Durability::None)
    }

    async fn enqueue(&self, items: Vec<Enqueue>) -> Result<Vec<Enqueued>> {
        Ok(self.transact(|data, now| items.into_iter().map(|item| data.enqueue(item, now)).collect()))
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>> {
        let give_up = tokio::time::Instant::now() + request.wait;
        let target_changed = {
            let mut data = self.data();
            let target = data.queue.target(&request.target);
            data.queue
                .targets
                .get(target)
                .map(|t| Arc::clone(&t.changed))
                .unwrap_or_default()
        };
        loop {
            let changed = target_changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (leases, next_due) =
                self.transact(|data, now| (data.lease(&request, now), data.queue.next_due().map(|at| at.since(now))));
            if !leases.is_empty() || request.wait.is_zero() {
                return Ok(leases);
            }
            let wake = next_due.map(|due| tokio::time::Instant::now() + due.max(Duration::from_millis(1)));
            let until = wake.map_or(give_up, |wake| wake.min(give_up));
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until) => {
                    if tokio::time::Instant::now() >= give_up {
                        return Ok(self.transact(|data, now| data.lease(&request, now)));
                    }
                }
            }
        }
    }

    async fn extend(&self, leases: &[LeaseRef], length: Duration) -> Result<Vec<Extended>> {
        Ok(self.transact(|data, now| {
            leases
                .iter()
                .map(|lease| data.extend(*lease, now.plus(length)))
                .collect()
        }))
    }

    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<Settled>> {
        Ok(self.transact(|data, now| settles.into_iter().map(|settle| data.settle(settle, now)).collect()))
    }

    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<CallStatus>> {
        let now = self.shared.clock.now();
        let mut data = self.data();
        data.queue.run_timers(now);
        Ok(data
            .queue
            .row(id)
            .filter(|row| scope.covers(row.envelope.customer()))
            .map(Row::status))
    }

    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel> {
        Ok(self.transact(|data, now| data.cancel(scope, id, now)))
    }

    async fn ended(&self, ids: &[InvocationId]) -> Result<Vec<CallStatus>> {
        Ok(self.transact(|data, _| {
            let rows = ids.iter().filter_map(|id| data.queue.row(*id));
            rows.filter(|row| row.done().is_some()).map(Row::status).collect()
        }))
    }

    fn admin(&self) -> Option<&dyn DispatchAdmin> {
        Some(self)
    }
}

#[async_trait]
impl DispatchAdmin for Memory {
    async fn stats(&self) -> Result<Vec<TargetStats>> {
        Ok(self.transact(|data, _| {
            let targets = data.queue.targets.iter().filter(|target| target.calls > 0);
            let mut all: Vec<TargetStats> = targets
                .map(|target| {
                    let mut stats = target.stats.clone();
                    stats.oldest = target.ages.first().map(|(since, _)| *since);
                    stats
                })
                .collect();
            all.sort_by(|a, b| a.target.cmp(&b.target));
            all
        }))
    }

    async fn lane(&self, target: &TargetId, customer: &CustomerId) -> Result<LaneStats> {
        Ok(self.transact(|data, _| {
            let queue = &data.queue;
            let target = queue.targets.iter().find(|known| known.stats.target == *target);
            let waiting = target.into_iter().flat_map(|target| target.waiting_of(customer));
            let sizes = waiting.filter_map(|seq| queue.rows.get(&seq)).map(|row| row.size);
            let sizes = sizes.chain(
                target
                    .into_iter()
                    .flat_map(|t| queue.bounded_of(&t.stats.target, customer)),
            );
            sizes.fold(LaneStats::default(), |all, size| {
                LaneStats::new(all.ready + 1, all.bytes.saturating_add(size))
            })
        }))
    }

    async fn dead(&self, scope: Scope<'_>, page: Page) -> Result<Paged<CallStatus>> {
        let data = self.data();
        let dead = data.queue.rows.values().rev();
        let dead = dead.filter(|row| {
            scope.covers(row.envelope.customer()) && row.done().is_some_and(|done| done.state == CallState::Dead)
        });
        page_of(dead.map(|row| (row.seq, row.status())), &page)
    }

    async fn redrive(&self, scope: Scope<'_>, ids: &[InvocationId]) -> Result<Vec<Option<InvocationId>>> {
        Ok(self.transact(|data, _| {
            ids.iter()
                .map(|id| data.redrive(scope, *id, &*self.shared.clock))
                .collect()
        }))
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize> {
        Ok(self.transact(|data, now| {
            let ended = data.queue.ended.range(..(before, 0));
            let ended: Vec<(Timestamp, u64)> = ended.take(limit).copied().collect();
            for (_, seq) in &ended {
                if let Some(id) = data.queue.remove(*seq) {
                    data.logs.remove(&id);
                }
            }
            data.queue.expire_keys(now);
            data.forget(before);
            ended.len()
        }))
    }

    async fn recall(&self, target: &TargetId) -> Result<Option<String>> {
        Ok(self.data().notes.get(target).cloned())
    }

    async fn remember(&self, target: &TargetId, note: &str) -> Result<()> {
        self.data().notes.insert(target.clone(), note.to_owned());
        Ok(())
    }
}
