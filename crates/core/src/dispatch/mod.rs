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
//! 7. A lease brings the calls of one [`MaxInFlight`] key never above its maximum. An adopted call is let through all the
//!    same, and counts; a delivery that only closes a call is let through and does not count.

mod bounds;
mod envelope;
mod lease;
mod status;

pub use bounds::{MaxInFlight, Rate};
pub use envelope::{Enqueue, Enqueued, Envelope, LeaseTerms, Origin, Start};
pub use lease::{CloseReason, CustomerTerms, Extended, Failure, Lease, LeaseRef, LeaseRequest, Queue, Settle, Settled};
pub use status::{CallState, CallStatus, Cancel};

use crate::{CustomerId, InvocationId, Page, Paged, Result, Scope, TargetId, Timestamp};
use async_trait::async_trait;
use std::{fmt::Debug, time::Duration};

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

    /// Leases ready work, fairly between customers; waits up to [`LeaseRequest::wait`] for some. None means that nothing
    /// was ready; fewer than asked for may leave more behind.
    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>>;

    /// Heartbeats: each lease now ends `length` from now. One answer per lease, in order.
    async fn extend(&self, leases: &[LeaseRef], length: Duration) -> Result<Vec<Extended>>;

    /// Ends leases. One answer per settle, in order.
    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<Settled>>;

    /// What is known of a call; `None` if there is none in this scope, or no longer.
    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<CallStatus>>;

    /// Asks for a call to stop. For a flow the execution is marked in the same commit.
    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel>;

    /// Those of these calls that have ended, in any order: what somebody who waits for many calls asks again and again.
    async fn ended(&self, ids: &[InvocationId]) -> Result<Vec<CallStatus>> {
        #[expect(
            clippy::disallowed_methods,
            reason = "whoever waits has shown its right to the call before"
        )]
        let fleet = crate::FleetScope::trusted();
        let mut ended = Vec::new();
        for id in ids {
            let status = self.get(Scope::Fleet(&fleet), *id).await?;
            ended.extend(status.filter(|status| status.state.is_terminal()));
        }
        Ok(ended)
    }

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
    /// Waiting for a worker, held and sidelined.
    pub ready: u64,
    /// Of those, the ones that somebody waits for.
    pub held: u64,
    /// What the waiting calls take up, in bytes: requests with their headers.
    pub bytes: u64,
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
            held: 0,
            bytes: 0,
            delayed: 0,
            leased: 0,
            dead: 0,
            oldest: None,
        }
    }
}

/// What waits in one lane: calls of one customer for one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct LaneStats {
    /// Waiting for a worker, held and sidelined.
    pub ready: u64,
    /// What these take up, in bytes: requests with their headers.
    pub bytes: u64,
}

impl LaneStats {
    /// So many calls with so many bytes.
    #[must_use]
    pub const fn new(ready: u64, bytes: u64) -> Self {
        Self { ready, bytes }
    }
}

/// What operators can do with a store.
#[async_trait]
pub trait DispatchAdmin: Send + Sync {
    /// Counts per target.
    async fn stats(&self) -> Result<Vec<TargetStats>>;

    /// Counts of one customer's calls for one target; none where nothing is known of either.
    async fn lane(&self, target: &TargetId, customer: &CustomerId) -> Result<LaneStats>;

    /// Dead letters, newest first.
    async fn dead(&self, scope: Scope<'_>, page: Page) -> Result<Paged<CallStatus>>;

    /// Puts ended calls that did not succeed back to work under new ids with the same run key, and answers with the new
    /// ids; `None` where there is nothing to redrive.
    async fn redrive(&self, scope: Scope<'_>, ids: &[InvocationId]) -> Result<Vec<Option<InvocationId>>>;

    /// Deletes up to `limit` calls that ended before `before`, oldest first, with their logs and with the keys that
    /// have expired. Answers how many calls went.
    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize>;

    /// The note that was last left about a target; `None` if there is none.
    async fn recall(&self, target: &TargetId) -> Result<Option<String>>;

    /// Leaves a note about a target in place of the last one: what a process has learnt of it, for the next to start from.
    async fn remember(&self, target: &TargetId, note: &str) -> Result<()>;
}
