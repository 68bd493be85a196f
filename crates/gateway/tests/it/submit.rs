//! Flows: stored first, leased to the caller, settled by their handler.

use async_trait::async_trait;
use crosspoint_core::{
    Code, Envelope, Error, ExecutionStatus, Failure, Finish, Handler, Invocation, Memory, Outcome, Reply, Result,
    StopReason, Store, Submit, Submitted, TargetId,
};
use crosspoint_gateway::{Config, Gateway, Settles, TargetConfig};
use crosspoint_testkit::{Faults, Method, VirtualClock, When, envelope, scope};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// Finishes executions by itself, as the runtime does.
#[derive(Debug)]
struct Flows {
    store: Store,
    go: Arc<Semaphore>,
    /// How many attempts refuse to begin.
    refuse: AtomicUsize,
    attempts: AtomicUsize,
}

#[async_trait]
impl Handler for Flows {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let delivery = invocation.meta.delivery.unwrap();
        let refused = self
            .refuse
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if refused.is_ok() {
            return Err(Error::new(Code::TargetSaturated, "no slot"));
        }
        assert!(delivery.begun || delivery.close.is_some());
        let outcome = tokio::select! {
            permit = self.go.acquire() => {
                permit.unwrap().forget();
                Outcome::Ended {
                    status: ExecutionStatus::Succeeded,
                    reply: Reply::new(format!("attempt {}", invocation.meta.attempt).into()),
                    failure: None,
                }
            }
            reason = delivery.stop.stopped() => match reason {
                StopReason::Draining => Outcome::Released,
                _ => Outcome::Ended {
                    status: ExecutionStatus::Cancelled,
                    reply: Reply::default(),
                    failure: Some(Failure::new(Code::Cancelled, "cancelled")),
                },
            }
        };
        let reply = match &outcome {
            Outcome::Ended { reply, .. } => Ok(reply.clone()),
            _ => Err(Error::new(Code::FlowFailed, "released")),
        };
        let finish = Finish::new(delivery.lease, outcome);
        self.store.executions.finish(&scope::fleet(), finish).await?;
        reply
    }
}

struct Pool {
    gateway: Gateway,
    store: Store,
    clock: Arc<VirtualClock>,
    flows: Arc<Flows>,
}

impl Pool {
    fn new(permits: u32) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let store = Memory::with_clock(clock.clone()).into();
        Self::over(store, clock, permits)
    }

    fn over(store: Store, clock: Arc<VirtualClock>, permits: u32) -> Self {
        let gateway = Gateway::new(store.dispatch.clone(), clock.clone(), Config::default());
        let flows = Arc::new(Flows {
            store: store.clone(),
            go: Arc::new(Semaphore::new(0)),
            refuse: AtomicUsize::new(0),
            attempts: AtomicUsize::new(0),
        });
        let config = TargetConfig::default().permits(permits).settles(Settles::Handler);
        let handler = flows.clone();
        gateway
            .register(TargetId::new("flows").unwrap(), handler, config)
            .unwrap();
        Self {
            gateway,
            store,
            clock,
            flows,
        }
    }

    fn flow(&self) -> Envelope {
        envelope::flow(&*self.clock, "flows", "acme")
    }

    async fn status(&self, envelope: &Envelope) -> (ExecutionStatus, u32) {
        let fleet = scope::fleet();
        let execution = self
            .store
            .executions
            .get((&fleet).into(), envelope.id())
            .await
            .unwrap()
            .unwrap();
        (execution.status, execution.attempt)
    }
}

const HOLD: Duration = Duration::from_secs(10);

fn text(submitted: Result<Submitted>) -> String {
    match submitted.unwrap() {
        Submitted::Answered(reply) => String::from_utf8(reply.into_body().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_is_stored_leased_to_the_caller_and_answered() {
    let pool = Pool::new(2);
    pool.flows.go.add_permits(1);
    let flow = pool.flow();
    let began = tokio::time::Instant::now();
    assert_eq!(text(pool.gateway.submit(flow.clone(), HOLD).await), "attempt 1");
    assert_eq!(began.elapsed(), Duration::ZERO, "no poll, no queue");
    assert_eq!(pool.status(&flow).await, (ExecutionStatus::Succeeded, 1));
    // The same id again is the same execution: its reply is in the store.
    assert_eq!(text(pool.gateway.submit(flow, HOLD).await), "attempt 1");
    assert_eq!(pool.flows.attempts.load(Ordering::Relaxed), 1);
}

/// The queue is of no use here: whatever went there would not be answered.
#[tokio::test(start_paused = true)]
async fn flows_that_are_stored_at_the_same_time_are_all_leased_to_their_callers() {
    let clock = Arc::new(VirtualClock::new());
    let (store, faults) = Faults::wrap(&Memory::with_clock(clock.clone()).into());
    faults.fail_all(Method::Lease, When::Before);
    faults.delay_all(Method::Enqueue, Duration::from_millis(10));
    let pool = Pool::over(store, clock, 4);
    pool.flows.go.add_permits(4);
    let submit = || pool.gateway.submit(pool.flow(), HOLD);
    let answers = tokio::join!(submit(), submit(), submit(), submit());
    for answer in [answers.0, answers.1, answers.2, answers.3] {
        assert_eq!(text(answer), "attempt 1");
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_the_permits_flows_wait_in_the_store() {
    let pool = Pool::new(1);
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let (gateway, flow) = (pool.gateway.clone(), pool.flow());
            tokio::spawn(async move { gateway.submit(flow, HOLD).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(pool.flows.attempts.load(Ordering::Relaxed), 1);
    pool.flows.go.add_permits(3);
    for call in calls {
        assert_eq!(text(call.await.unwrap()), "attempt 1");
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_store_is_noticed_without_a_poll() {
    let pool = Pool::new(4);
    tokio::time::sleep(Duration::from_millis(100)).await;
    pool.flows.go.add_permits(1);
    let flow = pool.flow();
    let stored = crosspoint_core::Enqueue::queued(flow.clone());
    pool.store.dispatch.enqueue(vec![stored]).await.unwrap();
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.status(&flow).await, (ExecutionStatus::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_not_begun_does_not_count() {
    let pool = Pool::new(1);
    pool.flows.refuse.store(2, Ordering::Relaxed);
    pool.flows.go.add_permits(1);
    let flow = pool.flow();
    assert_eq!(text(pool.gateway.submit(flow.clone(), HOLD).await), "attempt 1");
    assert_eq!(pool.flows.attempts.load(Ordering::Relaxed), 3);
    assert_eq!(pool.status(&flow).await, (ExecutionStatus::Succeeded, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_flow_is_stopped_by_the_next_heartbeat() {
    let pool = Pool::new(1);
    let flow = pool.flow();
    let accepted = pool.gateway.submit(flow.clone(), Duration::ZERO).await.unwrap();
    assert!(matches!(accepted, Submitted::Accepted { id, .. } if id == flow.id()));
    let fleet = scope::fleet();
    pool.store.executions.cancel((&fleet).into(), flow.id()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(pool.status(&flow).await.0, ExecutionStatus::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_running_flows_back() {
    let pool = Pool::new(1);
    let flow = pool.flow();
    pool.gateway.submit(flow.clone(), Duration::ZERO).await.unwrap();
    pool.gateway.drain(Duration::from_secs(5)).await;
    assert_eq!(pool.status(&flow).await, (ExecutionStatus::Queued, 0));
}

#[tokio::test(start_paused = true)]
async fn a_target_is_registered_once_and_with_a_policy_that_makes_sense() {
    let pool = Pool::new(1);
    let handler = pool.flows.clone();
    let again = pool.gateway.register(
        TargetId::new("flows").unwrap(),
        handler.clone(),
        TargetConfig::default(),
    );
    assert_eq!(again.unwrap_err().code(), Code::SetupInvalid);
    let mut config = TargetConfig::default();
    config.retry.max_attempts = 0;
    let senseless = pool.gateway.register(TargetId::new("other").unwrap(), handler, config);
    assert_eq!(senseless.unwrap_err().code(), Code::SetupInvalid);
}
