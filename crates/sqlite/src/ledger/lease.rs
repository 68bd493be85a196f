//! Leasing what is ready.

use super::{
    DoneState, Ledger, Note, Row,
    fresh::{NewRow, Newcomer},
    lanes::{STRIDE, Terms},
    row::{bounds, close_number, close_reason, state},
};
use crate::{
    fail::{Fail, store_error},
    sql,
};
use bytes::Bytes;
use crosspoint_core::{
    CloseReason, Code, Failure, Fence, InvocationId, Lease, LeaseRef, LeaseRequest, Queue, Result, Timestamp, wire,
};
use rusqlite::OptionalExtension;
use std::collections::{HashMap, VecDeque};

/// How many rows a lease moves out of the way at most, about; everybody else in its group waits for it.
const MOVES: usize = 256;

/// A lease as the writer hands it out; decoding is left to whoever asked for it.
#[derive(Debug)]
pub(crate) struct RawLease {
    pub(crate) seq: i64,
    pub(crate) fence: i64,
    attempt: i64,
    close: i64,
    since: i64,
    until: i64,
    begun: bool,
    id: [u8; 16],
    head: Vec<u8>,
    request: Vec<u8>,
    note: Option<String>,
}

impl RawLease {
    /// Reads the envelope.
    pub(crate) fn decode(self) -> Result<Lease> {
        let request = wire::decode_request(Bytes::from(self.request))?;
        let mut envelope = wire::decode_envelope(Bytes::from(self.head), request)?;
        let attempt = u32::try_from(self.attempt).unwrap_or(u32::MAX);
        envelope.invocation.meta.attempt = attempt;
        let (id, fence) = (
            InvocationId::from_slice(&self.id)?,
            Fence::new(self.fence.cast_unsigned()),
        );
        let reference = LeaseRef::new(id, fence, self.seq.cast_unsigned());
        let (since, until) = (Timestamp::from_millis(self.since), Timestamp::from_millis(self.until));
        let mut lease = Lease::new(envelope, reference, attempt, since, until);
        lease.lost = Note::read(self.note.as_deref()).lost();
        // Each delivery takes a fence, and only attempts are counted.
        let before = self.fence - i64::from(self.close != 0) - self.attempt;
        lease.returned = u32::try_from(before.max(0)).unwrap_or(u32::MAX);
        lease.begun = self.begun;
        lease.close = close_reason(self.close);
        Ok(lease)
    }
}

/// What a lease has brought.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    pub(crate) leases: Vec<RawLease>,
    /// Whether it ended before it had seen all that is ready: the rest is for the next group.
    pub(crate) cut_short: bool,
}

/// A ready row with its call.
struct Ready {
    lease: RawLease,
    expires: Option<i64>,
    hold: Option<i64>,
    flow: bool,
    bounds: i64,
    /// If it is not in the queue yet.
    new: Option<NewRow>,
}

/// What is leased and still to be written; the row, if it is new.
type Granting = (RawLease, Option<NewRow>);

impl Ready {
    fn fresh(newcomer: Newcomer) -> Self {
        let Newcomer { row, id, head, request } = newcomer;
        Self {
            lease: RawLease {
                seq: row.seq,
                fence: 0,
                attempt: 0,
                close: 0,
                since: row.since,
                until: 0,
                begun: false,
                id,
                head,
                request,
                note: None,
            },
            expires: row.expires,
            hold: row.hold,
            flow: row.flow.is_some(),
            bounds: row.bounds,
            new: Some(row),
        }
    }

    /// Whether it is in the held line and not worth hurrying for any more.
    fn is_hopeless(&self, lane: i64, request: &LeaseRequest, now: i64) -> bool {
        let hopeless = Timestamp::from_millis(now).plus(request.hopeless).as_millis();
        lane < 0 && self.hold.is_none_or(|hold| hold <= hopeless)
    }

    /// Whether it is leased without a look at any other row.
    fn is_plain(&self, lane: i64, request: &LeaseRequest, now: i64) -> bool {
        self.expires.is_none() && self.bounds == bounds::NONE && !self.is_hopeless(lane, request, now)
    }

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            lease: RawLease {
                seq: row.get(0)?,
                fence: row.get(1)?,
                attempt: row.get(2)?,
                close: row.get(3)?,
                since: row.get(4)?,
                until: 0,
                begun: false,
                id: row.get(7)?,
                head: row.get(8)?,
                request: row.get(9)?,
                note: row.get(11)?,
            },
            expires: row.get(5)?,
            hold: row.get(10)?,
            flow: row.get::<_, Option<i64>>(6)?.is_some(),
            bounds: row.get(12)?,
            new: None,
        })
    }
}

impl Ledger {
    /// Leases up to as many rows as asked for, in turns between customers.
    pub(crate) fn lease(&mut self, request: &LeaseRequest) -> Result<Granted, Fail> {
        let mut granted = Granted::default();
        let Some(target) = self.find_target(&request.target)? else {
            return Ok(granted);
        };
        let lines: &[i64] = match request.queue {
            Queue::Held => &[-target],
            Queue::Sideline => &[target],
            _ => &[-target, target],
        };
        for line in lines {
            if granted.leases.len() < request.max && !granted.cut_short && self.has_active(*line)? {
                let terms = self.terms(target, &request.customers)?;
                granted.cut_short = self.lease_line(*line, request, &terms, &mut granted.leases)?;
            }
        }
        Ok(granted)
    }

    /// Leases from one line. Answers whether it was cut short.
    fn lease_line(
        &mut self,
        line: i64,
        request: &LeaseRequest,
        terms: &Terms,
        leases: &mut Vec<RawLease>,
    ) -> Result<bool, Fail> {
        let now = self.now();
        let mut moved = 0;
        // Each round serves a row, moves or ends one, or finds a lane dry, so this comes to an end.
        while leases.len() < request.max && self.has_active(line)? {
            if moved >= MOVES {
                // The others of the group wait: go on in the next one.
                self.timer(now);
                return Ok(true);
            }
            let turns = self.turns(line, request.max - leases.len(), terms)?;
            if turns.is_empty() {
                break;
            }
            let mut wanted: HashMap<i64, usize> = HashMap::new();
            for lane in &turns {
                *wanted.entry(*lane).or_default() += 1;
            }
            let mut rows: HashMap<i64, VecDeque<Ready>> = HashMap::with_capacity(wanted.len());
            let mut dry = Vec::new();
            for (lane, wanted) in wanted {
                let (ready, all) = self.next_ready(lane, wanted, line < 0 && request.newest_first)?;
                if all {
                    dry.push(lane);
                }
                rows.insert(lane, ready);
            }
            // First, so that what becomes ready meanwhile finds its lane asleep and wakes it.
            for lane in dry {
                self.ran_dry(lane)?;
            }
            let mut granted = Vec::with_capacity(turns.len());
            for lane in turns {
                if let Some(mut row) = rows.get_mut(&lane).and_then(VecDeque::pop_front) {
                    if !row.is_plain(lane, request, now) {
                        self.write_leases(&mut granted, leases, now)?;
                        if let Some(new) = row.new.take() {
                            self.add_all([&new])?;
                        }
                    }
                    let cost = terms.cost(lane).unwrap_or(STRIDE);
                    match self.grant(lane, cost, row, request, now)? {
                        Some(lease) => granted.push(lease),
                        None => moved += 1,
                    }
                }
            }
            self.write_leases(&mut granted, leases, now)?;
        }
        Ok(false)
    }

    /// Up to so many ready rows of a lane, and whether they are known to be all that it has.
    fn next_ready(&mut self, lane: i64, limit: usize, newest_first: bool) -> Result<(VecDeque<Ready>, bool), Fail> {
        if self.fresh.of(lane) > 0 {
            let fresh = self.fresh.take(lane, limit, newest_first);
            return Ok((fresh.into_iter().map(Ready::fresh).collect(), self.fresh.of(lane) == 0));
        }
        let ready = if newest_first {
            self.newest(lane, limit)?
        } else {
            self.ready(lane, limit)?
        };
        let all = ready.len() < limit;
        Ok((ready, all))
    }

    fn ready(&self, lane: i64, limit: usize) -> Result<VecDeque<Ready>, Fail> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self.db.prepare_cached(sql::LEASE_ROWS)?;
        let rows = statement.query_map((lane, limit), Ready::read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The same, of each priority those first that came last.
    fn newest(&self, lane: i64, limit: usize) -> Result<VecDeque<Ready>, Fail> {
        let mut ready = VecDeque::new();
        let mut priority = i64::MIN;
        while ready.len() < limit {
            let mut next = self.db.prepare_cached(sql::PRIO_NEXT)?;
            let found: Option<i64> = next.query_row((lane, priority), |row| row.get(0)).optional()?;
            let Some(found) = found else { break };
            priority = found;
            let left = i64::try_from(limit - ready.len()).unwrap_or(i64::MAX);
            let mut statement = self.db.prepare_cached(sql::LEASE_NEWEST)?;
            for row in statement.query_map((lane, priority, left), Ready::read)? {
                ready.push_back(row?);
            }
        }
        Ok(ready)
    }

    /// Leases a row, which is still to be written, unless it has expired, is not worth hurrying for any more, or finds a bound full.
    fn grant(
        &mut self,
        lane: i64,
        cost: i64,
        ready: Ready,
        request: &LeaseRequest,
        now: i64,
    ) -> Result<Option<Granting>, Fail> {
        if ready.is_hopeless(lane, request, now) {
            self.sideline(ready.lease.seq, lane)?;
            return Ok(None);
        }
        let mut lease = ready.lease;
        if lease.close == 0 && ready.expires.is_some_and(|at| at <= now) {
            if !ready.flow {
                self.expire(lease.seq, now)?;
                return Ok(None);
            }
            lease.close = close_number(CloseReason::Expired);
        }
        if lease.close == 0 && ready.bounds != bounds::NONE && !self.take_room(lease.seq, now)? {
            return Ok(None);
        }
        lease.fence = lease.fence.saturating_add(1);
        if lease.close == 0 {
            lease.attempt = lease.attempt.saturating_add(1);
        }
        lease.begun = request.begin;
        lease.until = self.until(now, request.terms.length);
        self.timer(lease.until);
        self.charge_turn(lane, cost)?;
        Ok(Some((lease, ready.new)))
    }

    /// Writes what was granted, which goes to the leases. Until then these rows look ready.
    fn write_leases(&self, granted: &mut Vec<Granting>, leases: &mut Vec<RawLease>, now: i64) -> Result<(), Fail> {
        let mut set = self.db.prepare_cached(sql::LEASE_SET)?;
        // New rows go to the end of the queue, one after the other.
        let mut new: Vec<NewRow> = Vec::new();
        for (lease, row) in granted.drain(..) {
            let RawLease {
                seq,
                until,
                fence,
                attempt,
                begun,
                close,
                ..
            } = lease;
            match row {
                Some(row) => new.push(NewRow {
                    state: state::LEASED,
                    due: Some(until),
                    begun,
                    started: Some(now),
                    ..row
                }),
                None => {
                    set.execute((seq, until, fence, attempt, begun, close, now))?;
                }
            }
            leases.push(lease);
        }
        new.sort_unstable_by_key(|row| row.seq);
        self.add_all(&new)
    }

    /// Nobody began it in time.
    fn expire(&mut self, seq: i64, now: i64) -> Result<(), Fail> {
        if let Some(mut row) = self.row(seq)? {
            let failure = Failure::new(Code::Expired, "it was not begun in time");
            row.note = Note::read(row.note.as_deref()).failed(Some(&failure)).write();
            self.end(&row, DoneState::Expired, None, now)?;
        }
        Ok(())
    }

    /// Gives leases back that could not be handed over, because whoever asked has gone.
    pub(crate) fn give_back(&mut self, leases: &[(i64, i64)]) -> Result<(), Fail> {
        let now = self.now();
        for (seq, fence) in leases {
            if let Some(row) = self.leased(*seq, *fence)? {
                self.release(row, None, now)?;
            }
        }
        Ok(())
    }

    /// Takes a call out of the way that cannot be decoded. It is kept as it is, for a release that can, and the attempt
    /// does not count.
    pub(crate) fn set_aside(&mut self, seq: i64, fence: i64) -> Result<(), Fail> {
        let Some(row) = self.leased(seq, fence)? else {
            return Ok(());
        };
        self.db.prepare_cached(sql::QUEUE_UNREADABLE)?.execute((seq, fence))?;
        let now = self.now();
        self.moved(&row, false, now)
    }

    /// Whether any call is set aside.
    pub(crate) fn has_set_aside(&self) -> Result<bool> {
        let mut statement = self.db.prepare(sql::SET_ASIDE).map_err(store_error)?;
        statement.exists([]).map_err(store_error)
    }

    /// Makes what is set aside ready again: this release may be one that can read it. What it cannot read either is set
    /// aside again when it is leased.
    pub(crate) fn take_up(&mut self) -> Result<(), Fail> {
        let now = self.now();
        let mut statement = self.db.prepare(sql::SET_ASIDE)?;
        let rows: Vec<Row> = statement.query_map([], Row::read)?.collect::<rusqlite::Result<_>>()?;
        drop(statement);
        for row in &rows {
            self.place(row, None, now)?;
        }
        tracing::info!(calls = rows.len(), "calls that could not be read are tried again");
        Ok(())
    }
}

/// Whether a row can be leased under its state.
pub(super) const fn is_leased(row: &Row) -> bool {
    row.state == state::LEASED
}
