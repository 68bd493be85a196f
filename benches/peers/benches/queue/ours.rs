//! crosspoint-sqlite through [`DispatchStore`], as the gateway uses it.

use crate::{
    cpu::{Meter, Took},
    load::{BATCH, CALLERS, CALLS, REPLY, REQUEST},
};
use bytes::Bytes;
use crosspoint_core::{
    Clock, CustomerId, DispatchStore, Enqueue, Enqueued, Envelope, Invocation, InvocationId, Lease, LeaseRequest,
    LeaseTerms, Meta, Reply, Settle, Settled, SystemClock, TargetId, WorkerId,
};
use crosspoint_sqlite::Sqlite;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::oneshot, time::Instant};

pub const LEASE: Duration = Duration::from_secs(30);
const HOLD: Duration = Duration::from_secs(10);

/// Whether callers wait for the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    Leave,
    AreHeld,
}

/// A store in a folder of its own, with customers that it has met before.
pub struct Queue {
    store: Sqlite,
    customers: Arc<[CustomerId]>,
    clock: Arc<SystemClock>,
    next: usize,
    _folder: TempDir,
}

/// Who waits for which answer in this process.
type Waiters = Arc<Mutex<HashMap<InvocationId, oneshot::Sender<Bytes>>>>;

/// The time from the first enqueue to the last settle and, where callers are held, until the last of them has its answer.
pub fn end_to_end(runtime: &Runtime, customers: usize, callers: Callers) -> Took {
    runtime.block_on(async {
        let mut queue = Queue::open(customers).await;
        queue.fill(customers).await;
        queue.drain(customers).await;
        let meter = Meter::start("crosspoint-sqlite");
        let wall = queue.end_to_end(callers).await;
        let writer = meter.stop();
        queue.store.close().await;
        Took { wall, writer }
    })
}

impl Queue {
    pub async fn open(customers: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let customers = (0..customers).map(|n| CustomerId::new(format!("customer-{n}")).unwrap());
        Self {
            store: Sqlite::open(folder.path().join("queue.db")).await.unwrap(),
            customers: customers.collect(),
            clock: Arc::new(SystemClock::new()),
            next: 0,
            _folder: folder,
        }
    }

    async fn end_to_end(&self, callers: Callers) -> Duration {
        let waiters = Waiters::default();
        let before = Instant::now();
        let calling: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (store, waiters) = (self.store.clone(), waiters.clone());
                let (customers, clock) = (self.customers.clone(), self.clock.clone());
                tokio::spawn(async move {
                    for n in 0..CALLS / CALLERS {
                        let customer = &customers[(n * CALLERS + caller) % customers.len()];
                        call(&store, &waiters, envelope(&*clock, customer), callers).await;
                    }
                })
            })
            .collect();
        self.work(&waiters).await;
        if callers == Callers::Leave {
            let took = before.elapsed();
            for caller in calling {
                caller.await.unwrap();
            }
            return took;
        }
        for caller in calling {
            caller.await.unwrap();
        }
        before.elapsed()
    }

    /// Leases the next batch while the last one is settled.
    async fn work(&self, waiters: &Waiters) {
        let (mut settled, mut batch) = (0, Vec::new());
        while settled < CALLS {
            let ids: Vec<_> = batch.iter().map(|lease: &Lease| lease.reference.id).collect();
            settled += ids.len();
            let wait = if settled < CALLS { LEASE } else { Duration::ZERO };
            if ids.is_empty() {
                batch = self.lease(wait).await;
                continue;
            }
            let settle = async {
                settle(&self.store, &batch).await;
                let mut waiters = waiters.lock().unwrap();
                for id in ids {
                    if let Some(waiter) = waiters.remove(&id) {
                        waiter.send(Bytes::from_static(REPLY)).unwrap();
                    }
                }
            };
            ((), batch) = tokio::join!(settle, self.lease(wait));
        }
    }

    async fn lease(&self, wait: Duration) -> Vec<Lease> {
        let terms = LeaseTerms::new(WorkerId::new("worker").unwrap(), LEASE);
        let mut request = LeaseRequest::new(target(), terms, BATCH);
        request.wait = wait;
        self.store.lease(request).await.unwrap()
    }

    /// Adds waiting calls, the customers in turn.
    pub async fn fill(&mut self, calls: usize) {
        let mut left = calls;
        while left > 0 {
            let some = left.min(500);
            let items = (0..some).map(|n| {
                let customer = &self.customers[(self.next + n) % self.customers.len()];
                Enqueue::queued(envelope(&*self.clock, customer))
            });
            let answers = self.store.enqueue(items.collect()).await.unwrap();
            assert!(answers.iter().all(|answer| matches!(answer, Enqueued::New(None))));
            self.next += some;
            left -= some;
        }
    }

    /// Leases and settles so many in batches, one after another.
    pub async fn drain(&self, calls: usize) -> Duration {
        let before = Instant::now();
        let mut settled = 0;
        while settled < calls {
            let batch = self.lease(Duration::ZERO).await;
            assert!(!batch.is_empty(), "{settled} of {calls} drained");
            settle(&self.store, &batch).await;
            settled += batch.len();
        }
        before.elapsed()
    }

    /// Drains so many and refills after every batch, so that the depth stays as it is; the refills are not timed.
    pub async fn drain_at_depth(&mut self, calls: usize) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..calls / BATCH {
            took += self.drain(BATCH).await;
            self.fill(BATCH).await;
        }
        took
    }
}

async fn call(store: &Sqlite, waiters: &Waiters, mut envelope: Envelope, callers: Callers) {
    if callers == Callers::Leave {
        store.enqueue(vec![Enqueue::queued(envelope)]).await.unwrap();
        return;
    }
    envelope.hold_until = Some(envelope.created.plus(HOLD));
    let (answer, answered) = oneshot::channel();
    waiters.lock().unwrap().insert(envelope.id(), answer);
    store.enqueue(vec![Enqueue::queued(envelope)]).await.unwrap();
    assert_eq!(answered.await.unwrap().len(), REPLY.len());
}

async fn settle(store: &Sqlite, batch: &[Lease]) {
    let settles = batch.iter().map(|lease| Settle::Complete {
        lease: lease.reference,
        reply: Reply::new(Bytes::from_static(REPLY)),
    });
    let settled = store.settle(settles.collect()).await.unwrap();
    assert!(settled.iter().all(|settled| *settled == Settled::Applied));
}

pub fn target() -> TargetId {
    TargetId::new("bench").unwrap()
}

pub fn envelope(clock: &dyn Clock, customer: &CustomerId) -> Envelope {
    let request = http::Request::post("/v1/orders")
        .body(Bytes::from_static(REQUEST))
        .unwrap();
    let meta = Meta::new(InvocationId::mint(clock), customer.clone(), target());
    Envelope::service(Invocation::new(meta, request), clock.now())
}
