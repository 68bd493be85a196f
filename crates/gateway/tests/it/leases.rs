//! Heartbeats, lost leases, retries: handlers registered without a layer.

use crate::site::target;
use async_trait::async_trait;
use crosspoint_core::{
    CallState, CallStatus, Cancel, Capabilities, Code, DispatchAdmin, DispatchStore, Enqueue, Enqueued, Envelope,
    Error, Extended, Handler, Invocation, InvocationId, Lease, LeaseRef, LeaseRequest, Memory, Reply, Result, Scope,
    Settle, Settled, StopReason, Store, Submit, Submitted,
};
use crosspoint_gateway::{CallPolicy, Config, Gateway, TargetConfig};
use crosspoint_testkit::{Faults, Method, VirtualClock, When, envelope, scope};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;

/// What a handler does, given the number of the attempt.
type Script = fn(u32, &Invocation) -> Step;

enum Step {
    Reply(&'static str),
    Fail(Code),
    /// Works so long, and ends early with an error when told to stop.
    Work(Duration),
}

#[derive(Debug)]
struct Scripted {
    script: Script,
    stopped: Arc<Mutex<Vec<StopReason>>>,
}

#[async_trait]
impl Handler for Scripted {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        let step = (self.script)(invocation.meta.attempt, &invocation);
        match step {
            Step::Reply(text) => Ok(Reply::new(text.into())),
            Step::Fail(code) => Err(Error::new(code, "as the script says")),
            Step::Work(time) => {
                let stop = invocation.meta.delivery.unwrap().stop;
                tokio::select! {
                    () = sleep(time) => Ok(Reply::new("worked".into())),
                    why = stop.stopped() => {
                        self.stopped.lock().unwrap().push(why);
                        Err(Error::new(Code::Cancelled, "stopped"))
                    }
                }
            }
        }
    }
}

/// A store whose heartbeats fail while the switch is on.
#[derive(Debug)]
pub(crate) struct Deaf {
    inner: Arc<dyn DispatchStore>,
    deaf: Arc<AtomicBool>,
    /// How often somebody wanted to act as an operator.
    admin: Arc<AtomicUsize>,
}

impl Deaf {
    /// One that hears well, and its switch.
    pub(crate) fn new(inner: &Store) -> (Self, Arc<AtomicBool>) {
        let deaf = Self {
            inner: Arc::clone(&inner.dispatch),
            deaf: Arc::default(),
            admin: Arc::default(),
        };
        let switch = Arc::clone(&deaf.deaf);
        (deaf, switch)
    }
}

#[async_trait]
impl DispatchStore for Deaf {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn enqueue(&self, items: Vec<Enqueue>) -> Result<Vec<Enqueued>> {
        self.inner.enqueue(items).await
    }
    async fn lease(&self, request: LeaseRequest) -> Result<Vec<Lease>> {
        self.inner.lease(request).await
    }
    async fn extend(&self, leases: &[LeaseRef], length: Duration) -> Result<Vec<Extended>> {
        if self.deaf.load(Ordering::Relaxed) {
            return Err(Error::new(Code::StoreUnavailable, "deaf"));
        }
        self.inner.extend(leases, length).await
    }
    async fn settle(&self, settles: Vec<Settle>) -> Result<Vec<Settled>> {
        self.inner.settle(settles).await
    }
    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<CallStatus>> {
        self.inner.get(scope, id).await
    }
    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel> {
        self.inner.cancel(scope, id).await
    }
    fn admin(&self) -> Option<&dyn DispatchAdmin> {
        self.admin.fetch_add(1, Ordering::Relaxed);
        self.inner.admin()
    }
}

struct Bench {
    gateway: Gateway,
    store: Store,
    faults: Arc<Faults>,
    deaf: Arc<AtomicBool>,
    admin: Arc<AtomicUsize>,
    clock: Arc<VirtualClock>,
    stopped: Arc<Mutex<Vec<StopReason>>>,
}

impl Bench {
    fn new(script: Script) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let (store, faults) = Faults::wrap(&Memory::with_clock(clock.clone()).into());
        let (hearing, deaf) = Deaf::new(&store);
        let admin = Arc::clone(&hearing.admin);
        let gateway = Gateway::new(Arc::new(hearing), clock.clone(), Config::default());
        let stopped = Arc::default();
        let handler = Scripted {
            script,
            stopped: Arc::clone(&stopped),
        };
        gateway
            .register(target(), Arc::new(handler), TargetConfig::default())
            .unwrap();
        Self {
            gateway,
            store,
            faults,
            deaf,
            admin,
            clock,
            stopped,
        }
    }

    fn call(&self) -> Envelope {
        envelope::service(&*self.clock, "scan", "acme")
    }

    fn repeatable(&self) -> Envelope {
        let mut envelope = self.call();
        envelope.repeatable = true;
        envelope
    }

    async fn submit(&self, envelope: Envelope) -> Result<Submitted> {
        self.gateway.submit(envelope, Duration::from_secs(3600)).await
    }

    async fn status(&self, id: InvocationId) -> CallStatus {
        let fleet = scope::fleet();
        self.store.dispatch.get((&fleet).into(), id).await.unwrap().unwrap()
    }
}

fn body(submitted: Result<Submitted>) -> String {
    match submitted.unwrap() {
        Submitted::Answered(reply) => String::from_utf8(reply.into_body().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_is_tried_again_and_the_caller_waits_for_it() {
    let bench = Bench::new(|attempt, _| match attempt {
        1 | 2 => Step::Fail(Code::ProviderUnreachable),
        _ => Step::Reply("third time"),
    });
    let call = bench.call();
    let id = call.id();
    assert_eq!(body(bench.submit(call).await), "third time");
    assert_eq!(bench.status(id).await.attempt, 3);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_is_a_dead_letter_and_the_caller_learns_its_code() {
    let bench = Bench::new(|_, _| Step::Fail(Code::ProviderRejected));
    let call = bench.call();
    let id = call.id();
    assert_eq!(bench.submit(call).await.unwrap_err().code(), Code::ProviderRejected);
    let status = bench.status(id).await;
    assert_eq!((status.state, status.attempt), (CallState::Dead, 1));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_used_up() {
    let bench = Bench::new(|_, _| Step::Fail(Code::ProviderUnreachable));
    let call = bench.call();
    let id = call.id();
    assert_eq!(bench.submit(call).await.unwrap_err().code(), Code::ProviderUnreachable);
    let status = bench.status(id).await;
    assert_eq!((status.state, status.attempt), (CallState::Dead, 5));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_lease_for_as_long_as_the_work_takes() {
    let bench = Bench::new(|_, _| Step::Work(Duration::from_secs(600)));
    let call = bench.call();
    let id = call.id();
    assert_eq!(body(bench.submit(call).await), "worked");
    assert_eq!(bench.status(id).await.attempt, 1);
    assert!(bench.stopped.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_missed_heartbeat_is_not_the_end() {
    let bench = Bench::new(|_, _| Step::Work(Duration::from_secs(100)));
    bench.faults.fail(Method::Extend, 2, When::Before);
    assert_eq!(body(bench.submit(bench.call()).await), "worked");
    assert!(!bench.faults.pending());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_stops_before_its_lease_can_be_somebody_elses_and_writes_nothing() {
    let bench = Bench::new(|attempt, _| match attempt {
        1 => Step::Work(Duration::from_secs(600)),
        _ => Step::Reply("by the second lease"),
    });
    bench.deaf.store(true, Ordering::Relaxed);
    let call = bench.repeatable();
    let id = call.id();
    let submitted = tokio::spawn({
        let gateway = bench.gateway.clone();
        async move { gateway.submit(call, Duration::from_secs(3600)).await }
    });
    sleep(Duration::from_millis(27_500)).await;
    assert_eq!(*bench.stopped.lock().unwrap(), [StopReason::LeaseLost]);
    let status = bench.status(id).await;
    assert_eq!(
        status.state,
        CallState::Leased,
        "nothing was written, and the lease was not given back"
    );
    assert_eq!(body(submitted.await.unwrap()), "by the second lease");
    assert_eq!(bench.status(id).await.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_of_work_that_may_not_be_repeated_ends_unknown() {
    let bench = Bench::new(|_, _| Step::Work(Duration::from_secs(600)));
    bench.deaf.store(true, Ordering::Relaxed);
    let error = bench.submit(bench.call()).await.unwrap_err();
    assert_eq!(error.code(), Code::OutcomeUnknown);
}

#[tokio::test(start_paused = true)]
async fn a_result_is_stored_when_the_store_is_back() {
    let bench = Bench::new(|_, _| Step::Reply("kept"));
    bench.faults.fail(Method::Settle, 1, When::Before);
    assert_eq!(body(bench.submit(bench.call()).await), "kept");
    // Written, but the answer was lost: the second try is stale, and the reply is found in the store.
    bench.faults.fail(Method::Settle, 1, When::After);
    assert_eq!(body(bench.submit(bench.call()).await), "kept");
}

#[tokio::test(start_paused = true)]
async fn leasing_goes_on_after_the_store_has_failed() {
    let bench = Bench::new(|_, _| Step::Reply("leased"));
    bench.faults.fail(Method::Lease, 1, When::Before);
    let call = bench.call();
    let id = call.id();
    bench.gateway.enqueue(vec![call.clone()]).await.unwrap();
    assert_eq!(
        body(bench.submit(call).await),
        "leased",
        "the same id again is the same call"
    );
    assert_eq!(bench.status(id).await.attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn past_its_deadline_an_attempt_is_stopped() {
    let bench = Bench::new(|_, _| Step::Work(Duration::from_secs(600)));
    let mut call = bench.call();
    call.invocation.meta.deadline = Some(call.created.plus(Duration::from_secs(20)));
    let error = bench.submit(call).await.unwrap_err();
    assert_eq!(error.code(), Code::Cancelled, "the handler's own words");
    assert_eq!(*bench.stopped.lock().unwrap(), [StopReason::Deadline]);
}

#[tokio::test(start_paused = true)]
async fn a_call_from_code_is_direct_adopted_or_queued_like_any_other() {
    let bench = Bench::new(|_, invocation| match invocation.request.body().as_ref() {
        b"slow" => Step::Work(Duration::from_secs(30)),
        _ => Step::Reply("direct"),
    });
    let direct = bench.call().invocation;
    let id = direct.meta.id;
    let answered = bench.gateway.call(direct, CallPolicy::default()).await;
    assert_eq!(body(answered), "direct");
    let fleet = scope::fleet();
    assert!(bench.store.dispatch.get((&fleet).into(), id).await.unwrap().is_none());

    bench.gateway.set_available(&target(), false);
    let queued = bench.call().invocation;
    let id = queued.meta.id;
    let accepted = bench
        .gateway
        .call(queued, CallPolicy::default().hold(Duration::from_secs(1)))
        .await;
    assert!(matches!(accepted, Ok(Submitted::Accepted { id: stored, .. }) if stored == id));
    bench.gateway.set_available(&target(), true);
    bench.gateway.drain(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn waits_without_an_end_are_allowed() {
    let bench = Bench::new(|_, _| Step::Reply("at once"));
    let call = bench.call();
    let id = call.id();
    assert_eq!(body(bench.gateway.submit(call, Duration::MAX).await), "at once");
    let reply = bench.gateway.reply(&scope::customer("acme"), id, Duration::MAX).await;
    assert_eq!(reply.unwrap().body(), "at once");
    let direct = bench.call().invocation;
    let policy = CallPolicy::default().hold(Duration::MAX);
    assert_eq!(body(bench.gateway.call(direct, policy).await), "at once");
    bench.gateway.drain(Duration::MAX).await;
}

#[tokio::test(start_paused = true)]
async fn the_store_is_asked_to_count_every_fifteen_seconds() {
    let bench = Bench::new(|_, _| Step::Reply("unused"));
    sleep(Duration::from_secs(44)).await;
    assert_eq!(
        bench.admin.load(Ordering::Relaxed),
        3 + 1,
        "and once for what was learnt before"
    );
}
