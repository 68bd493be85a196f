//! Who is kept waiting, for how long, and what becomes of the call when its client leaves.

use crate::site::{HOLD, Site, from_ann, post};
use axum::body::Body;
use crosspoint_core::{CallState, CustomerId, Invocation, InvocationId, Memory, Meta, Reply, Result, Submitted};
use crosspoint_gateway::{CallPolicy, Config, Gateway, Limit, OnDisconnect, Policy, TargetConfig};
use crosspoint_testkit::VirtualClock;
use http::Request;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

fn of(customer: &str, id: u32) -> Request<Body> {
    let request = Request::post(format!("/v1/scan/{id}")).header("x-customer", customer);
    request.body(Body::empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_short_wait_in_memory_comes_before_the_store() {
    let site = Site::with(|layer| layer.patience(Duration::from_millis(100)));
    let first = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    let second = site.send(post(2, "b"));
    sleep(Duration::from_millis(50)).await;
    assert_eq!(site.stats().await.ready, 0);
    site.scanner.finish(1);
    assert_eq!(first.await.unwrap().body, "1 a direct");
    site.scanner.begun(2).await;
    let third = site.send(post(3, "c"));
    sleep(Duration::from_millis(150)).await;
    assert_eq!(site.stats().await.ready, 1, "patience has an end");
    site.scanner.finish(2);
    assert_eq!(
        second.await.unwrap().body,
        "2 b direct",
        "as if it had been admitted at once"
    );
    assert_eq!(third.await.unwrap().body, "3 c acme/ann/1");
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_it_waits_in_memory_leaves_nothing_behind() {
    let site = Site::with(|layer| layer.patience(Duration::from_secs(5)));
    let first = site.send(post(1, "a"));
    site.scanner.begun(1).await;
    // As many may wait as there are permits.
    let left = site.send(post(2, "b"));
    sleep(Duration::from_millis(50)).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    let patient = site.send(post(3, "c"));
    sleep(Duration::from_millis(50)).await;
    site.scanner.finish(2);
    assert_eq!(first.await.unwrap().body, "1 a direct");
    assert_eq!(
        patient.await.unwrap().body,
        "3 c direct",
        "one may wait for one permit: its place is the next one's"
    );
    assert_eq!((site.scanner.count(), site.gate().in_flight), (2, 0));
    let stats = site.stats().await;
    assert_eq!((stats.ready, stats.leased), (0, 0), "nothing was stored for it");
}

#[tokio::test(start_paused = true)]
async fn a_patient_call_that_outlives_the_hold_is_adopted() {
    let site = Site::with(|layer| layer.patience(Duration::from_millis(100)));
    let first = site.send(post(1, ""));
    site.scanner.begun(1).await;
    let second = site.send(post(2, ""));
    sleep(Duration::from_millis(50)).await;
    site.scanner.finish(1);
    assert_eq!(first.await.unwrap().status, 201);
    let id = second.await.unwrap().id();
    site.scanner.finish(1);
    site.until(|stats| stats.leased == 0).await;
    assert_eq!(site.get(&format!("/requests/{id}/response")).await.body, "2  direct");
    assert_eq!(site.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_answered_within_the_hold_is_told_so_at_once() {
    let site = Site::with(|layer| layer.permits(4));
    // Calls of one second, one after the other, teach the target's service time.
    for id in 0..12 {
        let call = site.send(post(id, ""));
        sleep(Duration::from_secs(1)).await;
        site.scanner.finish(1);
        assert_eq!(call.await.unwrap().status, 201);
    }
    let busy: Vec<_> = (0..4).map(|id| site.send(post(id, ""))).collect();
    site.scanner.begun(16).await;
    let began = Instant::now();
    let calls: Vec<_> = (0..60).map(|id| site.send(post(id, ""))).collect();
    sleep(Duration::from_secs(1)).await;
    assert!(began.elapsed() < HOLD);
    let at_once = calls.iter().filter(|call| call.is_finished()).count();
    assert!((15..45).contains(&at_once), "{at_once} of 60 will not make it in time");
    assert_eq!(site.stats().await.held + at_once as u64, 60, "the others are held");
    assert_eq!(site.stats().await.ready, 60, "nothing is lost");
    // Somebody else's first call waits for one of acme's only.
    let other = site.send(of("globex", 1));
    sleep(Duration::from_millis(100)).await;
    assert!(!other.is_finished(), "held: customers take turns");
    site.scanner.finish(70);
    for call in busy.into_iter().chain(calls).chain([other]) {
        assert!(matches!(call.await.unwrap().status, 201 | 202));
    }
}

#[tokio::test(start_paused = true)]
async fn one_customer_cannot_take_all_seats() {
    let site = Site::configured(|layer| layer, |config| config.max_held_per_customer = 1);
    let direct = site.send(of("acme", 1));
    site.scanner.begun(1).await;
    let held = site.send(of("acme", 2));
    site.until(|stats| stats.ready == 1).await;
    let began = Instant::now();
    site.call(of("acme", 3)).await.id();
    assert_eq!(began.elapsed(), Duration::ZERO);
    let other = site.send(of("globex", 4));
    site.until(|stats| stats.held == 2).await;
    site.scanner.finish(4);
    for call in [direct, held, other] {
        assert_eq!(call.await.unwrap().status, 201);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_client_has_left_is_cancelled_unless_it_has_begun() {
    let site = Site::new();
    let direct = site.send(post(1, ""));
    site.scanner.begun(1).await;
    let left = site.send(post(2, ""));
    site.until(|stats| stats.ready == 1).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    site.until(|stats| stats.ready == 0).await;
    let begun = site.send(post(3, ""));
    site.until(|stats| stats.ready == 1).await;
    site.scanner.finish(1);
    direct.await.unwrap();
    site.scanner.begun(2).await;
    begun.abort();
    assert!(begun.await.unwrap_err().is_cancelled());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(site.stats().await.leased, 1, "it was not asked to stop");
    site.scanner.finish(1);
    site.until(|stats| stats.leased == 0).await;
    assert_eq!(site.scanner.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_keyed_call_goes_on_without_its_client_and_so_does_what_its_route_says() {
    let keyed = from_ann("POST", "/v1/scan/2").header("idempotency-key", "k");
    for (route, request) in [
        (OnDisconnect::Cancel, keyed.body(Body::empty()).unwrap()),
        (OnDisconnect::Continue, post(2, "")),
    ] {
        let site = Site::with(|layer| layer.on_disconnect(route));
        let direct = site.send(post(1, ""));
        site.scanner.begun(1).await;
        let left = site.send(request);
        site.until(|stats| stats.ready == 1).await;
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        site.scanner.finish(2);
        direct.await.unwrap();
        site.scanner.begun(2).await;
        site.until(|stats| stats.ready + stats.leased == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_diverted_call_that_finds_a_permit_is_leased_in_the_commit_that_stores_it() {
    let site = Site::new();
    let asked = from_ann("POST", "/v1/scan/1").header("prefer", "respond-async");
    let id = site.call(asked.body(Body::empty()).unwrap()).await.id();
    assert_eq!(site.status(&id).await.state, CallState::Leased);
    site.scanner.finish(1);
    site.until(|stats| stats.leased == 0).await;
    assert_eq!(site.status(&id).await.attempt, 1);
}

#[derive(Debug)]
struct Echo;

#[async_trait::async_trait]
impl crosspoint_core::Handler for Echo {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        Ok(Reply::new(invocation.meta.id.to_string().into()))
    }
}

/// Ten thousand clients of one process whose calls another one works off: the answers come by the slow poll.
#[tokio::test(start_paused = true)]
async fn ten_thousand_holders_are_answered_by_a_few_questions() {
    const CALLS: usize = 10_000;
    let clock = Arc::new(VirtualClock::new());
    let store = Arc::new(Memory::with_clock(clock.clone()));
    let target = crate::site::target();
    let mut config = Config::default();
    config.max_held_per_customer = CALLS;
    let gateway = Gateway::new(store.clone(), clock.clone(), config.clone());
    gateway
        .register(target.clone(), Arc::new(Echo), TargetConfig::default())
        .unwrap();
    gateway.set_available(&target, false);
    let calls: Vec<_> = (0..CALLS)
        .map(|n| {
            let customer = CustomerId::new(format!("c{}", n % 100)).unwrap();
            let meta = Meta::new(
                InvocationId::derive(&["many", &n.to_string()]),
                customer,
                target.clone(),
            );
            let invocation = Invocation::new(meta, Request::new("".into()));
            let gateway = gateway.clone();
            tokio::spawn(async move {
                let policy = CallPolicy::default().hold(Duration::from_secs(60));
                gateway.call(invocation, policy).await
            })
        })
        .collect();
    sleep(Duration::from_millis(500)).await;
    let other = Gateway::new(store, clock, config);
    let began = Instant::now();
    let settings = TargetConfig::default().policy(Policy::default().limit(Limit::Fixed(500)));
    other.register(target, Arc::new(Echo), settings).unwrap();
    for (n, call) in calls.into_iter().enumerate() {
        let Submitted::Answered(reply) = call.await.unwrap().unwrap() else {
            panic!("call {n} was not answered in time");
        };
        assert_eq!(
            reply.body(),
            &InvocationId::derive(&["many", &n.to_string()]).to_string()
        );
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// The slow poll looks every ten seconds here: what another process answers shortly before the hold ends still counts.
#[tokio::test(start_paused = true)]
async fn an_answer_of_another_process_is_found_when_the_hold_ends() {
    let clock = Arc::new(VirtualClock::new());
    let store = Arc::new(Memory::with_clock(clock.clone()));
    let target = crate::site::target();
    let mut config = Config::default();
    config.poll = Duration::from_secs(10);
    let gateway = Gateway::new(store.clone(), clock.clone(), config);
    gateway
        .register(target.clone(), Arc::new(Echo), TargetConfig::default())
        .unwrap();
    gateway.set_available(&target, false);
    let meta = Meta::new(
        InvocationId::derive(&["late"]),
        CustomerId::new("ann").unwrap(),
        target.clone(),
    );
    let call = {
        let (gateway, invocation) = (gateway.clone(), Invocation::new(meta, Request::new("".into())));
        let policy = CallPolicy::default().hold(Duration::from_secs(3));
        tokio::spawn(async move { gateway.call(invocation, policy).await })
    };
    sleep(Duration::from_secs(2)).await;
    let other = Gateway::new(store, clock, Config::default());
    other.register(target, Arc::new(Echo), TargetConfig::default()).unwrap();
    let submitted = call.await.unwrap().unwrap();
    assert!(matches!(submitted, Submitted::Answered(_)), "{submitted:?}");
}
