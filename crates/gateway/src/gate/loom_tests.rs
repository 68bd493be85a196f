//! Every interleaving of admissions, hand-overs and changes of mode.

use super::{Refusal, State, admission::Admission, mode::ModeWord, sync::Ordering, waiters::Answer, word::Class};
use loom::{
    sync::{Arc, Notify, atomic::AtomicUsize},
    thread,
};
use std::task::{Context, Poll, Wake, Waker};

struct Signal(Notify);

impl Wake for Signal {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

/// Waits as a task does: polls, and again only when it was woken. A lost wake-up is a deadlock that loom reports.
fn wait(admission: &Admission, class: Class) -> Answer {
    let signal = std::sync::Arc::new(Signal(Notify::new()));
    let waker = Waker::from(signal.clone());
    let cx = Context::from_waker(&waker);
    let mut place = None;
    loop {
        match admission.poll_wait(class, &mut place, &cx) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => signal.0.wait(),
        }
    }
}

fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(check);
}

fn in_flight(admission: &Admission) -> u32 {
    admission.word().read().in_flight()
}

#[test]
fn never_more_in_flight_than_the_limit() {
    model(2, || {
        let admission = Arc::new(Admission::new(1));
        let inside = Arc::new(AtomicUsize::new(0));
        let call = |enter: fn(&Admission) -> bool| {
            let (admission, inside) = (admission.clone(), inside.clone());
            move || {
                if enter(&admission) {
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                    inside.fetch_sub(1, Ordering::Relaxed);
                    admission.release(0);
                }
            }
        };
        let direct = thread::spawn(call(|admission| admission.word().try_direct().is_some()));
        let held = thread::spawn(call(|admission| wait(admission, Class::Held).is_ok()));
        call(|admission| admission.try_drain(Class::Sideline).is_some())();
        direct.join().unwrap();
        held.join().unwrap();
        assert_eq!(in_flight(&admission), 0);
    });
}

#[test]
fn a_release_reaches_whoever_waits() {
    for class in [Class::Held, Class::Patient, Class::Sideline] {
        model(3, move || {
            let admission = Arc::new(Admission::new(1));
            assert!(admission.word().try_direct().is_some());
            let releaser = {
                let admission = admission.clone();
                thread::spawn(move || admission.release(0))
            };
            assert!(wait(&admission, class).is_ok());
            releaser.join().unwrap();
            assert_eq!(in_flight(&admission), 1);
            admission.release(0);
            assert_eq!(in_flight(&admission), 0);
        });
    }
}

#[test]
fn two_waiters_and_one_permit_take_turns() {
    model(2, || {
        let admission = Arc::new(Admission::new(1));
        assert!(admission.word().try_direct().is_some());
        let other = {
            let admission = admission.clone();
            thread::spawn(move || {
                assert!(wait(&admission, Class::Held).is_ok());
                assert_eq!(in_flight(&admission), 1, "granted once");
                admission.release(0);
            })
        };
        admission.release(0);
        assert!(wait(&admission, Class::Sideline).is_ok());
        assert_eq!(in_flight(&admission), 1, "granted once");
        admission.release(0);
        other.join().unwrap();
        assert_eq!(in_flight(&admission), 0);
    });
}

/// The permit may be granted before, while and after its waiter gives up: the next one gets it in any case.
#[test]
fn a_waiter_that_gives_up_hands_its_permit_on() {
    model(3, || {
        let admission = Arc::new(Admission::new(1));
        assert!(admission.word().try_direct().is_some());
        let mut first = None;
        let cx = Context::from_waker(Waker::noop());
        assert!(admission.poll_wait(Class::Held, &mut first, &cx).is_pending());
        let releaser = {
            let admission = admission.clone();
            thread::spawn(move || admission.release(0))
        };
        let second = {
            let admission = admission.clone();
            thread::spawn(move || assert!(wait(&admission, Class::Held).is_ok()))
        };
        drop(first);
        releaser.join().unwrap();
        second.join().unwrap();
        assert_eq!(in_flight(&admission), 1);
        admission.release(0);
        assert_eq!(in_flight(&admission), 0);
    });
}

#[test]
fn a_limit_that_is_lowered_and_raised_again_forgets_nobody() {
    model(3, || {
        let admission = Arc::new(Admission::new(2));
        assert!(admission.word().try_direct().is_some() && admission.word().try_direct().is_some());
        let other = {
            let admission = admission.clone();
            thread::spawn(move || {
                admission.set_limit(1);
                admission.release(0);
                admission.release(0);
            })
        };
        assert!(wait(&admission, Class::Held).is_ok());
        other.join().unwrap();
        assert_eq!(in_flight(&admission), 1);
        assert!(admission.word().try_direct().is_none(), "the limit is 1");
        admission.release(0);
    });
}

#[test]
fn patient_calls_are_told_of_a_trip_or_get_a_permit() {
    model(3, || {
        let admission = Arc::new(Admission::new(1));
        assert!(admission.word().try_direct().is_some());
        let other = {
            let admission = admission.clone();
            thread::spawn(move || {
                assert!(admission.trip(0));
                admission.release(0);
            })
        };
        let answer = wait(&admission, Class::Patient);
        other.join().unwrap();
        assert_eq!(answer, Err(Refusal::CoolOff), "the trip comes before the release");
        assert_eq!(in_flight(&admission), 0);
    });
}

/// Whatever the order: a call of the generation before neither trips the present one nor lengthens its streak.
#[test]
fn an_old_generation_cannot_trip_the_present_one() {
    loom::model(|| {
        let mode = Arc::new(ModeWord::new());
        assert!(!mode.lengthen(0) && !mode.lengthen(0));
        let late = {
            let mode = mode.clone();
            thread::spawn(move || mode.lengthen(0) && mode.trip(0))
        };
        let changed = mode.set_state(State::Ramping);
        assert!(changed);
        let generation = mode.read().generation();
        let early = late.join().unwrap();
        assert_eq!(mode.read().state(), State::Ramping);
        // If it came first, the cool-off had begun before the ramp replaced it.
        assert_eq!(generation, if early { 2 } else { 1 });
        if !early {
            assert!(!mode.lengthen(1), "a new streak begins at one");
        }
    });
}

#[test]
fn of_two_calls_that_fail_together_one_trips() {
    loom::model(|| {
        let mode = Arc::new(ModeWord::new());
        assert!(!mode.lengthen(0));
        let other = {
            let mode = mode.clone();
            thread::spawn(move || mode.lengthen(0) && mode.trip(0))
        };
        let mine = mode.lengthen(0) && mode.trip(0);
        let other = other.join().unwrap();
        assert!(mine ^ other);
        assert_eq!((mode.read().state(), mode.read().generation()), (State::CoolOff, 1));
    });
}

/// A call that is left over takes its permit along; what comes after it finds the limit as it was set.
#[test]
fn what_is_left_over_ends_beside_the_limit() {
    model(2, || {
        let admission = Arc::new(Admission::new(2));
        assert!(admission.word().try_direct().is_some() && admission.word().try_direct().is_some());
        assert!(admission.trip(0));
        admission.set_limit(1);
        assert!(admission.set_state(State::Probing));
        let ends = {
            let admission = admission.clone();
            thread::spawn(move || {
                admission.release_old(0);
                admission.release_old(0);
            })
        };
        assert!(wait(&admission, Class::Held).is_ok(), "beside those that hang");
        assert!(admission.try_drain(Class::Held).is_none(), "but only one");
        ends.join().unwrap();
        assert_eq!((in_flight(&admission), admission.word().read().limit()), (1, 1));
        admission.release(0);
        assert_eq!(in_flight(&admission), 0);
    });
}

/// As [`Gate::give_back`](super::Gate) does it.
fn end(admission: &Admission, generation: u64) {
    if admission.mode().read().generation() == generation {
        admission.release(generation);
    } else {
        admission.release_old(generation);
    }
}

/// A call that ends at this moment is left over or not, but is not counted after it has ended. One that is admitted at this
/// moment may end as if it were left over: that costs a permit until the last of the others has ended, and gives nobody one
/// too many.
#[test]
fn a_call_that_ends_while_the_state_changes_leaves_nothing_behind() {
    for waits in [false, true] {
        model(3, move || {
            let admission = Arc::new(Admission::new(2));
            assert!(admission.word().try_direct().is_some() && admission.word().try_direct().is_some());
            let ends = {
                let admission = admission.clone();
                thread::spawn(move || end(&admission, 0))
            };
            let mut place = None;
            let cx = Context::from_waker(Waker::noop());
            let first = waits.then(|| admission.poll_wait(Class::Held, &mut place, &cx));
            assert!(admission.set_state(State::Ramping));
            ends.join().unwrap();
            if let Some(first) = first {
                let answer = match first {
                    Poll::Ready(answer) => Poll::Ready(answer),
                    Poll::Pending => admission.poll_wait(Class::Held, &mut place, &cx),
                };
                let Poll::Ready(Ok(mode)) = answer else {
                    panic!("{answer:?}");
                };
                end(&admission, mode.generation());
            }
            let limit = admission.word().read().limit();
            assert_eq!(in_flight(&admission), 1);
            assert!(limit == 3 || (waits && limit == 2), "{limit}");
            end(&admission, 0);
            assert_eq!((in_flight(&admission), admission.word().read().limit()), (0, 2));
        });
    }
}
