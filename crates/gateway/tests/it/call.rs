//! Calls from code: adoption beside everything that may happen meanwhile, order and deadlines.

use crate::site::{HOLD, target};
use async_trait::async_trait;
use crosspoint_core::{
    CallState, CallStatus, Clock, Code, CustomerId, Envelope, Error, Handler, IdempotencyKey, Invocation, InvocationId,
    Memory, Meta, Reply, Result, Store, Submit, Submitted, TargetId,
};
use crosspoint_gateway::{CallPolicy, Config, Gateway, OnDisconnect, Policy, TargetConfig};
use crosspoint_testkit::{Faults, Method, VirtualClock, When, scope};
use http::Request;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What an attempt does: it takes so long and ends so. Any further one is answered "made" at once.
type Step = (Duration, std::result::Result<&'static str, Code>);

#[derive(Debug, Default)]
struct Listed {
    steps: Mutex<VecDeque<Step>>,
    /// Of the invocations that were begun: the body, and when.
    begun: Mutex<Vec<(String, Instant)>>,
}

#[async_trait]
impl Handler for Listed {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        let body = String::from_utf8(invocation.request.into_body().to_vec()).unwrap();
        self.begun.lock().unwrap().push((body, Instant::now()));
        let step = self.steps.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let (time, end) = step.unwrap_or((Duration::ZERO, Ok("made")));
        sleep(time).await;
        assert_ne!(end, Ok("panic"), "as the test wants");
        end.map(|text| Reply::new(text.into()))
            .map_err(|code| Error::new(code, "as listed").with("target", target()))
    }
}

struct Bench {
    gateway: Gateway,
    store: Store,
    faults: Arc<Faults>,
    clock: Arc<VirtualClock>,
    service: Arc<Listed>,
}

impl Bench {
    /// With a hold of ten seconds.
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::with(steps, TargetConfig::default().permits(4))
    }

    fn with(steps: impl IntoIterator<Item = Step>, config: TargetConfig) -> Self {
        Self::configured(steps, config, Config::default())
    }

    /// With so many waiting calls for each customer.
    fn limited(most: u64) -> Self {
        let mut config = Config::default();
        config.max_queued_per_customer = most;
        Self::configured([], TargetConfig::default().permits(4), config)
    }

    fn configured(steps: impl IntoIterator<Item = Step>, target_config: TargetConfig, config: Config) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let (store, faults) = Faults::wrap(&Memory::with_clock(clock.clone()).into());
        let gateway = Gateway::new(store.dispatch.clone(), clock.clone(), config);
        let service = Arc::new(Listed::default());
        service.steps.lock().unwrap().extend(steps);
        gateway.register(target(), service.clone(), target_config).unwrap();
        Self {
            gateway,
            store,
            faults,
            clock,
            service,
        }
    }

    fn invocation(&self, body: &'static str) -> Invocation {
        let meta = Meta::new(
            InvocationId::mint(&*self.clock),
            CustomerId::new("acme").unwrap(),
            target(),
        );
        Invocation::new(meta, Request::new(body.into()))
    }

    fn keyed(&self) -> Invocation {
        let mut invocation = self.invocation("keyed");
        let expires = self.clock.now().plus(SECOND * 3600);
        invocation.meta.idempotency_key = Some(IdempotencyKey::new([1; 16], [2; 16], expires));
        invocation
    }

    async fn call(&self, invocation: Invocation) -> Result<Submitted> {
        self.gateway.call(invocation, CallPolicy::default()).await
    }

    fn send(&self, invocation: Invocation, policy: CallPolicy) -> JoinHandle<Result<Submitted>> {
        let gateway = self.gateway.clone();
        tokio::spawn(async move { gateway.call(invocation, policy).await })
    }

    /// The same key once more, which has to be queued.
    async fn repeat(&self) -> Result<Submitted> {
        self.gateway.set_available(&target(), false);
        let repeated = self.call(self.keyed()).await;
        self.gateway.set_available(&target(), true);
        repeated
    }

    async fn status(&self, id: InvocationId) -> Option<CallStatus> {
        let fleet = scope::fleet();
        self.store.dispatch.get((&fleet).into(), id).await.unwrap()
    }

    async fn state(&self, id: InvocationId) -> CallState {
        self.status(id).await.unwrap().state
    }

    async fn reply(&self, id: InvocationId) -> String {
        let reply = self.status(id).await.unwrap().reply.unwrap();
        String::from_utf8(reply.into_body().to_vec()).unwrap()
    }

    fn begun(&self) -> usize {
        self.service.begun.lock().unwrap().len()
    }

    fn in_flight(&self) -> u32 {
        self.gateway.snapshot(&target()).unwrap().in_flight
    }
}

fn text(submitted: Result<Submitted>) -> String {
    match submitted.unwrap() {
        Submitted::Answered(reply) => String::from_utf8(reply.into_body().to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn accepted(submitted: Result<Submitted>) -> InvocationId {
    match submitted.unwrap() {
        Submitted::Accepted { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

fn code(submitted: Result<Submitted>) -> Code {
    submitted.unwrap_err().code()
}

#[tokio::test(start_paused = true)]
async fn a_customer_of_whom_enough_waits_is_told_so() {
    let bench = Bench::limited(2);
    bench.gateway.set_available(&target(), false);
    let policy = CallPolicy::default().hold(Duration::ZERO);
    for _ in 0..2 {
        accepted(bench.gateway.call(bench.invocation("x"), policy).await);
    }
    // By then everything has been counted.
    sleep(16 * SECOND).await;
    let refused = bench.gateway.call(bench.invocation("x"), policy).await;
    assert_eq!(code(refused), Code::RateLimited);
    bench.gateway.set_available(&target(), true);
    sleep(SECOND).await;
    assert_eq!(
        text(bench.call(bench.invocation("x")).await),
        "made",
        "who need not wait is not refused"
    );
    assert_eq!(bench.begun(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_begun_while_its_record_was_being_stored_is_made_and_not_closed_empty() {
    for (end, repeatable) in [(Code::TargetUnavailable, false), (Code::OutcomeUnknown, true)] {
        for keyed in [false, true] {
            let bench = Bench::new([(HOLD + 50 * MS, Err(end))]);
            bench.faults.delay_all(Method::Enqueue, 100 * MS);
            let call = if keyed { bench.keyed() } else { bench.invocation("x") };
            let policy = CallPolicy::default().repeatable(repeatable);
            let id = accepted(bench.gateway.call(call, policy).await);
            sleep(30 * SECOND).await;
            assert_eq!(bench.reply(id).await, "made", "{end:?}, keyed {keyed}");
            assert_eq!((bench.begun(), bench.in_flight()), (2, 0));
            if keyed {
                assert_eq!(text(bench.repeat().await), "made");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_while_its_record_is_being_stored_is_the_answer_of_its_key() {
    for end in [Ok("real"), Err(Code::ProviderRejected), Err(Code::OutcomeUnknown)] {
        let bench = Bench::new([(HOLD + 50 * MS, end)]);
        bench.faults.delay(Method::Enqueue, 1, 100 * MS);
        let began = Instant::now();
        let told = bench.call(bench.keyed()).await.map_err(|error| error.code());
        assert_eq!(began.elapsed(), HOLD + 50 * MS, "at once");
        sleep(SECOND).await;
        let again = bench.repeat().await.map_err(|error| error.code());
        for told in [told, again] {
            assert_eq!(told.map(|told| text(Ok(told))), end.map(str::to_owned));
        }
        assert_eq!((bench.begun(), bench.in_flight()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_while_its_record_is_being_stored_is_a_dead_letter() {
    let bench = Bench::new([(HOLD + 50 * MS, Ok("panic"))]);
    bench.faults.delay(Method::Enqueue, 1, 100 * MS);
    assert_eq!(code(bench.call(bench.keyed()).await), Code::Internal);
    assert_eq!(bench.in_flight(), 0);
    sleep(SECOND).await;
    assert_eq!(code(bench.repeat().await), Code::Internal);
    assert_eq!(bench.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_attaches_to_an_adopted_call() {
    let bench = Bench::new([(5 * HOLD / 2, Ok("real"))]);
    let id = accepted(bench.call(bench.keyed()).await);
    assert_eq!(bench.state(id).await, CallState::Leased);
    assert_eq!(accepted(bench.repeat().await), id);
    assert_eq!(text(bench.repeat().await), "real");
    assert_eq!(bench.begun(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_adopted_call_that_was_not_begun_after_all_goes_back_to_the_queue() {
    let bench = Bench::new([(2 * HOLD, Err(Code::TargetUnavailable))]);
    let id = accepted(bench.call(bench.invocation("x")).await);
    sleep(2 * HOLD).await;
    assert_eq!((bench.reply(id).await.as_str(), bench.begun()), ("made", 2));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_nobody_knows_of_is_never_begun() {
    // The write has taken effect and failed, or it takes longer than anybody waits for it.
    for hangs in [false, true] {
        let took = if hangs { HOLD + 50 * MS } else { HOLD + SECOND };
        let bench = Bench::new([(took, Err(Code::OutcomeUnknown))]);
        if hangs {
            bench.faults.delay(Method::Enqueue, 1, 2 * HOLD);
        } else {
            bench.faults.fail(Method::Enqueue, 1, When::After);
        }
        let call = bench.invocation("x");
        let (first, policy) = (call.meta.id, CallPolicy::default().repeatable(true));
        let told = bench.gateway.call(call, policy).await;
        sleep(60 * SECOND).await;
        if let Ok(Submitted::Accepted { id, .. }) = told {
            assert_eq!(bench.reply(id).await, "made");
        } else {
            assert_eq!(text(told), "made");
        }
        assert_eq!(bench.state(first).await, CallState::Cancelled, "hangs {hangs}");
        assert_eq!((bench.begun(), bench.in_flight()), (2, 0), "hangs {hangs}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_was_told_503_is_not_served_later_even_if_its_call_may_go_on_without_it() {
    for hangs in [true, false] {
        let bench = Bench::new([]);
        bench.gateway.set_available(&target(), false);
        if hangs {
            bench.faults.delay(Method::Enqueue, 1, 3 * SECOND);
        } else {
            bench.faults.fail(Method::Enqueue, 1, When::After);
        }
        let policy = CallPolicy::default().on_disconnect(OnDisconnect::Continue);
        let call = bench.invocation("x");
        let id = call.meta.id;
        assert_eq!(code(bench.gateway.call(call, policy).await), Code::StoreUnavailable);
        sleep(2 * SECOND).await;
        assert_eq!(bench.state(id).await, CallState::Cancelled, "hangs {hangs}");
        bench.gateway.set_available(&target(), true);
        sleep(SECOND).await;
        assert_eq!(bench.begun(), 0);
        // Whoever leaves by itself is served as it wished.
        bench.gateway.set_available(&target(), false);
        bench.faults.delay(Method::Enqueue, 1, 100 * MS);
        let leaves = bench.send(bench.invocation("y"), policy);
        sleep(50 * MS).await;
        leaves.abort();
        sleep(SECOND).await;
        bench.gateway.set_available(&target(), true);
        sleep(SECOND).await;
        assert_eq!(bench.begun(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_with_an_ordering_key_go_one_after_another_through_the_store() {
    let bench = Bench::new((0..4).map(|_| (SECOND, Ok("done"))));
    let mut calls = Vec::new();
    for body in ["first", "second", "third"] {
        let mut call = bench.invocation(body);
        call.meta.ordering_key = Some("account 7".into());
        calls.push(bench.send(call, CallPolicy::default()));
        sleep(MS).await;
    }
    let free = bench.send(bench.invocation("free"), CallPolicy::default());
    for call in calls.into_iter().chain([free]) {
        assert_eq!(text(call.await.unwrap()), "done");
    }
    let begun = bench.service.begun.lock().unwrap().clone();
    let bodies: Vec<_> = begun.iter().map(|(body, _)| body.as_str()).collect();
    assert_eq!(bodies, ["first", "free", "second", "third"]);
    assert!(begun[2].1 - begun[0].1 >= SECOND && begun[3].1 - begun[2].1 >= SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_refused() {
    let bench = Bench::new([]);
    let mut call = bench.invocation("late");
    call.meta.deadline = Some(bench.clock.now());
    assert_eq!(code(bench.call(call).await), Code::Expired);
    // It passes while the call is queued.
    bench.gateway.set_available(&target(), false);
    let mut call = bench.invocation("late");
    call.meta.deadline = Some(bench.clock.now().plus(3 * SECOND));
    let queued = bench.send(call, CallPolicy::default());
    sleep(5 * SECOND).await;
    bench.gateway.set_available(&target(), true);
    assert_eq!(code(queued.await.unwrap()), Code::Expired);
    assert_eq!((bench.begun(), bench.in_flight()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_direct_attempt_does_not_outlive_its_deadline() {
    for (repeatable, wanted) in [(false, Code::OutcomeUnknown), (true, Code::DeadlineExceeded)] {
        for adopted in [false, true] {
            let bench = Bench::new([(600 * SECOND, Ok("never"))]);
            let mut call = bench.invocation("x");
            let left = if adopted { HOLD + SECOND } else { SECOND };
            call.meta.deadline = Some(bench.clock.now().plus(left));
            let (began, policy) = (Instant::now(), CallPolicy::default().repeatable(repeatable));
            let told = bench.gateway.call(call, policy).await;
            if adopted {
                let id = accepted(told);
                sleep(2 * SECOND).await;
                let status = bench.status(id).await.unwrap();
                let ended = status.failure.map_or(Code::OutcomeUnknown, |failure| failure.code);
                assert!(status.state.is_terminal());
                assert_eq!(ended, wanted);
            } else {
                assert_eq!((code(told), began.elapsed()), (wanted, left));
            }
            assert_eq!((bench.begun(), bench.in_flight()), (1, 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_an_unknown_target_leaves_nothing_behind() {
    let bench = Bench::new([]);
    let mut call = bench.invocation("x");
    call.meta.target = TargetId::new("made-up").unwrap();
    assert_eq!(code(bench.call(call.clone()).await), Code::SetupInvalid);
    // It may be another process that works it off.
    let stored = Envelope::service(call, bench.clock.now());
    bench.gateway.enqueue(vec![stored]).await.unwrap();
    assert_eq!(bench.gateway.targets(), [target()]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_in_memory_for_longer_than_the_hold() {
    let mut policy = Policy::default();
    policy.patience = 5 * SECOND;
    let config = TargetConfig::default().policy(policy).permits(1);
    let bench = Bench::with([(3600 * SECOND, Ok("long"))], config);
    let first = bench.send(bench.invocation("first"), CallPolicy::default());
    sleep(MS).await;
    let began = Instant::now();
    let hold = CallPolicy::default().hold(SECOND);
    accepted(bench.gateway.call(bench.invocation("second"), hold).await);
    assert_eq!(began.elapsed(), SECOND, "and not once for each");
    drop(first);
}
