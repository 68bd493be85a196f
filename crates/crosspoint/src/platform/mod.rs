//! The parts, wired: a store, keys, connectors and integrations become a running platform.

#[cfg(unix)]
mod artifacts;
mod builder;
mod upkeep;

pub use builder::Builder;

use axum::{Router, http::request};
use crosspoint_connectors::ConnectorEngine;
use crosspoint_core::{
    Authenticate, Clock, Code, CustomerId, CustomerScope, Error, Event, InstallationId, InvocationId, IsolationReport,
    Principal, Registry, Reply, Result, Runner, StopReason, StopSource, Store, Submitted, SystemClock, TargetId, Vault,
};
use crosspoint_gateway::{DispatchLayer, Gateway};
use crosspoint_marketplace::{Install, Marketplace, Parts};
use crosspoint_runtime::{CronTimetable, Runners, Runtime};
use serde_json::Value;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

/// A running integration platform inside the host's process. Cheap to clone.
///
/// ```
/// use crosspoint::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let platform = Platform::builder().store(Memory::new()).keys(KeyRing::generate()?).start().await?;
/// platform.shutdown().await
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Platform {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Arc<Registry>,
    store: Store,
    clock: Arc<dyn Clock>,
    vault: Arc<dyn Vault>,
    engine: Arc<ConnectorEngine>,
    gateway: Gateway,
    runtime: Runtime,
    isolation: IsolationReport,
    installer: OnceLock<Marketplace>,
    stop: StopSource,
    shutdown: Duration,
    #[cfg(unix)]
    artifacts: Option<crosspoint_runtime::artifacts::Artifacts>,
}

impl Platform {
    /// Puts a platform together.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// What the standard runners can enforce on this machine, found by trying. Needs no platform.
    pub async fn probe() -> IsolationReport {
        Runners::standard(Arc::new(SystemClock::new())).probe().await
    }

    /// What the runners of this platform can enforce on this machine.
    #[must_use]
    pub fn isolation(&self) -> &IsolationReport {
        &self.inner.isolation
    }

    /// The marketplace: UI at the place where it is nested, API below `v1/`. `auth` says who is calling.
    ///
    /// `Router::nest_service("/integrations", platform.marketplace(auth))` answers with and without the last slash.
    pub fn marketplace(&self, auth: impl Authenticate) -> Router {
        self.market(Arc::new(auth)).router()
    }

    #[expect(
        clippy::expect_used,
        reason = "the registry was checked by the same check before the platform started"
    )]
    fn market(&self, auth: Arc<dyn Authenticate>) -> Marketplace {
        let inner = &self.inner;
        Marketplace::new(Parts {
            registry: Arc::clone(&inner.registry),
            store: inner.store.clone(),
            clock: Arc::clone(&inner.clock),
            auth,
            authorizer: inner.engine.clone(),
            choices: inner.engine.clone(),
            control: Arc::new(inner.runtime.clone()),
            timetable: Arc::new(CronTimetable::new()),
            vault: Arc::clone(&inner.vault),
        })
        .expect("the registry was checked")
    }

    /// The status of requests that were answered 202, and their stored replies; to be nested at `/requests`.
    pub fn requests(&self, auth: impl Authenticate) -> Router {
        self.inner.gateway.requests(Arc::new(auth))
    }

    /// A layer that protects a route, or a whole router, with the gate of a target. Set on it how many calls run at once
    /// ([`DispatchLayer::permits`]), whose they are and how long clients are held; then hand the finished router to
    /// [`Platform::serve_queued`].
    ///
    /// # Errors
    /// [`Code::IdMalformed`] if the name is not a valid target id.
    pub fn dispatch(&self, target: &str) -> Result<DispatchLayer> {
        Ok(self.inner.gateway.layer(TargetId::new(target)?))
    }

    /// Replays what was queued for every target with a layer through the router that the layers are part of.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] outside a tokio runtime.
    pub fn serve_queued(&self, router: Router) -> Result<()> {
        self.inner.gateway.serve_all_queued(router)
    }

    /// Something happened in the host: starts the customer's flows that react to it. When this returns, they are stored.
    /// Answers with the ids of the executions.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`] and whatever else the store meets; nothing was started then.
    pub async fn emit<E: Event>(&self, customer: &CustomerId, event: E) -> Result<Vec<InvocationId>> {
        self.inner.runtime.emit(customer, event).await
    }

    /// As [`Platform::emit`], for an event that the host gives an id: emitted again, it starts nothing a second time.
    ///
    /// # Errors
    /// As [`Platform::emit`].
    pub async fn emit_once<E: Event>(&self, customer: &CustomerId, id: &str, event: E) -> Result<Vec<InvocationId>> {
        let value = serde_json::to_value(&event)
            .map_err(|e| Error::new(Code::InputInvalid, "the event does not serialise").caused_by(e))?;
        self.inner.runtime.emit_value(customer, id, E::NAME, &value).await
    }

    /// Installs an integration for a customer, as its own user would in the marketplace.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] with every problem; [`Code::InputInvalid`] if there is no such integration.
    pub async fn install(&self, customer: &CustomerId, integration: &str, config: Value) -> Result<InstallationId> {
        let wish = Install::new(integration, config);
        // Making a marketplace compiles every schema, so this one is kept.
        let market = self.inner.installer.get_or_init(|| self.market(Arc::new(Nobody)));
        market.install(customer, wish).await
    }

    /// Calls a flow of an active installation and waits up to `hold` for its reply; what takes longer goes on, and
    /// [`Platform::wait`] finds it by its id.
    ///
    /// # Errors
    /// [`Code::NotFound`], [`Code::Conflict`] unless the installation is active, and whatever the store meets.
    pub async fn call(
        &self,
        customer: &CustomerId,
        installation: InstallationId,
        flow: &str,
        input: &Value,
        hold: Duration,
    ) -> Result<Submitted> {
        self.inner.runtime.call(customer, installation, flow, input, hold).await
    }

    /// Waits for the reply of a call or an execution.
    ///
    /// # Errors
    /// [`Code::NotFound`] if the customer has no such call; [`Code::DeadlineExceeded`] if it has no reply after `wait`.
    pub async fn wait(&self, customer: &CustomerId, id: InvocationId, wait: Duration) -> Result<Reply> {
        self.inner.gateway.reply(&scope(customer), id, wait).await
    }

    /// The gateway, for direct use.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.inner.gateway
    }

    /// The runtime, for direct use.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    /// The stores, for direct use.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Stops: nothing new is leased, running attempts may finish for a while (30 s unless set), then they are told to
    /// stop and their work goes back to the queue. What has not stopped some 20 s later keeps its lease until that ends.
    ///
    /// # Errors
    /// None at present; the result is there for stores that must be closed.
    pub async fn shutdown(&self) -> Result<()> {
        self.inner.stop.stop(StopReason::Draining);
        self.inner.gateway.drain(self.inner.shutdown).await;
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the host's own program names the customer it acts for"
)]
fn scope(customer: &CustomerId) -> CustomerScope {
    CustomerScope::trusted(customer.clone())
}

/// Lets nobody in: for a marketplace that is used from within and serves no requests.
#[derive(Debug)]
struct Nobody;

#[async_trait::async_trait]
impl Authenticate for Nobody {
    async fn authenticate(&self, _: &request::Parts) -> Result<Principal> {
        Err(Error::new(Code::SessionMissing, "this marketplace serves no requests"))
    }
}
