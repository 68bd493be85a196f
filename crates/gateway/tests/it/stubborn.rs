//! Flows that do not stop when they are told to: work that may still run is never given back.

use crate::leases::Deaf;
use async_trait::async_trait;
use crosspoint_core::{
    Envelope, ExecutionStatus, Finish, Handler, Invocation, Memory, Outcome, Reply, Result, StopReason, Store, Submit,
    TargetId,
};
use crosspoint_gateway::{Config, Gateway, Settles, TargetConfig};
use crosspoint_testkit::{VirtualClock, envelope, scope};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::sleep};

/// Notes why it is told to stop, and stops only with a permit of `go`.
#[derive(Debug)]
struct Stubborn {
    store: Store,
    go: Semaphore,
    told: Mutex<Vec<StopReason>>,
    dropped: AtomicUsize,
}

/// Counts a handler whose future is gone before it has ended.
struct Counted<'a>(Option<&'a AtomicUsize>);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(dropped) = self.0 {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Handler for Stubborn {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        let mut counted = Counted(Some(&self.dropped));
        let delivery = invocation.meta.delivery.unwrap();
        let why = delivery.stop.stopped().await;
        self.told.lock().unwrap().push(why);
        self.go.acquire().await.unwrap().forget();
        let outcome = match why {
            StopReason::Draining => Outcome::Released,
            _ => Outcome::Ended {
                status: ExecutionStatus::Cancelled,
                reply: Reply::default(),
                failure: None,
            },
        };
        let finish = Finish::new(delivery.lease, outcome);
        self.store.executions.finish(&scope::fleet(), finish).await?;
        counted.0 = None;
        Ok(Reply::default())
    }
}

struct Bench {
    gateway: Gateway,
    store: Store,
    flows: Arc<Stubborn>,
    deaf: Arc<AtomicBool>,
    flow: Envelope,
}

impl Bench {
    /// With one flow that runs.
    async fn new() -> Self {
        let clock = Arc::new(VirtualClock::new());
        let store: Store = Memory::with_clock(clock.clone()).into();
        let (hearing, deaf) = Deaf::new(&store);
        let gateway = Gateway::new(Arc::new(hearing), clock.clone(), Config::default());
        let flows = Arc::new(Stubborn {
            store: store.clone(),
            go: Semaphore::new(0),
            told: Mutex::default(),
            dropped: AtomicUsize::new(0),
        });
        let config = TargetConfig::default().permits(1).settles(Settles::Handler);
        let target = TargetId::new("flows").unwrap();
        gateway.register(target, flows.clone(), config).unwrap();
        let flow = envelope::flow(&*clock, "flows", "acme");
        gateway.submit(flow.clone(), Duration::ZERO).await.unwrap();
        Self {
            gateway,
            store,
            flows,
            deaf,
            flow,
        }
    }

    async fn status(&self) -> (ExecutionStatus, u32) {
        let fleet = scope::fleet();
        let found = self.store.executions.get((&fleet).into(), self.flow.id()).await;
        let execution = found.unwrap().unwrap();
        (execution.status, execution.attempt)
    }

    fn told(&self) -> Vec<StopReason> {
        self.flows.told.lock().unwrap().clone()
    }

    fn dropped(&self) -> usize {
        self.flows.dropped.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_flow_keeps_its_lease_for_as_long_as_it_takes_to_stop() {
    let bench = Bench::new().await;
    let fleet = scope::fleet();
    let id = bench.flow.id();
    bench.store.executions.cancel((&fleet).into(), id).await.unwrap();
    sleep(Duration::from_secs(300)).await;
    assert_eq!((bench.told(), bench.dropped()), (vec![StopReason::Cancelled], 0));
    assert_eq!(bench.status().await, (ExecutionStatus::Cancelling, 1));
    bench.flows.go.add_permits(1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.status().await.0, ExecutionStatus::Cancelled);
    assert_eq!(bench.dropped(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_and_leaves_the_lease_of_what_still_runs() {
    let bench = Bench::new().await;
    bench.gateway.drain(Duration::from_secs(1)).await;
    assert_eq!((bench.told(), bench.dropped()), (vec![StopReason::Draining], 0));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.status().await, (ExecutionStatus::Running, 1), "not given back");
    bench.flows.go.add_permits(1);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        bench.status().await,
        (ExecutionStatus::Queued, 0),
        "given back by the handler"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flow_is_dropped_only_when_its_lease_is_lost_and_the_lease_runs_out() {
    let bench = Bench::new().await;
    bench.deaf.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(26)).await;
    assert_eq!((bench.told(), bench.dropped()), (vec![], 0));
    sleep(Duration::from_millis(3_500)).await;
    assert_eq!((bench.told(), bench.dropped()), (vec![StopReason::LeaseLost], 1));
    assert_eq!(bench.status().await, (ExecutionStatus::Running, 1), "not given back");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.status().await, (ExecutionStatus::Running, 2), "the second lease");
}
