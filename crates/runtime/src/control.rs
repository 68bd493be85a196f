//! The runtime's own surface: events in, cancel, replay, start, schedules.

use crate::{CronTimetable, FlowHandler, attention, handler::Inner};
use async_trait::async_trait;
use bytes::Bytes;
use crosspoint_core::{
    Cancel, Choice, Code, Control, CustomerId, CustomerScope, Enqueued, Envelope, Error, ErrorExt, Event, Failure,
    Installation, InstallationId, InstallationState, InvocationId, Origin, Page, ReplayConfig, ReplayOptions, Result,
    Schedule, ScheduleSpec, Scope, StopReason, Submit, Submitted, Timestamp, Timetable,
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Starts and steers what a [`FlowHandler`] runs: events, schedules, polls, calls, cancel and replay.
///
/// ```no_run
/// # async fn demo(handler: crosspoint_runtime::FlowHandler, submit: std::sync::Arc<dyn crosspoint_core::Submit>) -> crosspoint_core::Result<()> {
/// use crosspoint_core::StopSource;
/// use crosspoint_runtime::Runtime;
/// let runtime = Runtime::new(&handler, submit);
/// runtime.check_installations().await?;
/// let stop = StopSource::new();
/// let scheduler = tokio::spawn({
///     let (runtime, stop) = (runtime.clone(), stop.signal());
///     async move { runtime.run_scheduler(stop).await }
/// });
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
    submit: Arc<dyn Submit>,
    pub(crate) timetable: CronTimetable,
    pub(crate) poll: Duration,
}

impl Runtime {
    /// The runtime around a handler; `submit` puts its work on the road to that handler.
    #[must_use]
    pub fn new(handler: &FlowHandler, submit: Arc<dyn Submit>) -> Self {
        Self {
            inner: Arc::clone(&handler.inner),
            submit,
            timetable: CronTimetable::new(),
            poll: Duration::from_secs(1),
        }
    }

    /// How long the scheduler sleeps at most before it looks for schedules that other processes have changed; 1 s unless
    /// set.
    #[must_use]
    pub const fn poll(mut self, poll: Duration) -> Self {
        self.poll = poll;
        self
    }

    /// Something happened in the host: starts the flows of the customer's active installations that react to it. Answers
    /// with the executions that were started.
    ///
    /// # Errors
    /// Whatever the store meets; nothing was started then.
    pub async fn emit<E: Event>(&self, customer: &CustomerId, event: E) -> Result<Vec<InvocationId>> {
        let value = serde_json::to_value(event).or_fail(Code::InputInvalid, "the event does not serialise")?;
        let id = InvocationId::mint(&*self.inner.clock).to_string();
        self.emit_value(customer, &id, E::NAME, &value).await
    }

    /// As [`Runtime::emit`], for an event with an id of its own: emitted twice, it starts everything once.
    ///
    /// # Errors
    /// Whatever the store meets.
    pub async fn emit_value(
        &self,
        customer: &CustomerId,
        id: &str,
        name: &str,
        value: &Value,
    ) -> Result<Vec<InvocationId>> {
        let scope = crate::scope::of(customer);
        let installations = self.installations((&scope).into()).await?;
        self.inner.starter.find_all(&installations).await;
        let envelopes = self.inner.starter.for_event(&installations, id, name, value)?;
        self.enqueue(envelopes).await
    }

    /// Calls a flow of an active installation and waits up to `hold` for its reply. It is stored first, and run at once
    /// if there is capacity; what takes longer goes on and is found by its id.
    ///
    /// # Errors
    /// [`Code::NotFound`] if the customer has no such installation, or it no such flow; [`Code::Conflict`] unless it is
    /// active; whatever the store meets.
    pub async fn call(
        &self,
        customer: &CustomerId,
        installation: InstallationId,
        flow: &str,
        input: &Value,
        hold: Duration,
    ) -> Result<Submitted> {
        let scope = crate::scope::of(customer);
        let envelope = self.envelope(&scope, installation, flow, input).await?;
        self.submit.submit(envelope, hold).await
    }

    async fn envelope(
        &self,
        scope: &CustomerScope,
        installation: InstallationId,
        flow: &str,
        input: &Value,
    ) -> Result<Envelope> {
        let found = self.inner.store.installations.get(scope.into(), installation).await?;
        let installation = found.ok_or_else(|| not_found("installation"))?;
        if installation.state != InstallationState::Active {
            let state = installation.state.as_str();
            return Err(Error::new(Code::Conflict, "only an active installation can be run").with("state", state));
        }
        self.inner.starter.find(&installation).await?;
        self.inner.starter.for_call(&installation, flow, input)
    }

    /// What the last attempt of an execution ran with.
    async fn original(
        &self,
        scope: &CustomerScope,
        id: InvocationId,
        installation: InstallationId,
    ) -> Result<Installation> {
        let store = &self.inner.store;
        let execution = store.executions.get(scope.into(), id).await?;
        let execution = execution.ok_or_else(|| not_found("execution"))?;
        let Some(revision) = execution.revision else {
            return Err(config_gone("it is not known with which configuration it ran"));
        };
        let original = store.installations.as_of(scope.into(), installation, revision).await?;
        let original =
            original.ok_or_else(|| config_gone("the configuration that it ran with is not kept any more"))?;
        if self.inner.starter.find(&original).await.is_err() {
            let message = "the version of the integration that it ran is not offered here any more";
            return Err(Error::new(Code::Conflict, message).with("version", &original.version));
        }
        for (slot, connection) in &original.connections {
            if store.connections.get(scope.into(), *connection).await?.is_none() {
                return Err(config_gone("a connection that it used was removed").with("connection", slot));
            }
        }
        Ok(original)
    }

    async fn is_active(&self, scope: &CustomerScope, id: InstallationId) -> Result<bool> {
        let found = self.inner.store.installations.get(scope.into(), id).await?;
        let found = found.ok_or_else(|| not_found("installation"))?;
        Ok(found.state == InstallationState::Active)
    }

    async fn enqueue(&self, envelopes: Vec<Envelope>) -> Result<Vec<InvocationId>> {
        if envelopes.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<InvocationId> = envelopes.iter().map(Envelope::id).collect();
        let answers = self.submit.enqueue(envelopes).await?;
        let new = ids.into_iter().zip(answers);
        Ok(new
            .filter(|(_, answer)| matches!(answer, Enqueued::New(_)))
            .map(|(id, _)| id)
            .collect())
    }

    async fn installations(&self, scope: Scope<'_>) -> Result<Vec<Installation>> {
        let mut all = Vec::new();
        let mut page = Page::first(100);
        loop {
            let part = self.inner.store.installations.list(scope, page).await?;
            all.extend(part.items);
            match part.next {
                Some(next) => page = Page::after(next, 100),
                None => return Ok(all),
            }
        }
    }

    /// Parks every active installation whose version is not registered in this process, and lets those run again that
    /// were parked for that and whose version is back. To be called at start. Answers with those it parked.
    ///
    /// # Errors
    /// Whatever the store meets.
    pub async fn check_installations(&self) -> Result<Vec<InstallationId>> {
        let fleet = crate::scope::fleet();
        let store = &*self.inner.store.installations;
        let mut parked = Vec::new();
        for installation in self.installations((&fleet).into()).await? {
            let known = self
                .inner
                .registry
                .integration(&installation.integration, &installation.version);
            match installation.state {
                InstallationState::Active if known.is_none() => {
                    let why = Failure::from(&crate::starter::version_missing(&installation));
                    if attention::park(store, (&fleet).into(), installation.id, &why).await? {
                        parked.push(installation.id);
                    }
                }
                InstallationState::NeedsAttention if known.is_some() => {
                    attention::release(store, (&fleet).into(), installation.id).await?;
                }
                _ => {}
            }
        }
        Ok(parked)
    }

    /// The second half of [`Runtime::check_installations`]. A process that goes on running parks nothing: another one may
    /// have what it lacks.
    pub(crate) async fn release_installations(&self) -> Result<()> {
        let fleet = crate::scope::fleet();
        let store = &*self.inner.store.installations;
        for installation in self.installations((&fleet).into()).await? {
            let (name, version) = (&installation.integration, &installation.version);
            if installation.state == InstallationState::NeedsAttention
                && self.inner.registry.integration(name, version).is_some()
            {
                attention::release(store, (&fleet).into(), installation.id).await?;
            }
        }
        Ok(())
    }
}

pub(crate) fn config_gone(message: &str) -> Error {
    Error::new(Code::ConfigGone, message)
}

fn not_found(what: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no such {what}"))
}

#[async_trait]
impl Control for Runtime {
    async fn cancel(&self, scope: &CustomerScope, id: InvocationId) -> Result<Cancel> {
        let store = &self.inner.store;
        let answer = store.executions.cancel(scope.into(), id).await?;
        if answer == Cancel::Requested {
            if !store.dispatch.capabilities().in_transaction {
                store.dispatch.cancel(scope.into(), id).await?;
            }
            self.inner.running.stop(id, StopReason::Cancelled);
        }
        Ok(answer)
    }

    async fn replay(&self, scope: &CustomerScope, id: InvocationId, options: ReplayOptions) -> Result<InvocationId> {
        let envelope = self.inner.store.executions.envelope(scope.into(), id).await?;
        let envelope = envelope.ok_or_else(|| not_found("execution"))?;
        let clock = &*self.inner.clock;
        let mut again = envelope.again(InvocationId::mint(clock), clock.now(), Origin::Replay(id));
        if let Some(flow) = &mut again.flow {
            flow.state = options.state;
            flow.revision = match options.config {
                ReplayConfig::Original => {
                    let original = self.original(scope, id, flow.installation).await?;
                    flow.version = original.version.as_str().into();
                    Some(original.revision)
                }
                _ => None,
            };
        }
        if let Some(input) = options.input {
            *again.invocation.request.body_mut() = Bytes::from(input.to_string());
        }
        let new = again.id();
        self.enqueue(vec![again]).await?;
        Ok(new)
    }

    async fn start(
        &self,
        scope: &CustomerScope,
        installation: InstallationId,
        flow: &str,
        input: Value,
    ) -> Result<InvocationId> {
        let envelope = self.envelope(scope, installation, flow, &input).await?;
        let id = envelope.id();
        self.enqueue(vec![envelope]).await?;
        Ok(id)
    }

    async fn fields(
        &self,
        scope: &CustomerScope,
        installation: &Installation,
        flow: &str,
    ) -> Result<BTreeMap<String, Vec<Choice>>> {
        self.inner.fields(scope, installation, flow).await
    }

    async fn pause_schedule(
        &self,
        scope: &CustomerScope,
        installation: InstallationId,
        flow: &str,
        paused: bool,
    ) -> Result<Schedule> {
        let schedules = &self.inner.store.schedules;
        let mut active = self.is_active(scope, installation).await?;
        loop {
            let known = schedules.of(scope.into(), installation).await?;
            let known = known.into_iter().find(|schedule| schedule.flow == flow);
            let known = known.ok_or_else(|| not_found("schedule"))?;
            let now = self.inner.clock.now();
            let (paused, next) = match paused {
                true => (Some(now), None),
                false if known.paused.is_none() => return Ok(known),
                // From now on: what passed while it rested is not made up for.
                false if active => (None, self.timetable.next(&known.spec, now)?),
                false => (None, None),
            };
            let schedule = schedules.pause(scope.into(), installation, flow, paused, next).await?;
            let schedule = schedule.ok_or_else(|| not_found("schedule"))?;
            // Had the installation been resumed in between, the schedule would have no next tick.
            let was = std::mem::replace(&mut active, self.is_active(scope, installation).await?);
            if paused.is_some() || was || !active {
                return Ok(schedule);
            }
            schedules
                .pause(scope.into(), installation, flow, Some(now), None)
                .await?;
        }
    }
}

impl Timetable for Runtime {
    fn next(&self, spec: &ScheduleSpec, after: Timestamp) -> Result<Option<Timestamp>> {
        self.timetable.next(spec, after)
    }
}
