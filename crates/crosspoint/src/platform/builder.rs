//! From the host's choices to a running platform.

use super::{Inner, Platform, upkeep};
use crosspoint_connectors::{ConnectorEngine, EnvelopeVault, HttpClient, Notifier};
use crosspoint_core::{
    AnyIntegration, Clock, Code, Connector, Credentials, EgressPolicy, Error, KeyWrap, Registry, Result, Runner,
    StopSource, Store, Submit, SystemClock, TargetId, Vault, Work,
};
use crosspoint_gateway::{
    Config, Gateway, Settles, TargetConfig,
    callback::{Callbacks, SigningSecret},
};
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
use crosspoint_runtime::SandboxOptions;
use crosspoint_runtime::{Capacity, FlowHandler, Parts, Runners, Runtime, Trust, labelled};
#[cfg(unix)]
use crosspoint_runtime::{Subprocess, WarmOptions, artifacts::ArtifactsConfig};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Puts a platform together; made by [`Platform::builder`].
#[derive(Debug)]
#[must_use = "nothing runs before `.start()`"]
pub struct Builder {
    store: Option<Store>,
    keys: Option<Arc<dyn KeyWrap>>,
    clock: Arc<dyn Clock>,
    connectors: Vec<Arc<dyn Connector>>,
    integrations: Vec<AnyIntegration>,
    egress: EgressPolicy,
    callback_egress: EgressPolicy,
    gateway: Config,
    flows: u32,
    scripts: u32,
    capacity: Capacity,
    trust: Trust,
    labels: Vec<String>,
    unlabelled: bool,
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    sandbox: SandboxOptions,
    #[cfg(unix)]
    warm: WarmOptions,
    callbacks: Vec<SigningSecret>,
    retention: Duration,
    shutdown: Duration,
    #[cfg(unix)]
    artifacts: Option<ArtifactsConfig>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            store: None,
            keys: None,
            clock: Arc::new(SystemClock::new()),
            connectors: Vec::new(),
            integrations: Vec::new(),
            egress: EgressPolicy::default(),
            callback_egress: EgressPolicy::default(),
            gateway: Config::default(),
            flows: 64,
            scripts: 8,
            capacity: Capacity::default(),
            trust: Trust::default(),
            labels: Vec::new(),
            unlabelled: true,
            #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
            sandbox: SandboxOptions::new(),
            #[cfg(unix)]
            warm: WarmOptions::new(),
            callbacks: Vec::new(),
            retention: Duration::from_secs(30 * 24 * 3600),
            shutdown: Duration::from_secs(30),
            #[cfg(unix)]
            artifacts: None,
        }
    }

    /// Where everything is kept: `Sqlite::open("app.db").await?`, or `Memory::new()` for tests. Required.
    pub fn store(mut self, store: impl Into<Store>) -> Self {
        self.store = Some(store.into());
        self
    }

    /// The keys that wrap the customers' data keys. Required: without them nothing could be kept safe.
    pub fn keys(mut self, keys: impl KeyWrap) -> Self {
        self.keys = Some(Arc::new(keys));
        self
    }

    /// Registers a connector. Connectors come before the integrations that need them.
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connectors.push(Arc::new(connector));
        self
    }

    /// Registers an integration. Of several versions the last one is offered in the catalogue; register every version
    /// that is still installed.
    pub fn integration(mut self, integration: impl Into<AnyIntegration>) -> Self {
        self.integrations.push(integration.into());
        self
    }

    /// Takes integrations that are published while the host runs, and keeps them here: a folder, which processes may share,
    /// or an [`ArtifactsConfig`]. They are published by [`Platform::artifacts`] and over [`Platform::operators`].
    #[cfg(unix)]
    pub fn artifacts(mut self, config: impl Into<ArtifactsConfig>) -> Self {
        self.artifacts = Some(config.into());
        self
    }

    /// Which hosts connections may reach besides public addresses over `https`.
    pub fn egress(mut self, policy: EgressPolicy) -> Self {
        self.egress = policy;
        self
    }

    /// How many Rust flows (64) and scripts (8) run at once in this process.
    pub const fn concurrency(mut self, flows: u32, scripts: u32) -> Self {
        self.flows = flows;
        self.scripts = scripts;
        self
    }

    /// How far code is trusted, by who wrote it and for whom it runs: isolation, egress, limits, and on which workers.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Lets this process run code whose class has one of these labels, besides code without a label.
    pub fn labels(mut self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// As [`Builder::labels`], and no code without a label: for workers that are kept for one kind of code.
    pub fn only_labels(mut self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.unlabelled = false;
        self.labels(labels)
    }

    /// How scripts are isolated on this machine; the defaults suit most hosts.
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn sandbox(mut self, options: SandboxOptions) -> Self {
        self.sandbox = options;
        self
    }

    /// How many interpreters wait for scripts that ask for it ([`Script::warm`](crosspoint_core::Script::warm)); the defaults
    /// suit most hosts.
    #[cfg(unix)]
    pub const fn warm(mut self, options: WarmOptions) -> Self {
        self.warm = options;
        self
    }

    /// How many executions of one customer and of one installation run at once, over all processes on the store; no
    /// maximum unless set. Further ones wait, and nobody else for them.
    pub const fn capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = capacity;
        self
    }

    /// Settings of the gateway.
    pub fn gateway(mut self, config: Config) -> Self {
        self.gateway = config;
        self
    }

    /// Serves callbacks, signed with this secret: clients of routes with
    /// [`DispatchLayer::callbacks`](crosspoint_gateway::DispatchLayer::callbacks) are told when their calls have ended, within
    /// the rules of [`Builder::callback_egress`]. Given more than once, every notification is signed with each secret.
    pub fn callbacks(mut self, secret: SigningSecret) -> Self {
        self.callbacks.push(secret);
        self
    }

    /// Which hosts callbacks may reach besides public addresses over `https`; none unless set, whatever
    /// [`Builder::egress`] permits connections.
    pub fn callback_egress(mut self, policy: EgressPolicy) -> Self {
        self.callback_egress = policy;
        self
    }

    /// How long ended calls and executions are kept; 30 days unless set.
    pub const fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// How long running attempts may go on when the platform shuts down; 30 s unless set.
    pub const fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown = timeout;
        self
    }

    /// Reads time from this clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Checks everything that was registered and starts to work: leases what is queued, fires schedules, removes what is
    /// past its retention. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] with every problem of the definitions; [`Code::KeysMissing`]; [`Code::IsolationUnavailable`]
    /// for a script that asks for more than this machine can enforce; whatever the store meets.
    pub async fn start(mut self) -> Result<Platform> {
        // Clients are told "no longer" for what this platform removes, by an upkeep of its own.
        (self.gateway.retention, self.gateway.purge) = (self.retention, false);
        let store = self
            .store
            .ok_or_else(|| Error::new(Code::SetupInvalid, "say where everything is kept: `.store(..)`"))?;
        let keys = self.keys.ok_or_else(|| {
            Error::new(
                Code::KeysMissing,
                "say which keys seal credentials: `.keys(KeyRing::from_env(\"CROSSPOINT_KEYS\")?)`",
            )
        })?;
        let registry = registry(self.connectors, self.integrations)?;
        let vault = EnvelopeVault::new(keys, Arc::clone(&store.data_keys), Arc::clone(&self.clock));
        let vault: Arc<dyn Vault> = Arc::new(vault);
        let engine = engine(&registry, &store, &vault, &self.clock, self.egress.clone())?;

        #[cfg(unix)]
        let scripts = Subprocess::new(Arc::clone(&self.clock))
            .internal_hosts(self.egress)
            .warm(self.warm);
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
        let scripts = scripts.sandbox(self.sandbox);
        let runners = Runners::new(Arc::clone(&self.clock));
        #[cfg(unix)]
        let runners = runners.with_scripts(Arc::new(scripts));
        let runners: Arc<dyn Runner> = Arc::new(runners);
        prepare(&registry, &*runners).await?;
        let stop = StopSource::new();
        // Before installations are looked at, so that none is parked for a version that was published.
        #[cfg(unix)]
        let artifacts = super::artifacts::open(self.artifacts, &registry, &runners, &self.clock, &stop);
        #[cfg(unix)]
        let artifacts = Box::pin(artifacts).await?;
        let credentials: Arc<dyn Credentials> = engine.clone();
        let parts = Parts::new(Arc::clone(&registry), store.clone(), credentials, Arc::clone(&vault));
        let handler = FlowHandler::new(
            parts
                .clock(Arc::clone(&self.clock))
                .runners(Arc::clone(&runners))
                .capacity(self.capacity)
                .trust(self.trust),
        );
        let gateway = Gateway::new(Arc::clone(&store.dispatch), Arc::clone(&self.clock), self.gateway);
        let submit: Arc<dyn Submit> = Arc::new(gateway.clone());
        let runtime = Runtime::new(&handler, submit);
        runtime.check_installations().await?;

        // Whoever sends a request names the address: what connections may reach inside is not for them.
        let outside = HttpClient::builder().egress(self.callback_egress).build()?;
        let notifier = Notifier::new(outside, Arc::clone(&self.clock));
        serve_callbacks(&gateway, self.callbacks, notifier)?;
        let labels = self.labels.iter().map(|label| Some(label.as_str()));
        let labels = self.unlabelled.then_some(None).into_iter().chain(labels);
        serve_flows(&gateway, &handler, labels, (self.flows, self.scripts))?;
        let scheduler = runtime.clone();
        let signal = stop.signal();
        tokio::spawn(async move { scheduler.run_scheduler(signal).await });
        tokio::spawn(upkeep::run(
            Arc::clone(&store.dispatch),
            Arc::clone(&self.clock),
            self.retention,
            stop.signal(),
        ));

        let isolation = runners.probe().await;
        tracing::info!(isolation = %isolation.level, worker = "started", "crosspoint is running");
        Ok(Platform {
            inner: Arc::new(Inner {
                registry,
                store,
                clock: self.clock,
                vault,
                engine,
                gateway,
                runtime,
                isolation,
                installer: OnceLock::new(),
                stop,
                shutdown: self.shutdown,
                #[cfg(unix)]
                artifacts,
            }),
        })
    }
}

/// Flows and scripts, whatever is registered: an older release may have queued work for either, and somebody has to close
/// it.
fn serve_flows<'a>(
    gateway: &Gateway,
    handler: &FlowHandler,
    labels: impl Iterator<Item = Option<&'a str>>,
    (flows, scripts): (u32, u32),
) -> Result<()> {
    for label in labels {
        for (target, permits) in [("flows", flows), ("scripts", scripts)] {
            let target = labelled(TargetId::new(target)?, label)?;
            let config = TargetConfig::default().permits(permits).settles(Settles::Handler);
            gateway.register(target, Arc::new(handler.clone()), config)?;
        }
    }
    Ok(())
}

/// What the platform and its connectors work with.
fn engine(
    registry: &Arc<Registry>,
    store: &Store,
    vault: &Arc<dyn Vault>,
    clock: &Arc<dyn Clock>,
    egress: EgressPolicy,
) -> Result<Arc<ConnectorEngine>> {
    let http = HttpClient::builder().egress(egress).build()?;
    let connections = Arc::clone(&store.connections);
    let (registry, vault, clock) = (Arc::clone(registry), Arc::clone(vault), Arc::clone(clock));
    Ok(Arc::new(ConnectorEngine::new(
        registry,
        connections,
        vault,
        clock,
        http,
    )?))
}

fn serve_callbacks(gateway: &Gateway, secrets: Vec<SigningSecret>, notifier: Notifier) -> Result<()> {
    let mut secrets = secrets.into_iter();
    let Some(first) = secrets.next() else { return Ok(()) };
    gateway.serve_callbacks(secrets.fold(Callbacks::new(Arc::new(notifier), first), Callbacks::also))
}

fn registry(connectors: Vec<Arc<dyn Connector>>, integrations: Vec<AnyIntegration>) -> Result<Arc<Registry>> {
    let mut registry = Registry::new();
    for connector in connectors {
        registry.add_connector(connector)?;
    }
    for integration in integrations {
        registry.add_integration(integration)?;
    }
    crosspoint_marketplace::check(&registry)?;
    Ok(Arc::new(registry))
}

/// Nothing is accepted that could not be run: interpreters exist, isolation can be enforced.
async fn prepare(registry: &Registry, runners: &dyn Runner) -> Result<()> {
    for integration in registry.integrations() {
        for flow in &integration.flows {
            let require = match &flow.work {
                Work::Script(script) => script.required_isolation(),
                _ => crosspoint_core::Isolation::Trusted,
            };
            runners.prepare(&flow.work, require).await.map_err(|e| {
                let retry = e.retry();
                Error::new(e.code(), e.message().to_owned())
                    .with("integration", &integration.name)
                    .with("flow", &flow.name)
                    .with_retry(retry)
                    .caused_by(e)
            })?;
        }
    }
    Ok(())
}
