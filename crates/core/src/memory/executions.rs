//! `Executions` and `FlowState`.

use super::{
    Data, Memory, page_of,
    row::{Done, Place, Row},
};
use crate::{
    Begun, CallState, Cancel, Checkpointed, CloseReason, Enqueue, Envelope, Execution, ExecutionFilter,
    ExecutionStatus, Executions, Finish, Finished, FleetScope, FlowRef, FlowState, InstallationId, InvocationId,
    LeaseRef, Outcome, Page, Paged, Progress, Result, Scope, StateSnapshot, Timestamp,
};
use async_trait::async_trait;

impl Row {
    fn execution_status(&self) -> ExecutionStatus {
        match &self.place {
            Place::Done(done) => done.status.unwrap_or(ExecutionStatus::Failed),
            _ if self.stop || self.close == Some(CloseReason::Cancelled) => ExecutionStatus::Cancelling,
            Place::Leased { .. } => ExecutionStatus::Running,
            _ if self.attempt > 0 => ExecutionStatus::Waiting,
            _ => ExecutionStatus::Queued,
        }
    }

    fn execution(&self) -> Option<Execution> {
        let flow = self.envelope.flow.as_ref()?;
        Some(Execution {
            id: self.envelope.id(),
            customer: self.envelope.customer().clone(),
            installation: flow.installation,
            integration: flow.integration.as_ref().to_owned(),
            version: flow.version.as_ref().to_owned(),
            flow: flow.flow.as_ref().to_owned(),
            trigger: flow.trigger,
            status: self.execution_status(),
            attempt: self.attempt,
            max_attempts: self.envelope.max_attempts,
            created: self.envelope.created,
            started: self.started,
            finished: self.done().map(|done| done.at),
            next_attempt: match self.place {
                Place::Delayed { until } => Some(until),
                _ => None,
            },
            timings: self.timings,
            isolation: self.isolation,
            usage: self.usage,
            failure: self.failure.clone(),
            origin: self.envelope.origin,
            revision: self.revision.or(flow.revision),
            config: flow.config(),
            state: flow.state,
            progress: match self.place {
                Place::Leased { .. } => self.progress.clone(),
                _ => None,
            },
        })
    }
}

const fn call_state(status: ExecutionStatus) -> CallState {
    match status {
        ExecutionStatus::Succeeded => CallState::Completed,
        ExecutionStatus::Cancelled => CallState::Cancelled,
        ExecutionStatus::Expired => CallState::Expired,
        _ => CallState::Dead,
    }
}

impl Data {
    /// Writes a state if it replaces the version that it was made from. The new version.
    fn replace_state(&mut self, flow: &FlowRef, new: StateSnapshot) -> Option<u64> {
        let place = (flow.installation, flow.flow.as_ref().to_owned());
        if self.state.get(&place).map_or(0, |state| state.version) != new.version {
            return None;
        }
        let version = new.version + 1;
        self.state.insert(place, StateSnapshot::new(version, new.value));
        Some(version)
    }

    fn checkpoint(&mut self, lease: LeaseRef, state: StateSnapshot) -> Checkpointed {
        let Some(flow) = self.queue.leased(lease).and_then(|row| row.envelope.flow.clone()) else {
            return Checkpointed::Stale;
        };
        match self.replace_state(&flow, state) {
            Some(version) => Checkpointed::Applied { version },
            None => Checkpointed::StateConflict,
        }
    }

    pub(super) fn report(&mut self, lease: LeaseRef, progress: Progress) -> bool {
        let current = self.queue.leased(lease).is_some_and(Row::is_flow);
        if let Some(row) = self.queue.row_mut(lease.id).filter(|_| current) {
            row.progress = Some(progress);
        }
        current
    }

    /// Writes everything or nothing: all refusals come before the first write.
    fn finish(&mut self, finish: Finish, now: Timestamp) -> Finished {
        let Some(row) = self.queue.leased(finish.lease) else {
            return Finished::Stale;
        };
        let Some(flow) = row.envelope.flow.clone() else {
            return Finished::Stale;
        };
        let seq = row.seq;
        if let Some(new) = finish.state
            && self.replace_state(&flow, new).is_none()
        {
            return Finished::StateConflict;
        }
        if !finish.log.is_empty() {
            self.logs.entry(finish.lease.id).or_default().extend(finish.log);
        }
        for envelope in finish.starts {
            self.enqueue(Enqueue::queued(envelope), now);
        }
        if let Some(row) = self.queue.row_mut(finish.lease.id) {
            row.timings = finish.timings;
            row.isolation = finish.isolation;
            row.usage = finish.usage;
            row.revision = finish.revision.or(row.revision);
            row.progress = None;
        }
        match finish.outcome {
            Outcome::Ended { status, reply, failure } => {
                if let Some(row) = self.queue.row_mut(finish.lease.id) {
                    row.failure = failure;
                }
                self.queue.end(
                    seq,
                    Done {
                        state: call_state(status),
                        status: Some(status),
                        reply: Some(reply),
                        at: now,
                    },
                );
            }
            Outcome::Retry { at, failure } => {
                self.queue.fail(seq, failure);
                self.queue.retry(seq, at, now);
            }
            Outcome::Released => self.queue.release(seq, None, now),
            Outcome::Postponed { at } => self.queue.release(seq, Some(at), now),
        }
        Finished::Applied { settled: true }
    }
}

#[async_trait]
impl Executions for Memory {
    async fn begin(&self, _: &FleetScope, lease: LeaseRef) -> Result<Begun> {
        Ok(self.transact(|data, _| {
            let current = data.queue.leased(lease).is_some();
            match data.queue.row_mut(lease.id) {
                Some(row) if current => {
                    row.begun = true;
                    Begun::Run
                }
                Some(row) => row
                    .done()
                    .and_then(|done| done.reply.clone())
                    .map_or(Begun::Stale, Begun::Finished),
                None => Begun::Stale,
            }
        }))
    }

    async fn finish(&self, _: &FleetScope, finish: Finish) -> Result<Finished> {
        Ok(self.transact(|data, now| data.finish(finish, now)))
    }

    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel> {
        Ok(self.transact(|data, now| {
            let flow = data.queue.row(id).is_some_and(Row::is_flow);
            if flow {
                data.cancel(scope, id, now)
            } else {
                Cancel::NotFound
            }
        }))
    }

    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<Execution>> {
        Ok(self.transact(|data, _| {
            data.queue
                .row(id)
                .filter(|row| scope.covers(row.envelope.customer()))
                .and_then(Row::execution)
        }))
    }

    async fn envelope(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<Envelope>> {
        let data = self.data();
        Ok(data
            .queue
            .row(id)
            .filter(|row| row.is_flow() && scope.covers(row.envelope.customer()))
            .map(|row| row.envelope.clone()))
    }

    async fn list(&self, scope: Scope<'_>, filter: &ExecutionFilter, page: Page) -> Result<Paged<Execution>> {
        self.transact(|data, _| {
            let rows = data
                .queue
                .rows
                .values()
                .rev()
                .filter(|row| scope.covers(row.envelope.customer()));
            let executions = rows.filter_map(|row| Some((row.seq, row.execution()?)));
            let wanted = executions.filter(|(_, execution)| {
                filter.installation.is_none_or(|id| id == execution.installation)
                    && filter.flow.as_ref().is_none_or(|flow| *flow == execution.flow)
                    && !(filter.active && execution.status.is_terminal())
            });
            page_of(wanted, &page)
        })
    }

    async fn active(&self, _: &FleetScope, installation: InstallationId, flow: &str) -> Result<u64> {
        Ok(self.transact(|data, _| {
            let rows = data.queue.rows.values().filter(|row| row.done().is_none());
            let of_flow = rows.filter(|row| {
                row.envelope
                    .flow
                    .as_ref()
                    .is_some_and(|f| f.installation == installation && &*f.flow == flow)
            });
            of_flow.count() as u64
        }))
    }
}

#[async_trait]
impl FlowState for Memory {
    async fn state(&self, scope: Scope<'_>, installation: InstallationId, flow: &str) -> Result<StateSnapshot> {
        let data = self.data();
        let visible = data
            .installations
            .get(&installation)
            .map_or_else(|| scope.customer().is_none(), |i| scope.covers(&i.customer));
        Ok(data
            .state
            .get(&(installation, flow.to_owned()))
            .filter(|_| visible)
            .cloned()
            .unwrap_or_default())
    }

    async fn checkpoint(&self, _: &FleetScope, lease: LeaseRef, state: StateSnapshot) -> Result<Checkpointed> {
        Ok(self.transact(|data, _| data.checkpoint(lease, state)))
    }
}
