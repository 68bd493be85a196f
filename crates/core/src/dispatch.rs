//! The durable side of dispatch: queue, idempotency keys and replies behind one trait, because they must be atomic
//! together.
//!
//! # Rules every store keeps
//!
//! 1. A lease mints a [`Fence`] that is higher than every earlier one of the same id. A write under an older fence
//!    answers `Stale` and changes nothing.
//! 2. A flow's envelope is never ended by the store itself. When its attempts are used up, when it expires or is
//!    cancelled, it is delivered once more with a [`CloseReason`], so that its owner closes the execution.
//! 3. A service's envelope is ended by the store: lost leases of work that may be repeated make it ready again, of
//!    other begun work end it as [`CallState::Unknown`].
//! 4. Terminal states never change. A redrive is a new id.
//! 5. Ids are recognised for as long as the call is kept, finished or not: enqueueing one twice is
//!    [`Enqueued::Duplicate`].
//! 6. Time is the store's own clock.

use crate::{
    Code, CustomerId, Error, Fence, FlowRef, Invocation, InvocationId, Page, Paged, Reply, Result, RunKey, Scope,
    TargetId, Timestamp, WorkerId,
};
use async_trait::async_trait;
use std::{fmt::Debug, sync::Arc, time::Duration};

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

/// What a worker asks for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeaseRequest {
    /// Of which target.
    pub target: TargetId,
    /// For whom and how long.
    pub terms: LeaseTerms,
    /// At most so many: never more than the worker can start now.
    pub max: usize,
    /// How long to wait for work when there is none.
    pub wait: Duration,
    /// Whether to begin the executions in the same commit. A worker that prefetches must not: a lost lease that never
    /// began is certainly repeatable, one that began may not be.
    pub begin: bool,
}

impl LeaseRequest {
    /// Up to `max` envelopes that are begun at once, without waiting.
    #[must_use]
    pub const fn new(target: TargetId, terms: LeaseTerms, max: usize) -> Self {
        Self {
            target,
            terms,
            max,
            wait: Duration::ZERO,
            begin: true,
        }
    }
}

/// The right to work on one envelope for a while.
#[derive(Debug, Clone)]
#[must_use = "a lease that is not settled comes back only when it expires"]
#[non_exhaustive]
pub struct Lease {
    /// The work.
    pub envelope: Envelope,
    /// Names the lease in [`DispatchStore::extend`] and [`DispatchStore::settle`].
    pub reference: LeaseRef,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// Whether it was begun by the commit that leased it.
    pub begun: bool,
    /// When set, the work is not to be run but closed for this reason.
    pub close: Option<CloseReason>,
    /// Since when it was ready.
    pub queued: Timestamp,
    /// When the lease ends, by the store's clock.
    pub until: Timestamp,
}

impl Lease {
    /// For implementations of [`DispatchStore`].
    pub const fn new(
        envelope: Envelope,
        reference: LeaseRef,
        attempt: u32,
        queued: Timestamp,
        until: Timestamp,
    ) -> Self {
        Self {
            envelope,
            reference,
            attempt,
            begun: false,
            close: None,
            queued,
            until,
        }
    }
}

/// Names a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LeaseRef {
    /// The call.
    pub id: InvocationId,
    /// The delivery.
    pub fence: Fence,
    /// The store's own handle on the row, so that no write looks an id up.
    pub token: u64,
}

impl LeaseRef {
    /// For implementations of [`DispatchStore`].
    #[must_use]
    pub const fn new(id: InvocationId, fence: Fence, token: u64) -> Self {
        Self { id, fence, token }
    }
}

/// Why an envelope is delivered only to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CloseReason {
    /// All attempts were used up.
    Exhausted,
    /// It was not begun in time.
    Expired,
    /// Somebody cancelled it.
    Cancelled,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Extended {
    /// The lease goes on.
    Extended,
    /// The lease goes on, and somebody wants the work to stop.
    CancelRequested,
    /// The lease is somebody else's now, or ended.
    Stale,
}

/// How a lease ends. For flows, [`Executions::finish`](crate::Executions::finish) does this.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Settle {
    /// Here is the reply; it is final.
    Complete {
        /// The lease that ends.
        lease: LeaseRef,
        /// What is kept for whoever asks.
        reply: Reply,
    },
    /// This attempt failed; the next one comes at `at`, if attempts are left.
    Retry {
        /// The lease that ends.
        lease: LeaseRef,
        /// When to try again.
        at: Timestamp,
        /// Why it failed.
        failure: Failure,
    },
    /// Back to the queue at once, as if this attempt had not been made (drain, pre-emption, refused work).
    Release {
        /// The lease that ends.
        lease: LeaseRef,
    },
    /// Not to be tried again by itself: a dead letter.
    Dead {
        /// The lease that ends.
        lease: LeaseRef,
        /// Why.
        failure: Failure,
    },
    /// It was started and nobody can know how it ended.
    Unknown {
        /// The lease that ends.
        lease: LeaseRef,
    },
}

impl Settle {
    /// The lease that ends.
    #[must_use]
    pub const fn lease(&self) -> LeaseRef {
        match self {
            Self::Complete { lease, .. }
            | Self::Retry { lease, .. }
            | Self::Release { lease }
            | Self::Dead { lease, .. }
            | Self::Unknown { lease } => *lease,
        }
    }
}

/// The answer to a settle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Settled {
    /// It is written.
    Applied,
    /// The lease was not the current one; nothing was written.
    Stale,
}

/// A failure as it is kept in records.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct Failure {
    /// The stable code.
    pub code: Code,
    /// What happened, without secrets.
    pub message: String,
}

impl Failure {
    /// A failure with a code and a message without secrets.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self::new(error.code(), error.message())
    }
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CallState {
    /// Waiting for its turn.
    Queued,
    /// Waiting for the time of its next attempt.
    Delayed,
    /// A worker holds it.
    Leased,
    /// There is a reply.
    Completed,
    /// A dead letter.
    Dead,
    /// Started, and nobody can know how it ended.
    Unknown,
    /// Cancelled before there was a reply.
    Cancelled,
    /// Not begun in time.
    Expired,
}

impl CallState {
    /// Whether it can never change again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Dead | Self::Unknown | Self::Cancelled | Self::Expired
        )
    }
}

/// What the store knows of a call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallStatus {
    /// The call.
    pub id: InvocationId,
    /// Whose it is.
    pub customer: CustomerId,
    /// Where it goes.
    pub target: TargetId,
    /// Who may see the reply.
    pub principal: Option<Arc<str>>,
    /// Where it stands.
    pub state: CallState,
    /// How many attempts were begun.
    pub attempt: u32,
    /// When it was accepted.
    pub created: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// The reply, once completed.
    pub reply: Option<Reply>,
    /// The last failure.
    pub failure: Option<Failure>,
    /// What it repeats.
    pub origin: Origin,
}

impl CallStatus {
    /// For implementations of [`DispatchStore`].
    #[must_use]
    pub const fn new(
        id: InvocationId,
        customer: CustomerId,
        target: TargetId,
        state: CallState,
        created: Timestamp,
    ) -> Self {
        Self {
            id,
            customer,
            target,
            principal: None,
            state,
            attempt: 0,
            created,
            finished: None,
            reply: None,
            failure: None,
            origin: Origin::First,
        }
    }
}

/// The answer to a wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cancel {
    /// It had not been started and never will be.
    Cancelled,
    /// It is running or, being a flow, will be closed by its owner; it has been told.
    Requested,
    /// It had already ended.
    Finished,
    /// There is no such call in this scope.
    NotFound,
}

/// What a store can promise. Policies read it, and conformance suites skip by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact about a store")]
#[non_exhaustive]
pub struct Capabilities {
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// For how long an id is recognised.
    pub dedupe: Dedupe,
    /// Whether stale writes are refused by the store itself.
    pub fence: bool,
    /// Whether customers take turns by stride scheduling.
    pub fairness: bool,
    /// Whether higher priorities go first within a customer.
    pub priority: bool,
    /// Whether delivery can be delayed.
    pub delay: bool,
    /// Whether queue and repositories commit together.
    pub in_transaction: bool,
}

impl Capabilities {
    /// Everything but durability.
    #[must_use]
    pub const fn complete(durability: Durability) -> Self {
        Self {
            durability,
            dedupe: Dedupe::Retention,
            fence: true,
            fairness: true,
            priority: true,
            delay: true,
            in_transaction: true,
        }
    }
}

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: it lives in memory.
    None,
    /// The death of the process, not of the machine.
    ProcessCrash,
    /// The loss of power, if the disk keeps its word about syncs.
    PowerLoss,
}

/// For how long an id is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dedupe {
    /// As long as the call is kept.
    Retention,
    /// For a window after it was first seen.
    Window(Duration),
}

/// Queue, idempotency keys and replies.
///
/// [`Memory`](crate::Memory) is the one for tests; `crosspoint-sqlite` is the one for a single host.
#[async_trait]
pub trait DispatchStore: Send + Sync + Debug + 'static {
    /// What this store promises.
    fn capabilities(&self) -> Capabilities;

    /// Stores envelopes. When it returns, they are as durable as [`Capabilities::durability`] says. One answer per
    /// envelope, in order.
    async fn enqueue(&self, items: Vec<Enqueue>) -> Result<Vec<Enqueued>>;

    /// Leases ready work, fairly between customers; waits up to [`LeaseRequest::wait`] for some.
    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>>;

    /// Heartbeats: each lease now ends `length` from now. One answer per lease, in order.
    async fn extend(&self, leases: &[LeaseRef], length: Duration) -> Result<Vec<Extended>>;

    /// Ends leases. One answer per settle, in order.
    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<Settled>>;

    /// What is known of a call; `None` if there is none in this scope, or no longer.
    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<CallStatus>>;

    /// Asks for a call to stop. For a flow the execution is marked in the same commit.
    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel>;

    /// The operators' side, where the store has one.
    fn admin(&self) -> Option<&dyn DispatchAdmin> {
        None
    }
}

/// Counts of one target.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct TargetStats {
    /// The target.
    pub target: TargetId,
    /// Waiting for a worker.
    pub ready: u64,
    /// Waiting for a time or behind an ordering key.
    pub delayed: u64,
    /// Held by workers.
    pub leased: u64,
    /// Dead letters that are still kept.
    pub dead: u64,
    /// Since when the oldest ready one waits.
    pub oldest: Option<Timestamp>,
}

impl TargetStats {
    /// No work at all.
    #[must_use]
    pub const fn new(target: TargetId) -> Self {
        Self {
            target,
            ready: 0,
            delayed: 0,
            leased: 0,
            dead: 0,
            oldest: None,
        }
    }
}

/// What operators can do with a store.
#[async_trait]
pub trait DispatchAdmin: Send + Sync {
    /// Counts per target.
    async fn stats(&self) -> Result<Vec<TargetStats>>;

    /// Dead letters, newest first.
    async fn dead(&self, scope: Scope<'_>, page: Page) -> Result<Paged<CallStatus>>;

    /// Puts ended calls that did not succeed back to work under new ids with the same run key, and answers with the new
    /// ids; `None` where there is nothing to redrive.
    async fn redrive(&self, scope: Scope<'_>, ids: &[InvocationId]) -> Result<Vec<Option<InvocationId>>>;

    /// Deletes up to `limit` calls that ended before `before`, oldest first, with their logs and with the keys that
    /// have expired. Answers how many calls went.
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize>;
}
