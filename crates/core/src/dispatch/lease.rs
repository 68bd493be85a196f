//! The right to work on an envelope for a while, and how it ends.

use super::{Envelope, LeaseTerms};
use crate::{Code, CustomerId, Error, Fence, InvocationId, Reply, TargetId, Timestamp};
use std::{sync::Arc, time::Duration};

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
    /// From which queue. Default: held calls first, then the sideline.
    pub queue: Queue,
    /// Whether the held call that came last goes first (within a customer). Default false. The sideline is always in order.
    pub newest_first: bool,
    /// Held calls whose client will be kept waiting for less than this are not worth hurrying for: instead of being leased
    /// from the held queue they go to the sideline. Default zero: only those whose wait is over.
    pub hopeless: Duration,
    /// How single customers are treated now; those not named here are ordinary.
    pub customers: Arc<[CustomerTerms]>,
}

/// Which of a target's two queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Queue {
    /// Calls that somebody waits for go first, then the sideline.
    #[default]
    HeldFirst,
    /// Only calls that somebody waits for.
    Held,
    /// Only calls that nobody is kept waiting for.
    Sideline,
}

/// How one customer is treated in a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CustomerTerms {
    /// Whom it is about.
    pub customer: CustomerId,
    /// Whether the customer's calls are passed over this time.
    pub skip: bool,
    /// How many turns one call costs, at least 1: customers whose calls take long are charged for it.
    pub charge: u32,
}

impl CustomerTerms {
    /// An ordinary customer.
    #[must_use]
    pub const fn new(customer: CustomerId) -> Self {
        Self {
            customer,
            skip: false,
            charge: 1,
        }
    }

    /// Passes the customer over.
    #[must_use]
    pub const fn skipped(mut self) -> Self {
        self.skip = true;
        self
    }

    /// Sets how many turns a call costs.
    #[must_use]
    pub const fn charged(mut self, turns: u32) -> Self {
        self.charge = if turns == 0 { 1 } else { turns };
        self
    }
}

impl LeaseRequest {
    /// Up to `max` envelopes that are begun at once, without waiting.
    #[must_use]
    pub fn new(target: TargetId, terms: LeaseTerms, max: usize) -> Self {
        Self {
            target,
            terms,
            max,
            wait: Duration::ZERO,
            begin: true,
            queue: Queue::HeldFirst,
            newest_first: false,
            hopeless: Duration::ZERO,
            customers: Arc::default(),
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
    /// Names the lease in [`DispatchStore::extend`](crate::DispatchStore::extend) and [`DispatchStore::settle`](crate::DispatchStore::settle).
    pub reference: LeaseRef,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// How many attempts before this one had begun when their lease was lost: their worker died, was stopped without a
    /// word, or could not reach the store for a whole lease.
    pub lost: u32,
    /// How many deliveries before this one were no attempts: given back without having been begun, or only to be closed.
    pub returned: u32,
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
    /// For implementations of [`DispatchStore`](crate::DispatchStore).
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
            lost: 0,
            returned: 0,
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
    /// For implementations of [`DispatchStore`](crate::DispatchStore).
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
