//! The rows of calls, and how they move: ready, leased, delayed, behind an ordering key, done.

use crate::{
    CallState, CallStatus, CloseReason, Code, CustomerId, Envelope, ExecutionStatus, Failure, Fence, InvocationId,
    Isolation, Lease, LeaseRef, Reply, TargetId, Timestamp, Timings,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// What a customer's turn costs; all weights are equal.
const STRIDE: u64 = 1 << 20;

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) envelope: Envelope,
    pub(super) fence: u64,
    pub(super) attempt: u32,
    pub(super) place: Place,
    pub(super) begun: bool,
    pub(super) stop: bool,
    pub(super) close: Option<CloseReason>,
    /// Since when it is ready, or was before the present lease.
    pub(super) since: Timestamp,
    pub(super) started: Option<Timestamp>,
    pub(super) failure: Option<Failure>,
    pub(super) timings: Timings,
    pub(super) isolation: Option<Isolation>,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    Ready,
    Leased {
        until: Timestamp,
    },
    Delayed {
        until: Timestamp,
    },
    /// Not the head of its ordering key.
    Blocked,
    Done(Done),
}

#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) state: CallState,
    pub(super) status: Option<ExecutionStatus>,
    pub(super) reply: Option<Reply>,
    pub(super) at: Timestamp,
}

#[derive(Debug, Default, Clone, Copy)]
struct Lane {
    pass: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) fingerprint: [u8; 16],
    pub(super) id: InvocationId,
    pub(super) expires: Timestamp,
}

type ReadyRows = BTreeSet<(Reverse<i16>, u64)>;

#[derive(Default)]
pub(super) struct Queue {
    pub(super) rows: BTreeMap<u64, Row>,
    ids: HashMap<InvocationId, u64>,
    next: u64,
    ready: HashMap<TargetId, BTreeMap<CustomerId, ReadyRows>>,
    lanes: HashMap<(TargetId, CustomerId), Lane>,
    virtual_time: HashMap<TargetId, u64>,
    due: BTreeSet<(Timestamp, u64)>,
    ordered: HashMap<(TargetId, Arc<str>), BTreeSet<u64>>,
    pub(super) keys: HashMap<[u8; 16], Key>,
}

impl Row {
    pub(super) const fn target(&self) -> &TargetId {
        &self.envelope.invocation.meta.target
    }

    pub(super) const fn is_flow(&self) -> bool {
        self.envelope.flow.is_some()
    }

    pub(super) const fn done(&self) -> Option<&Done> {
        match &self.place {
            Place::Done(done) => Some(done),
            _ => None,
        }
    }

    const fn reference(&self) -> LeaseRef {
        LeaseRef::new(self.envelope.id(), Fence::new(self.fence), self.seq)
    }

    pub(super) fn lease(&self, until: Timestamp) -> Lease {
        let mut lease = Lease::new(self.envelope.clone(), self.reference(), self.attempt, self.since, until);
        lease.begun = self.begun;
        lease.close = self.close;
        lease.envelope.invocation.meta.attempt = self.attempt;
        lease
    }

    pub(super) fn status(&self) -> CallStatus {
        let meta = &self.envelope.invocation.meta;
        let state = match &self.place {
            Place::Ready | Place::Blocked => CallState::Queued,
            Place::Leased { .. } => CallState::Leased,
            Place::Delayed { .. } => CallState::Delayed,
            Place::Done(done) => done.state,
        };
        let mut status = CallStatus::new(
            meta.id,
            meta.customer.clone(),
            meta.target.clone(),
            state,
            self.envelope.created,
        );
        status.principal.clone_from(&meta.principal);
        status.attempt = self.attempt;
        status.finished = self.done().map(|done| done.at);
        status.reply = self.done().and_then(|done| done.reply.clone());
        status.failure.clone_from(&self.failure);
        status.origin = self.envelope.origin;
        status
    }
}

impl Queue {
    pub(super) fn row(&self, id: InvocationId) -> Option<&Row> {
        self.rows.get(self.ids.get(&id)?)
    }

    pub(super) fn row_mut(&mut self, id: InvocationId) -> Option<&mut Row> {
        self.rows.get_mut(self.ids.get(&id)?)
    }

    /// The row that a lease names, if the lease is the current one.
    pub(super) fn leased(&self, lease: LeaseRef) -> Option<&Row> {
        self.row(lease.id)
            .filter(|row| row.fence == lease.fence.get() && matches!(row.place, Place::Leased { .. }))
    }

    /// Adds a row without a place in the queue; `None` if the id is known.
    pub(super) fn insert(&mut self, envelope: Envelope, now: Timestamp) -> Option<u64> {
        if self.ids.contains_key(&envelope.id()) {
            return None;
        }
        self.next += 1;
        let seq = self.next;
        self.ids.insert(envelope.id(), seq);
        if let Some(key) = &envelope.invocation.meta.ordering_key {
            let target = envelope.invocation.meta.target.clone();
            self.ordered.entry((target, Arc::clone(key))).or_default().insert(seq);
        }
        let row = Row {
            seq,
            envelope,
            fence: 0,
            attempt: 0,
            place: Place::Blocked,
            begun: false,
            stop: false,
            close: None,
            since: now,
            started: None,
            failure: None,
            timings: Timings::default(),
            isolation: None,
        };
        self.rows.insert(seq, row);
        Some(seq)
    }

    /// Whether nothing with the same ordering key stands before it.
    pub(super) fn is_head(&self, row: &Row) -> bool {
        let Some(key) = &row.envelope.invocation.meta.ordering_key else {
            return true;
        };
        let queue = self.ordered.get(&(row.target().clone(), Arc::clone(key)));
        queue.and_then(|q| q.first()).is_none_or(|head| *head == row.seq)
    }

    /// Whether others of its customer wait for the target already.
    pub(super) fn lane_waits(&self, row: &Row) -> bool {
        self.ready
            .get(row.target())
            .and_then(|lanes| lanes.get(row.envelope.customer()))
            .is_some_and(|rows| !rows.is_empty())
    }

    /// Puts a row where it belongs at `now`: delayed, behind its ordering key, or ready.
    pub(super) fn place(&mut self, seq: u64, not_before: Option<Timestamp>, now: Timestamp) {
        self.unplace(seq);
        let Some(row) = self.rows.get(&seq) else { return };
        let closing = row.close.is_some();
        let place = match not_before {
            Some(until) if until > now => Place::Delayed { until },
            _ if closing || self.is_head(row) => Place::Ready,
            _ => Place::Blocked,
        };
        if matches!(place, Place::Ready) {
            self.enter_lane(seq);
        }
        if let Place::Delayed { until } = place {
            self.due.insert((until, seq));
        }
        if let Some(row) = self.rows.get_mut(&seq) {
            row.place = place;
            row.since = now;
        }
    }

    /// An idle lane re-enters at the current virtual time, so that it can save nothing up.
    fn enter_lane(&mut self, seq: u64) {
        let Some(row) = self.rows.get(&seq) else { return };
        let (target, customer) = (row.target().clone(), row.envelope.customer().clone());
        let now = self.virtual_time.get(&target).copied().unwrap_or(0);
        let rows = self
            .ready
            .entry(target.clone())
            .or_default()
            .entry(customer.clone())
            .or_default();
        if rows.is_empty() {
            let lane = self.lanes.entry((target, customer)).or_default();
            lane.pass = lane.pass.max(now);
        }
        rows.insert((Reverse(row.envelope.invocation.meta.priority), seq));
    }

    /// Takes a row out of whatever index it stands in.
    fn unplace(&mut self, seq: u64) {
        let Some(row) = self.rows.get(&seq) else { return };
        match &row.place {
            Place::Ready => {
                if let Some(lanes) = self.ready.get_mut(row.target())
                    && let Some(rows) = lanes.get_mut(row.envelope.customer())
                {
                    rows.remove(&(Reverse(row.envelope.invocation.meta.priority), seq));
                    if rows.is_empty() {
                        lanes.remove(row.envelope.customer());
                    }
                }
            }
            Place::Leased { until } | Place::Delayed { until } => {
                self.due.remove(&(*until, seq));
            }
            Place::Blocked | Place::Done(_) => {}
        }
    }

    /// Leases a row under a new fence, begun if asked for.
    pub(super) fn lease(&mut self, seq: u64, now: Timestamp, length: Duration, begin: bool) -> Option<Lease> {
        self.unplace(seq);
        self.charge(seq);
        let until = now.plus(length);
        self.due.insert((until, seq));
        let row = self.rows.get_mut(&seq)?;
        row.place = Place::Leased { until };
        row.fence += 1;
        row.started = Some(now);
        row.begun = begin;
        if row.close.is_none() {
            row.attempt += 1;
        }
        Some(row.lease(until))
    }

    fn charge(&mut self, seq: u64) {
        let Some(row) = self.rows.get(&seq) else { return };
        let target = row.target().clone();
        let lane = self
            .lanes
            .entry((target.clone(), row.envelope.customer().clone()))
            .or_default();
        let served = self.virtual_time.entry(target).or_insert(0);
        *served = (*served).max(lane.pass);
        lane.pass += STRIDE;
    }

    /// The next row of a target whose turn it is.
    pub(super) fn turn(&self, target: &TargetId) -> Option<u64> {
        let lanes = self.ready.get(target)?;
        let lane = lanes.keys().min_by_key(|customer| {
            let pass = self
                .lanes
                .get(&(target.clone(), (*customer).clone()))
                .map_or(0, |lane| lane.pass);
            (pass, *customer)
        })?;
        lanes.get(lane)?.first().map(|(_, seq)| *seq)
    }

    pub(super) fn extend(&mut self, seq: u64, until: Timestamp) {
        self.unplace(seq);
        self.due.insert((until, seq));
        if let Some(row) = self.rows.get_mut(&seq) {
            row.place = Place::Leased { until };
        }
    }

    /// Ends a call. Terminal means terminal: nobody calls this for a row that is done.
    pub(super) fn end(&mut self, seq: u64, done: Done) {
        self.unplace(seq);
        let now = done.at;
        let Some(row) = self.rows.get_mut(&seq) else { return };
        row.place = Place::Done(done);
        let Some(key) = row.envelope.invocation.meta.ordering_key.clone() else {
            return;
        };
        let key = (row.target().clone(), key);
        let Some(queue) = self.ordered.get_mut(&key) else {
            return;
        };
        queue.remove(&seq);
        let head = queue.first().copied();
        if queue.is_empty() {
            self.ordered.remove(&key);
        }
        if let Some(head) = head
            && self
                .rows
                .get(&head)
                .is_some_and(|row| matches!(row.place, Place::Blocked))
        {
            let not_before = self.rows.get(&head).and_then(|row| row.envelope.not_before);
            self.place(head, not_before, now);
        }
    }

    fn end_service(&mut self, seq: u64, state: CallState, now: Timestamp) {
        self.end(
            seq,
            Done {
                state,
                status: None,
                reply: None,
                at: now,
            },
        );
    }

    /// A flow is never ended here: it is delivered once more to be closed. A reason once given stays.
    pub(super) fn close(&mut self, seq: u64, why: CloseReason, now: Timestamp) {
        if let Some(row) = self.rows.get_mut(&seq) {
            row.close.get_or_insert(why);
        }
        self.place(seq, None, now);
    }

    pub(super) fn fail(&mut self, seq: u64, failure: Failure) {
        if let Some(row) = self.rows.get_mut(&seq) {
            row.failure = Some(failure);
        }
    }

    /// An attempt failed, and the next one is due at `at`.
    pub(super) fn retry(&mut self, seq: u64, at: Timestamp, now: Timestamp) {
        let Some(row) = self.rows.get(&seq) else { return };
        let used_up = row.attempt >= row.envelope.max_attempts;
        let running = row.close.is_none();
        match (row.is_flow(), row.stop) {
            (true, true) if running => self.close(seq, CloseReason::Cancelled, now),
            (true, false) if running && used_up => self.close(seq, CloseReason::Exhausted, now),
            (false, true) => self.end_service(seq, CallState::Cancelled, now),
            (false, false) if used_up => self.end_service(seq, CallState::Dead, now),
            _ => self.place(seq, Some(at), now),
        }
    }

    /// The attempt does not count.
    pub(super) fn release(&mut self, seq: u64, not_before: Option<Timestamp>, now: Timestamp) {
        let Some(row) = self.rows.get_mut(&seq) else { return };
        row.begun = false;
        if row.close.is_none() {
            row.attempt = row.attempt.saturating_sub(1);
        }
        match (row.is_flow(), row.close, row.stop) {
            (true, None, true) => self.close(seq, CloseReason::Cancelled, now),
            (false, _, true) => self.end_service(seq, CallState::Cancelled, now),
            _ => self.place(seq, not_before, now),
        }
    }

    fn lost(&mut self, seq: u64, now: Timestamp) {
        let Some(row) = self.rows.get(&seq) else { return };
        if row.is_flow() || row.envelope.repeatable || !row.begun {
            if row.close.is_none() && row.failure.is_none() {
                self.fail(seq, Failure::new(Code::LeaseStale, "the worker was lost"));
            }
            self.retry(seq, now, now);
        } else {
            self.fail(
                seq,
                Failure::new(
                    Code::OutcomeUnknown,
                    "the worker was lost after it had started the call",
                ),
            );
            self.end_service(seq, CallState::Unknown, now);
        }
    }

    /// Delays that are over and leases that are lost.
    pub(super) fn run_timers(&mut self, now: Timestamp) {
        while let Some((at, seq)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, seq));
            match self.rows.get(&seq).map(|row| &row.place) {
                Some(Place::Delayed { .. }) => self.place(seq, None, now),
                Some(Place::Leased { .. }) => self.lost(seq, now),
                _ => {}
            }
        }
    }

    /// When the next timer is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Whether a ready row expired before anybody began it; then it is ended, or marked for closing.
    pub(super) fn expire(&mut self, seq: u64, now: Timestamp) -> bool {
        let Some(row) = self.rows.get_mut(&seq) else {
            return false;
        };
        let expired = row.close.is_none() && row.envelope.expires.is_some_and(|at| at <= now);
        if expired && row.is_flow() {
            row.close = Some(CloseReason::Expired);
            return false;
        }
        if expired {
            row.failure = Some(Failure::new(Code::Expired, "it was not begun in time"));
            self.end_service(seq, CallState::Expired, now);
        }
        expired
    }

    pub(super) fn cancel_service(&mut self, seq: u64, now: Timestamp) {
        self.fail(seq, Failure::new(Code::Cancelled, "it was cancelled"));
        self.end_service(seq, CallState::Cancelled, now);
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<InvocationId> {
        let row = self.rows.remove(&seq)?;
        self.ids.remove(&row.envelope.id());
        Some(row.envelope.id())
    }
}
