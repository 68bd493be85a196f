//! The reference model of one call: where it stands, and what each event makes of it.

use super::Kind;
use bytes::Bytes;
use crosspoint_core::{CallState, CloseReason, Envelope, Fence, Lease, LeaseRef, Timestamp};

pub(super) const ATTEMPTS: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// For its turn, or behind its ordering key.
    Waiting,
    Delayed(Timestamp),
    Held(Timestamp),
    Ended(CallState),
    /// Deleted after its end.
    Purged,
}

/// An end as it was first seen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct End {
    pub(super) state: CallState,
    pub(super) reply: Option<Bytes>,
    pub(super) finished: Option<Timestamp>,
    pub(super) attempt: u32,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) envelope: Envelope,
    pub(super) kind: Kind,
    pub(super) place: Place,
    pub(super) fence: Fence,
    pub(super) attempts: u32,
    begun: bool,
    pub(super) stop: bool,
    pub(super) close: Option<CloseReason>,
    /// The reply that was accepted.
    pub(super) reply: Option<String>,
    pub(super) end: Option<End>,
}

impl Call {
    pub(super) fn new(envelope: Envelope, kind: Kind, now: Timestamp) -> Self {
        let place = match envelope.not_before {
            Some(at) if at > now => Place::Delayed(at),
            _ => Place::Waiting,
        };
        Self {
            envelope,
            kind,
            place,
            fence: Fence::default(),
            attempts: 0,
            begun: false,
            stop: false,
            close: None,
            reply: None,
            end: None,
        }
    }

    pub(super) fn is_flow(&self) -> bool {
        self.kind == Kind::Flow
    }

    pub(super) const fn is_open(&self) -> bool {
        !matches!(self.place, Place::Ended(_) | Place::Purged)
    }

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.close.is_none() && self.envelope.expires.is_some_and(|at| at <= now)
    }

    /// Whether a lease is the one that may write.
    pub(super) fn may_write(&self, lease: LeaseRef) -> bool {
        matches!(self.place, Place::Held(_)) && self.fence == lease.fence
    }

    /// Time has come to `now`, and somebody looks.
    pub(super) fn tick(&mut self, now: Timestamp) {
        match self.place {
            Place::Delayed(until) if until <= now => self.place = Place::Waiting,
            Place::Held(until) if until <= now => {
                if self.kind == Kind::Call && self.begun {
                    self.place = Place::Ended(CallState::Unknown);
                } else {
                    self.fail(now, now);
                }
            }
            _ => {}
        }
    }

    pub(super) fn leased(&mut self, lease: &Lease, now: Timestamp) -> Result<(), String> {
        let fence = lease.reference.fence;
        let close = match self.close {
            None if self.is_flow() && self.is_expired(now) => Some(CloseReason::Expired),
            close => close,
        };
        check(fence > self.fence, || format!("fence {fence} after {}", self.fence))?;
        check(lease.close == close, || {
            format!("closed for {:?}, not {close:?}", lease.close)
        })?;
        self.close = close;
        if close.is_none() {
            self.attempts += 1;
        }
        check(self.attempts <= ATTEMPTS, || "one attempt too many".to_owned())?;
        check(lease.attempt == self.attempts, || {
            format!("attempt {}, not {}", lease.attempt, self.attempts)
        })?;
        (self.fence, self.begun) = (fence, lease.begun);
        self.place = Place::Held(lease.until);
        Ok(())
    }

    pub(super) const fn began(&mut self) {
        self.begun = true;
    }

    /// An attempt failed or was lost; the next one comes at `at`.
    pub(super) fn fail(&mut self, at: Timestamp, now: Timestamp) {
        let used_up = self.attempts >= ATTEMPTS;
        match (self.is_flow(), self.close.is_none()) {
            (true, true) if self.stop => self.close_for(CloseReason::Cancelled),
            (true, true) if used_up => self.close_for(CloseReason::Exhausted),
            (false, _) if self.stop => self.place = Place::Ended(CallState::Cancelled),
            (false, _) if used_up => self.place = Place::Ended(CallState::Dead),
            _ if at > now => self.place = Place::Delayed(at),
            _ => self.place = Place::Waiting,
        }
    }

    pub(super) fn release(&mut self) {
        self.begun = false;
        if self.close.is_none() {
            self.attempts -= 1;
        }
        match (self.is_flow(), self.close.is_none()) {
            (true, true) if self.stop => self.close_for(CloseReason::Cancelled),
            (false, _) if self.stop => self.place = Place::Ended(CallState::Cancelled),
            _ => self.place = Place::Waiting,
        }
    }

    pub(super) fn close_for(&mut self, why: CloseReason) {
        self.close.get_or_insert(why);
        self.place = Place::Waiting;
    }
}

pub(super) fn check(right: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if right { Ok(()) } else { Err(why()) }
}
