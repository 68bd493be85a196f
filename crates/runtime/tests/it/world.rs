//! A platform in small: the in-memory store, a registry, and a worker that leases and handles.

use async_trait::async_trait;
use crosspoint_core::{
    AnyIntegration, Audience, BaseUrl, Clock, ConnectionClient, ConnectionId, Connector, ConnectorDescriptor,
    CredentialFields, Credentials, CustomerId, CustomerScope, Delivery, Enqueue, Enqueued, Envelope, Execution,
    ExposeSecret, FleetScope, Handler, Installation, InstallationId, InstallationState, InvocationId, Lease,
    LeaseRequest, LeaseTerms, Memory, Page, Registry, Reply, Result, Runner, SaveInstallation, Saved, SealContext,
    Sealed, SecretBox, SecretBytes, StopSource, Store, Submit, Submitted, SystemClock, TargetId, Transport, Vault,
    WorkerId,
};
use crosspoint_runtime::{FlowHandler, Parts, Runners, Runtime};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

pub(crate) const ACME: &str = "acme";
pub(crate) const CANARY: &str = "canary-5e1f";

#[expect(clippy::disallowed_methods, reason = "a test acts for everybody")]
pub(crate) fn fleet() -> FleetScope {
    FleetScope::trusted()
}

#[expect(clippy::disallowed_methods, reason = "a test acts for everybody")]
pub(crate) fn scope(customer: &str) -> CustomerScope {
    CustomerScope::trusted(CustomerId::new(customer).unwrap())
}

pub(crate) fn acme() -> CustomerId {
    CustomerId::new(ACME).unwrap()
}

/// Nothing is sealed; but the context must be the one that it was sealed with.
#[derive(Debug)]
struct OpenVault;

#[async_trait]
impl Vault for OpenVault {
    async fn seal(&self, context: &SealContext, secret: &SecretBytes) -> Result<Sealed> {
        let mut sealed = format!("{context:?}\n").into_bytes();
        sealed.extend_from_slice(secret.expose_secret());
        Ok(Sealed::from_bytes(sealed))
    }

    async fn open(&self, context: &SealContext, sealed: &Sealed) -> Result<SecretBytes> {
        let prefix = format!("{context:?}\n");
        let plain = sealed
            .as_bytes()
            .strip_prefix(prefix.as_bytes())
            .expect("the same context");
        Ok(SecretBox::new(Box::new(plain.to_vec())))
    }
}

/// Every connection has the canary for its key.
#[derive(Debug)]
struct Keys;

#[async_trait]
impl Credentials for Keys {
    async fn client(&self, _: &CustomerScope, _: ConnectionId) -> Result<ConnectionClient> {
        Ok(ConnectionClient::new(Arc::new(Echo)))
    }
    async fn fields(&self, _: &CustomerScope, _: ConnectionId) -> Result<CredentialFields> {
        Ok(CredentialFields::from([("api_key", CANARY)]))
    }
}

#[derive(Debug)]
struct Echo;

#[async_trait]
impl Transport for Echo {
    async fn send(
        &self,
        request: http::Request<bytes::Bytes>,
        _: &crosspoint_core::CallOptions,
    ) -> Result<http::Response<bytes::Bytes>> {
        Ok(http::Response::new(request.into_body()))
    }
}

#[derive(Debug)]
struct Shop(ConnectorDescriptor);

impl Connector for Shop {
    fn descriptor(&self) -> &ConnectorDescriptor {
        &self.0
    }
}

#[derive(Debug)]
struct Queue(Store);

#[async_trait]
impl Submit for Queue {
    async fn submit(&self, envelope: Envelope, _: Duration) -> Result<Submitted> {
        let id = envelope.id();
        self.enqueue(vec![envelope]).await?;
        Ok(Submitted::Accepted {
            id,
            retry_after: Duration::ZERO,
        })
    }
    async fn enqueue(&self, envelopes: Vec<Envelope>) -> Result<Vec<Enqueued>> {
        self.0
            .dispatch
            .enqueue(envelopes.into_iter().map(Enqueue::queued).collect())
            .await
    }
}

/// Puts a secret into an installation's configuration.
pub(crate) fn seal(installation: &mut Installation, name: &str, value: &str) {
    let context = SealContext::config(acme(), installation.id, name, 1);
    let sealed = format!("{context:?}\n{value}").into_bytes();
    installation
        .secrets
        .insert(name.to_owned(), (1, Sealed::from_bytes(sealed)));
}

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) handler: FlowHandler,
    pub(crate) runtime: Runtime,
}

impl World {
    /// On the machine's clock.
    pub(crate) fn new(integrations: impl IntoIterator<Item = AnyIntegration>) -> Self {
        Self::on(Arc::new(SystemClock::new()), integrations)
    }

    pub(crate) fn on(clock: Arc<dyn Clock>, integrations: impl IntoIterator<Item = AnyIntegration>) -> Self {
        let store = Memory::with_clock(Arc::clone(&clock)).into();
        Self::over(store, clock, integrations)
    }

    pub(crate) fn over(
        store: Store,
        clock: Arc<dyn Clock>,
        integrations: impl IntoIterator<Item = AnyIntegration>,
    ) -> Self {
        Self::of(store, clock, integrations, |parts| parts)
    }

    /// With other parts than the usual ones.
    pub(crate) fn with(
        clock: Arc<dyn Clock>,
        integrations: impl IntoIterator<Item = AnyIntegration>,
        change: impl FnOnce(Parts) -> Parts,
    ) -> Self {
        let store = Memory::with_clock(Arc::clone(&clock)).into();
        Self::of(store, clock, integrations, change)
    }

    /// With everything run by one runner.
    pub(crate) fn run_by(runner: Arc<dyn Runner>, integrations: impl IntoIterator<Item = AnyIntegration>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Self::with(clock, integrations, |parts| parts.runners(runner))
    }

    fn of(
        store: Store,
        clock: Arc<dyn Clock>,
        integrations: impl IntoIterator<Item = AnyIntegration>,
        change: impl FnOnce(Parts) -> Parts,
    ) -> Self {
        let mut registry = Registry::new();
        let shop = ConnectorDescriptor::new("shop", "Shop", BaseUrl::Fixed("https://shop.test".to_owned()));
        registry.add_connector(Arc::new(Shop(shop))).unwrap();
        for integration in integrations {
            registry.add_integration(integration).unwrap();
        }
        let parts = Parts::new(Arc::new(registry), store.clone(), Arc::new(Keys), Arc::new(OpenVault));
        let runners =
            Runners::new(Arc::clone(&clock)).with_scripts(Arc::new(crate::machine::runner(Arc::clone(&clock))));
        let parts = parts.clock(Arc::clone(&clock)).runners(Arc::new(runners));
        let handler = FlowHandler::new(change(parts));
        let runtime = Runtime::new(&handler, Arc::new(Queue(store.clone())));
        Self {
            store,
            clock,
            handler,
            runtime,
        }
    }

    pub(crate) async fn install(&self, integration: &str, config: Value) -> Installation {
        self.install_with(integration, config, |_| {}).await
    }

    pub(crate) async fn install_with(
        &self,
        integration: &str,
        config: Value,
        change: impl FnOnce(&mut Installation),
    ) -> Installation {
        let id = InstallationId::mint(&*self.clock);
        let mut installation = Installation::new(id, acme(), integration, "1.0.0", self.clock.now());
        installation.state = InstallationState::Active;
        installation.config = config;
        change(&mut installation);
        self.save(SaveInstallation::new(installation)).await
    }

    pub(crate) async fn save(&self, save: SaveInstallation) -> Installation {
        let id = save.installation.id;
        let saved = self.store.installations.save((&fleet()).into(), save).await.unwrap();
        assert_eq!(saved, Saved::Applied);
        self.installation(id).await
    }

    /// Whether anything waits to be run, now or later.
    pub(crate) async fn waiting(&self) -> bool {
        let stats = self.store.dispatch.admin().unwrap().stats().await.unwrap();
        stats.iter().any(|target| target.ready + target.delayed > 0)
    }

    pub(crate) async fn installation(&self, id: InstallationId) -> Installation {
        self.store
            .installations
            .get((&fleet()).into(), id)
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn call(&self, installation: &Installation, flow: &str, input: Value) -> InvocationId {
        use crosspoint_core::Control;
        self.runtime
            .start(&scope(ACME), installation.id, flow, input)
            .await
            .unwrap()
    }

    pub(crate) async fn lease(&self) -> Option<Lease> {
        for target in ["flows", "scripts"] {
            if let Some(lease) = self.lease_of(&TargetId::new(target).unwrap()).await {
                return Some(lease);
            }
        }
        None
    }

    async fn lease_of(&self, target: &TargetId) -> Option<Lease> {
        let terms = LeaseTerms::new(WorkerId::new("w").unwrap(), Duration::from_secs(600));
        let request = LeaseRequest::new(target.clone(), terms, 1);
        self.store.dispatch.lease(request).await.unwrap().pop()
    }

    /// Handles what is ready for one target.
    pub(crate) async fn work_at(&self, target: &TargetId) {
        while let Some(lease) = self.lease_of(target).await {
            let (_stop, handled) = self.deliver(&lease);
            handled.await.unwrap();
        }
    }

    /// Handles one lease, with a source that can stop it.
    pub(crate) fn deliver(&self, lease: &Lease) -> (StopSource, impl Future<Output = Result<Reply>> + Send + use<>) {
        let stop = StopSource::new();
        let mut invocation = lease.envelope.invocation.clone();
        let delivery = Delivery::new(lease.reference, lease.begun, lease.close, lease.queued, stop.signal());
        invocation.meta.delivery = Some(delivery);
        let handler = self.handler.clone();
        (stop, async move { handler.handle(invocation).await })
    }

    /// Handles what is ready until nothing is.
    pub(crate) async fn work(&self) -> Vec<Result<Reply>> {
        let mut replies = Vec::new();
        while let Some(lease) = self.lease().await {
            let (_stop, handled) = self.deliver(&lease);
            replies.push(handled.await);
        }
        replies
    }

    /// Calls a flow, works, and answers how it went.
    pub(crate) async fn run(&self, installation: &Installation, flow: &str, input: Value) -> (Execution, Value) {
        let id = self.call(installation, flow, input).await;
        Box::pin(self.work()).await;
        (self.execution(id).await, self.reply(id).await)
    }

    pub(crate) async fn execution(&self, id: InvocationId) -> Execution {
        self.store.executions.get((&fleet()).into(), id).await.unwrap().unwrap()
    }

    pub(crate) async fn reply(&self, id: InvocationId) -> Value {
        let status = self.store.dispatch.get((&fleet()).into(), id).await.unwrap().unwrap();
        status
            .reply
            .map_or(Value::Null, |reply| serde_json::from_slice(reply.body()).unwrap())
    }

    pub(crate) async fn executions(&self, installation: &Installation) -> Vec<Execution> {
        let filter = crosspoint_core::ExecutionFilter::installation(installation.id);
        let page = Page::first(100);
        let mut items = self
            .store
            .executions
            .list((&fleet()).into(), &filter, page)
            .await
            .unwrap()
            .items;
        items.reverse();
        items
    }

    pub(crate) async fn log(&self, id: InvocationId, audience: Audience) -> Vec<String> {
        let mut lines = Vec::new();
        let mut page = Page::first(100);
        loop {
            let part = self
                .store
                .log
                .lines((&fleet()).into(), id, audience, page)
                .await
                .unwrap();
            lines.extend(part.items.into_iter().map(|line| line.message));
            match part.next {
                Some(next) => page = Page::after(next, 100),
                None => return lines,
            }
        }
    }

    pub(crate) async fn state(&self, installation: &Installation, flow: &str) -> Value {
        self.store
            .state
            .state((&fleet()).into(), installation.id, flow)
            .await
            .unwrap()
            .value
    }
}
