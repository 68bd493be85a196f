//! Calls that come back: refused, failed, lost, and redriven.

use crate::{leases::Deaf, site::target};
use async_trait::async_trait;
use crosspoint_core::{
    CallState, Code, CustomerId, Envelope, Error, Handler, Invocation, InvocationId, Memory, Meta, Page, Reply, Result,
    Retry, RetryPolicy, Store, Submit, Submitted,
};
use crosspoint_gateway::{CallPolicy, Config, Gateway, Settles, TargetConfig};
use crosspoint_testkit::{VirtualClock, envelope, scope};
use http::Request;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tower::Layer;

type Answer = Result<(u16, Option<u64>)>;

/// Answers as the list says, and 200 from then on.
#[derive(Debug, Default)]
struct Listed {
    answers: Mutex<VecDeque<Answer>>,
    calls: AtomicUsize,
    hangs: AtomicBool,
}

#[async_trait]
impl Handler for Listed {
    async fn handle(&self, _: Invocation) -> Result<Reply> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let answer = self.answers.lock().unwrap().pop_front();
        let (status, retry_after) = answer.unwrap_or(Ok((200, None)))?;
        let mut reply = Reply::default();
        *reply.status_mut() = http::StatusCode::from_u16(status).unwrap();
        if let Some(seconds) = retry_after {
            reply.headers_mut().insert("retry-after", seconds.into());
        }
        Ok(reply)
    }
}

struct Bench {
    gateway: Gateway,
    store: Store,
    clock: Arc<VirtualClock>,
    service: Arc<Listed>,
    deaf: Arc<AtomicBool>,
}

impl Bench {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::with(TargetConfig::default(), answers)
    }

    fn with(config: TargetConfig, answers: impl IntoIterator<Item = Answer>) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let store: Store = Memory::with_clock(clock.clone()).into();
        let (hearing, deaf) = Deaf::new(&store);
        let gateway = Gateway::new(Arc::new(hearing), clock.clone(), Config::default());
        let service = Arc::new(Listed::default());
        service.answers.lock().unwrap().extend(answers);
        gateway.register(target(), service.clone(), config.permits(4)).unwrap();
        Self {
            gateway,
            store,
            clock,
            service,
            deaf,
        }
    }

    fn envelope(&self) -> Envelope {
        envelope::service(&*self.clock, "scan", "acme")
    }

    async fn queued(&self, call: Envelope) -> Result<u16> {
        let submitted = self.gateway.submit(call, Duration::from_secs(3600)).await?;
        Ok(status(submitted))
    }

    async fn stored(&self, id: InvocationId) -> (CallState, u32, Option<Code>) {
        let fleet = scope::fleet();
        let status = self.store.dispatch.get((&fleet).into(), id).await.unwrap().unwrap();
        (status.state, status.attempt, status.failure.map(|failure| failure.code))
    }

    /// For calls without a route of their own.
    fn again_on_5xx(&self, again: bool) {
        drop(self.gateway.layer(target()).retry_on_5xx(again).layer(()));
    }

    fn calls(&self) -> usize {
        self.service.calls.load(Ordering::Relaxed)
    }
}

fn status(submitted: Submitted) -> u16 {
    match submitted {
        Submitted::Answered(reply) => reply.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

fn fails(code: Code) -> Answer {
    Err(Error::new(code, "as listed").with("target", target()))
}

#[tokio::test(start_paused = true)]
async fn what_was_not_begun_uses_up_no_attempt() {
    for code in [Code::TargetUnavailable, Code::TargetSaturated] {
        let bench = Bench::new((0..8).map(|_| fails(code)));
        let call = bench.envelope();
        let id = call.id();
        let began = Instant::now();
        assert_eq!(bench.queued(call).await.unwrap(), 200);
        assert_eq!(bench.stored(id).await, (CallState::Completed, 1, None));
        assert_eq!(bench.calls(), 9);
        let took = began.elapsed();
        assert!(
            took > Duration::from_secs(1),
            "the target was left alone in between: {took:?}"
        );
        assert!(took < Duration::from_secs(30), "but not for long: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_never_begun_is_tried_less_and_less_often_and_then_no_more() {
    for settles in [Settles::Gateway, Settles::Handler] {
        // Where nothing can be begun the gate sets the pace: a probe after each cool-off.
        for (code, most) in [(Code::TargetUnavailable, 2000), (Code::TargetSaturated, 400)] {
            let total = Duration::from_secs(1800);
            let retry = RetryPolicy::default().with_total(Some(total));
            let config = TargetConfig::default().retry(retry).settles(settles);
            let bench = Bench::with(config, (0..9999).map(|_| fails(code)));
            let call = bench.envelope();
            let id = call.id();
            let began = Instant::now();
            bench.queued(call).await.unwrap_err();
            assert_eq!(bench.stored(id).await, (CallState::Dead, 1, Some(code)));
            let took = began.elapsed();
            assert!(took > total && took < total + Duration::from_secs(120), "{took:?}");
            assert!((100..most).contains(&bench.calls()), "{} times", bench.calls());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_for_long_is_not_given_up_at_its_first_refusal() {
    let bench = Bench::new((0..4).map(|_| fails(Code::TargetSaturated)));
    let mut call = bench.envelope();
    call.created = call.created.minus(Duration::from_secs(48 * 3600));
    assert_eq!(bench.queued(call).await.unwrap(), 200);
    let bench = Bench::new((0..99).map(|_| fails(Code::TargetSaturated)));
    let mut call = bench.envelope();
    call.created = call.created.minus(Duration::from_secs(48 * 3600));
    assert_eq!(bench.queued(call).await.unwrap_err().code(), Code::TargetSaturated);
    let most = usize::try_from(TargetConfig::default().retry.max_attempts).unwrap();
    assert_eq!(bench.calls(), most + 1, "and not after the others");
}

#[tokio::test(start_paused = true)]
async fn whatever_a_handler_answers_is_its_answer() {
    for (status, after) in [(503, Some(5)), (429, None), (429, Some(5))] {
        let bench = Bench::new([Ok((status, after))]);
        let call = bench.envelope();
        let id = call.id();
        assert_eq!(bench.queued(call).await.unwrap(), status);
        assert_eq!(bench.stored(id).await, (CallState::Completed, 1, None));
        assert_eq!(bench.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeatable_call_is_tried_again_when_the_target_says_and_each_time_counts() {
    let bench = Bench::new([Ok((503, Some(5))), Ok((429, Some(5)))]);
    let mut call = bench.envelope();
    call.repeatable = true;
    let id = call.id();
    let began = Instant::now();
    assert_eq!(bench.queued(call).await.unwrap(), 429, "which blames the caller");
    assert!(began.elapsed() >= Duration::from_secs(5), "Retry-After is kept");
    let (state, attempts, _) = bench.stored(id).await;
    assert_eq!((state, attempts, bench.calls()), (CallState::Completed, 2, 2));
    let bench = Bench::new((0..99).map(|_| Ok((503, Some(1)))));
    let mut call = bench.envelope();
    call.repeatable = true;
    assert_eq!(bench.queued(call).await.unwrap(), 503, "in the end that is the answer");
    let most = TargetConfig::default().retry.max_attempts;
    assert_eq!(bench.calls(), usize::try_from(most).unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_something_else_does_not_say_that_the_call_was_not_begun() {
    for code in [Code::TargetUnavailable, Code::TargetSaturated, Code::ShuttingDown] {
        for error in [
            Error::new(code, "below"),
            Error::new(code, "below").with("target", "mail"),
        ] {
            let bench = Bench::new([Err(error)]);
            let call = bench.envelope();
            let id = call.id();
            assert_eq!(bench.queued(call).await.unwrap_err().code(), code);
            assert_eq!(bench.stored(id).await, (CallState::Dead, 1, Some(code)));
            let meta = Meta::new(
                InvocationId::mint(&*bench.clock),
                CustomerId::new("acme").unwrap(),
                target(),
            );
            bench
                .service
                .answers
                .lock()
                .unwrap()
                .push_back(Err(Error::new(code, "below")));
            let direct = Invocation::new(meta, Request::new("".into()));
            let error = bench.gateway.call(direct, CallPolicy::default()).await.unwrap_err();
            assert_eq!((error.code(), bench.calls()), (code, 2), "neither was made again");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_answer_unless_the_target_says_that_it_is_tried_again() {
    let bench = Bench::new([Ok((500, None)), Ok((500, None))]);
    assert_eq!(bench.queued(bench.envelope()).await.unwrap(), 500);
    bench.again_on_5xx(true);
    let call = bench.envelope();
    let id = call.id();
    assert_eq!(bench.queued(call).await.unwrap(), 200);
    assert_eq!(bench.stored(id).await.1, 2);
}

#[tokio::test(start_paused = true)]
async fn repeats_after_failures_stay_within_a_tenth_of_the_calls() {
    let bench = Bench::new((0..1000).map(|_| Ok((500, None))));
    bench.again_on_5xx(true);
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(bench.queued(bench.envelope()).await.unwrap(), 500);
    }
    let allowed = 20 + 10 + usize::try_from(began.elapsed().as_secs()).unwrap();
    let repeats = bench.calls() - 200;
    assert!((1..=allowed).contains(&repeats), "{repeats}, {allowed} allowed");
}

#[tokio::test(start_paused = true)]
async fn a_direct_call_that_was_not_begun_goes_to_the_queue() {
    let call = |bench: &Bench, repeatable| {
        let customer = CustomerId::new("acme").unwrap();
        let meta = Meta::new(InvocationId::mint(&*bench.clock), customer, target());
        let invocation = Invocation::new(meta, Request::new("".into()));
        let gateway = bench.gateway.clone();
        async move {
            let policy = CallPolicy::default().repeatable(repeatable);
            gateway.call(invocation, policy).await.map(status)
        }
    };
    let bench = Bench::new([fails(Code::TargetUnavailable)]);
    assert_eq!(call(&bench, false).await.unwrap(), 200);
    assert_eq!(bench.calls(), 2);
    let bench = Bench::new([fails(Code::OutcomeUnknown)]);
    assert_eq!(call(&bench, false).await.unwrap_err().code(), Code::OutcomeUnknown);
    assert_eq!(bench.calls(), 1, "it may have been carried out");
    // One attempt of five was the direct one.
    let unknown = || Err(Error::new(Code::OutcomeUnknown, "as listed").with_retry(Retry::Backoff));
    let bench = Bench::new((0..9).map(|_| unknown()));
    assert!(call(&bench, true).await.is_err());
    assert_eq!(bench.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn one_routes_failures_are_not_repeated_because_another_wants_that() {
    let bench = Bench::new((0..3).map(|_| Ok((500, None))));
    let layers = [("/often", Some(true)), ("/once", Some(false)), ("/silent", None)];
    for (path, again) in layers {
        let layer = bench.gateway.layer(target());
        // In either order.
        drop(match again {
            Some(again) => layer.retry_on_5xx(again).path(path).layer(()),
            None => layer.path(path).layer(()),
        });
    }
    for (path, status) in [("/once", 500), ("/silent", 500), ("/often", 200)] {
        let mut call = bench.envelope();
        call.invocation.meta.route_class = path.into();
        assert_eq!(bench.queued(call).await.unwrap(), status, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_its_worker_down_becomes_a_dead_letter() {
    let bench = Bench::new([]);
    bench.service.hangs.store(true, Ordering::Relaxed);
    bench.deaf.store(true, Ordering::Relaxed);
    let mut call = bench.envelope();
    call.repeatable = true;
    let id = call.id();
    let error = bench.queued(call).await.unwrap_err();
    assert_eq!(error.code(), Code::WorkersLost);
    let (state, attempt, code) = bench.stored(id).await;
    assert_eq!((state, code), (CallState::Dead, Some(Code::WorkersLost)));
    assert!(attempt < TargetConfig::default().retry.max_attempts, "not for ever");
    sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.calls(), 2, "begun twice, and then left alone");

    // An operator may want it all the same.
    bench.deaf.store(false, Ordering::Relaxed);
    bench.service.hangs.store(false, Ordering::Relaxed);
    let acme = scope::customer("acme");
    let again = bench.gateway.redrive((&acme).into(), &[id], 1).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.stored(again[0].unwrap()).await.0, CallState::Completed);
}

#[tokio::test(start_paused = true)]
async fn one_loss_is_bad_luck_and_a_failure_is_none() {
    let bench = Bench::new([fails(Code::ProviderUnreachable)]);
    bench.service.hangs.store(true, Ordering::Relaxed);
    bench.deaf.store(true, Ordering::Relaxed);
    let mut call = bench.envelope();
    call.repeatable = true;
    let id = call.id();
    let gateway = bench.gateway.clone();
    let queued = tokio::spawn(async move { gateway.submit(call, Duration::from_secs(3600)).await });
    sleep(Duration::from_secs(1)).await;
    bench.service.hangs.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(32)).await;
    bench.deaf.store(false, Ordering::Relaxed);
    assert_eq!(status(queued.await.unwrap().unwrap()), 200);
    // Lost, failed, done.
    assert_eq!(bench.stored(id).await.1, 3);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_listed_and_redriven_at_a_rate() {
    let bench = Bench::new((0..5).map(|_| fails(Code::ProviderRejected)));
    for _ in 0..5 {
        assert!(bench.queued(bench.envelope()).await.is_err());
    }
    let acme = scope::customer("acme");
    let dead = bench
        .gateway
        .dead_letters((&acme).into(), Page::first(10))
        .await
        .unwrap();
    let ids: Vec<_> = dead.items.iter().map(|call| call.id).collect();
    assert_eq!(ids.len(), 5);
    let other = scope::customer("globex");
    let foreign = bench.gateway.redrive((&other).into(), &ids[..1], 1).await.unwrap();
    assert_eq!(foreign, [None], "somebody else's");
    let began = Instant::now();
    let again = bench.gateway.redrive((&acme).into(), &ids, 2).await.unwrap();
    assert_eq!(
        began.elapsed(),
        Duration::from_secs(2),
        "two a second: at 0, 0.5, 1, 1.5 and 2"
    );
    sleep(Duration::from_secs(1)).await;
    for id in again {
        assert_eq!(bench.stored(id.unwrap()).await.0, CallState::Completed);
    }
    assert!(!bench.gateway.is_draining());
    bench.gateway.drain(Duration::from_secs(1)).await;
    assert!(bench.gateway.is_draining());
}
