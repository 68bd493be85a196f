//! The side of the gateway that works the queue off: leases, attempts, heartbeats.
//!
//! Permits come first: queued work of a service is leased only under a permit that is already in hand, so that nothing
//! counts as begun that could not start. Flows are different, because nothing but the drain calls them and all of their
//! work may be repeated: for them the loop waits in the store's own `lease`, which notices at once what schedules, events
//! and other processes have stored.

mod attempt;
mod leases;

pub(crate) use attempt::{Attempt, Job, conclude, supervise};
pub(crate) use leases::{Holding, Leases};

use crate::{
    Settles,
    gate::{Drain, Permit},
    gateway::{Inner, Stage},
    inbox::Answer,
    metric,
    target::Target,
    wait::after,
};
use crosspoint_core::{Lease, LeaseRequest, LeaseTerms, Scope};
use std::{
    collections::HashSet,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How long the loop rests after the store failed to lease.
const AFTER_ERROR: Duration = Duration::from_millis(500);

/// Leases a target's work and starts its attempts until the gateway shuts down or is gone.
pub(crate) async fn drain(gateway: Weak<Inner>, target: Arc<Target>) {
    let Some(inner) = gateway.upgrade() else { return };
    let _running = inner.loops.subscribe();
    let mut stages = inner.stage.subscribe();
    drop(inner);
    let mut backlog = true;
    loop {
        let turn = async {
            match (backlog, settles(&target)) {
                (true, _) => target.gate.drain(Drain::Held).await.into(),
                (false, Settles::Gateway) => idle(&gateway, &target).await,
                (false, Settles::Handler) => {
                    target.gate.available().await;
                    None
                }
            }
        };
        let first = tokio::select! {
            biased;
            _ = stages.wait_for(|stage| *stage >= Stage::Draining) => return,
            first = turn => first,
        };
        let Some(inner) = gateway.upgrade() else { return };
        if !backlog && first.is_none() && settles(&target) == Settles::Gateway {
            continue;
        }
        // From here on nothing may be dropped half-way: a lease that is granted must be worked on or given back.
        backlog = lease(inner, &target, first).await;
    }
}

fn settles(target: &Target) -> Settles {
    target.served().map_or(Settles::Gateway, |served| served.settles)
}

/// Waits until there may be work, then for a permit. The regular look for work of other processes takes a permit only if
/// one is free: it must not push direct calls aside.
async fn idle(gateway: &Weak<Inner>, target: &Arc<Target>) -> Option<Permit> {
    let poll = gateway.upgrade()?.config.poll;
    tokio::select! {
        () = target.queued.notified() => Some(target.gate.drain(Drain::Held).await),
        () = sleep(poll) => target.gate.try_drain(Drain::Held),
    }
}

/// Leases once and starts what comes. Answers whether there may be more.
async fn lease(inner: Arc<Inner>, target: &Arc<Target>, first: Option<Permit>) -> bool {
    let batch = inner.config.lease_batch.max(1);
    let mut permits: Vec<Permit> = first.into_iter().collect();
    let mut request = LeaseRequest::new(target.id.clone(), inner.terms(), 1);
    if permits.is_empty() {
        let gate = target.gate.snapshot();
        let room = usize::try_from(gate.limit.saturating_sub(gate.in_flight)).unwrap_or(1);
        request.max = room.clamp(1, batch);
        request.wait = inner.config.poll;
    } else {
        while let Some(permit) = (permits.len() < batch)
            .then(|| target.gate.try_drain(Drain::Held))
            .flatten()
        {
            permits.push(permit);
        }
        request.max = permits.len();
    }
    let sent = Instant::now();
    match inner.store.lease(request).await {
        Ok(leases) => {
            let any = !leases.is_empty();
            for lease in leases {
                start(&inner, target, lease, sent, permits.pop());
            }
            any
        }
        Err(error) => {
            tracing::warn!(%error, target = %target.id, "leasing failed");
            drop(permits);
            sleep(AFTER_ERROR).await;
            true
        }
    }
}

/// Starts an attempt in a task of its own, in the heartbeat from this moment on.
pub(crate) fn start(inner: &Arc<Inner>, target: &Arc<Target>, lease: Lease, sent: Instant, permit: Option<Permit>) {
    metric::leased(target.id.as_str(), lease.attempt, inner.clock.now().since(lease.queued));
    let holding = inner.hold_lease(&lease, sent);
    let attempt = Attempt {
        inner: Arc::clone(inner),
        target: Arc::clone(target),
        holding,
        lease,
    };
    tokio::spawn(attempt.run(permit));
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
        for id in inner.inbox.awaited().into_iter().filter(|id| !own.contains(id)) {
            inner.look(id).await;
        }
    }
}

impl Inner {
    /// Wakes whoever waits for a call if the store says that it has ended. False if the store has no such call; true also
    /// if the store could not be asked.
    pub(crate) async fn look(&self, id: crosspoint_core::InvocationId) -> bool {
        match self.store.get(Scope::Fleet(&self.fleet), id).await {
            Ok(Some(status)) => {
                if let Some(answer) = Answer::of(status) {
                    self.inbox.answer(id, answer);
                }
            }
            Ok(None) => return false,
            Err(error) => tracing::warn!(%error, %id, "the answer could not be looked up"),
        }
        true
    }
}
