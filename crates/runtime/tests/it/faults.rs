//! Answers of the store that get lost, and crashes between two writes.

use crate::world::World;
use async_trait::async_trait;
use crosspoint_core::{
    Code, Error, ExecutionStatus, Flow, FlowContext, FlowOptions, Installation, InstallationId, Installations,
    Integration, LeaseRequest, LeaseTerms, Memory, NoConfig, Page, Paged, Result, RetryPolicy, SaveInstallation, Saved,
    Scope, Store, TargetId, Trigger, WorkerId,
};
use crosspoint_testkit::{Faults, Method, VirtualClock, When};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Counts its calls, in its state too.
#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

#[async_trait]
impl Flow for Count {
    const STATEFUL: bool = true;
    type Config = NoConfig;
    type Input = Value;
    type Output = u64;
    async fn run(&self, cx: &FlowContext<NoConfig>, _: Value) -> Result<u64> {
        let total = cx.state::<u64>()?.unwrap_or(0) + 1;
        cx.set_state(&total)?;
        Ok(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

struct Setup {
    world: World,
    faults: Arc<Faults>,
    count: Count,
}

fn setup() -> Setup {
    let clock = Arc::new(VirtualClock::new());
    let (store, faults) = Faults::wrap(&Memory::with_clock(clock.clone()).into());
    let count = Count::default();
    let demo = Integration::new("demo", "1.0.0").flow("count", Trigger::call::<Value>(), count.clone());
    Setup {
        world: World::over(store, clock, [demo.into()]),
        faults,
        count,
    }
}

#[tokio::test(start_paused = true)]
async fn a_finish_that_gets_no_answer_is_asked_again_and_counts_once() {
    for when in [When::Before, When::After] {
        let Setup { world, faults, count } = setup();
        let installation = world.install("demo", json!({})).await;
        let id = world.call(&installation, "count", Value::Null).await;
        faults.fail(Method::Finish, 1, when);
        let reply = world.work().await.pop().unwrap().unwrap();
        assert_eq!(
            (reply.body().as_ref(), count.0.load(Ordering::SeqCst)),
            (&b"1"[..], 1),
            "{when:?}"
        );
        assert_eq!(world.execution(id).await.status, ExecutionStatus::Succeeded);
        assert_eq!(world.state(&installation, "count").await, json!(1));
        assert!(!faults.pending());
    }
}

#[tokio::test(start_paused = true)]
async fn an_execution_that_ended_is_answered_without_running_again() {
    let Setup { world, count, .. } = setup();
    let installation = world.install("demo", json!({})).await;
    world.call(&installation, "count", Value::Null).await;
    let terms = LeaseTerms::new(WorkerId::new("w").unwrap(), Duration::from_secs(30));
    let mut request = LeaseRequest::new(TargetId::new("flows").unwrap(), terms, 1);
    request.begin = false;
    let lease = world.store.dispatch.lease(request).await.unwrap().pop().unwrap();
    assert!(!lease.begun);
    for _ in 0..2 {
        let (_stop, handled) = world.deliver(&lease);
        assert_eq!(handled.await.unwrap().body().as_ref(), b"1");
    }
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_begin_that_fails_leaves_everything_to_the_next_delivery() {
    let Setup { world, faults, count } = setup();
    let installation = world.install("demo", json!({})).await;
    let id = world.call(&installation, "count", Value::Null).await;
    for when in [When::Before, When::After] {
        let terms = LeaseTerms::new(WorkerId::new("w").unwrap(), Duration::from_secs(30));
        let mut request = LeaseRequest::new(TargetId::new("flows").unwrap(), terms, 1);
        request.begin = false;
        let lease = world.store.dispatch.lease(request).await.unwrap().pop().unwrap();
        faults.fail(Method::Begin, 1, when);
        let (_stop, handled) = world.deliver(&lease);
        assert_eq!(handled.await.unwrap_err().code(), Code::StoreUnavailable);
        tokio::time::advance(Duration::from_secs(31)).await;
    }
    assert_eq!(count.0.load(Ordering::SeqCst), 0);
    world.work().await;
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Succeeded);
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
}

/// Installations that cannot be read while the store is down.
#[derive(Debug)]
struct Down {
    inner: Arc<dyn Installations>,
    down: Arc<AtomicBool>,
}

#[async_trait]
impl Installations for Down {
    async fn save(&self, scope: Scope<'_>, save: SaveInstallation) -> Result<Saved> {
        self.inner.save(scope, save).await
    }
    async fn get(&self, scope: Scope<'_>, id: InstallationId) -> Result<Option<Installation>> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Error::new(Code::StoreUnavailable, "the store is down"));
        }
        self.inner.get(scope, id).await
    }
    async fn as_of(&self, scope: Scope<'_>, id: InstallationId, revision: u64) -> Result<Option<Installation>> {
        self.inner.as_of(scope, id, revision).await
    }
    async fn list(&self, scope: Scope<'_>, page: Page) -> Result<Paged<Installation>> {
        self.inner.list(scope, page).await
    }
    async fn remove(&self, scope: Scope<'_>, id: InstallationId, revision: u64) -> Result<Saved> {
        self.inner.remove(scope, id, revision).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_before_the_run_uses_up_no_attempt() {
    let clock = Arc::new(VirtualClock::new());
    let mut store: Store = Memory::with_clock(clock.clone()).into();
    let down = Arc::new(AtomicBool::new(false));
    store.installations = Arc::new(Down {
        inner: store.installations.clone(),
        down: down.clone(),
    });
    let count = Count::default();
    let once = FlowOptions::default().retry(RetryPolicy::never());
    let demo = Integration::new("demo", "1.0.0").flow_with("count", Trigger::call::<Value>(), count.clone(), once);
    let world = World::over(store, clock, [demo.into()]);
    let installation = world.install("demo", json!({})).await;
    let id = world.call(&installation, "count", Value::Null).await;
    down.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        let (_stop, handled) = world.deliver(&world.lease().await.unwrap());
        assert_eq!(handled.await.unwrap_err().code(), Code::StoreUnavailable);
        tokio::time::advance(Duration::from_secs(5)).await;
    }
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Queued);
    down.store(false, Ordering::SeqCst);
    world.work().await;
    let done = world.execution(id).await;
    assert_eq!((done.status, done.attempt), (ExecutionStatus::Succeeded, 1));
}
