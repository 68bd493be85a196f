use super::*;
use crate::Sticky;

const TICK: f64 = 0.1;

fn states() -> States {
    States::new(CoolOff::default().jitter(0.0), false, 1, 40.0)
}

fn good(calls: u64) -> Results {
    Results {
        succeeded: calls,
        ..Results::default()
    }
}

fn saturated(results: Results) -> Results {
    Results {
        saturated: true,
        ..results
    }
}

fn lost(calls: u64) -> Results {
    Results {
        not_started: calls,
        ..Results::default()
    }
}

fn failed(calls: u64, of: u64) -> Results {
    Results {
        succeeded: of - calls,
        failed: calls,
        ..Results::default()
    }
}

/// Looks every 100 ms from `from` on; answers the changes with their times in ms.
fn run(states: &mut States, from: u64, steps: &[Results]) -> Vec<(u64, State, Reason)> {
    let mut changes = Vec::new();
    for (at, results) in (from..).step_by(100).zip(steps) {
        if let Some(change) = states.look(Duration::from_millis(at), TICK, *results, 40.0) {
            changes.push((at, change.to, change.reason));
        }
    }
    changes
}

#[test]
fn a_busy_target_never_leaves_direct() {
    let mut states = states();
    assert_eq!(run(&mut states, 0, &[saturated(good(30)); 600]), []);
}

/// Replicas that are full turn away whatever the limit has too much of, and work on the rest.
#[test]
fn being_turned_away_is_a_failure_only_where_nobody_gets_through() {
    let turned_away = |succeeded: u64| Results {
        succeeded,
        overloaded: 30,
        ..Results::default()
    };
    assert_eq!(run(&mut states(), 0, &[turned_away(8); 600]), []);
    assert_eq!(
        run(&mut states(), 0, &[turned_away(0); 1]),
        [(0, State::CoolOff, Reason::Errors)]
    );
    let mixed = Results {
        failed: 9,
        ..turned_away(8)
    };
    assert_eq!(
        run(&mut states(), 0, &[mixed; 2]),
        [(100, State::CoolOff, Reason::Errors)]
    );
}

#[test]
fn the_whole_way_round() {
    let mut states = states();
    let tripped = states.tripped(Duration::from_secs(100), 40.0);
    assert_eq!((tripped.to, tripped.reason), (State::CoolOff, Reason::Unavailable));
    assert_eq!(
        (states.cool_calls(), states.cool_until()),
        (1000, Some(Duration::from_millis(100_250)))
    );
    let mut steps = vec![Results::default(); 4];
    steps.extend([good(2), good(3)]);
    steps.extend([
        saturated(good(4)),
        saturated(good(7)),
        saturated(good(1)),
        saturated(good(16)),
    ]);
    let changes = run(&mut states, 100_000, &steps);
    let wanted = [
        (100_300, State::Probing, Reason::Elapsed),
        (100_500, State::Ramping, Reason::Answered),
        (100_900, State::Direct, Reason::Recovered),
    ];
    // 250 ms are over at the look after 300 ms.
    assert_eq!(changes, wanted);
    assert!((states.last_good() - 32.0).abs() < 1e-9, "4, 8, 16, 32 of 40");
}

#[test]
fn permits_of_each_state() {
    let mut states = states();
    assert_eq!(states.permits(25.0), 25.0);
    states.tripped(Duration::ZERO, 40.0);
    states.cooled(Duration::ZERO);
    assert_eq!(states.permits(25.0), 4.0, "a tenth of the last good limit");
    states.look(Duration::ZERO, TICK, good(5), 40.0);
    assert_eq!((states.state(), states.permits(25.0)), (State::Ramping, 4.0));
    states.look(Duration::ZERO, TICK, saturated(good(4)), 40.0);
    assert_eq!(states.permits(25.0), 8.0);
}

#[test]
fn each_failed_probe_doubles_the_cool_off_up_to_a_second_and_health_forgets_it() {
    let mut states = states();
    let mut now = Duration::from_secs(1);
    states.tripped(now, 40.0);
    let mut times = Vec::new();
    for _ in 0..4 {
        let until = states.cool_until().unwrap();
        times.push((until - now).as_millis());
        now = until;
        assert_eq!(states.look(now, TICK, good(0), 40.0).unwrap().to, State::Probing);
        assert_eq!(states.look(now, TICK, lost(1), 40.0).unwrap().to, State::CoolOff);
    }
    assert_eq!(times, [250, 500, 1000, 1000]);
    states.cooled(now);
    states.look(now, TICK, good(9), 40.0);
    for _ in 0..4 {
        states.look(now, TICK, good(20), 40.0);
    }
    assert_eq!(states.state(), State::Direct);
    for (pause, wanted) in [(59, 1000), (60, 250)] {
        let mut states = States {
            random: Random::new(1),
            recent: VecDeque::new(),
            ..clone(&states)
        };
        let later = now + Duration::from_secs(pause);
        states.tripped(later, 40.0);
        assert_eq!((states.cool_until().unwrap() - later).as_millis(), wanted, "{pause} s");
    }
}

fn clone(of: &States) -> States {
    States {
        settings: of.settings,
        degraded_trips: of.degraded_trips,
        random: Random::new(1),
        state: of.state,
        since: of.since,
        cooling: of.cooling,
        entries: of.entries,
        last_good: of.last_good,
        ramp: of.ramp,
        step: of.step,
        bad_steps: of.bad_steps,
        recent: of.recent.clone(),
    }
}

#[test]
fn jitter_is_bounded_seeded_and_different_between_seeds() {
    let time = |seed: u64| {
        let mut states = States::new(CoolOff::default(), false, seed, 40.0);
        states.tripped(Duration::ZERO, 40.0);
        states.cool_until().unwrap()
    };
    let times: Vec<_> = (0..100).map(time).collect();
    assert!(times.iter().all(|time| (200..=300).contains(&time.as_millis())));
    assert_eq!(time(7), time(7));
    assert!(times.iter().max().unwrap().abs_diff(*times.iter().min().unwrap()) > Duration::from_millis(80));
}

#[test]
fn a_ramp_halves_once_and_gives_up_at_the_second_bad_step() {
    let mut states = states();
    states.tripped(Duration::ZERO, 40.0);
    states.cooled(Duration::ZERO);
    states.look(Duration::ZERO, TICK, good(5), 40.0);
    states.look(Duration::ZERO, TICK, saturated(good(4)), 40.0);
    assert_eq!(states.look(Duration::ZERO, TICK, lost(2), 40.0), None);
    assert_eq!(states.permits(40.0), 4.0);
    let change = states.look(Duration::ZERO, TICK, lost(2), 40.0).unwrap();
    assert_eq!((change.from, change.to), (State::Ramping, State::CoolOff));
}

#[test]
fn results_that_trip() {
    let half = failed(10, 20);
    let most = failed(11, 20);
    let unknown = Results {
        succeeded: 9,
        unknown: 11,
        ..Results::default()
    };
    let degraded = Results {
        degraded: true,
        ..good(5)
    };
    let cases = [
        ("half of them", vec![half; 10], false, None),
        ("more than half", vec![most], false, Some(Reason::Errors)),
        ("too few to say", vec![failed(19, 19)], false, None),
        ("too few in any second", vec![failed(1, 1); 100], false, None),
        ("over a second", vec![failed(3, 3); 7], false, Some(Reason::Errors)),
        ("lost answers", vec![unknown], false, Some(Reason::Errors)),
        ("slow, as a metric", vec![degraded; 9], false, None),
        ("slow, as a trip", vec![degraded], true, Some(Reason::Degraded)),
    ];
    for (name, steps, degraded_trips, wanted) in cases {
        let mut states = States::new(CoolOff::default(), degraded_trips, 1, 40.0);
        let changes = run(&mut states, 0, &steps);
        assert_eq!(changes.first().map(|change| change.2), wanted, "{name}");
    }
}

#[test]
fn a_target_that_only_answers_errors_does_not_pass_its_probes() {
    let mut states = states();
    states.tripped(Duration::ZERO, 40.0);
    states.cooled(Duration::ZERO);
    let change = states.look(Duration::ZERO, TICK, failed(5, 5), 40.0).unwrap();
    assert_eq!((change.to, change.reason), (State::CoolOff, Reason::Errors));
}

#[test]
fn a_target_that_turns_every_probe_away_is_left_alone_again() {
    let turned_away = |calls: u64| Results {
        overloaded: calls,
        ..Results::default()
    };
    let mut states = states();
    states.tripped(Duration::ZERO, 40.0);
    states.cooled(Duration::ZERO);
    let steps = [turned_away(2), turned_away(2), turned_away(1)];
    assert_eq!(run(&mut states, 0, &steps), [(200, State::CoolOff, Reason::Errors)]);
    states.cooled(Duration::from_secs(1));
    let steps = [turned_away(4), good(1), turned_away(9), good(4)];
    assert_eq!(
        run(&mut states, 1000, &steps),
        [(1300, State::Ramping, Reason::Answered)],
        "some get through"
    );
}

#[test]
fn sticky_goes_straight_back() {
    let sticky = CoolOff::default().sticky(Sticky::default().calls(7).time(Duration::from_secs(2)));
    let mut states = States::new(sticky, false, 1, 40.0);
    let changes = run(&mut states, 0, &[saturated(good(3)); 1]);
    assert_eq!(changes, [(0, State::CoolOff, Reason::Saturated)]);
    assert!(states.is_sticky());
    assert_eq!((states.cool_calls(), states.permits(40.0)), (7, 40.0));
    let back = states.cooled(Duration::from_millis(500)).unwrap();
    assert_eq!((back.to, back.reason), (State::Direct, Reason::Calls));
    let changes = run(&mut states, 600, &[saturated(good(3)); 22]);
    let wanted = [
        (600, State::CoolOff, Reason::Saturated),
        (2600, State::Direct, Reason::Elapsed),
        (2700, State::CoolOff, Reason::Saturated),
    ];
    assert_eq!(changes, wanted);
}

#[test]
fn only_a_cool_off_can_be_cooled() {
    assert_eq!(states().cooled(Duration::ZERO), None);
}
