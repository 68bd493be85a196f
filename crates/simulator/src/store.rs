//! The store of a run: the real in-memory one, with latency, outages and bookkeeping.

use crate::{Random, RunTime, case, case::Plan, time::seconds};
use async_trait::async_trait;
use crosspoint_core::{
    CallStatus, Cancel, Capabilities, Code, DispatchAdmin, DispatchStore, Enqueue, Enqueued, Error, Extended,
    InvocationId, Lease, LeaseRef, LeaseRequest, Memory, Result, Scope, Settle, Settled,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A store that is slow or away when the case says so, and that writes down what it has acknowledged.
#[derive(Debug)]
pub struct RunStore {
    inner: Memory,
    time: Arc<RunTime>,
    plan: Plan,
    speed: case::Store,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    random: Random,
    acknowledged: HashSet<InvocationId>,
    /// When the reply of a call was stored, and how often one was.
    replied: HashMap<InvocationId, (f64, u32)>,
    waiting: usize,
    peak: usize,
}

impl RunStore {
    pub(crate) fn new(seed: u64, time: &Arc<RunTime>, case: &case::Case) -> Self {
        Self {
            inner: Memory::with_clock(Arc::clone(time) as Arc<dyn crosspoint_core::Clock>),
            time: Arc::clone(time),
            plan: Plan::new(&case.faults),
            speed: case.store.clone(),
            notes: Mutex::new(Notes {
                random: Random::keyed(seed, 3),
                acknowledged: HashSet::new(),
                replied: HashMap::new(),
                waiting: 0,
                peak: 0,
            }),
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls that wait for a worker.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.notes().waiting
    }

    /// The most calls that have waited at once.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.notes().peak
    }

    /// Whether an enqueue of this call was acknowledged.
    #[must_use]
    pub fn has_acknowledged(&self, id: InvocationId) -> bool {
        self.notes().acknowledged.contains(&id)
    }

    /// When the call's reply was stored.
    #[must_use]
    pub fn replied(&self, id: InvocationId) -> Option<f64> {
        self.notes().replied.get(&id).map(|(at, _)| *at)
    }

    /// Calls for which more than one reply was stored.
    #[must_use]
    pub fn replied_twice(&self) -> usize {
        self.notes().replied.values().filter(|(_, count)| *count > 1).count()
    }

    fn up(&self) -> Result<()> {
        if self.plan.is_store_down(self.time.now()) {
            return Err(Error::new(Code::StoreUnavailable, "the simulated store is away"));
        }
        Ok(())
    }

    /// Takes as long as a write takes.
    async fn write(&self) -> Result<()> {
        if self.speed.write_ms > 0.0 {
            let median = self.speed.write_ms / 1000.0;
            let sigma = self.speed.sigma;
            // The mean of a lognormal lies above its median.
            let pause = self
                .notes()
                .random
                .lognormal(median * (sigma * sigma / 2.0).exp(), sigma);
            tokio::time::sleep(seconds(pause)).await;
        }
        self.up()
    }
}

#[async_trait]
impl DispatchStore for RunStore {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn enqueue(&self, items: Vec<Enqueue>) -> Result<Vec<Enqueued>> {
        self.write().await?;
        let ids: Vec<InvocationId> = items.iter().map(|item| item.envelope.id()).collect();
        let answers = self.inner.enqueue(items).await?;
        let mut notes = self.notes();
        for (id, answer) in ids.into_iter().zip(&answers) {
            match answer {
                Enqueued::New(lease) => {
                    notes.waiting += usize::from(lease.is_none());
                    notes.acknowledged.insert(id);
                }
                Enqueued::Duplicate => {
                    notes.acknowledged.insert(id);
                }
                _ => {}
            }
        }
        notes.peak = notes.peak.max(notes.waiting);
        Ok(answers)
    }

    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>> {
        self.write().await?;
        let leases = self.inner.lease(request).await?;
        // The store may have gone away while the worker waited for work: then nobody got it.
        let mut notes = self.notes();
        notes.waiting = notes.waiting.saturating_sub(leases.len());
        drop(notes);
        Ok(leases)
    }

    async fn extend(&self, leases: &[LeaseRef], length: std::time::Duration) -> Result<Vec<Extended>> {
        self.write().await?;
        self.inner.extend(leases, length).await
    }

    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<Settled>> {
        self.write().await?;
        let kinds: Vec<(InvocationId, bool, bool)> = settles
            .iter()
            .map(|settle| {
                let again = matches!(settle, Settle::Retry { .. } | Settle::Release { .. });
                (settle.lease().id, matches!(settle, Settle::Complete { .. }), again)
            })
            .collect();
        let answers = self.inner.settle(settles).await?;
        let now = self.time.now();
        let mut notes = self.notes();
        for ((id, complete, again), answer) in kinds.into_iter().zip(&answers) {
            if *answer == Settled::Applied {
                if complete {
                    let replied = notes.replied.entry(id).or_insert((now, 0));
                    replied.1 += 1;
                }
                notes.waiting += usize::from(again);
            }
        }
        Ok(answers)
    }

    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<CallStatus>> {
        self.up()?;
        self.inner.get(scope, id).await
    }

    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel> {
        self.write().await?;
        let cancel = self.inner.cancel(scope, id).await?;
        if matches!(cancel, Cancel::Cancelled) {
            let mut notes = self.notes();
            notes.waiting = notes.waiting.saturating_sub(1);
        }
        Ok(cancel)
    }

    async fn ended(&self, ids: &[InvocationId]) -> Result<Vec<CallStatus>> {
        self.up()?;
        self.inner.ended(ids).await
    }

    fn admin(&self) -> Option<&dyn DispatchAdmin> {
        // An outage takes the operators' side with it.
        (!self.plan.is_store_down(self.time.now())).then_some(&self.inner as &dyn DispatchAdmin)
    }
}
