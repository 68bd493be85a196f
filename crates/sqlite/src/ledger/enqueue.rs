//! Storing calls.

use super::{
    Ledger, Note, bounds,
    fresh::{NewRow, Newcomer},
    row::{bounds as bound, state},
};
use crate::{fail::Fail, sql};
use crosspoint_core::{
    Enqueue, Enqueued, Envelope, Fence, InvocationId, Lease, LeaseRef, LeaseTerms, Meta, Result, Start, Timestamp, wire,
};
use rusqlite::OptionalExtension;

/// An envelope with its encoded form, which is made outside the writer's thread.
#[derive(Debug)]
pub(crate) struct Parcel {
    envelope: Envelope,
    start: Start,
    head: Vec<u8>,
    request: Vec<u8>,
}

impl Parcel {
    pub(crate) fn new(item: Enqueue) -> Self {
        Self {
            head: wire::encode_envelope(&item.envelope),
            request: wire::encode_request(&item.envelope.invocation.request),
            envelope: item.envelope,
            start: item.start,
        }
    }

    pub(crate) fn queued(envelope: Envelope) -> Self {
        Self::new(Enqueue::queued(envelope))
    }

    pub(crate) fn all_queued(envelopes: Vec<Envelope>) -> Vec<Self> {
        envelopes.into_iter().map(Self::queued).collect()
    }
}

/// Where a new row goes.
struct Entry {
    /// Negative in the held line.
    lane: i64,
    state: i64,
    due: Option<i64>,
    since: i64,
    lease: Option<i64>,
}

impl Ledger {
    /// Stores each, unless it is known.
    pub(crate) fn enqueue_all(&mut self, parcels: Vec<Parcel>) -> Result<Vec<Enqueued>, Fail> {
        parcels.into_iter().map(|parcel| self.enqueue(parcel)).collect()
    }

    pub(crate) fn enqueue(&mut self, parcel: Parcel) -> Result<Enqueued, Fail> {
        let now = self.now();
        let meta = &parcel.envelope.invocation.meta;
        if let Some(known) = self.recognised(meta, now)? {
            return Ok(known);
        }
        let lane = self.lane_of(&meta.target, &meta.customer)?;
        let flow = match &parcel.envelope.flow {
            Some(flow) => Some(self.flow_of(flow.installation, &flow.flow, &meta.customer)?),
            None => None,
        };
        let seq = self.seq()?;
        let added = self.db.prepare_cached(sql::CALL_ADD)?.execute((
            seq,
            meta.id.as_bytes(),
            lane,
            flow,
            parcel.envelope.created.as_millis(),
            &parcel.head,
            &parcel.request,
        ))?;
        if added == 0 {
            return Ok(Enqueued::Duplicate);
        }
        self.next_seq = Some(seq.saturating_add(1));
        if let Some(key) = &meta.idempotency_key {
            self.db.prepare_cached(sql::KEY_PUT)?.execute((
                &key.scope,
                &key.fingerprint,
                meta.id.as_bytes(),
                key.expires.as_millis(),
            ))?;
        }
        let okey = meta.ordering_key.as_deref().map(|key| ordering_number(meta, key));
        let bounds = self.bounds_for(&parcel.envelope.bounds)?;
        let not_before = bounds::not_before(&parcel.envelope, self.admit(&parcel.envelope, now)?);
        let room = bounds::full(&bounds).is_none();
        let entry = self.entry(&parcel, lane, okey, (not_before, room), now)?;
        let leased = entry.lease.is_some();
        let Parcel {
            envelope,
            head,
            request,
            ..
        } = parcel;
        let pin = envelope.flow.as_ref().and_then(|flow| flow.revision);
        self.arrive(Newcomer {
            row: NewRow {
                seq,
                lane: entry.lane,
                flow,
                prio: -i64::from(envelope.invocation.meta.priority),
                state: entry.state,
                due: entry.due,
                begun: leased,
                max_attempts: i64::from(envelope.max_attempts),
                repeatable: envelope.repeatable,
                okey,
                since: entry.since,
                started: entry.lease.map(|_| now),
                expires: envelope.expires.map(Timestamp::as_millis),
                hold: envelope.hold_until.map(Timestamp::as_millis),
                size: i64::try_from(request.len()).unwrap_or(i64::MAX),
                bounds: match (bounds.is_empty(), leased) {
                    (true, _) => bound::NONE,
                    (false, false) => bound::SOME,
                    (false, true) => bound::RUNS,
                },
                note: pin.and_then(|pin| Note::default().ran(Some(pin)).write()),
                pin: pin.map(u64::cast_signed),
            },
            id: *envelope.id().as_bytes(),
            head,
            request,
        })?;
        self.bind(seq, &bounds, leased)?;
        self.entered(&entry)?;
        let lease = entry.lease.map(|until| Box::new(lease_of(envelope, seq, now, until)));
        Ok(Enqueued::New(lease))
    }

    /// What follows for timers and turns.
    fn entered(&mut self, entry: &Entry) -> Result<(), Fail> {
        if let Some(due) = entry.due {
            self.timer(due);
        }
        match entry.lease {
            Some(_) => self.charge_start(entry.lane),
            None if entry.state == state::READY => self.activate(entry.lane),
            None => Ok(()),
        }
    }

    /// What a call with an idempotency key repeats. One without finds out at its insert whether its id is known.
    fn recognised(&self, meta: &Meta, now: i64) -> Result<Option<Enqueued>, Fail> {
        let Some(key) = &meta.idempotency_key else {
            return Ok(None);
        };
        if self.db.prepare_cached(sql::CALL_KNOWN)?.exists([meta.id.as_bytes()])? {
            return Ok(Some(Enqueued::Duplicate));
        }
        let known = self.key(&key.scope, now)?;
        Ok(known.map(|(fingerprint, id)| {
            if fingerprint == key.fingerprint {
                Enqueued::Attached(id)
            } else {
                Enqueued::KeyReused(id)
            }
        }))
    }

    /// Where a new row goes, and until when it is leased to whoever stores it.
    /// `terms` are the time before which it does not start, and whether its bounds have room.
    fn entry(
        &mut self,
        parcel: &Parcel,
        lane: i64,
        okey: Option<i64>,
        terms: (i64, bool),
        now: i64,
    ) -> Result<Entry, Fail> {
        let (not_before, room) = terms;
        let hold = parcel.envelope.hold_until.map(Timestamp::as_millis);
        let hold = hold.filter(|hold| *hold > now);
        let line = if hold.is_some() { -lane } else { lane };
        let leased = |until: i64| Entry {
            lane: line,
            state: state::LEASED,
            due: Some(until),
            since: now,
            lease: Some(until),
        };
        if let Start::Adopt(terms) = &parcel.start {
            return Ok(leased(self.lease_end(now, terms)));
        }
        let behind = match okey {
            Some(okey) => self.okey_busy(okey)?,
            None => false,
        };
        if behind {
            return Ok(Entry {
                lane,
                state: state::BEHIND,
                due: None,
                since: not_before.max(now),
                lease: None,
            });
        }
        if not_before > now {
            return Ok(Entry {
                lane,
                state: state::DELAYED,
                due: Some(not_before),
                since: now,
                lease: None,
            });
        }
        let expired = parcel.envelope.expires.is_some_and(|at| at.as_millis() <= now);
        match &parcel.start {
            Start::Lease(terms) if !expired && room && !self.stands_before(line)? => {
                Ok(leased(self.lease_end(now, terms)))
            }
            _ => Ok(Entry {
                lane: line,
                state: state::READY,
                due: hold,
                since: now,
                lease: None,
            }),
        }
    }

    fn lease_end(&mut self, now: i64, terms: &LeaseTerms) -> i64 {
        self.until(now, terms.length)
    }

    /// Whether a call of this ordering key is in the queue (in this transaction: the new row is not yet).
    fn okey_busy(&self, okey: i64) -> Result<bool, Fail> {
        Ok(self.db.prepare_cached(sql::OKEY_BUSY)?.exists([okey])?)
    }

    fn key(&self, scope: &[u8; 16], now: i64) -> Result<Option<([u8; 16], InvocationId)>, Fail> {
        let mut statement = self.db.prepare_cached(sql::KEY_GET)?;
        let found: Option<([u8; 16], [u8; 16])> = statement
            .query_row((scope, now), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        found
            .map(|(fingerprint, id)| Ok((fingerprint, InvocationId::from_slice(&id).map_err(Fail::Group)?)))
            .transpose()
    }
}

fn lease_of(mut envelope: Envelope, seq: i64, now: i64, until: i64) -> Lease {
    envelope.invocation.meta.attempt = 1;
    envelope.invocation.meta.delivery = None;
    let reference = LeaseRef::new(envelope.id(), Fence::new(1), seq.cast_unsigned());
    let (now, until) = (Timestamp::from_millis(now), Timestamp::from_millis(until));
    let mut lease = Lease::new(envelope, reference, 1, now, until);
    lease.begun = true;
    lease
}

/// The number under which the queue knows an ordering key. Two keys with the same number would only wait for each other.
fn ordering_number(meta: &Meta, key: &str) -> i64 {
    let id = InvocationId::derive(&["ordering", meta.target.as_str(), key]);
    (id.as_uuid().as_u64_pair().1 << 2).cast_signed() >> 2
}
