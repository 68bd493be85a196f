//! The loops that lease a target's queued work.
//!
//! A service has two, one for each queue, so that calls that somebody waits for and calls of the sideline ask the gate for
//! permits of their own kind. Permits come first: queued work of a service is leased only under permits that are already
//! in hand, so that nothing counts as begun that could not start. While a lease is on its way to the store the next permits
//! are asked for, as long as more held calls are known to wait; otherwise direct calls would overtake them in that time. A
//! store that hangs has them for [`Config::enqueue_timeout`](crate::Config::enqueue_timeout) only.
//!
//! Flows have one loop for both queues. Nothing but the drain calls them and all of their work may be repeated: the loop
//! waits in the store's own `lease`, which notices at once what schedules, events and other processes have stored.

use super::start;
use crate::{
    gate::{Drain, Permit},
    gateway::{Inner, Stage},
    target::Target,
};
use crosspoint_core::{LeaseRequest, Queue};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// How long a loop rests after the store failed to lease.
const AFTER_ERROR: Duration = Duration::from_millis(500);

/// How soon a loop looks again when customers were passed over who may have calls waiting.
const AFTER_SKIP: Duration = Duration::from_millis(50);

/// How many leases of one loop are on their way to the store at once.
const LEASES: usize = 4;

/// Leases one of a service's queues and starts its attempts until the gateway shuts down or is gone.
pub(crate) async fn drain_queue(gateway: Weak<Inner>, target: Arc<Target>, which: Drain) {
    let Some(inner) = gateway.upgrade() else { return };
    let _running = inner.loops.subscribe();
    let mut stages = inner.stage.subscribe();
    let poll = inner.config.poll;
    let most = inner.config.lease_batch.max(1);
    drop(inner);
    let mut sight = Sight::new(&target, which, most);
    let mut flying: FuturesUnordered<JoinHandle<Leased>> = FuturesUnordered::new();
    loop {
        sight.tell();
        let wanted = sight.wanted(flying.len());
        let rest = if sight.skipped { AFTER_SKIP } else { poll };
        let next = async {
            target.lull.over().await;
            target.gate.drain(which).await
        };
        // The regular look for work of other processes must not push direct calls aside.
        let look = async {
            sleep(rest).await;
            target.lull.over().await;
            target.gate.try_drain(which)
        };
        let permit = tokio::select! {
            biased;
            _ = stages.wait_for(|stage| *stage >= Stage::Draining) => return,
            Some(leased) = flying.next(), if !flying.is_empty() => {
                sight.learn(leased.ok());
                continue;
            }
            permit = next, if wanted > 0 => Some(permit),
            () = target.queue(which).notified(), if !sight.backlog => {
                sight.backlog = true;
                continue;
            }
            permit = look, if flying.is_empty() && !sight.backlog => permit,
        };
        let Some(inner) = gateway.upgrade() else { return };
        let Some(permit) = permit else { continue };
        let mut permits = vec![permit];
        while permits.len() < wanted
            && let Some(permit) = target.gate.try_drain(which)
        {
            permits.push(permit);
        }
        sight.underway += permits.len();
        // In a task of its own, unless the store answers at once: a lease that is granted must be worked on or given back,
        // whatever becomes of this loop.
        let mut lease = Box::pin(lease(inner, Arc::clone(&target), which, permits));
        match lease.as_mut().now_or_never() {
            Some(leased) => sight.learn(Some(leased)),
            None => flying.push(tokio::spawn(lease)),
        }
    }
}

/// What a loop knows of its queue.
struct Sight<'a> {
    target: &'a Target,
    which: Drain,
    most: usize,
    /// Whether there may be work.
    backlog: bool,
    /// Whether customers were passed over.
    skipped: bool,
    /// How many permits are on their way to the store.
    underway: usize,
    /// How many leases were last worth asking for at once.
    batch: usize,
    /// Whether the gate was told that held calls wait.
    told: bool,
}

impl Drop for Sight<'_> {
    fn drop(&mut self) {
        self.backlog = false;
        self.tell();
    }
}

impl<'a> Sight<'a> {
    const fn new(target: &'a Target, which: Drain, most: usize) -> Self {
        Self {
            target,
            which,
            most,
            backlog: true,
            skipped: false,
            underway: 0,
            batch: 1,
            told: false,
        }
    }

    /// Tells the gate whether held calls wait.
    fn tell(&mut self) {
        if self.which == Drain::Held && self.told != self.backlog {
            self.told = self.backlog;
            self.target.gate.expect_held(self.told);
        }
    }

    /// How many permits to ask for now. Permits that wait for the store do no work, so no more than a part of the limit.
    fn wanted(&self, flying: usize) -> usize {
        if !self.backlog || flying >= LEASES {
            return 0;
        }
        let known = match self.which {
            Drain::Held => self.target.backlog.waiting().saturating_sub(self.underway),
            Drain::Sideline => 0,
        };
        let most = match (known, flying) {
            (0, 0) => self.batch,
            (known, _) => known,
        };
        let limit = usize::try_from(self.target.gate.snapshot().limit).unwrap_or(usize::MAX);
        most.min(self.most).min((limit / 4).max(1))
    }

    fn learn(&mut self, leased: Option<Leased>) {
        let Some(leased) = leased else {
            // The task panicked, and its permits are back.
            self.underway = 0;
            return;
        };
        self.underway = self.underway.saturating_sub(leased.asked);
        self.skipped = leased.skipped;
        self.backlog = leased.more;
        self.batch = match (leased.full, leased.asked >= self.batch) {
            (true, true) => (self.batch * 2).min(self.most),
            (true, false) => self.batch,
            (false, _) => 1,
        };
    }
}

/// What a lease has brought.
struct Leased {
    asked: usize,
    /// Whether each permit has found a call.
    full: bool,
    /// Whether there may be more: a store may grant less than there is, but nothing only if there is nothing.
    more: bool,
    skipped: bool,
}

async fn lease(inner: Arc<Inner>, target: Arc<Target>, which: Drain, mut permits: Vec<Permit>) -> Leased {
    let _running = inner.loops.subscribe();
    let asked = permits.len();
    let mut request = LeaseRequest::new(target.id.clone(), inner.terms(), asked);
    match which {
        Drain::Held => {
            request.queue = Queue::Held;
            request.newest_first = target.newest_first();
            request.hopeless = target.control.forecast().margin();
        }
        Drain::Sideline => request.queue = Queue::Sideline,
    }
    match under_terms(&inner, &target, &request, &mut permits).await {
        Ok((granted, skips)) => {
            let more = granted > 0;
            if !more && which == Drain::Held && target.backlog.waiting() > 0 {
                // Hopeless ones have gone there.
                target.announce(Drain::Sideline);
            }
            Leased {
                asked,
                full: granted >= asked,
                more,
                skipped: skips && !more,
            }
        }
        Err(error) => {
            tracing::warn!(%error, target = %target.id, "leasing failed");
            drop(permits);
            sleep(AFTER_ERROR).await;
            Leased {
                asked,
                full: false,
                more: true,
                skipped: false,
            }
        }
    }
}

/// Leases as many calls as there are permits and starts them, the first alone if it may be a slow customer's. Answers
/// how many, and whether customers were passed over.
async fn under_terms(
    inner: &Arc<Inner>,
    target: &Arc<Target>,
    request: &LeaseRequest,
    permits: &mut Vec<Permit>,
) -> crosspoint_core::Result<(usize, bool)> {
    let mut may_scout = true;
    let mut granted = 0;
    loop {
        let mut request = request.clone();
        let terms = target.gate.customer_terms(may_scout);
        let alone = terms.scout.is_some();
        request.max = if alone { 1 } else { permits.len() };
        request.customers = terms.customers;
        let skips = request.customers.iter().any(|terms| terms.skip);
        let wanted = request.max;
        let started = lease_under(inner, target, request, permits).await?;
        granted += started;
        may_scout = false;
        if !alone || started < wanted || permits.is_empty() {
            return Ok((granted, skips));
        }
    }
}

/// Leases and starts what comes; answers how many. A store that hangs does not keep the permits: what it grants later waits
/// for permits of its own.
async fn lease_under(
    inner: &Arc<Inner>,
    target: &Arc<Target>,
    request: LeaseRequest,
    permits: &mut Vec<Permit>,
) -> crosspoint_core::Result<usize> {
    let sent = Instant::now();
    let mut leasing = inner.store.lease(request);
    let leases = match timeout(inner.config.enqueue_timeout, &mut leasing).await {
        Ok(leases) => leases?,
        Err(_) => {
            permits.clear();
            leasing.await?
        }
    };
    let started = leases.len();
    for lease in leases {
        start(inner, target, lease, sent, permits.pop());
    }
    Ok(started)
}

/// Leases a target's flows and starts their attempts until the gateway shuts down or is gone.
pub(crate) async fn drain_flows(gateway: Weak<Inner>, target: Arc<Target>) {
    let Some(inner) = gateway.upgrade() else { return };
    let _running = inner.loops.subscribe();
    let mut stages = inner.stage.subscribe();
    drop(inner);
    let mut backlog = true;
    loop {
        let turn = async {
            if backlog {
                Some(target.gate.drain(Drain::Held).await)
            } else {
                target.gate.available().await;
                None
            }
        };
        let first = tokio::select! {
            biased;
            _ = stages.wait_for(|stage| *stage >= Stage::Draining) => return,
            first = turn => first,
        };
        let Some(inner) = gateway.upgrade() else { return };
        // From here on nothing may be dropped half-way: a lease that is granted must be worked on or given back.
        backlog = lease_flows(inner, &target, first).await;
    }
}

/// Leases once and starts what comes. Answers whether there may be more.
async fn lease_flows(inner: Arc<Inner>, target: &Arc<Target>, first: Option<Permit>) -> bool {
    let batch = inner.config.lease_batch.max(1);
    let mut permits: Vec<Permit> = first.into_iter().collect();
    let mut request = LeaseRequest::new(target.id.clone(), inner.terms(), 1);
    request.customers = target.gate.customer_terms(true).customers;
    if permits.is_empty() {
        let gate = target.gate.snapshot();
        let room = usize::try_from(gate.limit.saturating_sub(gate.counted())).unwrap_or(1);
        request.max = room.clamp(1, batch);
        request.wait = inner.config.poll;
    } else {
        while permits.len() < batch
            && let Some(permit) = target.gate.try_drain(Drain::Held)
        {
            permits.push(permit);
        }
        request.max = permits.len();
    }
    match lease_under(&inner, target, request, &mut permits).await {
        Ok(started) => started > 0,
        Err(error) => {
            tracing::warn!(%error, target = %target.id, "leasing failed");
            drop(permits);
            sleep(AFTER_ERROR).await;
            true
        }
    }
}
