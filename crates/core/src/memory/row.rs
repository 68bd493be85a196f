//! A call as it is kept, and the place where it stands.

use super::lanes::{Entry, Side};
use crate::{
    CallState, CallStatus, CloseReason, Envelope, ExecutionStatus, Failure, Fence, InstallationId, InvocationId,
    Isolation, Lease, LeaseRef, Progress, Reply, TargetId, Timestamp, Timings, Usage,
};
use std::{cmp::Reverse, sync::Arc};

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) seq: u64,
    /// The number of its target.
    pub(super) target: usize,
    /// The number of its customer's lanes.
    pub(super) lane: usize,
    /// What the request takes up, in bytes.
    pub(super) size: u64,
    pub(super) envelope: Envelope,
    pub(super) fence: u64,
    pub(super) attempt: u32,
    /// How many of the attempts had begun when their worker was lost.
    pub(super) lost: u32,
    pub(super) place: Place,
    pub(super) begun: bool,
    pub(super) stop: bool,
    pub(super) close: Option<CloseReason>,
    /// Whether it counts as running at its bounds.
    pub(super) counted: bool,
    /// Since when it is ready, or was before the present lease.
    pub(super) since: Timestamp,
    pub(super) started: Option<Timestamp>,
    pub(super) failure: Option<Failure>,
    pub(super) timings: Timings,
    pub(super) isolation: Option<Isolation>,
    pub(super) usage: Usage,
    /// The revision of the installation that the last attempt ran with.
    pub(super) revision: Option<u64>,
    pub(super) progress: Option<Progress>,
}

#[derive(Debug, Clone)]
pub(super) enum Place {
    Ready(Side),
    Leased {
        until: Timestamp,
    },
    Delayed {
        until: Timestamp,
    },
    /// Not the head of its ordering key.
    Blocked,
    /// So many of this key run already.
    Bounded(Arc<str>),
    Done(Done),
}

#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) state: CallState,
    pub(super) status: Option<ExecutionStatus>,
    pub(super) reply: Option<Reply>,
    pub(super) at: Timestamp,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub(super) fingerprint: [u8; 16],
    pub(super) id: InvocationId,
    pub(super) expires: Timestamp,
}

impl Row {
    pub(super) const fn target(&self) -> &TargetId {
        &self.envelope.invocation.meta.target
    }

    pub(super) const fn is_flow(&self) -> bool {
        self.envelope.flow.is_some()
    }

    /// Which revision of which installation an execution ran with, or is to run with.
    pub(super) fn ran(&self) -> Option<(InstallationId, u64)> {
        let flow = self.envelope.flow.as_ref()?;
        Some((flow.installation, self.revision.or(flow.revision)?))
    }

    pub(super) const fn done(&self) -> Option<&Done> {
        match &self.place {
            Place::Done(done) => Some(done),
            _ => None,
        }
    }

    pub(super) const fn entry(&self) -> Entry {
        (Reverse(self.envelope.invocation.meta.priority), self.seq)
    }

    /// Where it belongs when it is ready: held while somebody is kept waiting.
    pub(super) fn side(&self, now: Timestamp) -> Side {
        match self.envelope.hold_until {
            Some(until) if until > now => Side::Held,
            _ => Side::Sideline,
        }
    }

    /// Where its place stands among the timers.
    pub(super) fn due(&self) -> Option<Timestamp> {
        match &self.place {
            Place::Leased { until } | Place::Delayed { until } => Some(*until),
            Place::Ready(Side::Held) => self.envelope.hold_until,
            Place::Ready(Side::Sideline) | Place::Blocked | Place::Bounded(_) | Place::Done(_) => None,
        }
    }

    pub(super) const fn reference(&self) -> LeaseRef {
        LeaseRef::new(self.envelope.id(), Fence::new(self.fence), self.seq)
    }

    /// How many deliveries before the present one were no attempts: each takes a fence, and only attempts are counted.
    fn returned(&self) -> u32 {
        let deliveries = self.fence.saturating_sub(u64::from(self.close.is_some()));
        u32::try_from(deliveries.saturating_sub(u64::from(self.attempt))).unwrap_or(u32::MAX)
    }

    pub(super) fn lease(&self, until: Timestamp) -> Lease {
        let mut lease = Lease::new(self.envelope.clone(), self.reference(), self.attempt, self.since, until);
        lease.lost = self.lost;
        lease.returned = self.returned();
        lease.begun = self.begun;
        lease.close = self.close;
        lease.envelope.invocation.meta.attempt = self.attempt;
        lease
    }

    pub(super) fn status(&self) -> CallStatus {
        let meta = &self.envelope.invocation.meta;
        let state = match &self.place {
            Place::Ready(_) | Place::Blocked | Place::Bounded(_) => CallState::Queued,
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

/// What a request takes up, in bytes.
pub(super) fn size(request: &http::Request<bytes::Bytes>) -> u64 {
    let headers = request.headers().iter();
    let headers: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    (request.body().len() + path + headers) as u64
}
