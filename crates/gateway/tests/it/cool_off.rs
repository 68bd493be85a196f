//! When a target is left alone and how it comes back, with a small service behind the real gateway and its layer.

use crate::control::{Bench, answered, in_time, seen, target};
use axum::{Router, body::Body, routing::any};
use crosspoint_core::{Memory, SystemClock};
use crosspoint_gateway::{
    Config, CoolOff, Gateway, Limit, Policy, Sticky, gate,
    outcome::{Outcome, Returned},
};
use http::{Request, Response, StatusCode};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;
use tower::ServiceExt;

#[tokio::test(start_paused = true)]
async fn three_refusals_close_the_gate_and_the_drain_opens_it() {
    let bench = Bench::new(16, &Policy::default().seed(1));
    assert_eq!(bench.call().await, 200);
    bench.down(true);
    for _ in 0..3 {
        assert_eq!(bench.gate().state, gate::State::Direct);
        assert_eq!(bench.call().await, 503);
    }
    assert_eq!(bench.gate().state, gate::State::CoolOff);
    let held: Vec<_> = (0..20).map(|id| bench.send("quick", id)).collect();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(
        seen(&bench.work.refused_direct),
        3,
        "no further call was tried on a dead target"
    );
    assert!(
        (1..=12).contains(&seen(&bench.work.refused_replayed)),
        "one probe after each cool-off"
    );
    bench.down(false);
    // Before the answers: twenty of them are enough for the whole ramp.
    bench.until(gate::State::Ramping).await;
    assert_eq!(seen(&bench.work.direct), 1, "the drain was the probe");
    assert_eq!(answered(held).await.0, 20, "on their own connections");
    let calls = bench.load(3, 40, None).await;
    assert_eq!(answered(calls).await.0, 120);
    assert_eq!(bench.gate().state, gate::State::Direct);
}

#[tokio::test(start_paused = true)]
async fn with_nothing_queued_one_direct_call_is_the_probe() {
    let bench = Bench::new(16, &Policy::default().seed(1));
    bench.down(true);
    for _ in 0..3 {
        bench.call().await;
    }
    bench.down(false);
    bench.until(gate::State::Probing).await;
    assert_eq!(bench.call().await, 200);
    assert_eq!((seen(&bench.work.direct), seen(&bench.work.replayed)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_comes_and_goes_is_not_stampeded() {
    let bench = Bench::new(16, &Policy::default().seed(1));
    let calls = bench.load(5, 40, None).await;
    answered(calls).await;
    let mut calls = Vec::new();
    for _ in 0..4 {
        bench.down(true);
        calls.extend(bench.load(3, 40, None).await);
        bench.down(false);
        calls.extend(bench.load(3, 40, None).await);
    }
    // Three to notice each time; the others were queued.
    assert!(
        seen(&bench.work.refused_direct) <= 4 * 5,
        "{}",
        seen(&bench.work.refused_direct)
    );
    assert!(
        seen(&bench.work.refused_replayed) <= 4 * 30,
        "{}",
        seen(&bench.work.refused_replayed)
    );
    let mut refused = 0;
    for call in calls {
        refused += u64::from(in_time(call).await.unwrap() == 503);
    }
    assert!(refused <= 4 * 5, "{refused}");
    bench.empty().await;
    assert_eq!(bench.gate().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_sticky_gate_sends_the_next_calls_to_the_queue_and_works_it_off_meanwhile() {
    let sticky = CoolOff::default().sticky(Sticky::default().calls(6).time(Duration::from_secs(600)));
    let policy = Policy::default()
        .limit(Limit::Fixed(2))
        .cool_off(sticky)
        .patience(Duration::ZERO);
    let bench = Bench::new(16, &policy);
    // The first look at each of the queues takes a permit for a moment, and there are but two.
    bench.started().await;
    let first: Vec<_> = (0..3).map(|id| bench.send("quick", id)).collect();
    bench.until(gate::State::CoolOff).await;
    assert_eq!(answered(first).await.0, 3);
    assert_eq!((seen(&bench.work.direct), seen(&bench.work.replayed)), (2, 1));
    for _ in 0..6 {
        assert_eq!(bench.call().await, 200, "answered through the queue");
    }
    assert_eq!((seen(&bench.work.direct), seen(&bench.work.replayed)), (2, 7));
    bench.until(gate::State::Direct).await;
    assert_eq!(bench.call().await, 200);
    assert_eq!((seen(&bench.work.direct), seen(&bench.work.replayed)), (3, 7));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_goes_away_in_a_sticky_cool_off_is_not_hammered_by_its_queue() {
    let sticky = CoolOff::default().sticky(Sticky::default().calls(600).time(Duration::from_secs(600)));
    let policy = Policy::default()
        .limit(Limit::Fixed(2))
        .cool_off(sticky)
        .patience(Duration::ZERO);
    let bench = Bench::new(16, &policy);
    bench.started().await;
    let first: Vec<_> = (0..3).map(|id| bench.send("quick", id)).collect();
    bench.until(gate::State::CoolOff).await;
    assert_eq!(answered(first).await.0, 3);
    bench.down(true);
    let held: Vec<_> = (0..40).map(|id| bench.send("quick", id)).collect();
    sleep(Duration::from_secs(8)).await;
    assert_eq!(bench.gate().state, gate::State::CoolOff);
    let refused = seen(&bench.work.refused_replayed);
    assert!((3..=40).contains(&refused), "{refused} in 8 s");
    bench.down(false);
    bench.empty().await;
    assert_eq!(seen(&bench.work.replayed), 41);
    let (done, later) = answered(held).await;
    assert_eq!(done + later, 40);
}

#[tokio::test(start_paused = true)]
async fn a_cool_off_rests_the_drain_too() {
    let ten = CoolOff::default()
        .first(Duration::from_secs(10))
        .most(Duration::from_secs(10))
        .jitter(0.0);
    let bench = Bench::new(16, &Policy::default().seed(1).cool_off(ten));
    bench.down(true);
    for _ in 0..3 {
        bench.call().await;
    }
    bench.down(false);
    let held: Vec<_> = (0..5).map(|id| bench.send("quick", id)).collect();
    sleep(Duration::from_millis(9_900)).await;
    let gate = bench.gate();
    assert_eq!((gate.state, gate.in_flight), (gate::State::CoolOff, 0));
    assert!(
        gate.waiting > 0,
        "the drain asks for a permit and there are {} free",
        gate.limit
    );
    assert_eq!(seen(&bench.work.refused_replayed) + seen(&bench.work.replayed), 0);
    bench.until(gate::State::Probing).await;
    bench.empty().await;
    assert_eq!((seen(&bench.work.direct), seen(&bench.work.replayed)), (0, 5));
    drop(held);
}

/// Replicas that are full say so, and work on what they have.
#[tokio::test(start_paused = true)]
async fn a_target_that_turns_calls_away_gets_fewer_and_is_not_left_alone() {
    let bench = Bench::new(4, &Policy::default().seed(1));
    bench.work.full.store(true, Ordering::Relaxed);
    let gateway = bench.gateway.clone();
    let watch = tokio::spawn(async move {
        let mut elsewhere = 0;
        for _ in 0..1000 {
            sleep(Duration::from_millis(10)).await;
            let state = gateway.snapshot(&target()).unwrap().state;
            elsewhere += u32::from(state != gate::State::Direct);
        }
        elsewhere
    });
    let calls = bench.load(10, 100, None).await;
    let done = seen(&bench.work.direct) + seen(&bench.work.replayed);
    assert_eq!(in_time(watch).await.unwrap(), 0);
    assert!(done > 150, "{done} of the 200 that it can do in that time");
    assert!((3..=8).contains(&bench.gate().limit), "{}", bench.gate().limit);
    bench.work.full.store(false, Ordering::Relaxed);
    drop(calls);
}

/// It says so at once each time, and a queue has always one more.
#[tokio::test(start_paused = true)]
async fn a_target_that_turns_everything_away_is_not_hammered_by_its_queue() {
    let policy = Policy::default().seed(1).limit(Limit::Fixed(20));
    let bench = Bench::new(0, &policy);
    bench.work.full.store(true, Ordering::Relaxed);
    for _ in 0..20 {
        assert_eq!(bench.call().await, 503);
    }
    bench.until(gate::State::CoolOff).await;
    let calls: Vec<_> = (0..400).map(|id| bench.send("quick", id)).collect();
    bench.until(gate::State::Probing).await;
    bench.until(gate::State::CoolOff).await;
    sleep(Duration::from_secs(8)).await;
    let refused = seen(&bench.work.refused_replayed);
    assert!((10..=60).contains(&refused), "{refused} in 9 s");
    drop(calls);
}

/// What hangs from before the cool-off waits for a target that is gone.
#[tokio::test(start_paused = true)]
async fn calls_that_hang_from_before_do_not_keep_a_target_out_that_is_back() {
    for stored in [true, false] {
        let policy = Policy::default().seed(1).limit(Limit::Fixed(20));
        let bench = if stored {
            Bench::new(64, &policy)
        } else {
            Bench::nameless(64, &policy)
        };
        bench.work.factor.store(600, Ordering::Relaxed);
        let hung: Vec<_> = (0..17).map(|id| bench.send("quick", id)).collect();
        sleep(Duration::from_millis(10)).await;
        bench.work.factor.store(1, Ordering::Relaxed);
        bench.down(true);
        for _ in 0..3 {
            bench.call().await;
        }
        assert_eq!(bench.gate().state, gate::State::CoolOff);
        bench.down(false);
        bench.until(gate::State::Probing).await;
        let gate = bench.gate();
        assert_eq!((gate.limit, gate.in_flight, gate.left_over), (2, 17, 17));
        for _ in 0..5 {
            assert_eq!(bench.call().await, 200);
        }
        bench.until(gate::State::Ramping).await;
        assert_eq!(answered(bench.load(3, 10, None).await).await.0, 30);
        assert_eq!(bench.gate().state, gate::State::Direct);
        assert_eq!((bench.gate().limit, bench.gate().in_flight), (20, 17));
        let direct = seen(&bench.work.direct);
        let calls: Vec<_> = (0..20).map(|id| bench.send("quick", id)).collect();
        assert_eq!(answered(calls).await.0, 20);
        assert_eq!(seen(&bench.work.direct), direct + 20, "the whole limit is free");
        drop(hung);
        sleep(Duration::from_secs(150)).await;
        let gate = bench.gate();
        assert_eq!((gate.limit, gate.in_flight, gate.left_over), (20, 0, 0));
        assert_eq!(bench.call().await, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_stored_one_direct_call_at_a_time_is_the_probe() {
    let bench = Bench::nameless(16, &Policy::default().seed(1));
    bench.down(true);
    for _ in 0..3 {
        assert_eq!(bench.call().await, 503);
    }
    assert_eq!(bench.gate().state, gate::State::CoolOff);
    assert_eq!(bench.call().await, 503);
    assert_eq!(seen(&bench.work.refused_direct), 3, "refused by the gate");
    bench.until(gate::State::Probing).await;
    assert_eq!(bench.call().await, 503);
    assert_eq!(seen(&bench.work.refused_direct), 4, "tried, and refused by the service");
    assert_eq!(bench.gate().state, gate::State::CoolOff, "by one probe");
    bench.down(false);
    bench.until(gate::State::Probing).await;
    let probes: Vec<_> = (0..3).map(|id| bench.send("quick", id)).collect();
    let mut passed = 0;
    for probe in probes {
        passed += u64::from(in_time(probe).await.unwrap() == 200);
    }
    assert_eq!(
        (passed, seen(&bench.work.direct)),
        (1, 1),
        "the others would be probes too"
    );
    for _ in 0..4 {
        assert_eq!(bench.call().await, 200);
    }
    bench.until(gate::State::Ramping).await;
    // Two in flight: what does not fit into the ramp cannot be stored.
    assert_eq!(answered(bench.load(3, 10, None).await).await.0, 30);
    assert_eq!(bench.gate().state, gate::State::Direct);
}

#[tokio::test(start_paused = true)]
async fn another_limit_does_not_open_the_way_to_a_target_that_is_away() {
    let bench = Bench::new(16, &Policy::default().seed(1));
    bench.down(true);
    for _ in 0..3 {
        bench.call().await;
    }
    assert_eq!(bench.gate().state, gate::State::CoolOff);
    bench.gateway.set_permits(&target(), 3);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.gate().state, gate::State::CoolOff);
    bench.down(false);
    bench.until(gate::State::Probing).await;
    bench.gateway.set_permits(&target(), 2);
    sleep(Duration::from_millis(1)).await;
    assert_eq!((bench.gate().state, bench.gate().limit), (gate::State::Probing, 1));
    assert_eq!(answered(bench.load(3, 10, None).await).await.0, 30);
    assert_eq!((bench.gate().state, bench.gate().limit), (gate::State::Direct, 2));
}

/// The task that ends a cool-off lives in the runtime in which the first call came.
#[test]
fn a_gateway_that_outlives_its_runtime_comes_back_in_the_next() {
    let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
    let down = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&down);
    let handler = move || {
        let mut answer = Response::new(Body::empty());
        if state.load(Ordering::Relaxed) {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            let returned = Returned::new(Outcome::NotStarted, Request::new(Body::empty()));
            answer.extensions_mut().insert(returned);
        }
        async move { answer }
    };
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().start_paused(true).build().unwrap()
    };
    let app = runtime().block_on(async {
        let app: Router = Router::new().route("/", any(handler)).layer(gateway.layer(target()));
        sleep(Duration::from_secs(1)).await;
        app
    });
    runtime().block_on(async {
        let call = async || {
            let request = Request::get("/").body(Body::empty()).unwrap();
            app.clone().oneshot(request).await.unwrap().status()
        };
        for _ in 0..4 {
            assert_eq!(call().await, 503);
        }
        assert_eq!(gateway.snapshot(&target()).unwrap().state, gate::State::CoolOff);
        down.store(false, Ordering::Relaxed);
        let back = async {
            while call().await != 200 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        in_time(back).await;
    });
}

#[test]
fn a_layer_made_outside_of_a_runtime_comes_back_too() {
    let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(SystemClock::new()), Config::default());
    let layer = gateway.layer(target());
    let down = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&down);
    let handler = move || {
        let mut answer = Response::new(Body::empty());
        if state.load(Ordering::Relaxed) {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            let request = Request::new(Body::empty());
            answer
                .extensions_mut()
                .insert(Returned::new(Outcome::NotStarted, request));
        }
        async move { answer }
    };
    let app: Router = Router::new().route("/", any(handler)).layer(layer);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let call = async || {
            let request = Request::get("/").body(Body::empty()).unwrap();
            app.clone().oneshot(request).await.unwrap().status()
        };
        let state = || gateway.snapshot(&target()).unwrap().state;
        for _ in 0..4 {
            assert_eq!(call().await, 503);
        }
        assert_eq!(state(), gate::State::CoolOff);
        down.store(false, Ordering::Relaxed);
        let back = async {
            while call().await != 200 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        in_time(back).await;
    });
}
