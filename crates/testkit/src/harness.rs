//! What a suite gets: a store, its clock, and short words for what suites do all the time.

use crate::{clock::ManualClock, envelope, scope};
use crosspoint_core::{
    CallStatus, Cancel, Clock, Enqueue, Enqueued, Envelope, Execution, Extended, Failure, Finish, Finished,
    InvocationId, Lease, LeaseRef, LeaseRequest, LeaseTerms, Outcome, Settle, Settled, Store, TargetId, Timestamp,
    WorkerId,
};
use std::{any::Any, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::runtime::Handle;

/// How long the leases of the suites last.
pub const LEASE: Duration = Duration::from_secs(30);

type Reopen = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Store> + Send>> + Send + Sync>;

/// An empty store to be tested, and the clock that it reads.
///
/// ```
/// use crosspoint_core::Memory;
/// use crosspoint_testkit::{Harness, ManualClock};
/// use std::sync::Arc;
///
/// async fn harness() -> Harness {
///     let clock = Arc::new(ManualClock::new());
///     Harness::new(Memory::with_clock(clock.clone()), clock)
/// }
/// ```
pub struct Harness {
    /// The store.
    pub store: Store,
    /// Its clock.
    pub clock: Arc<ManualClock>,
    reopen: Option<Reopen>,
    keep: Vec<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness")
            .field("store", &self.store)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

impl Harness {
    /// A store that reads this clock.
    pub fn new(store: impl Into<Store>, clock: Arc<ManualClock>) -> Self {
        Self {
            store: store.into(),
            clock,
            reopen: None,
            keep: Vec::new(),
        }
    }

    /// How the same data is opened once more, on the same clock, as by the process that follows a crashed one.
    #[must_use]
    pub fn reopening<F, R>(mut self, reopen: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Store> + Send + 'static,
    {
        self.reopen = Some(Box::new(move || Box::pin(reopen())));
        self
    }

    /// Keeps something (a temporary folder) until the harness goes.
    #[must_use]
    pub fn keeping(mut self, what: impl Any + Send + Sync) -> Self {
        self.keep.push(Box::new(what));
        self
    }

    /// The store as the process after a crash sees it: reopened where the harness can, else the same.
    pub async fn after_crash(&self) -> Store {
        match &self.reopen {
            Some(reopen) => reopen().await,
            None => self.store.clone(),
        }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Lets so much time pass that every lease of [`LEASE`] ends.
    pub fn expire_leases(&self) {
        self.clock.advance(LEASE + Duration::from_millis(1));
    }

    /// A call to a service.
    #[must_use]
    pub fn service(&self, target: &str, customer: &str) -> Envelope {
        envelope::service(&*self.clock, target, customer)
    }

    /// A run of a flow.
    #[must_use]
    pub fn flow(&self, target: &str, customer: &str) -> Envelope {
        envelope::flow(&*self.clock, target, customer)
    }

    /// Stores one envelope.
    pub async fn enqueue(&self, item: Enqueue) -> Enqueued {
        let mut answers = self.store.dispatch.enqueue(vec![item]).await.unwrap();
        assert_eq!(answers.len(), 1, "one answer per envelope");
        answers.remove(0)
    }

    /// Stores a new envelope in the queue.
    pub async fn queue(&self, envelope: Envelope) -> InvocationId {
        let id = envelope.id();
        let answer = self.enqueue(Enqueue::queued(envelope)).await;
        assert!(matches!(answer, Enqueued::New(None)), "a new id is stored: {answer:?}");
        id
    }

    /// Stores a new envelope that is leased to the caller at once, because nothing stands before it.
    pub async fn start(&self, envelope: Envelope) -> Lease {
        match self.enqueue(Enqueue::leased(envelope, terms("starter"))).await {
            Enqueued::New(Some(lease)) => *lease,
            other => panic!("the lease was not granted: {other:?}"),
        }
    }

    /// Leases up to `max` calls, begun.
    pub async fn lease(&self, target: &str, max: usize) -> Vec<Lease> {
        self.store.dispatch.lease(request(target, max)).await.unwrap()
    }

    /// Leases one call, begun, if there is one.
    pub async fn try_take(&self, target: &str) -> Option<Lease> {
        self.lease(target, 1).await.pop()
    }

    /// Leases one call, begun; there must be one.
    pub async fn take(&self, target: &str) -> Lease {
        self.try_take(target).await.expect("there is work")
    }

    /// Leases one call as a worker does that prefetches: not begun.
    pub async fn prefetch(&self, target: &str) -> Lease {
        let mut request = request(target, 1);
        request.begin = false;
        let mut leases = self.store.dispatch.lease(request).await.unwrap();
        leases.pop().expect("there is work")
    }

    /// One heartbeat.
    pub async fn extend(&self, lease: LeaseRef) -> Extended {
        let answers = self.store.dispatch.extend(&[lease], LEASE).await.unwrap();
        assert_eq!(answers.len(), 1, "one answer per heartbeat");
        *answers.first().expect("checked")
    }

    /// One settle.
    pub async fn settle(&self, settle: Settle) -> Settled {
        let answers = self.store.dispatch.settle(vec![settle]).await.unwrap();
        assert_eq!(answers.len(), 1, "one answer per settle");
        *answers.first().expect("checked")
    }

    /// Completes a service's call.
    pub async fn complete(&self, lease: LeaseRef, body: &str) -> Settled {
        let reply = envelope::reply(body);
        self.settle(Settle::Complete { lease, reply }).await
    }

    /// Settles with a retry after `delay`.
    pub async fn retry(&self, lease: LeaseRef, delay: Duration) -> Settled {
        let (at, failure) = (self.now().plus(delay), failure("it failed"));
        self.settle(Settle::Retry { lease, at, failure }).await
    }

    /// What the store knows of a call.
    pub async fn try_status(&self, id: InvocationId) -> Option<CallStatus> {
        let fleet = scope::fleet();
        self.store.dispatch.get((&fleet).into(), id).await.unwrap()
    }

    /// What the store knows of a call that must be there.
    pub async fn status(&self, id: InvocationId) -> CallStatus {
        self.try_status(id).await.expect("the call is kept")
    }

    /// The execution, which must be there.
    pub async fn execution(&self, id: InvocationId) -> Execution {
        let fleet = scope::fleet();
        let execution = self.store.executions.get((&fleet).into(), id).await.unwrap();
        execution.expect("the execution is kept")
    }

    /// Writes what an attempt leaves.
    pub async fn finish(&self, finish: Finish) -> Finished {
        self.store.executions.finish(&scope::fleet(), finish).await.unwrap()
    }

    /// Ends an attempt with this outcome and nothing else.
    pub async fn outcome(&self, lease: LeaseRef, outcome: Outcome) -> Finished {
        self.finish(Finish::new(lease, outcome)).await
    }

    /// Asks for a call to stop.
    pub async fn cancel(&self, id: InvocationId) -> Cancel {
        let fleet = scope::fleet();
        self.store.dispatch.cancel((&fleet).into(), id).await.unwrap()
    }
}

/// A worker's usual terms.
pub(crate) fn terms(worker: &str) -> LeaseTerms {
    LeaseTerms::new(WorkerId::new(worker).unwrap(), LEASE)
}

/// Up to `max` calls for `worker`, begun.
pub(crate) fn request(target: &str, max: usize) -> LeaseRequest {
    LeaseRequest::new(TargetId::new(target).unwrap(), terms("worker"), max)
}

/// A failure that may be tried again.
pub(crate) fn failure(message: &str) -> Failure {
    Failure::new(crosspoint_core::Code::FlowFailed, message)
}

/// Runs `n` copies of an operation at once, each on a thread of its own, and gathers the answers.
pub async fn race<T, R>(n: usize, operation: impl Fn(usize) -> R) -> Vec<T>
where
    R: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let runtime = Handle::current();
    let started: Vec<_> = (0..n)
        .map(|i| {
            let (runtime, work) = (runtime.clone(), operation(i));
            tokio::task::spawn_blocking(move || runtime.block_on(work))
        })
        .collect();
    let mut answers = Vec::with_capacity(n);
    for task in started {
        answers.push(task.await.expect("no panic"));
    }
    answers
}
