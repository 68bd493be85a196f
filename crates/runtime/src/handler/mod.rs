//! From a delivery of the queue to a finished execution.
//!
//! [`attempt`] loads what the flow needs and runs it; [`checkpoint`] keeps what it reaches on the way, [`finish`] writes
//! everything else that it leaves behind in one transaction; [`putback`] gives back what this process could not begin.
//! [`watch`] hears what it says meanwhile. [`fields`] asks scripts beside that road.

mod attempt;
mod checkpoint;
mod fields;
mod finish;
mod putback;
mod running;
mod watch;

pub(crate) use running::Running;

use crate::{Capacity, Runners, Starter, Trust, numbers::Numbers, redact::Redactor};
use async_trait::async_trait;
use attempt::Ran;
use crosspoint_core::{
    Begun, Clock, CloseReason, Code, Credentials, CustomerScope, Delivery, Error, FlowRef, Handler, Invocation, Meta,
    Registry, ReplayConfig, Reply, Result, Runner, Settle, Store, SystemClock, Timestamp, Vault,
};
use std::sync::Arc;
use tokio::time::Instant;
use tracing::Instrument as _;

/// What a [`FlowHandler`] works with.
///
/// ```no_run
/// # fn parts(credentials: std::sync::Arc<dyn crosspoint_core::Credentials>, vault: std::sync::Arc<dyn crosspoint_core::Vault>) {
/// use crosspoint_core::{Memory, Registry};
/// use crosspoint_runtime::{FlowHandler, Parts};
/// let handler = FlowHandler::new(Parts::new(Registry::new().into(), Memory::new().into(), credentials, vault));
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Parts {
    registry: Arc<Registry>,
    store: Store,
    credentials: Arc<dyn Credentials>,
    vault: Arc<dyn Vault>,
    clock: Option<Arc<dyn Clock>>,
    runners: Option<Arc<dyn Runner>>,
    capacity: Capacity,
    trust: Trust,
}

impl Parts {
    /// The machine's clock and the standard runners, unless set otherwise.
    pub fn new(
        registry: Arc<Registry>,
        store: Store,
        credentials: Arc<dyn Credentials>,
        vault: Arc<dyn Vault>,
    ) -> Self {
        Self {
            registry,
            store,
            credentials,
            vault,
            clock: None,
            runners: None,
            capacity: Capacity::default(),
            trust: Trust::default(),
        }
    }

    /// Reads time from this clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Lets so many executions run at once.
    pub const fn capacity(mut self, capacity: Capacity) -> Self {
        self.capacity = capacity;
        self
    }

    /// Trusts code by this rule; all of it with what it asks for, unless set.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Runs code on these; [`Runners::standard`] unless set.
    pub fn runners(mut self, runners: Arc<dyn Runner>) -> Self {
        self.runners = Some(runners);
        self
    }
}

/// Handles deliveries of flows: begins the execution, runs the code at the isolation it asks for, and writes outcome,
/// state, logs and follow-ups in one transaction.
///
/// The envelope is settled when the handler returns, unless the store failed. Then `Ok` is the reply of an execution that
/// has ended, in whatever way. `Err` means that there is no reply yet: with [`Retry::At`](crosspoint_core::Retry::At) the
/// next attempt is already stored, with [`Code::LeaseStale`] the work is somebody else's now, with
/// [`Code::ShuttingDown`] it went back to the queue. Settling again is harmless: the lease is over and the store answers
/// `Stale`.
///
/// Executions that are queued when an installation is paused still run; when it is removed, they fail. While it waits for
/// somebody to connect it again, they wait as well, a minute at a time and for as long as the flow's retry policy allows.
///
/// What could not be begun, because the store failed or this process does not have the installed version, goes back to
/// the queue after a pause of some seconds. That is no attempt, and `Err` carries the reason.
///
/// Dropping the future kills the attempt and writes nothing.
#[derive(Debug, Clone)]
pub struct FlowHandler {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) registry: Arc<Registry>,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) starter: Starter,
    pub(crate) running: Running,
    trust: Trust,
    credentials: Arc<dyn Credentials>,
    vault: Arc<dyn Vault>,
    runners: Arc<dyn Runner>,
    asking: fields::Asking,
    numbers: Arc<Numbers>,
}

impl FlowHandler {
    /// A handler of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        crate::numbers::describe();
        #[cfg(unix)]
        crate::egress::describe();
        let clock = parts.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let runners = parts
            .runners
            .unwrap_or_else(|| Arc::new(Runners::standard(Arc::clone(&clock))));
        Self {
            inner: Arc::new(Inner {
                starter: Starter::new(Arc::clone(&parts.registry), Arc::clone(&clock))
                    .capacity(parts.capacity)
                    .trust(parts.trust.clone()),
                trust: parts.trust,
                registry: parts.registry,
                store: parts.store,
                clock,
                running: Running::default(),
                credentials: parts.credentials,
                vault: parts.vault,
                runners,
                asking: fields::Asking::default(),
                numbers: Arc::default(),
            }),
        }
    }

    /// The runners, for reports of what they can enforce.
    #[must_use]
    pub fn runners(&self) -> &Arc<dyn Runner> {
        &self.inner.runners
    }

    /// Makes envelopes for the flows that this handler runs.
    #[must_use]
    pub fn starter(&self) -> &Starter {
        &self.inner.starter
    }
}

/// One delivery, from its arrival to its end.
struct Task<'a> {
    inner: &'a Inner,
    meta: Meta,
    delivery: Delivery,
    flow: FlowRef,
    /// When the execution was accepted.
    created: Timestamp,
    scope: CustomerScope,
    arrived: Instant,
    /// `arrived` on the clock that the records are written by.
    began: Timestamp,
    queue_ms: u64,
}

#[async_trait]
impl Handler for FlowHandler {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        let inner = &*self.inner;
        let arrived = Instant::now();
        let Invocation { mut meta, request, .. } = invocation;
        let Some(delivery) = meta.delivery.take() else {
            let message = "a flow runs from the store only: enqueue its envelope";
            return Err(Error::new(Code::SetupInvalid, message));
        };
        let began = inner.clock.now();
        let waited = began.since(delivery.queued);
        if !delivery.begun {
            match inner
                .store
                .executions
                .begin(&crate::scope::fleet(), delivery.lease)
                .await?
            {
                Begun::Run => {}
                Begun::Finished(reply) => {
                    let (lease, kept) = (delivery.lease, reply.clone());
                    inner
                        .store
                        .dispatch
                        .settle(vec![Settle::Complete { lease, reply: kept }])
                        .await?;
                    return Ok(reply);
                }
                _ => return Err(stale()),
            }
        }
        let (flow, created) = inner.identify(&meta, &delivery).await?;
        let task = Task {
            inner,
            scope: crate::scope::of(&meta.customer),
            meta,
            delivery,
            flow,
            created,
            arrived,
            began,
            queue_ms: millis(waited),
        };
        let span = tracing::info_span!(
            "flow",
            execution = %task.meta.id,
            integration = &*task.flow.integration,
            flow = &*task.flow.flow,
        );
        match task.delivery.close {
            Some(why) => task.close(why).instrument(span).await,
            None => Box::pin(task.run(request.body())).instrument(span).await,
        }
    }
}

impl Inner {
    async fn identify(&self, meta: &Meta, delivery: &Delivery) -> Result<(FlowRef, Timestamp)> {
        if let (Some(flow), Some(created)) = (&delivery.flow, delivery.created) {
            return Ok((flow.clone(), created));
        }
        let fleet = crate::scope::fleet();
        let execution = self.store.executions.get((&fleet).into(), meta.id).await?;
        let execution = execution.ok_or_else(|| Error::new(Code::NotFound, "there is no such execution"))?;
        let mut flow = FlowRef::new(
            execution.installation,
            &execution.integration,
            &execution.version,
            &execution.flow,
            execution.trigger,
        );
        flow.revision = execution
            .revision
            .filter(|_| execution.config == ReplayConfig::Original);
        flow.state = execution.state;
        Ok((flow, execution.created))
    }
}

impl Task<'_> {
    async fn run(self, body: &[u8]) -> Result<Reply> {
        let mut context = attempt::Context::default();
        let ran = match self.attempt(body, &mut context).await {
            Ok(ran) => ran,
            Err(error) if putback::not_ours(&error) => return self.put_back(error).await,
            Err(error) => Ran::failed(error, self.arrived.elapsed()),
        };
        self.conclude(ran, &context).await
    }

    /// Closes an execution that is not to be run any more.
    async fn close(self, why: CloseReason) -> Result<Reply> {
        let fleet = crate::scope::fleet();
        let (code, message) = match why {
            CloseReason::Expired => (Code::Expired, "it was not begun in time".to_owned()),
            CloseReason::Cancelled => (Code::Cancelled, "it was cancelled".to_owned()),
            _ => {
                let execution = self.inner.store.executions.get((&fleet).into(), self.meta.id).await?;
                let last = execution.and_then(|execution| execution.failure);
                let last = last.map_or_else(String::new, |f| format!("; the last one failed: {}", f.message));
                (Code::AttemptsExhausted, format!("all attempts were used up{last}"))
            }
        };
        self.end_closed(why, Error::new(code, message)).await
    }
}

fn stale() -> Error {
    Error::new(Code::LeaseStale, "the lease was lost; nothing was written")
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
