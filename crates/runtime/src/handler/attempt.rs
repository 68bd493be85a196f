//! One attempt: everything that the flow needs is loaded, then it runs until it ends or is told to stop.

use super::{Redactor, Task, checkpoint::Keeper};
use crosspoint_core::{
    AnyIntegration, Code, ConnectionId, Egress, Error, ErrorExt, ExposeSecret, FlowDefinition, Installation,
    InstallationState, Isolation, Kind, Result, Retry, RetryPolicy, RunEnd, RunHandle, RunOutcome, RunSpec,
    SealContext, SecretString, Source, StopReason, StopSignal, TriggerKind, Work,
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
        let (integration, flow) = self.inner.starter.find(installation, &self.flow.flow)?;
        context.retry = flow.options.retry.clone();
        context.script = matches!(flow.work, Work::Script(_));
        self.mended(installation)?;
        let mut spec = self.spec(installation, integration, flow, body)?;
        spec.secrets = Arc::new(self.secrets(installation, integration, flow).await?);
        context.redactor = Redactor::new(&spec.secrets);
        self.connect(&mut spec, installation, integration).await?;
        if flow.stateful {
            let state = self
                .inner
                .store
                .state
                .state((&self.scope).into(), installation.id, &flow.name);
            spec.state = state.await?;
            let (store, lease) = (Arc::clone(&self.inner.store.state), self.delivery.lease);
            let keeper = Arc::new(Keeper::new(store, lease, self.flow.clone(), spec.state.version));
            context.keeper = Some(Arc::clone(&keeper));
            spec.checkpoint = Some(keeper);
        }
        let (entered, cancelled) = self.inner.running.enter(self.meta.id, self.delivery.lease.fence);
        let grace = spec.limits.grace();
        let loading = self.arrived.elapsed();
        let mut handle = self.inner.runners.start(spec).await?;
        let outcome = self.watch(&mut *handle, &cancelled, grace).await;
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

    async fn installation(&self) -> Result<Installation> {
        let found = self
            .inner
            .store
            .installations
            .get((&self.scope).into(), self.flow.installation)
            .await?;
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
        let wall = now.plus(flow.options.limits.wall());
        let deadline = self.meta.deadline.map_or(wall, |deadline| deadline.min(wall));
        let customer = self.meta.customer.clone();
        let mut spec = RunSpec::new(
            self.meta.id,
            customer,
            installation.id,
            &flow.name,
            flow.work.clone(),
            deadline,
        );
        spec.run_key = self.meta.run_key;
        spec.attempt = self.meta.attempt;
        spec.fence = self.delivery.lease.fence;
        spec.integration = integration.name.as_str().into();
        spec.trigger = self.flow.trigger;
        spec.event = match (&flow.source, self.flow.trigger) {
            (Source::Event(name), TriggerKind::Event) => Some((*name).into()),
            _ => None,
        };
        spec.input = input;
        spec.config = installation.config.clone();
        spec.stateful = flow.stateful;
        let class = self.inner.trust.class(integration, &self.meta.customer, &flow.work);
        spec.limits = class.within(flow.options.limits);
        spec.deadline = spec.deadline.min(now.plus(spec.limits.wall()));
        spec.egress = class.most_egress().cloned();
        let asked = match &flow.work {
            Work::Script(script) => script.required_isolation(),
            _ => Isolation::Trusted,
        };
        spec.require = class.required(asked);
        Ok(spec)
    }

    /// The secrets that the code may read: a Rust flow those of its configuration, a script none, unless it declared that
    /// it needs them; then the fields of its connections' credentials too.
    async fn secrets(
        &self,
        installation: &Installation,
        integration: &AnyIntegration,
        flow: &FlowDefinition,
    ) -> Result<BTreeMap<String, SecretString>> {
        let mut secrets = BTreeMap::new();
        let script = match &flow.work {
            Work::Script(script) if script.wants_secrets() => true,
            Work::Script(_) => return Ok(secrets),
            _ => false,
        };
        for (name, (generation, sealed)) in &installation.secrets {
            let context = SealContext::config(self.meta.customer.clone(), installation.id, name, *generation);
            let plain = self.inner.vault.open(&context, sealed).await?;
            let text = std::str::from_utf8(plain.expose_secret()).map_err(|_| {
                Error::new(Code::SecretUnreadable, "a secret of the configuration is not a text").with("name", name)
            })?;
            secrets.insert(name.clone(), SecretString::from(text));
        }
        if script {
            for slot in &integration.connections {
                let connection = connection(installation, &slot.name)?;
                let fields = self.inner.credentials.fields(&self.scope, connection).await?;
                for (field, value) in fields.iter() {
                    secrets.insert(format!("{}.{field}", slot.name), value.clone());
                }
            }
        }
        Ok(secrets)
    }

    /// Clients of the connections: for Rust flows, and for scripts that reach them through a broker. For others the
    /// connections must be there all the same.
    async fn connect(
        &self,
        spec: &mut RunSpec,
        installation: &Installation,
        integration: &AnyIntegration,
    ) -> Result<()> {
        let wanted = match &spec.work {
            Work::Script(script) => !matches!(spec.reachable(script, spec.require), Egress::None | Egress::Open),
            _ => true,
        };
        for slot in &integration.connections {
            let connection = connection(installation, &slot.name)?;
            if wanted {
                let client = self.inner.credentials.client(&self.scope, connection).await?;
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
