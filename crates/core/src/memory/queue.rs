//! How calls move: ready, leased, delayed, behind an ordering key, done.

use super::{
    bounds::Bounds,
    lanes::{Side, Target, Terms},
    row::{self, Done, Key, Place, Row},
};
use crate::{
    CallState, CloseReason, Code, CustomerId, Envelope, Failure, InvocationId, Lease, LeaseRef, TargetId, Timestamp,
    Timings, Usage,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

#[derive(Default)]
pub(super) struct Queue {
    pub(super) rows: BTreeMap<u64, Box<Row>>,
    ids: HashMap<InvocationId, u64>,
    next: u64,
    pub(super) targets: Vec<Target>,
    numbers: HashMap<TargetId, usize>,
    /// Ends of delays, of leases, and of holds of calls that are ready.
    due: BTreeSet<(Timestamp, u64)>,
    ordered: HashMap<(TargetId, Arc<str>), BTreeSet<u64>>,
    bounds: Bounds,
    /// When timers were run last.
    now: Timestamp,
    /// When the next call of a rate may start, in milliseconds.
    rates: HashMap<Arc<str>, i64>,
    /// Who has ended, by when.
    pub(super) ended: BTreeSet<(Timestamp, u64)>,
    pub(super) keys: HashMap<[u8; 16], Key>,
    key_ends: BTreeSet<(Timestamp, [u8; 16])>,
}

impl Queue {
    pub(super) fn row(&self, id: InvocationId) -> Option<&Row> {
        self.rows.get(self.ids.get(&id)?).map(AsRef::as_ref)
    }

    pub(super) fn row_mut(&mut self, id: InvocationId) -> Option<&mut Row> {
        self.rows.get_mut(self.ids.get(&id)?).map(AsMut::as_mut)
    }

    /// The row that a lease names, if the lease is the current one.
    pub(super) fn leased(&self, lease: LeaseRef) -> Option<&Row> {
        self.row(lease.id)
            .filter(|row| row.fence == lease.fence.get() && matches!(row.place, Place::Leased { .. }))
    }

    /// The number of a target.
    pub(super) fn target(&mut self, id: &TargetId) -> usize {
        if let Some(target) = self.numbers.get(id) {
            return *target;
        }
        let target = self.targets.len();
        self.targets.push(Target::new(id.clone()));
        self.numbers.insert(id.clone(), target);
        target
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
        let target = self.target(&envelope.invocation.meta.target);
        let known = self.targets.get_mut(target)?;
        let row = Box::new(Row {
            seq,
            target,
            lane: known.lane(envelope.customer()),
            size: row::size(&envelope.invocation.request),
            envelope,
            fence: 0,
            attempt: 0,
            lost: 0,
            place: Place::Blocked,
            begun: false,
            stop: false,
            close: None,
            counted: false,
            since: now,
            started: None,
            failure: None,
            timings: Timings::default(),
            isolation: None,
            usage: Usage::default(),
            revision: None,
            progress: None,
        });
        known.calls += 1;
        count(known, &row, u64::wrapping_add);
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

    /// Whether others of its customer that go before it wait for the target already.
    pub(super) fn lane_waits(&self, row: &Row, now: Timestamp) -> bool {
        let target = self.targets.get(row.target);
        target.is_some_and(|target| target.waits(row.side(now), row.lane))
    }

    /// Puts a row where it belongs at `now`: delayed, behind its ordering key, or ready.
    pub(super) fn place(&mut self, seq: u64, not_before: Option<Timestamp>, now: Timestamp) {
        let Some(row) = self.rows.get(&seq) else { return };
        let closing = row.close.is_some();
        let place = match not_before {
            Some(until) if until > now => Place::Delayed { until },
            _ if closing || self.is_head(row) => Place::Ready(row.side(now)),
            _ => Place::Blocked,
        };
        self.put(seq, place, Some(now));
    }

    /// When a new call may start by its rate, if that is later than now.
    pub(super) fn admit(&mut self, envelope: &Envelope, now: Timestamp) -> Option<Timestamp> {
        let rate = envelope.rate.as_ref()?;
        let wanted = envelope.not_before.map_or(now, |at| at.max(now));
        // What is over says nothing any more.
        self.rates.retain(|_, due| *due > now.as_millis());
        let (start, kept) = rate.admit(self.rates.get(&rate.key).copied(), wanted.as_millis());
        self.rates.insert(Arc::clone(&rate.key), kept);
        (start > now.as_millis()).then(|| Timestamp::from_millis(start))
    }

    /// The first of a row's bounds that is full.
    pub(super) fn full(&self, row: &Row) -> Option<Arc<str>> {
        if row.close.is_some() {
            return None;
        }
        let mut bounds = row.envelope.bounds.iter();
        let full = bounds.find(|bound| self.bounds.room(&bound.key, bound.max.get()) == 0);
        full.map(|bound| Arc::clone(&bound.key))
    }

    /// Sets a row whose turn it is aside if as many of its kind run already.
    pub(super) fn bounded(&mut self, seq: u64) -> bool {
        let full = self.rows.get(&seq).and_then(|row| self.full(row));
        let Some(key) = full else { return false };
        self.put(seq, Place::Bounded(key), None);
        true
    }

    /// What a customer's calls to a target that wait at a bound take up, each.
    pub(super) fn bounded_of(&self, target: &TargetId, customer: &CustomerId) -> impl Iterator<Item = u64> {
        let rows = self.bounds.waiting().filter_map(|seq| self.rows.get(&seq));
        let rows = rows.filter(move |row| row.target() == target && row.envelope.customer() == customer);
        rows.map(|row| row.size)
    }

    /// Makes as many of those who wait at a bound ready as it has room for.
    ///
    /// Whoever waits at a bound does so because it was full, so that one of its calls runs, or is ready: whenever such a
    /// call goes elsewhere, this is called. None can be left waiting for ever.
    fn let_in(&mut self, key: &Arc<str>) {
        let mut let_in = 0;
        while let Some(first) = self.bounds.first(key) {
            let Some(row) = self.rows.get(&first) else { return };
            let max = row.envelope.bounds.iter().find(|bound| bound.key == *key);
            if self.bounds.room(key, max.map_or(0, |bound| bound.max.get())) <= let_in {
                return;
            }
            let_in += 1;
            let side = row.side(self.now);
            self.put(first, Place::Ready(side), None);
        }
    }

    /// Moves a row from one place to another, and lets others in where that makes room.
    fn put(&mut self, seq: u64, place: Place, since: Option<Timestamp>) {
        let Some(row) = self.rows.get_mut(&seq) else { return };
        if row.envelope.bounds.is_empty() {
            return self.shift(seq, place, since);
        }
        let bounds = row.envelope.bounds.clone();
        let entry = row.entry();
        let counts = |place: &Place| matches!(place, Place::Leased { .. });
        let (ran, runs) = (row.counted, counts(&place) && row.close.is_none());
        let leaves = matches!(row.place, Place::Ready(_) | Place::Leased { .. });
        let stays = matches!(place, Place::Ready(_) | Place::Leased { .. });
        row.counted = runs;
        if let Place::Bounded(key) = &row.place {
            self.bounds.leave(key, entry);
        }
        if let Place::Bounded(key) = &place {
            self.bounds.wait(key, entry);
        }
        for bound in &bounds {
            match (ran, runs) {
                (false, true) => self.bounds.started(&bound.key),
                (true, false) => self.bounds.stopped(&bound.key),
                _ => {}
            }
        }
        self.shift(seq, place, since);
        if (ran && !runs) || (leaves && !stays) {
            for bound in &bounds {
                self.let_in(&bound.key);
            }
        }
    }

    /// Moves a row in every index; the only way in which rows move.
    fn shift(&mut self, seq: u64, place: Place, since: Option<Timestamp>) {
        let Some(row) = self.rows.get_mut(&seq) else { return };
        let Some(target) = self.targets.get_mut(row.target) else {
            return;
        };
        count(target, row, u64::wrapping_sub);
        if let Some(due) = row.due() {
            self.due.remove(&(due, seq));
        }
        if let Place::Ready(side) = row.place {
            target.leave(side, row.lane, row.entry());
            target.ages.remove(&(row.since, seq));
        }
        row.place = place;
        row.since = since.unwrap_or(row.since);
        count(target, row, u64::wrapping_add);
        match &row.place {
            Place::Ready(side) => {
                target.enter(*side, row.lane, row.entry());
                target.ages.insert((row.since, seq));
                target.changed.notify_waiters();
            }
            Place::Done(done) => {
                self.ended.insert((done.at, seq));
            }
            Place::Leased { .. } | Place::Delayed { .. } | Place::Blocked | Place::Bounded(_) => {}
        }
        if let Some(due) = row.due() {
            if self.due.first().is_none_or(|(first, _)| due < *first) {
                // Whoever waits for the target has set its alarm for a later time.
                target.changed.notify_waiters();
            }
            self.due.insert((due, seq));
        }
    }

    /// Leases a row under a new fence, begun if asked for, and makes its lane pay so many turns.
    pub(super) fn lease(&mut self, seq: u64, now: Timestamp, terms: Granted) -> Option<Lease> {
        let row = self.rows.get(&seq)?;
        let (target, lane) = (row.target, row.lane);
        let (side, ready) = match row.place {
            Place::Ready(side) => (side, true),
            _ => (row.side(now), false),
        };
        let until = now.plus(terms.length);
        self.put(seq, Place::Leased { until }, None);
        let target = self.targets.get_mut(target)?;
        if ready {
            target.charge(side, lane, terms.charge);
        } else {
            target.charge_start(side, lane);
        }
        let row = self.rows.get_mut(&seq)?;
        row.fence += 1;
        row.started = Some(now);
        row.begun = terms.begin;
        row.progress = None;
        if row.close.is_none() {
            row.attempt += 1;
        }
        Some(row.lease(until))
    }

    /// The next row of a target's queue whose turn it is, and its lane. What is not worth hurrying for any more goes to
    /// the sideline when its lane's turn comes, and keeps its age.
    pub(super) fn turn(&mut self, target: usize, side: Side, terms: &Terms, order: Order) -> Option<(u64, usize)> {
        loop {
            let waiting = self.targets.get(target)?;
            let lane = waiting.turn(side, terms)?;
            let next = waiting.first(side, lane, side == Side::Held && order.newest_first)?;
            let row = self.rows.get(&next)?;
            if side == Side::Held && row.side(order.hopeless) == Side::Sideline {
                self.put(next, Place::Ready(Side::Sideline), None);
            } else {
                return Some((next, lane));
            }
        }
    }

    pub(super) fn extend(&mut self, seq: u64, until: Timestamp) {
        self.put(seq, Place::Leased { until }, None);
    }

    /// Ends a call. Terminal means terminal: nobody calls this for a row that is done.
    pub(super) fn end(&mut self, seq: u64, done: Done) {
        let now = done.at;
        self.put(seq, Place::Done(done), None);
        let Some(row) = self.rows.get(&seq) else { return };
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
        let Some(row) = self.rows.get_mut(&seq) else { return };
        row.lost = row.lost.saturating_add(u32::from(row.begun && row.close.is_none()));
        if row.is_flow() || row.envelope.repeatable || !row.begun {
            if row.close.is_none() && row.failure.is_none() {
                self.fail(seq, Failure::new(Code::WorkersLost, "the worker was lost"));
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

    /// Delays and holds that are over, and leases that are lost.
    pub(super) fn run_timers(&mut self, now: Timestamp) {
        self.now = now;
        while let Some((at, seq)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, seq));
            match self.rows.get(&seq).map(|row| &row.place) {
                Some(Place::Delayed { .. }) => self.place(seq, None, now),
                Some(Place::Leased { .. }) => self.lost(seq, now),
                Some(Place::Ready(_)) => self.put(seq, Place::Ready(Side::Sideline), None),
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

    /// Forgets a call that has ended.
    pub(super) fn remove(&mut self, seq: u64) -> Option<InvocationId> {
        let row = self.rows.remove(&seq)?;
        self.ids.remove(&row.envelope.id());
        if let Some(done) = row.done() {
            self.ended.remove(&(done.at, seq));
        }
        if let Some(target) = self.targets.get_mut(row.target) {
            target.calls = target.calls.saturating_sub(1);
            count(target, &row, u64::wrapping_sub);
        }
        Some(row.envelope.id())
    }

    pub(super) fn add_key(&mut self, scope: [u8; 16], key: Key) {
        self.key_ends.insert((key.expires, scope));
        if let Some(old) = self.keys.insert(scope, key).filter(|old| old.expires != key.expires) {
            self.key_ends.remove(&(old.expires, scope));
        }
    }

    pub(super) fn expire_keys(&mut self, now: Timestamp) {
        while let Some((at, scope)) = self.key_ends.first().copied().filter(|(at, _)| *at <= now) {
            self.key_ends.remove(&(at, scope));
            self.keys.remove(&scope);
        }
    }
}

/// What a lease grants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    pub(super) length: Duration,
    pub(super) begin: bool,
    /// In turns.
    pub(super) charge: u32,
}

/// In which order held calls go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub(super) newest_first: bool,
    /// Holds that end by then are not worth hurrying for.
    pub(super) hopeless: Timestamp,
}

/// Adds a row to the counts of its target, or takes it out of them.
fn count(target: &mut Target, row: &Row, by: fn(u64, u64) -> u64) {
    let stats = &mut target.stats;
    let counts: [Option<&mut u64>; 2] = match &row.place {
        Place::Ready(Side::Held) => [Some(&mut stats.ready), Some(&mut stats.held)],
        Place::Ready(Side::Sideline) => [Some(&mut stats.ready), None],
        Place::Delayed { .. } | Place::Blocked | Place::Bounded(_) => [Some(&mut stats.delayed), None],
        Place::Leased { .. } => [Some(&mut stats.leased), None],
        Place::Done(done) if done.state == CallState::Dead => [Some(&mut stats.dead), None],
        Place::Done(_) => [None, None],
    };
    for n in counts.into_iter().flatten() {
        *n = by(*n, 1);
    }
    if !matches!(row.place, Place::Leased { .. } | Place::Done(_)) {
        stats.bytes = by(stats.bytes, row.size);
    }
}
