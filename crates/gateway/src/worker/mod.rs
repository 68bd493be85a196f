//! The side of the gateway that works the queue off: leases, attempts, heartbeats.
//!
//! # Work that kills its worker
//!
//! A lease that was lost counts as an attempt, and the store counts losses besides. Repeatable work becomes ready again;
//! after [`Config::suspect_losses`](crate::Config::suspect_losses) losses (2) whoever leases it next does not begin it, but
//! makes a dead letter of it. Work that may not be repeated ends as unknown at the first loss. So a call that takes its
//! process down does so twice, not for ever, and a flow at most as often as its `max_attempts` says.
//!
//! # Work that is never begun
//!
//! A delivery that a target refuses without beginning it is no attempt. The call goes back, after a pause that grows by 250
//! ms each time, up to 30 s; while the gate lets no queued work through, that is the pause. The total time of the target's
//! [`RetryPolicy`](crosspoint_core::RetryPolicy) (24 h) holds for it as well: a call that is refused when it is older than
//! that, and has come back as often as there are attempts, is a dead letter with the code of that refusal. Without a total
//! time it is tried until somebody cancels it.

mod attempt;
mod drain;
mod leases;
mod lull;
mod verdict;

pub(crate) use attempt::{Attempt, Ending, Job, conclude, settle, supervise};
pub(crate) use drain::{drain_flows, drain_queue};
pub(crate) use leases::{Held, Holding, Leases};
pub(crate) use lull::Lull;
pub(crate) use verdict::outcome_of;

use crate::{gate::Permit, gateway::Inner, inbox::Answer, metric, target::Target, wait::after};
use crosspoint_core::{CallStatus, InvocationId, Lease, LeaseTerms, Scope};
use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How many calls the store is asked about at once.
const QUESTIONS: usize = 500;

/// Starts an attempt in a task of its own, in the heartbeat from this moment on.
pub(crate) fn start(inner: &Arc<Inner>, target: &Arc<Target>, lease: Lease, sent: Instant, permit: Option<Permit>) {
    tokio::spawn(begin(inner, target, lease, sent, permit));
}

/// An attempt for the task that awaits it, in the heartbeat from this moment on.
pub(crate) fn begin(
    inner: &Arc<Inner>,
    target: &Arc<Target>,
    lease: Lease,
    sent: Instant,
    mut permit: Option<Permit>,
) -> impl Future<Output = ()> + Send + use<> {
    if let Some(permit) = &mut permit {
        // At once, and not in the task: the next lease must know.
        let meta = &lease.envelope.invocation.meta;
        permit.carries(target.gate.class(&meta.route_class), &meta.customer);
    }
    metric::leased(target.id.as_str(), lease.attempt, inner.clock.now().since(lease.queued));
    let holding = inner.hold_lease(&lease, sent);
    target.backlog.leased(lease.reference.id);
    target.control.backlog().started(1);
    let attempt = Attempt {
        inner: Arc::clone(inner),
        target: Arc::clone(target),
        holding,
        lease,
    };
    attempt.run(permit)
}

impl Inner {
    pub(crate) fn terms(&self) -> LeaseTerms {
        LeaseTerms::new(self.config.worker.clone(), self.config.lease)
    }

    /// Takes a lease that was asked for at `sent` into the heartbeat.
    pub(crate) fn hold_lease(&self, lease: &Lease, sent: Instant) -> Holding {
        let margin = self.config.margin();
        let until = after(sent, self.config.lease.saturating_sub(margin));
        self.leases.hold(lease.reference, until, margin / 2)
    }
}

/// Extends the leases of the process, all in one batch, until the gateway is gone.
pub(crate) async fn heartbeats(gateway: Weak<Inner>) {
    let mut pause = Duration::ZERO;
    loop {
        sleep(pause).await;
        let Some(inner) = gateway.upgrade() else { return };
        let config = &inner.config;
        let taken = inner.leases.beat(&*inner.store, config.lease, config.margin()).await;
        pause = if taken {
            config.heartbeat()
        } else {
            config.heartbeat() / 4
        };
    }
}

/// Looks in the store for answers that somebody waits for and that no attempt of this process will bring.
pub(crate) async fn watch_answers(gateway: Weak<Inner>) {
    let mut pause = Duration::ZERO;
    loop {
        sleep(pause).await;
        let Some(inner) = gateway.upgrade() else { return };
        pause = inner.config.poll;
        let own: HashSet<_> = inner.leases.ids().into_iter().collect();
        let mut awaited = inner.inbox.awaited();
        awaited.retain(|id| !own.contains(id));
        for ids in awaited.chunks(QUESTIONS) {
            match inner.store.ended(ids).await {
                Ok(ended) => inner.tell(ended),
                Err(error) => {
                    tracing::warn!(%error, "answers could not be looked up");
                    break;
                }
            }
        }
    }
}

impl Inner {
    pub(crate) fn tell(&self, ended: Vec<CallStatus>) {
        for status in ended {
            let id = status.id;
            if let Some(answer) = Answer::of(status) {
                self.inbox.answer(id, answer);
            }
        }
    }

    /// Wakes whoever waits for a call if the store says that it has ended. False if the store has no such call; true also
    /// if the store could not be asked.
    pub(crate) async fn look(&self, id: InvocationId) -> bool {
        match self.store.get(Scope::Fleet(&self.fleet), id).await {
            Ok(Some(status)) => self.tell(vec![status]),
            Ok(None) => return false,
            Err(error) => tracing::warn!(%error, %id, "the answer could not be looked up"),
        }
        true
    }
}
