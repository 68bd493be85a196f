//! Every case, shortened, keeps what must always be kept; figures are for the program to print.

use crosspoint_simulator::{
    case::{self, Case},
    run,
};

/// The same course of events at a tenth of the traffic, so that debug builds are quick. Replicas shrink with it.
fn small(name: &str) -> Case {
    let mut case = case::named(name).expect("a bundled case");
    case.load.rate /= 8.0;
    case.pool.workers = (case.pool.workers / 8).max(1);
    if case.load.classes.iter().any(|class| class.seconds > 0.3) {
        case.pool.workers = 4;
    }
    case
}

fn keeps(name: &str, seed: u64) {
    let report = run(&small(name), seed).expect("it runs");
    assert_eq!(report.broken(), Vec::<String>::new(), "{name} with seed {seed}");
    assert!(report.figure("calls") > 100.0, "{name} has hardly any calls");
    assert!(report.figure("answered") > 0.0, "{name} answers nobody");
}

macro_rules! cases {
    ($($test:ident: $name:literal,)+) => {
        $(
            #[test]
            fn $test() {
                keeps($name, 11);
            }
        )+

        #[test]
        fn no_case_is_forgotten() {
            let tested = [$($name),+];
            for case in case::all() {
                assert!(tested.contains(&case.name.as_str()), "{} has no test", case.name);
            }
        }
    };
}

cases! {
    w01_step: "w01",
    w02_spike: "w02",
    w02_of_one_customer: "w02-one-customer",
    w02_at_a_tenth: "w02-tenth",
    w03_ramp: "w03",
    w04_diurnal: "w04",
    w05_slow_death: "w05",
    w06_flapping: "w06",
    w07_one_bad_replica: "w07",
    w08_noisy_customer: "w08-noisy",
    w08_slow_customer: "w08-slow",
    w09_killed_gateway: "w09",
    w10_store_down: "w10",
    w10_store_down_in_cool_off: "w10-cool-off",
    w11_rolling_deploy: "w11",
    w12_poison: "w12",
    w13_no_overload: "w13",
    w13_pauses_together: "w13-together",
    w14_disconnects: "w14",
    w15_retrying_clients: "w15",
    start_up_in_overload: "start-up-in-overload",
    three_gateways: "three-gateways",
    store_latency: "store-latency",
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_one_does_not() {
    // One customer, many that take turns and are watched, a gateway that dies.
    for name in ["w02-one-customer", "w08-noisy", "w09"] {
        let case = small(name);
        let one = run(&case, 5).expect("it runs").fingerprint();
        assert_eq!(one, run(&case, 5).expect("it runs").fingerprint(), "{name}");
        assert_ne!(one, run(&case, 6).expect("it runs").fingerprint(), "{name}");
    }
}

#[test]
fn a_store_that_is_away_makes_no_promises() {
    let mut case = small("w01");
    case.faults = Case::parse(
        r#"{"name":"x","title":"x","duration":1,"disturbance":[0,1],"load":{"rate":1},
            "faults":[{"kind":"store-down","from":0,"until":1000}]}"#,
    )
    .expect("a case")
    .faults;
    let report = run(&case, 1).expect("it runs");
    assert_eq!(report.broken(), Vec::<String>::new());
    assert!(
        report.figure("polled").abs() < f64::EPSILON,
        "nothing could be accepted"
    );
    assert!(report.figure("refused") > 0.0, "somebody had to be refused");
}
