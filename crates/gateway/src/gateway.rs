//! The gateway of one process: its targets, its leases and whoever waits in it.

use crate::{
    Config, Limit, Policy, Settles, TargetConfig,
    budget::Budget,
    control,
    gate::{Drain, Snapshot},
    inbox::Inbox,
    intake::Intake,
    metric, purge,
    quota::Waiting,
    target::Target,
    wait::from_now,
    worker::{self, Leases},
};
use crosspoint_core::{Clock, Code, Deliver, DispatchStore, Error, FleetScope, Handler, Result, StopReason, TargetId};
use futures_util::future::join_all;
use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::timeout_at};

/// The shortest pause between two looks, and the shortest lease.
const LEAST: Duration = Duration::from_millis(1);

/// Dispatches calls: straight to a target while it has capacity, through the store when it has none. Cheap to clone;
/// all clones are one gateway.
///
/// ```
/// use crosspoint_core::{Handler, Invocation, Memory, Reply, Result, SystemClock, TargetId};
/// use crosspoint_gateway::{Config, Gateway, TargetConfig};
/// use std::sync::Arc;
///
/// #[derive(Debug)]
/// struct Echo;
///
/// #[async_trait::async_trait]
/// impl Handler for Echo {
///     async fn handle(&self, invocation: Invocation) -> Result<Reply> {
///         Ok(Reply::new(invocation.request.into_body()))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
/// gateway.register(TargetId::new("echo")?, Arc::new(Echo), TargetConfig::default())?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Gateway {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn DispatchStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    /// What is wrong with the configuration that was given.
    refused: Option<Error>,
    /// The worker's right to look at every call it works on.
    pub(crate) fleet: FleetScope,
    pub(crate) inbox: Inbox,
    pub(crate) leases: Leases,
    pub(crate) stage: watch::Sender<Stage>,
    /// The places of clients that are kept waiting.
    pub(crate) seats: Arc<Budget>,
    /// Whether diverted calls are written to the store.
    pub(crate) intake: Intake,
    /// Room for bodies that are read to be queued.
    pub(crate) rooms: Arc<Budget>,
    /// What waits in the queue, for the quotas of customers.
    pub(crate) waiting: Waiting,
    /// Ends when the last lease loop has dropped its clone.
    pub(crate) loops: watch::Sender<()>,
    /// How customers are notified, once that is served here.
    pub(crate) callbacks: OnceLock<Arc<dyn Deliver>>,
    targets: RwLock<HashMap<TargetId, Arc<Target>>>,
    tasks: AtomicBool,
}

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Running,
    /// Nothing new is leased, nobody new is held.
    Draining,
    /// Whoever is still held gets 202 now.
    Closing,
}

impl Gateway {
    /// A gateway over a store. `clock` is the wall clock of deadlines and retries. Settings that make no sense
    /// ([`Config::validate`]) are taken as near as possible until something is to be served.
    #[must_use]
    pub fn new(store: Arc<dyn DispatchStore>, clock: Arc<dyn Clock>, mut config: Config) -> Self {
        let refused = config.validate().err();
        // Without any pause the loops would only spin.
        config.poll = config.poll.max(LEAST);
        config.lease = config.lease.max(LEAST);
        #[expect(clippy::disallowed_methods, reason = "the gateway is the worker")]
        let fleet = FleetScope::trusted();
        Self {
            inner: Arc::new(Inner {
                seats: Budget::new(config.max_held, config.max_held_per_customer),
                intake: Intake::default(),
                rooms: Budget::new(config.max_buffered, config.max_buffered_per_customer),
                waiting: Waiting::default(),
                store,
                clock,
                config,
                refused,
                fleet,
                inbox: Inbox::default(),
                leases: Leases::default(),
                stage: watch::Sender::new(Stage::Running),
                loops: watch::Sender::new(()),
                callbacks: OnceLock::new(),
                targets: RwLock::default(),
                tasks: AtomicBool::new(false),
            }),
        }
    }

    /// Serves a target in this process: its queued work is leased and handed to `handler`, as long as the gateway
    /// lives. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] when the target is served already, when its policy, its retry policy or the gateway's
    /// [`Config`] makes no sense (with every problem), or outside a runtime.
    pub fn register(&self, target: TargetId, handler: Arc<dyn Handler>, config: TargetConfig) -> Result<()> {
        if let Some(wrong) = &self.inner.refused {
            return Err(Error::new(wrong.code(), wrong.message()).with_problems(wrong.problems().to_vec()));
        }
        config.retry.validate()?;
        let policy = match (&config.policy, config.settles) {
            (Some(policy), Settles::Gateway) => Some(policy.clone()),
            (Some(policy), Settles::Handler) => Some(policy.clone().patience(Duration::ZERO)),
            (None, Settles::Gateway) => None,
            (None, Settles::Handler) => Some(Policy::flows()),
        };
        if let Some(policy) = &policy {
            policy.validate()?;
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::new(
                Code::SetupInvalid,
                "targets are registered within a tokio runtime",
            ));
        }
        let entry = self.inner.target(&target);
        let settles = config.settles;
        if !entry.serve(handler, config) {
            return Err(Error::new(Code::SetupInvalid, "the target is served already").with("target", target));
        }
        if let Some(policy) = policy {
            entry.set_policy(policy);
        }
        self.start_tasks();
        let inner = || Arc::downgrade(&self.inner);
        if settles == Settles::Handler {
            tokio::spawn(worker::drain_flows(inner(), entry));
        } else {
            for which in [Drain::Held, Drain::Sideline] {
                tokio::spawn(worker::drain_queue(inner(), Arc::clone(&entry), which));
            }
        }
        Ok(())
    }

    /// Opens or closes the direct way to a target. While it is closed every call is diverted, and the queue waits.
    pub fn set_available(&self, target: &TargetId, available: bool) {
        if self.inner.target(target).gate.set_available(available) {
            tracing::info!(%target, available, "gate changed");
        }
    }

    /// Sets how many calls to a target run at once in this process, from now on and always: [`Limit::Fixed`].
    pub fn set_permits(&self, target: &TargetId, permits: u32) {
        let target = self.inner.target(target);
        let policy = Policy::clone(&target.control.policy());
        target.set_policy(policy.limit(Limit::Fixed(permits)));
    }

    /// How many calls at once would answer everything that arrives at a target and work its backlog off within 30 s:
    /// (arrivals per second + this process's share of the queue / 30 s) × the service time of an unloaded target. `None`
    /// if this process has never heard of it, 0 while nothing is known. Divided by the concurrency of one replica (and by
    /// 0.7, to leave room) it says how many replicas are needed; the sum over all gateways counts. Exported as
    /// `crosspoint_dispatch_demand_concurrency`.
    #[must_use]
    pub fn demand(&self, target: &TargetId) -> Option<f64> {
        self.inner.known(target).map(|target| target.control.demand())
    }

    /// How the gate of a target stands; `None` if this process has never heard of it.
    #[must_use]
    pub fn snapshot(&self, target: &TargetId) -> Option<Snapshot> {
        self.inner.known(target).map(|target| target.gate.snapshot())
    }

    /// The targets of this process.
    #[must_use]
    pub fn targets(&self) -> Vec<TargetId> {
        self.inner.all().iter().map(|target| target.id.clone()).collect()
    }

    /// Whether [`Gateway::drain`] has begun: the process should say that it is no longer ready for new traffic.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.stage() > Stage::Running
    }

    /// Prepares for the end of the process, in this order:
    ///
    /// 1. [`Gateway::is_draining`] says so from now on. Nothing more is leased; calls that are diverted are stored and
    ///    answered 202 at once. Direct calls go on: the server's own graceful shutdown ends those.
    /// 2. Running attempts, those of adopted calls included, may finish until `timeout` has passed. Who is held is
    ///    answered as before.
    /// 3. Then whoever is still held gets 202; any process on the same store answers the poll. Attempts that still run
    ///    are told to stop, and after [`Config::stop_grace`] they are dropped: what may be repeated goes back to the
    ///    queue at once, without having used up an attempt, and the rest is recorded as `outcome-unknown`.
    ///
    /// This ends soon after `timeout` and [`Config::stop_grace`], whatever attempts do. An attempt of a target that settles
    /// by itself and has not stopped by then keeps its lease, which runs out once the process is gone.
    pub async fn drain(&self, timeout: Duration) {
        let inner = &self.inner;
        let deadline = from_now(timeout);
        inner.enter(Stage::Draining);
        let finish = async {
            inner.loops.closed().await;
            inner.leases.empty().await;
        };
        if timeout_at(deadline, finish).await.is_err() {
            tracing::info!(attempts = inner.leases.count(), "stopping attempts that still run");
            inner.enter(Stage::Closing);
            inner.leases.stop_all(StopReason::Draining);
            let stop = async {
                inner.loops.closed().await;
                inner.leases.stop_all(StopReason::Draining);
                inner.leases.empty().await;
            };
            // Attempts that are dropped after the grace still have to be settled.
            let most = inner.config.stop_grace.saturating_add(inner.config.margin());
            if timeout_at(from_now(most), stop).await.is_err() {
                let attempts = inner.leases.count();
                tracing::warn!(attempts, "attempts did not stop; their leases are left to run out");
            }
        }
        inner.enter(Stage::Closing);
        inner.inbox.close();
        let targets = inner.all();
        let store = inner.store.as_ref();
        // All at once: each may take its time if the store hangs.
        let notes = targets.iter();
        join_all(notes.map(|target| control::remember(store, &target.id, &target.control))).await;
        inner.publish();
    }

    /// Starts the tasks that serve all targets together: heartbeats, the slow poll of answers, metrics.
    pub(crate) fn start_tasks(&self) {
        for target in self.inner.all() {
            self.start_control(&target);
        }
        if self.inner.tasks.swap(true, Ordering::AcqRel) {
            return;
        }
        metric::describe();
        tokio::spawn(worker::heartbeats(Arc::downgrade(&self.inner)));
        tokio::spawn(worker::watch_answers(Arc::downgrade(&self.inner)));
        tokio::spawn(metric::publish_always(Arc::downgrade(&self.inner)));
        tokio::spawn(metric::count_always(Arc::downgrade(&self.inner)));
        if self.inner.config.purge {
            tokio::spawn(purge::always(Arc::downgrade(&self.inner)));
        }
    }
}

impl Gateway {
    /// Starts the control of a target that is served or layered here. Outside of a runtime that is left to a later call.
    pub(crate) fn start_control(&self, target: &Arc<Target>) {
        let ours = target.is_layered() || target.served().is_some();
        if ours
            && tokio::runtime::Handle::try_current().is_ok()
            && let Some(running) = control::Running::start(target)
        {
            tokio::spawn(control::run(Arc::downgrade(&self.inner), running));
        }
    }
}

impl Inner {
    /// The target of this name, made if it is new.
    pub(crate) fn target(&self, id: &TargetId) -> Arc<Target> {
        if let Some(target) = self.known(id) {
            return target;
        }
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Target::new(id.clone()));
        Arc::clone(targets.entry(id.clone()).or_insert_with(new))
    }

    /// The target of this name, if this process has heard of it.
    pub(crate) fn known(&self, id: &TargetId) -> Option<Arc<Target>> {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        targets.get(id).map(Arc::clone)
    }

    /// Whether a target's handler here writes its results itself. Does not make the target known.
    pub(crate) fn settles_itself(&self, id: &TargetId) -> bool {
        let target = self.known(id);
        let served = target.as_ref().and_then(|target| target.served());
        served.is_some_and(|served| served.settles == Settles::Handler)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Target>> {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        targets.values().cloned().collect()
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    fn enter(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let later = *now < stage;
            if later {
                *now = stage;
            }
            later
        });
    }

    /// Resolves when the shutdown has come to `stage`.
    pub(crate) async fn reached(&self, stage: Stage) {
        let mut stages = self.stage.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        if stages.wait_for(|now| *now >= stage).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
