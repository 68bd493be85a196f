//! What is stored: an envelope, and what happens to it in the commit that stores it.

use super::{Lease, MaxInFlight, Rate};
use crate::{CustomerId, FlowRef, Invocation, InvocationId, RunKey, Timestamp, WorkerId};
use std::time::Duration;

/// A stored invocation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Envelope {
    /// The call.
    pub invocation: Invocation,
    /// Set for flows: the execution is then the truth and this envelope only its transport.
    pub flow: Option<FlowRef>,
    /// When it was accepted.
    pub created: Timestamp,
    /// Not delivered before this time.
    pub not_before: Option<Timestamp>,
    /// Not begun after this time.
    pub expires: Option<Timestamp>,
    /// How many attempts are made at most.
    pub max_attempts: u32,
    /// Whether begun work may be started again when nobody knows how it ended. Always true for flows, whose effects
    /// happen at least once.
    pub repeatable: bool,
    /// What it repeats.
    pub origin: Origin,
    /// Until when somebody is kept waiting for the answer. While that lasts the call stands in the held queue, which goes
    /// before the sideline, where everything else waits.
    pub hold_until: Option<Timestamp>,
    /// How many calls like it run at once; all of them must have room. At most 8.
    pub bounds: Vec<MaxInFlight>,
    /// How often calls like it start.
    pub rate: Option<Rate>,
}

/// Whether a call is the first of its kind or repeats another.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Origin {
    /// It repeats nothing.
    #[default]
    First,
    /// It continues a call that ended badly, with the same keys for outside effects.
    Redrive(InvocationId),
    /// It does the same again, on purpose, with keys of its own.
    Replay(InvocationId),
}

impl Envelope {
    /// An envelope for a service: five attempts, not repeatable.
    #[must_use]
    pub const fn service(invocation: Invocation, created: Timestamp) -> Self {
        Self {
            invocation,
            flow: None,
            created,
            not_before: None,
            expires: None,
            max_attempts: 5,
            repeatable: false,
            origin: Origin::First,
            hold_until: None,
            bounds: Vec::new(),
            rate: None,
        }
    }

    /// An envelope for a flow: five attempts, repeatable.
    #[must_use]
    pub fn flow(invocation: Invocation, flow: FlowRef, created: Timestamp) -> Self {
        let mut envelope = Self::service(invocation, created);
        envelope.flow = Some(flow);
        envelope.repeatable = true;
        envelope
    }

    /// The call's id.
    #[must_use]
    pub const fn id(&self) -> InvocationId {
        self.invocation.meta.id
    }

    /// Whose it is.
    #[must_use]
    pub const fn customer(&self) -> &CustomerId {
        &self.invocation.meta.customer
    }

    /// The same work under a new id.
    #[must_use]
    pub fn again(&self, id: InvocationId, now: Timestamp, origin: Origin) -> Self {
        let mut again = self.clone();
        let meta = &mut again.invocation.meta;
        meta.id = id;
        meta.attempt = 1;
        meta.delivery = None;
        meta.idempotency_key = None;
        if matches!(origin, Origin::Replay(_)) {
            meta.run_key = RunKey::from_uuid(*id.as_uuid());
        }
        again.created = now;
        again.not_before = None;
        again.expires = None;
        again.hold_until = None;
        again.origin = origin;
        again
    }
}

/// One envelope to be stored, and what happens to it at once.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Enqueue {
    /// What to store.
    pub envelope: Envelope,
    /// Whether the caller gets the lease in the same commit.
    pub start: Start,
}

impl Enqueue {
    /// Stored and left in the queue.
    #[must_use]
    pub const fn queued(envelope: Envelope) -> Self {
        Self {
            envelope,
            start: Start::Queue,
        }
    }
    /// Stored and, if its turn has come, leased to the caller in the same commit.
    #[must_use]
    pub const fn leased(envelope: Envelope, terms: LeaseTerms) -> Self {
        Self {
            envelope,
            start: Start::Lease(terms),
        }
    }
    /// Stored as already started by the caller, who holds the lease.
    #[must_use]
    pub const fn adopted(envelope: Envelope, terms: LeaseTerms) -> Self {
        Self {
            envelope,
            start: Start::Adopt(terms),
        }
    }
}

/// What happens to an envelope in the commit that stores it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Start {
    /// It waits for a worker.
    Queue,
    /// It is leased to the caller and begun, unless something of the same customer and target, or of the same ordering
    /// key, waits before it, or it is delayed: then it waits as well.
    Lease(LeaseTerms),
    /// It has already been started by the caller (adoption): leased to the caller and begun without regard to order.
    Adopt(LeaseTerms),
}

/// Who gets a lease and for how long.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeaseTerms {
    /// The worker.
    pub worker: WorkerId,
    /// How long the lease lasts unless extended.
    pub length: Duration,
}

impl LeaseTerms {
    /// A lease for `worker` of this length.
    #[must_use]
    pub const fn new(worker: WorkerId, length: Duration) -> Self {
        Self { worker, length }
    }
}

/// What became of one enqueued envelope.
#[derive(Debug)]
#[non_exhaustive]
pub enum Enqueued {
    /// Stored; with the lease if it was asked for and granted.
    New(Option<Box<Lease>>),
    /// This id is known already; nothing was changed.
    Duplicate,
    /// The idempotency key is known with the same request: this is the call it belongs to.
    Attached(InvocationId),
    /// The idempotency key is known with another request.
    KeyReused(InvocationId),
}
