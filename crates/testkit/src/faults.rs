//! A store that fails when it is told to, before or after the write took effect.

use async_trait::async_trait;
use crosspoint_core::{
    Begun, CallStatus, Cancel, Capabilities, Code, DispatchAdmin, DispatchStore, Enqueue, Enqueued, Envelope, Error,
    Execution, ExecutionFilter, Executions, Extended, Finish, Finished, FleetScope, InstallationId, InvocationId,
    Lease, LeaseRef, LeaseRequest, Page, Paged, Result, Scope, Settle, Settled, Store,
};
use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A method that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// [`DispatchStore::enqueue`]
    Enqueue,
    /// [`DispatchStore::lease`]
    Lease,
    /// [`DispatchStore::extend`]
    Extend,
    /// [`DispatchStore::settle`]
    Settle,
    /// `cancel` of either trait
    Cancel,
    /// [`Executions::begin`]
    Begin,
    /// [`Executions::finish`]
    Finish,
}

/// On which side of the write it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum When {
    /// Nothing was written.
    Before,
    /// All of it was written, and the caller does not learn that.
    After,
}

#[derive(Debug)]
struct Plan {
    /// `None`: any method.
    method: Option<Method>,
    /// How many calls from now; 1 is the next.
    left: usize,
    when: When,
}

/// Decides which calls fail. All calls go through until a fault is planned.
///
/// ```
/// use crosspoint_core::{Enqueue, Memory};
/// use crosspoint_testkit::{Faults, ManualClock, Method, When, envelope};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (store, faults) = Faults::wrap(&Memory::new().into());
/// let call = envelope::service(&ManualClock::new(), "target", "acme");
/// faults.fail(Method::Enqueue, 1, When::After);
/// assert!(store.dispatch.enqueue(vec![Enqueue::queued(call.clone())]).await.is_err());
/// // It took effect: the same again is a duplicate.
/// let again = store.dispatch.enqueue(vec![Enqueue::queued(call)]).await;
/// assert_eq!(format!("{again:?}"), "Ok([Duplicate])");
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Faults {
    plan: Mutex<Option<Plan>>,
}

impl Faults {
    /// The same store behind faults; its repositories other than `dispatch` and `executions` are passed on.
    #[must_use]
    pub fn wrap(store: &Store) -> (Store, Arc<Self>) {
        let faults = Arc::new(Self::default());
        let faulty = Faulty {
            inner: store.clone(),
            faults: Arc::clone(&faults),
        };
        let faulty = Arc::new(faulty);
        let mut wrapped = store.clone();
        wrapped.dispatch = faulty.clone();
        wrapped.executions = faulty;
        (wrapped, faults)
    }

    /// The `n`-th call of `method` from now fails (1 is the next), once.
    pub fn fail(&self, method: Method, n: usize, when: When) {
        self.set(Some(method), n, when);
    }

    /// The `n`-th write from now fails, whichever method it is, once.
    pub fn fail_write(&self, n: usize, when: When) {
        self.set(None, n, when);
    }

    /// Whether a planned fault is still to come.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn set(&self, method: Option<Method>, left: usize, when: When) {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(Plan { method, left, when });
    }

    /// Counts a call down; answers when it is the one that fails.
    fn turn(&self, method: Method) -> Option<When> {
        let mut slot = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = slot.as_mut().filter(|plan| plan.method.is_none_or(|m| m == method))?;
        plan.left = plan.left.saturating_sub(1);
        if plan.left > 0 {
            return None;
        }
        slot.take().map(|plan| plan.when)
    }

    async fn around<T: Send>(&self, method: Method, write: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let injected = || Error::new(Code::StoreUnavailable, "an injected fault").with("method", format!("{method:?}"));
        match self.turn(method) {
            Some(When::Before) => Err(injected()),
            Some(When::After) => {
                drop(write.await?);
                Err(injected())
            }
            None => write.await,
        }
    }
}

#[derive(Debug)]
struct Faulty {
    inner: Store,
    faults: Arc<Faults>,
}

#[async_trait]
impl DispatchStore for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.inner.dispatch.capabilities()
    }

    async fn enqueue(&self, items: Vec<Enqueue>) -> Result<Vec<Enqueued>> {
        let write = self.inner.dispatch.enqueue(items);
        self.faults.around(Method::Enqueue, write).await
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>> {
        let write = self.inner.dispatch.lease(request);
        self.faults.around(Method::Lease, write).await
    }

    async fn extend(&self, leases: &[LeaseRef], length: Duration) -> Result<Vec<Extended>> {
        let write = self.inner.dispatch.extend(leases, length);
        self.faults.around(Method::Extend, write).await
    }

    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<Settled>> {
        let write = self.inner.dispatch.settle(settles);
        self.faults.around(Method::Settle, write).await
    }

    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<CallStatus>> {
        self.inner.dispatch.get(scope, id).await
    }

    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel> {
        let write = self.inner.dispatch.cancel(scope, id);
        self.faults.around(Method::Cancel, write).await
    }

    fn admin(&self) -> Option<&dyn DispatchAdmin> {
        self.inner.dispatch.admin()
    }
}

#[async_trait]
impl Executions for Faulty {
    async fn begin(&self, scope: &FleetScope, lease: LeaseRef) -> Result<Begun> {
        let write = self.inner.executions.begin(scope, lease);
        self.faults.around(Method::Begin, write).await
    }

    async fn finish(&self, scope: &FleetScope, finish: Finish) -> Result<Finished> {
        let write = self.inner.executions.finish(scope, finish);
        self.faults.around(Method::Finish, write).await
    }

    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel> {
        let write = self.inner.executions.cancel(scope, id);
        self.faults.around(Method::Cancel, write).await
    }

    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<Execution>> {
        self.inner.executions.get(scope, id).await
    }

    async fn envelope(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<Envelope>> {
        self.inner.executions.envelope(scope, id).await
    }

    async fn list(&self, scope: Scope<'_>, filter: &ExecutionFilter, page: Page) -> Result<Paged<Execution>> {
        self.inner.executions.list(scope, filter, page).await
    }

    async fn active(&self, scope: &FleetScope, installation: InstallationId, flow: &str) -> Result<u64> {
        self.inner.executions.active(scope, installation, flow).await
    }
}
