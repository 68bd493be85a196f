//! One attempt: everything that the flow needs is loaded, then it runs until it ends or is told to stop.

use super::{
    Inner, Redactor, Task,
    checkpoint::{Discard, Keeper},
    watch::Watcher,
};
use crate::numbers::Series;
use crosspoint_core::{
    AnyIntegration, Checkpoint, Code, ConnectionId, ConnectionSlot, CustomerScope, Egress, Error, ErrorExt,
    ExposeSecret, FlowDefinition, Installation, InstallationState, Isolation, Kind, ReplayState, Result, Retry,
    RetryPolicy, RunEnd, RunHandle, RunOutcome, RunSpec, SealContext, SecretString, Source, StopReason, StopSignal,
    TriggerKind, Work,
};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long work waits before it is looked at again whether somebody has mended the credentials.
const CREDENTIALS_WAIT: Duration = Duration::from_secs(60);

/// What was learnt on the way, whether or not the attempt got to run.
#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) installation: Option<Installation>,
    pub(super) retry: RetryPolicy,
    pub(super) redactor: Redactor,
    /// Writes the state of a flow that has one, and knows its version.
    pub(super) keeper: Option<Arc<Keeper>>,
    /// Takes the state of a flow that has one, where it is not to be saved.
    pub(super) discard: Option<Arc<Discard>>,
    /// The flow is a script, which uses credentials without anybody else judging them.
    pub(super) script: bool,
}

/// How the attempt went.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) outcome: RunOutcome,
    /// None of the flow's code has run.
    pub(super) unstarted: bool,
    /// Time before the runner was asked.
    pub(super) loading: Duration,
}

impl Ran {
    pub(super) const fn failed(error: Error, loading: Duration) -> Self {
        Self {
            outcome: RunOutcome::new(RunEnd::Failed(error), Isolation::Trusted),
            unstarted: true,
            loading,
        }
    }
}

impl Task<'_> {
    pub(super) async fn attempt(&self, body: &[u8], context: &mut Context) -> Result<Ran> {
        self.in_time()?;
        let installation = self.installation().await?;
        let installation = &*context.installation.insert(installation);
        let integration = self.inner.starter.find(installation).await?;
        let integration = &*integration;
        let flow = crate::starter::flow_of(integration, &self.flow.flow)?;
        context.retry = flow.options.retry.clone();
        context.script = matches!(flow.work, Work::Script(_));
        self.mended(installation)?;
        let mut spec = self.spec(installation, integration, flow, body)?;
        let slots: Vec<&ConnectionSlot> = integration.connections.iter().collect();
        let secrets = self.inner.secrets(&self.scope, installation, &slots, &flow.work);
        spec.secrets = Arc::new(secrets.await?);
        context.redactor = Redactor::new(&spec.secrets);
        self.inner.connect(&self.scope, &mut spec, installation, &slots).await?;
        if flow.stateful {
            let state = self
                .inner
                .store
                .state
                .state((&self.scope).into(), installation.id, &flow.name);
            spec.state = state.await?;
            spec.checkpoint = Some(self.checkpoint(spec.state.version, context));
        }
        let (entered, cancelled) = self.inner.running.enter(self.meta.id, self.delivery.lease.fence);
        let grace = spec.limits.grace();
        let loading = self.arrived.elapsed();
        let series = Series {
            integration: Arc::clone(&spec.integration),
            flow: Arc::clone(&spec.flow),
        };
        let watcher = Watcher::new(context.redactor.clone(), Arc::clone(&self.inner.numbers), series);
        let watcher = Arc::new(watcher);
        spec.watch = Some(Arc::<Watcher>::clone(&watcher));
        let mut handle = self.inner.runners.start(spec).await?;
        let outcome = tokio::select! {
            outcome = self.watch(&mut *handle, &cancelled, grace) => outcome,
            never = watcher.write(&*self.inner.store.log, self.delivery.lease) => match never {},
        };
        drop(entered);
        Ok(Ran {
            outcome,
            unstarted: false,
            loading,
        })
    }

    /// Waits for the end, and passes on the wish to stop. Answers only when nothing of the run is left.
    async fn watch(&self, handle: &mut dyn RunHandle, cancelled: &StopSignal, grace: Duration) -> RunOutcome {
        let why = tokio::select! {
            biased;
            outcome = handle.wait() => return outcome,
            why = self.delivery.stop.stopped() => why,
            why = cancelled.stopped() => why,
        };
        let grace = if why == StopReason::LeaseLost {
            Duration::ZERO
        } else {
            grace
        };
        handle.cancel(why, grace).await;
        handle.wait().await
    }

    /// What takes the states of this attempt.
    fn checkpoint(&self, version: u64, context: &mut Context) -> Arc<dyn Checkpoint> {
        if self.flow.state == ReplayState::Discard {
            let discard = Arc::new(Discard::new(version));
            context.discard = Some(Arc::clone(&discard));
            return discard;
        }
        let (store, lease) = (Arc::clone(&self.inner.store.state), self.delivery.lease);
        let keeper = Arc::new(Keeper::new(store, lease, self.flow.clone(), version));
        context.keeper = Some(Arc::clone(&keeper));
        keeper
    }

    async fn installation(&self) -> Result<Installation> {
        let (installations, scope) = (&self.inner.store.installations, (&self.scope).into());
        let mut found = installations.get(scope, self.flow.installation).await?;
        if let (Some(_), Some(revision)) = (&found, self.flow.revision) {
            found = installations.as_of(scope, self.flow.installation, revision).await?;
            if found.is_none() {
                return Err(crate::control::config_gone(
                    "the configuration that it repeats is not kept any more",
                ));
            }
        }
        let installation = found
            .filter(|found| found.state != InstallationState::Removing)
            .ok_or_else(|| Error::new(Code::NotFound, "the installation was removed"))?;
        if installation.state == InstallationState::Draft {
            return Err(Error::new(Code::Conflict, "the installation is not set up yet"));
        }
        Ok(installation)
    }

    /// Looked at before anything is loaded, so that work which is put back again and again ends at its deadline.
    fn in_time(&self) -> Result<()> {
        let now = self.inner.clock.now();
        if self.meta.deadline.is_some_and(|deadline| deadline <= now) {
            let message = "the call's deadline passed before it could be run";
            return Err(Error::new(Code::DeadlineExceeded, message).with_retry(Retry::Never));
        }
        Ok(())
    }

    /// Keeps what is queued away from a provider that is known to refuse the credentials.
    fn mended(&self, installation: &Installation) -> Result<()> {
        let why = installation.attention.as_ref();
        let why = why.filter(|why| why.code.kind() == Kind::Credentials);
        match (installation.state, why) {
            (InstallationState::NeedsAttention, Some(why)) => {
                let again = self.inner.clock.now().plus(CREDENTIALS_WAIT);
                let message = "the installation waits until somebody has connected it again";
                Err(Error::new(why.code, message).with_retry(Retry::At(again)))
            }
            _ => Ok(()),
        }
    }

    fn spec(
        &self,
        installation: &Installation,
        integration: &AnyIntegration,
        flow: &FlowDefinition,
        body: &[u8],
    ) -> Result<RunSpec> {
        let input = match body {
            b"" => Value::Null,
            body => serde_json::from_slice(body).or_fail(Code::InputInvalid, "the input of the flow is not JSON")?,
        };
        let now = self.inner.clock.now();
        let class = self.inner.trust.class(integration, &self.meta.customer, &flow.work);
        let customer = self.meta.customer.clone();
        let mut spec = RunSpec::new(
            self.meta.id,
            customer,
            installation.id,
            &flow.name,
            flow.work.clone(),
            now,
        );
        class.hold(&mut spec, flow);
        let wall = now.plus(spec.limits.wall());
        spec.deadline = self.meta.deadline.map_or(wall, |deadline| deadline.min(wall));
        spec.run_key = self.meta.run_key;
        spec.attempt = self.meta.attempt;
        spec.fence = self.delivery.lease.fence;
        spec.integration = integration.name.as_str().into();
        spec.trigger = self.flow.trigger;
        spec.event = match (&flow.source, self.flow.trigger) {
            (Source::Event(name), TriggerKind::Event) => Some((**name).into()),
            _ => None,
        };
        spec.input = input;
        spec.config = installation.config.clone();
        spec.stateful = flow.stateful;
        Ok(spec)
    }
}

impl Inner {
    /// The secrets that the code may read: a Rust flow those of its configuration, a script none, unless it declared that
    /// it needs them; then the fields of its connections' credentials too.
    pub(super) async fn secrets(
        &self,
        scope: &CustomerScope,
        installation: &Installation,
        slots: &[&ConnectionSlot],
        work: &Work,
    ) -> Result<BTreeMap<String, SecretString>> {
        let mut secrets = BTreeMap::new();
        let script = match work {
            Work::Script(script) if script.wants_secrets() => true,
            Work::Script(_) => return Ok(secrets),
            _ => false,
        };
        for (name, (generation, sealed)) in &installation.secrets {
            let context = SealContext::config(installation.customer.clone(), installation.id, name, *generation);
            let plain = self.vault.open(&context, sealed).await?;
            let text = std::str::from_utf8(plain.expose_secret()).map_err(|_| {
                Error::new(Code::SecretUnreadable, "a secret of the configuration is not a text").with("name", name)
            })?;
            secrets.insert(name.clone(), SecretString::from(text));
        }
        if script {
            for slot in slots {
                let connection = connection(installation, &slot.name)?;
                let fields = self.credentials.fields(scope, connection).await?;
                for (field, value) in fields.iter() {
                    secrets.insert(format!("{}.{field}", slot.name), value.clone());
                }
            }
        }
        Ok(secrets)
    }

    /// Clients of the connections: for Rust flows, and for scripts that reach them through a broker. For others the
    /// connections must be there all the same.
    pub(super) async fn connect(
        &self,
        scope: &CustomerScope,
        spec: &mut RunSpec,
        installation: &Installation,
        slots: &[&ConnectionSlot],
    ) -> Result<()> {
        let wanted = match &spec.work {
            Work::Script(script) => !matches!(spec.reachable(script, spec.require), Egress::None | Egress::Open),
            _ => true,
        };
        for slot in slots {
            let connection = connection(installation, &slot.name)?;
            if wanted {
                let client = self.credentials.client(scope, connection).await?;
                spec.connections.insert(slot.name.clone(), client);
            }
        }
        Ok(())
    }
}

fn connection(installation: &Installation, slot: &str) -> Result<ConnectionId> {
    let found = installation.connections.get(slot).copied();
    found.ok_or_else(|| {
        Error::new(
            Code::ConnectionMissing,
            "a connection that the integration needs is not set up",
        )
        .with("connection", slot)
    })
}
