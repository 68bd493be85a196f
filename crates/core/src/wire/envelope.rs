//! Everything of an envelope but the request, so that a list of calls reads no bodies.

use super::{ENVELOPE, Reader, Writer, damaged};
use crate::{
    CustomerId, Envelope, FlowRef, IdempotencyKey, InstallationId, Invocation, InvocationId, MaxInFlight, Meta, Origin,
    Rate, ReplayState, Result, RunKey, TargetId, Timestamp, TriggerKind,
};
use bytes::Bytes;
use http::Request;
use std::{sync::Arc, time::Duration};

/// What is present, one bit each.
mod has {
    pub(super) const FLOW: u64 = 1;
    pub(super) const DEADLINE: u64 = 1 << 1;
    pub(super) const KEY: u64 = 1 << 2;
    pub(super) const ORDERING: u64 = 1 << 3;
    pub(super) const TRACE: u64 = 1 << 4;
    pub(super) const PRINCIPAL: u64 = 1 << 5;
    pub(super) const NOT_BEFORE: u64 = 1 << 6;
    pub(super) const EXPIRES: u64 = 1 << 7;
    pub(super) const REPEATABLE: u64 = 1 << 8;
    pub(super) const REDRIVE: u64 = 1 << 9;
    pub(super) const REPLAY: u64 = 1 << 10;
    pub(super) const HOLD: u64 = 1 << 11;
    pub(super) const BOUNDS: u64 = 1 << 12;
    pub(super) const RATE: u64 = 1 << 13;
    pub(super) const REVISION: u64 = 1 << 14;
    pub(super) const DISCARD: u64 = 1 << 15;
    pub(super) const ALL: u64 = (1 << 16) - 1;
}

/// Writes everything of an envelope but its request and how it was delivered.
#[must_use]
pub fn encode_envelope(envelope: &Envelope) -> Vec<u8> {
    let meta = &envelope.invocation.meta;
    let bit = |present: bool, bit: u64| if present { bit } else { 0 };
    let flags = bit(envelope.flow.is_some(), has::FLOW)
        | bit(meta.deadline.is_some(), has::DEADLINE)
        | bit(meta.idempotency_key.is_some(), has::KEY)
        | bit(meta.ordering_key.is_some(), has::ORDERING)
        | bit(meta.trace.is_some(), has::TRACE)
        | bit(meta.principal.is_some(), has::PRINCIPAL)
        | bit(envelope.not_before.is_some(), has::NOT_BEFORE)
        | bit(envelope.expires.is_some(), has::EXPIRES)
        | bit(envelope.repeatable, has::REPEATABLE)
        | bit(matches!(envelope.origin, Origin::Redrive(_)), has::REDRIVE)
        | bit(matches!(envelope.origin, Origin::Replay(_)), has::REPLAY)
        | bit(envelope.hold_until.is_some(), has::HOLD)
        | bit(!envelope.bounds.is_empty(), has::BOUNDS)
        | bit(envelope.rate.is_some(), has::RATE)
        | envelope.flow.as_ref().map_or(0, |flow| {
            bit(flow.revision.is_some(), has::REVISION) | bit(flow.state == ReplayState::Discard, has::DISCARD)
        });
    let mut out = Writer::new(ENVELOPE, 192);
    out.number(flags);
    out.raw(meta.id.as_bytes());
    out.raw(meta.run_key.as_bytes());
    out.text(meta.customer.as_str());
    out.text(meta.target.as_str());
    out.text(&meta.route_class);
    out.signed(i64::from(meta.priority));
    out.signed(envelope.created.as_millis());
    out.number(u64::from(envelope.max_attempts));
    for time in [meta.deadline, envelope.not_before, envelope.expires]
        .into_iter()
        .flatten()
    {
        out.signed(time.as_millis());
    }
    for text in [&meta.ordering_key, &meta.trace, &meta.principal].into_iter().flatten() {
        out.text(text);
    }
    if let Some(key) = &meta.idempotency_key {
        out.raw(&key.scope);
        out.raw(&key.fingerprint);
        out.signed(key.expires.as_millis());
    }
    if let Origin::Redrive(id) | Origin::Replay(id) = envelope.origin {
        out.raw(id.as_bytes());
    }
    if let Some(flow) = &envelope.flow {
        out.raw(flow.installation.as_bytes());
        out.text(&flow.integration);
        out.text(&flow.version);
        out.text(&flow.flow);
        out.number(trigger_number(flow.trigger));
        if let Some(revision) = flow.revision {
            out.number(revision);
        }
    }
    if let Some(until) = envelope.hold_until {
        out.signed(until.as_millis());
    }
    if !envelope.bounds.is_empty() {
        out.number(envelope.bounds.len() as u64);
        for bound in &envelope.bounds {
            out.text(&bound.key);
            out.number(u64::from(bound.max.get()));
        }
    }
    if let Some(rate) = &envelope.rate {
        out.text(&rate.key);
        out.number(u64::try_from(rate.interval.as_millis()).unwrap_or(u64::MAX));
        out.number(u64::from(rate.burst.get()));
    }
    out.0
}

/// Reads what [`encode_envelope`] wrote and puts it together with its request (an empty one, where only the envelope is
/// of interest). The attempt is 1 and there is no delivery.
///
/// # Errors
/// [`Code::StoreCorrupt`](crate::Code::StoreCorrupt) if it is something else.
pub fn decode_envelope(stored: Bytes, request: Request<Bytes>) -> Result<Envelope> {
    let mut from = Reader::new(stored, ENVELOPE)?;
    let flags = from.number()?;
    if flags & !has::ALL != 0 {
        return Err(damaged("an envelope has a part that this release does not know"));
    }
    let id = id(&mut from)?;
    let run_key = RunKey::from_uuid(uuid::Uuid::from_bytes(from.array()?));
    let customer = CustomerId::new(from.text()?).map_err(|e| damaged("a customer").caused_by(e))?;
    let target = TargetId::new(from.text()?).map_err(|e| damaged("a target").caused_by(e))?;
    let mut meta = Meta::new(id, customer, target);
    meta.run_key = run_key;
    meta.route_class = from.text()?.into();
    meta.priority = i16::try_from(from.signed()?).map_err(|e| damaged("a priority").caused_by(e))?;
    let created = Timestamp::from_millis(from.signed()?);
    let max_attempts = u32::try_from(from.number()?).map_err(|e| damaged("a number of attempts").caused_by(e))?;
    meta.deadline = time(&mut from, flags & has::DEADLINE)?;
    let not_before = time(&mut from, flags & has::NOT_BEFORE)?;
    let expires = time(&mut from, flags & has::EXPIRES)?;
    meta.ordering_key = text(&mut from, flags & has::ORDERING)?;
    meta.trace = text(&mut from, flags & has::TRACE)?;
    meta.principal = text(&mut from, flags & has::PRINCIPAL)?;
    if flags & has::KEY != 0 {
        let (scope, fingerprint) = (from.array()?, from.array()?);
        let expires = Timestamp::from_millis(from.signed()?);
        meta.idempotency_key = Some(IdempotencyKey::new(scope, fingerprint, expires));
    }
    let origin = match (flags & has::REDRIVE != 0, flags & has::REPLAY != 0) {
        (false, false) => Origin::First,
        (true, false) => Origin::Redrive(self::id(&mut from)?),
        (false, true) => Origin::Replay(self::id(&mut from)?),
        (true, true) => return Err(damaged("an origin")),
    };
    let flow = if flags & has::FLOW == 0 {
        None
    } else {
        Some(flow(&mut from, flags)?)
    };
    let hold_until = time(&mut from, flags & has::HOLD)?;
    let bounds = if flags & has::BOUNDS == 0 {
        Vec::new()
    } else {
        bounds(&mut from)?
    };
    let rate = if flags & has::RATE == 0 {
        None
    } else {
        Some(rate(&mut from)?)
    };
    from.end()?;
    let mut envelope = Envelope::service(Invocation::new(meta, request), created);
    envelope.flow = flow;
    envelope.not_before = not_before;
    envelope.expires = expires;
    envelope.max_attempts = max_attempts;
    envelope.repeatable = flags & has::REPEATABLE != 0;
    envelope.origin = origin;
    envelope.hold_until = hold_until;
    envelope.bounds = bounds;
    envelope.rate = rate;
    Ok(envelope)
}

fn bounds(from: &mut Reader) -> Result<Vec<MaxInFlight>> {
    let count = from.number()?;
    let mut bounds = Vec::new();
    for _ in 0..count {
        let key = from.text()?;
        bounds.push(MaxInFlight::new(key, small(from)?));
    }
    Ok(bounds)
}

fn rate(from: &mut Reader) -> Result<Rate> {
    let key = from.text()?;
    let interval = Duration::from_millis(from.number()?);
    Ok(Rate::new(key, 1, interval).burst(small(from)?))
}

fn small(from: &mut Reader) -> Result<u32> {
    u32::try_from(from.number()?).map_err(|e| damaged("a bound").caused_by(e))
}

fn id(from: &mut Reader) -> Result<InvocationId> {
    Ok(InvocationId::from_uuid(uuid::Uuid::from_bytes(from.array()?)))
}

fn time(from: &mut Reader, present: u64) -> Result<Option<Timestamp>> {
    if present == 0 {
        return Ok(None);
    }
    Ok(Some(Timestamp::from_millis(from.signed()?)))
}

fn text(from: &mut Reader, present: u64) -> Result<Option<Arc<str>>> {
    if present == 0 {
        return Ok(None);
    }
    Ok(Some(from.text()?.into()))
}

fn flow(from: &mut Reader, flags: u64) -> Result<FlowRef> {
    let installation = InstallationId::from_uuid(uuid::Uuid::from_bytes(from.array()?));
    let (integration, version, flow) = (from.text()?, from.text()?, from.text()?);
    let trigger = match from.number()? {
        0 => TriggerKind::Event,
        1 => TriggerKind::Schedule,
        2 => TriggerKind::Webhook,
        3 => TriggerKind::Call,
        4 => TriggerKind::FollowUp,
        _ => return Err(damaged("a trigger")),
    };
    let mut flow = FlowRef::new(installation, &integration, &version, &flow, trigger);
    if flags & has::REVISION != 0 {
        flow.revision = Some(from.number()?);
    }
    if flags & has::DISCARD != 0 {
        flow.state = ReplayState::Discard;
    }
    Ok(flow)
}

const fn trigger_number(trigger: TriggerKind) -> u64 {
    match trigger {
        TriggerKind::Event => 0,
        TriggerKind::Schedule => 1,
        TriggerKind::Webhook => 2,
        TriggerKind::Call => 3,
        TriggerKind::FollowUp => 4,
    }
}
