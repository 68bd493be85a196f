//! The store that asks before each call.

use super::{Faults, Method};
use async_trait::async_trait;
use crosspoint_core::{
    Begun, CallStatus, Cancel, Capabilities, Checkpointed, Code, CustomerId, DispatchAdmin, DispatchStore, Enqueue,
    Enqueued, Envelope, Error, Execution, ExecutionFilter, Executions, Extended, Finish, Finished, FleetScope,
    FlowState, InstallationId, InvocationId, LaneStats, Lease, LeaseRef, LeaseRequest, Page, Paged, Result, Scope,
    Settle, Settled, StateSnapshot, Store, TargetId, TargetStats, Timestamp,
};
use std::{sync::Arc, time::Duration};

#[derive(Debug)]
pub(super) struct Faulty {
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
        let read = self.inner.dispatch.get(scope, id);
        self.faults.around(Method::Get, read).await
    }

    async fn ended(&self, ids: &[InvocationId]) -> Result<Vec<CallStatus>> {
        let read = self.inner.dispatch.ended(ids);
        self.faults.around(Method::Ended, read).await
    }

    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel> {
        let write = self.inner.dispatch.cancel(scope, id);
        self.faults.around(Method::Cancel, write).await
    }

    fn admin(&self) -> Option<&dyn DispatchAdmin> {
        self.inner.dispatch.admin().map(|_| self as &dyn DispatchAdmin)
    }
}

impl Faulty {
    pub(super) const fn new(inner: Store, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }

    fn real_admin(&self) -> Result<&dyn DispatchAdmin> {
        let admin = self.inner.dispatch.admin();
        admin.ok_or_else(|| Error::new(Code::StoreUnsupported, "the store has no side for operators"))
    }
}

#[async_trait]
impl DispatchAdmin for Faulty {
    async fn stats(&self) -> Result<Vec<TargetStats>> {
        let read = self.real_admin()?.stats();
        self.faults.around(Method::Stats, read).await
    }

    async fn lane(&self, target: &TargetId, customer: &CustomerId) -> Result<LaneStats> {
        let read = self.real_admin()?.lane(target, customer);
        self.faults.around(Method::Lane, read).await
    }

    async fn dead(&self, scope: Scope<'_>, page: Page) -> Result<Paged<CallStatus>> {
        let read = self.real_admin()?.dead(scope, page);
        self.faults.around(Method::Dead, read).await
    }

    async fn redrive(&self, scope: Scope<'_>, ids: &[InvocationId]) -> Result<Vec<Option<InvocationId>>> {
        let write = self.real_admin()?.redrive(scope, ids);
        self.faults.around(Method::Redrive, write).await
    }

    async fn purge(&self, before: Timestamp, limit: usize) -> Result<usize> {
        let write = self.real_admin()?.purge(before, limit);
        self.faults.around(Method::Purge, write).await
    }

    async fn recall(&self, target: &TargetId) -> Result<Option<String>> {
        let read = self.real_admin()?.recall(target);
        self.faults.around(Method::Recall, read).await
    }

    async fn remember(&self, target: &TargetId, note: &str) -> Result<()> {
        let write = self.real_admin()?.remember(target, note);
        self.faults.around(Method::Remember, write).await
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

#[async_trait]
impl FlowState for Faulty {
    async fn state(&self, scope: Scope<'_>, installation: InstallationId, flow: &str) -> Result<StateSnapshot> {
        self.inner.state.state(scope, installation, flow).await
    }

    async fn checkpoint(&self, scope: &FleetScope, lease: LeaseRef, state: StateSnapshot) -> Result<Checkpointed> {
        let write = self.inner.state.checkpoint(scope, lease, state);
        self.faults.around(Method::Checkpoint, write).await
    }
}
