#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod customers;
mod slow;

use super::*;
use crate::outcome::Outcome;
use crosspoint_core::CustomerId;
use futures_util::{FutureExt, future::join_all};
use std::{
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);

fn gate(limit: u32) -> Arc<Gate> {
    Arc::new(Gate::new(limit))
}

fn customer(name: &str) -> CustomerId {
    CustomerId::new(name).unwrap()
}

fn not_started(gate: &Arc<Gate>) {
    gate.enter().unwrap().finish(Outcome::NotStarted);
}

#[tokio::test]
async fn a_freed_permit_goes_to_held_work_then_to_patient_calls_then_to_the_sideline() {
    let gate = gate(1);
    let permit = gate.enter().unwrap();
    let mut sideline = pin!(gate.drain(Drain::Sideline));
    let mut patient = pin!(gate.admit_within(RouteClass::default(), None, MS));
    let mut held = pin!(gate.drain(Drain::Held));
    assert!(sideline.as_mut().now_or_never().is_none());
    assert!(patient.as_mut().now_or_never().is_none());
    assert!(held.as_mut().now_or_never().is_none());
    assert_eq!(gate.snapshot().waiting, 2);
    drop(permit);
    assert_eq!(gate.enter().unwrap_err(), Refusal::Saturated, "no overtaking");
    assert_eq!(
        (gate.readings().in_flight, gate.readings().waiting_held),
        (1, 0),
        "held work has its permit"
    );
    assert!(patient.as_mut().now_or_never().is_none());
    drop(held.as_mut().now_or_never().expect("handed over"));
    assert!(sideline.as_mut().now_or_never().is_none());
    drop(patient.as_mut().now_or_never().expect("handed over"));
    drop(sideline.as_mut().now_or_never().expect("handed over"));
    assert_eq!(gate.snapshot().in_flight, 0);
    assert!(gate.enter().is_ok());
}

#[tokio::test]
async fn waiters_of_a_class_are_served_in_turn() {
    let gate = gate(1);
    let mut permit = gate.enter().unwrap();
    let mut waiters: Vec<_> = (0..4).map(|_| Box::pin(gate.drain(Drain::Held))).collect();
    for waiter in &mut waiters {
        assert!(waiter.now_or_never().is_none());
    }
    for waiter in &mut waiters {
        drop(permit);
        permit = waiter.now_or_never().expect("it is its turn");
    }
}

#[tokio::test]
async fn a_waiter_that_gives_up_leaves_no_trace() {
    let gate = gate(1);
    let permit = gate.enter().unwrap();
    {
        let mut drain = pin!(gate.drain(Drain::Held));
        assert!(drain.as_mut().now_or_never().is_none());
        assert_eq!(gate.snapshot().waiting, 1);
    }
    assert_eq!(gate.snapshot().waiting, 0);
    drop(permit);
    assert!(gate.enter().is_ok());
}

#[tokio::test]
async fn a_permit_that_nobody_fetches_goes_to_the_next() {
    let gate = gate(1);
    let permit = gate.enter().unwrap();
    let mut first = Box::pin(gate.drain(Drain::Held));
    let mut second = Box::pin(gate.drain(Drain::Held));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    permit.finish(Outcome::Success);
    drop(first);
    let permit = (&mut second).now_or_never().expect("handed on");
    assert_eq!(gate.snapshot().in_flight, 1);
    permit.finish(Outcome::Success);
    let readings = gate.readings();
    assert_eq!((readings.succeeded, readings.arrived), (2, 1));
}

/// The drain of held calls asks for one permit at a time. What is freed before it has come round is still for it.
#[tokio::test]
async fn between_two_permits_of_the_held_drain_the_sideline_does_not_slip_in() {
    let gate = gate(3);
    let first = [gate.enter().unwrap(), gate.enter().unwrap(), gate.enter().unwrap()];
    gate.expect_held(true);
    let mut held = pin!(gate.drain(Drain::Held));
    let mut sideline = pin!(gate.drain(Drain::Sideline));
    assert!(held.as_mut().now_or_never().is_none());
    assert!(sideline.as_mut().now_or_never().is_none());
    drop(first);
    assert!(gate.try_drain(Drain::Sideline).is_none());
    let permit = held.as_mut().now_or_never().expect("the first of three");
    assert!(sideline.as_mut().now_or_never().is_none());
    let second = gate.try_drain(Drain::Held).expect("the other two are free");
    gate.expect_held(false);
    let third = sideline.as_mut().now_or_never().expect("no held call is left");
    assert_eq!(gate.snapshot().in_flight, 3);
    drop((permit, second, third));
}

#[tokio::test]
async fn the_sideline_has_its_turn_while_held_work_waits_and_in_spite_of_the_reserve() {
    let gate = gate(2);
    gate.set_reserve(2);
    let mut running = vec![gate.enter().unwrap(), gate.enter().unwrap()];
    let mut sideline = Box::pin(gate.drain(Drain::Sideline));
    assert!((&mut sideline).now_or_never().is_none());
    let mut freed = 0;
    let permit = loop {
        let mut held = Box::pin(gate.drain(Drain::Held));
        assert!((&mut held).now_or_never().is_none());
        drop(running.remove(0));
        freed += 1;
        if let Some(permit) = (&mut sideline).now_or_never() {
            break permit;
        }
        running.push((&mut held).now_or_never().expect("held work goes first"));
    };
    assert_eq!(freed, 50);
    drop((permit, running));
}

#[test]
fn the_sideline_leaves_the_reserve_free_except_on_an_idle_target() {
    let gate = gate(10);
    gate.set_reserve(4);
    let permits: Vec<_> = std::iter::from_fn(|| gate.try_drain(Drain::Sideline)).collect();
    assert_eq!(permits.len(), 6);
    assert!(gate.try_drain(Drain::Held).is_some());
    drop(permits);
    gate.set_reserve(100);
    let alone = gate.try_drain(Drain::Sideline).expect("an idle target takes one");
    assert!(gate.try_drain(Drain::Sideline).is_none());
    drop(alone);
}

#[tokio::test]
async fn a_smaller_reserve_lets_the_sideline_in() {
    let gate = gate(4);
    gate.set_reserve(4);
    let permit = gate.enter().unwrap();
    let mut sideline = pin!(gate.drain(Drain::Sideline));
    assert!(sideline.as_mut().now_or_never().is_none());
    gate.set_reserve(1);
    assert!(sideline.as_mut().now_or_never().is_some());
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn patience_is_bounded_in_time_and_in_number() {
    let gate = gate(1);
    let permit = gate.enter().unwrap();
    let began = Instant::now();
    let waits = (0..3).map(|_| gate.admit_within(RouteClass::default(), None, 100 * MS));
    let answers = join_all(waits).await;
    assert_eq!(began.elapsed(), 100 * MS);
    assert!(answers.iter().all(|answer| matches!(answer, Err(Refusal::Saturated))));

    let mut first = pin!(gate.admit_within(RouteClass::default(), None, 100 * MS));
    assert!(first.as_mut().now_or_never().is_none());
    let second = gate.admit_within(RouteClass::default(), None, 100 * MS).now_or_never();
    assert_eq!(second.expect("not a second one").unwrap_err(), Refusal::Saturated);
    drop(permit);
    assert!(first.await.is_ok());
}

#[tokio::test]
async fn nobody_is_patient_while_held_work_waits_or_the_target_is_not_direct() {
    let gate = gate(1);
    let permit = gate.enter().unwrap();
    let wait = || gate.admit_within(RouteClass::default(), None, MS);
    {
        let mut held = pin!(gate.drain(Drain::Held));
        assert!(held.as_mut().now_or_never().is_none());
        assert_eq!(wait().now_or_never().unwrap().unwrap_err(), Refusal::Saturated);
    }
    let mut patient = pin!(wait());
    assert!(patient.as_mut().now_or_never().is_none());
    gate.set_state(State::CoolOff);
    assert_eq!(patient.now_or_never().unwrap().unwrap_err(), Refusal::CoolOff);
    gate.set_state(State::Ramping);
    let next = gate.enter().expect("the first is left over");
    assert_eq!(wait().now_or_never().unwrap().unwrap_err(), Refusal::Saturated);
    drop((permit, next));
}

#[tokio::test]
async fn an_unavailable_target_admits_nobody_until_it_is_back() {
    let gate = gate(2);
    gate.set_available(false);
    assert_eq!(gate.enter().unwrap_err(), Refusal::Unavailable);
    assert!(gate.try_drain(Drain::Held).is_none());
    let mut available = pin!(gate.available());
    assert!(available.as_mut().now_or_never().is_none());
    let mut drain = pin!(gate.drain(Drain::Held));
    assert!(drain.as_mut().now_or_never().is_none());
    gate.set_available(false);
    assert_eq!(gate.snapshot().generation, 1, "no change, no generation");
    gate.set_available(true);
    assert_eq!(drain.await.generation(), 2);
    available.await;
}

#[tokio::test]
async fn a_raised_limit_serves_every_waiter_that_fits() {
    let gate = gate(0);
    let mut drains: Vec<_> = (0..4).map(|_| Box::pin(gate.drain(Drain::Held))).collect();
    for drain in &mut drains {
        assert!(drain.now_or_never().is_none());
    }
    gate.set_limit(3);
    let served: Vec<_> = drains.iter_mut().filter_map(FutureExt::now_or_never).collect();
    assert_eq!(
        (served.len(), gate.snapshot().in_flight, gate.snapshot().waiting),
        (3, 3, 1)
    );
}

#[test]
fn above_a_lowered_limit_a_release_frees_nothing() {
    let gate = gate(3);
    let permits: Vec<_> = (0..3).map(|_| gate.enter().unwrap()).collect();
    gate.set_limit(1);
    let mut drain = pin!(gate.drain(Drain::Held));
    let mut cx = Context::from_waker(Waker::noop());
    for (left, permit) in permits.into_iter().enumerate() {
        assert!(drain.as_mut().poll(&mut cx).is_pending(), "{left}");
        drop(permit);
    }
    assert!(drain.as_mut().poll(&mut cx).is_ready());
}

#[tokio::test]
async fn three_calls_in_a_row_that_could_not_be_started_trip() {
    let gate = gate(8);
    let late = gate.enter().unwrap();
    not_started(&gate);
    not_started(&gate);
    gate.enter().unwrap().finish(Outcome::Success);
    not_started(&gate);
    gate.enter().unwrap().finish(Outcome::Unknown);
    drop(gate.enter().unwrap());
    not_started(&gate);
    assert_eq!(gate.snapshot().state, State::Direct);
    assert!(gate.tripped().now_or_never().is_none());
    // Busy is not away.
    gate.enter().unwrap().finish(Outcome::Overloaded { retry_after: None });
    assert_eq!(gate.snapshot().state, State::Direct);
    not_started(&gate);
    assert_eq!(gate.snapshot().state, State::CoolOff);
    assert_eq!(gate.enter().unwrap_err(), Refusal::CoolOff);
    let trip = gate.tripped().now_or_never().unwrap();
    assert_eq!(trip.outcome, Outcome::NotStarted);
    assert_eq!(gate.snapshot().generation, 1);
    assert!(gate.tripped().now_or_never().is_none(), "told once");
    // Of before: it neither heals nor counts as a success.
    late.finish(Outcome::Success);
    let readings = gate.readings();
    assert_eq!(
        (readings.succeeded, readings.not_started, readings.overloaded),
        (1, 5, 1)
    );
    assert_eq!(readings.unknown, 1);
}

#[test]
fn a_failed_probe_trips_and_a_late_one_does_not() {
    let gate = gate(4);
    gate.set_state(State::Probing);
    let late = gate.enter().unwrap();
    assert_eq!(gate.enter().unwrap_err(), Refusal::CoolOff, "one at a time");
    let busy = gate.try_drain(Drain::Held).unwrap();
    busy.finish(Outcome::Overloaded { retry_after: None });
    assert_eq!(gate.snapshot().state, State::Probing);
    let probe = gate.try_drain(Drain::Held).unwrap();
    probe.finish(Outcome::Unknown);
    assert_eq!(gate.snapshot().state, State::CoolOff);
    gate.set_state(State::Probing);
    late.finish(Outcome::NotStarted);
    assert_eq!(gate.snapshot().state, State::Probing);
    gate.try_drain(Drain::Held).unwrap().finish(Outcome::Failed);
    assert_eq!(gate.snapshot().state, State::Probing, "it was carried out");
}

#[tokio::test]
async fn a_cool_off_ends_after_so_many_diverted_calls() {
    let gate = gate(1);
    gate.set_state(State::CoolOff);
    gate.set_cool_off_calls(Some(3));
    let mut cooled = pin!(gate.cooled());
    for _ in 0..2 {
        gate.note_divert(Refusal::CoolOff);
    }
    gate.note_divert(Refusal::Unavailable);
    assert!(cooled.as_mut().now_or_never().is_none());
    gate.note_divert(Refusal::CoolOff);
    cooled.now_or_never().expect("that was the third");
    gate.set_cool_off_calls(None);
    assert!(gate.cooled().now_or_never().is_none());
    let readings = gate.readings();
    assert_eq!((readings.arrived, readings.diverted), (4, 4));
    assert_eq!(gate.readings().arrived, 0);
}

#[tokio::test(start_paused = true)]
async fn latencies_are_read_by_class() {
    let gate = gate(64);
    let (scan, other) = (gate.class("/scan"), gate.class("/other"));
    for (class, outcome) in [
        (scan, Outcome::Success),
        (scan, Outcome::Success),
        (other, Outcome::Success),
        (other, Outcome::Failed),
    ] {
        let mut ticket = gate.admit(class, || None).unwrap();
        ticket.waits();
        tokio::time::advance(20 * MS).await;
        gate.leave(ticket, outcome);
    }
    let mut drained = gate.try_drain(Drain::Sideline).unwrap();
    drained.carries(scan, &customer("acme"));
    tokio::time::advance(20 * MS).await;
    drained.finish(Outcome::Success);
    let readings = gate.readings();
    let counts: Vec<_> = readings
        .classes
        .iter()
        .map(|class| (class.class, class.count))
        .collect();
    assert_eq!(counts, [(scan, 3), (other, 1)]);
    let mean = readings.classes[0].sum / 3.0;
    assert!((mean - 0.02).abs() < 0.0015, "{mean}");
    assert_eq!((readings.succeeded, readings.failed), (4, 1));
    assert!(!readings.saturated);
}

#[test]
fn calls_that_never_wait_are_sampled_evenly() {
    let gate = gate(1);
    let class = gate.class("/scan");
    for _ in 0..16_000 {
        let ticket = gate.admit(class, || None).unwrap();
        gate.leave(ticket, Outcome::Success);
    }
    let readings = gate.readings();
    let count = readings.classes[0].count;
    assert!((15_900..16_100).contains(&count), "{count}");
    assert_eq!(readings.succeeded, 16_000);
    assert!(readings.saturated, "each took the last permit");
    assert_eq!(gate.snapshot().admitted, 16_000);
}
