mod budget;

use super::*;

fn plain() -> RetryPolicy {
    RetryPolicy::default().with_jitter(Jitter::None)
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Numbers for the seeded loops below.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % limit
    }

    fn policy(&mut self) -> RetryPolicy {
        let initial = 1 + self.below(5_000);
        RetryPolicy {
            max_attempts: u32::try_from(1 + self.below(20)).unwrap(),
            initial_ms: initial,
            cap_ms: initial + self.below(1_000_000),
            factor: [1.0, 1.001, 1.5, 2.0, 3.3, 100.0][usize::try_from(self.below(6)).unwrap()],
            total_ms: (self.below(3) > 0).then(|| 1 + self.below(2_000_000)),
            jitter: if self.below(2) == 0 { Jitter::Full } else { Jitter::None },
            reset_after_ms: None,
        }
    }
}

#[test]
fn delays_double_up_to_the_cap() {
    let policy = plain().with_max_attempts(u32::MAX);
    let seconds: Vec<_> = (1..=11).map(|n| policy.delay(0, n).unwrap().as_secs()).collect();
    assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(policy.delay(0, u32::MAX - 1), Some(Duration::from_secs(300)));
    assert_eq!(policy.delay(0, 0), policy.delay(0, 1), "attempts count from 1");
}

#[test]
fn delays_never_shrink_never_pass_the_cap_and_jitter_stays_below_them() {
    let mut random = Random(1);
    for seed in 0..2_000 {
        let policy = random.policy();
        policy.validate().unwrap();
        let mut before = Duration::ZERO;
        for attempt in 1..policy.max_attempts {
            let whole = policy.clone().with_jitter(Jitter::None).delay(seed, attempt).unwrap();
            let full = policy.clone().with_jitter(Jitter::Full).delay(seed, attempt).unwrap();
            assert!(
                before <= whole && whole <= Duration::from_millis(policy.cap_ms),
                "{policy:?}"
            );
            assert!(full <= whole, "{policy:?}");
            before = whole;
        }
        assert_eq!(policy.delay(seed, policy.max_attempts), None);
    }
}

#[test]
fn full_jitter_is_even_and_differs_by_seed_and_attempt() {
    let policy = RetryPolicy::default()
        .with_initial(Duration::from_secs(100))
        .with_factor(1.0);
    let draws: Vec<_> = (0..10_000)
        .map(|seed| policy.delay(seed, 1).unwrap().as_millis())
        .collect();
    let mut tenths = [0_u32; 10];
    for draw in &draws {
        tenths[usize::try_from(*draw / 10_001).unwrap()] += 1;
    }
    assert!(tenths.iter().all(|count| (850..1150).contains(count)), "{tenths:?}");
    assert_ne!(policy.delay(1, 1), policy.delay(1, 2));
    assert_ne!(policy.delay(1, 1), policy.delay(2, 1));
    assert_eq!(
        (spread(10, 0), spread(10, u64::MAX), spread(u64::MAX, u64::MAX)),
        (0, 10, u64::MAX)
    );
}

#[test]
fn the_jitter_of_a_seed_is_the_same_in_every_release() {
    // Workers of two releases must agree about one stored execution.
    let policy = RetryPolicy::default();
    let millis: Vec<_> = (1..5).map(|n| policy.delay(42, n).unwrap().as_millis()).collect();
    assert_eq!(millis, [951, 893, 3912, 2279]);
}

#[test]
fn settings_that_make_no_sense_do_not_panic() {
    for factor in [f32::NAN, f32::INFINITY, -1.0, 0.0, 0.5, f32::MAX] {
        for (initial, cap) in [
            (0, 0),
            (0, u64::MAX),
            (u64::MAX, 0),
            (u64::MAX, u64::MAX),
            (1, u64::MAX),
        ] {
            let mut policy = plain().with_factor(factor).with_max_attempts(u32::MAX).with_total(None);
            (policy.initial_ms, policy.cap_ms) = (initial, cap);
            for attempt in [0, 1, 2, 3, 5_000, u32::MAX - 1] {
                let delay = policy.delay(3, attempt).unwrap();
                assert!(delay <= Duration::from_millis(cap));
                let next = policy.next(at(i64::MAX), at(i64::MIN), attempt, Retry::Backoff, 3);
                assert_eq!(next, Next::At(at(i64::MAX)));
                assert!(policy.delays(3).next_delay().is_some());
            }
        }
    }
}

#[test]
fn next_follows_verdict_attempts_and_total() {
    let policy = plain().with_max_attempts(3).with_total(Some(Duration::from_secs(10)));
    let next = |now, attempt, verdict| policy.next(at(now), at(0), attempt, verdict, 0);

    assert_eq!(next(500, 1, Retry::Backoff), Next::At(at(1_500)));
    assert_eq!(next(500, 2, Retry::Backoff), Next::At(at(2_500)));
    assert_eq!(next(500, 3, Retry::Backoff), Next::Exhausted);

    assert_eq!(
        next(9_000, 1, Retry::Backoff),
        Next::At(at(10_000)),
        "exactly at the end is not later"
    );
    assert_eq!(next(9_001, 1, Retry::Backoff), Next::Exhausted);

    assert_eq!(
        next(500, 2, Retry::At(at(700))),
        Next::At(at(700)),
        "sooner than the delay"
    );
    assert_eq!(
        next(500, 1, Retry::At(at(9_999))),
        Next::At(at(9_999)),
        "later than the delay"
    );
    assert_eq!(
        next(500, 1, Retry::At(at(500))),
        Next::At(at(1_500)),
        "a time that has passed says nothing"
    );
    assert_eq!(next(500, 1, Retry::At(at(10_001))), Next::Exhausted);
    assert_eq!(next(500, 3, Retry::At(at(700))), Next::Exhausted);

    for attempt in [1, 3, 9] {
        assert_eq!(next(500, attempt, Retry::Never), Next::Never);
        assert_eq!(next(99_999, attempt, Retry::Reauthorize), Next::Reauthorize);
    }
}

#[test]
fn no_attempt_is_begun_too_late_or_too_often() {
    let mut random = Random(2);
    for seed in 0..2_000 {
        let policy = random.policy();
        let (first, mut now, mut attempt) = (at(1_000), at(1_000), 1);
        loop {
            now = now.plus(Duration::from_millis(random.below(10_000)));
            let told = now
                .plus(Duration::from_millis(random.below(20_000)))
                .minus(Duration::from_secs(10));
            let verdict = if random.below(3) == 0 {
                Retry::At(told)
            } else {
                Retry::Backoff
            };
            match policy.next(now, first, attempt, verdict, seed) {
                Next::At(time) => {
                    assert!(time >= now);
                    assert!(
                        policy
                            .total_ms
                            .is_none_or(|total| time <= first.plus(Duration::from_millis(total)))
                    );
                    assert!(verdict != Retry::At(told) || told <= now || time == told);
                    (now, attempt) = (time, attempt + 1);
                }
                end => {
                    assert_eq!(end, Next::Exhausted);
                    break;
                }
            }
        }
        assert!(attempt <= policy.max_attempts);
    }
}

#[test]
fn validation_names_every_problem() {
    RetryPolicy::default().validate().unwrap();
    RetryPolicy::never().validate().unwrap();
    let bad = RetryPolicy {
        max_attempts: 0,
        initial_ms: 0,
        cap_ms: 0,
        factor: f32::NAN,
        total_ms: Some(0),
        jitter: Jitter::Full,
        reset_after_ms: Some(0),
    };
    let error = bad.validate().unwrap_err();
    assert_eq!(error.code(), Code::SetupInvalid);
    let pointers: Vec<_> = error.problems().iter().map(|p| p.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/max_attempts",
            "/initial_ms",
            "/cap_ms",
            "/factor",
            "/total_ms",
            "/reset_after_ms"
        ]
    );
    let error = plain().with_cap(Duration::from_millis(1)).validate().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/cap_ms is at least initial_ms, which is 1000"),
        "{error}"
    );
    let error = BudgetConfig::default()
        .with_percent(1001)
        .with_ttl(Duration::ZERO)
        .validate()
        .unwrap_err();
    assert_eq!(error.problems().len(), 2);
}

#[test]
fn json_goes_round_and_typos_are_refused() {
    let policy = plain().with_total(None).with_reset_after(Some(Duration::from_secs(60)));
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(
        serde_json::from_str::<RetryPolicy>(&text).unwrap(),
        policy,
        "null is not the default: {text}"
    );
    assert_eq!(
        serde_json::from_str::<RetryPolicy>("{}").unwrap(),
        RetryPolicy::default()
    );
    assert!(serde_json::from_str::<RetryPolicy>(r#"{ "max_attempt": 3 }"#).is_err());
    assert!(serde_json::from_str::<RetryPolicy>(r#"{ "jitter": "equal" }"#).is_err());
    assert_eq!(
        serde_json::from_str::<BudgetConfig>("{}").unwrap(),
        BudgetConfig::default()
    );
    assert!(serde_json::from_str::<BudgetConfig>(r#"{ "percents": 3 }"#).is_err());
}

#[test]
fn the_schema_says_what_each_field_means() {
    for schema in [schemars::schema_for!(RetryPolicy), schemars::schema_for!(BudgetConfig)] {
        let schema = schema.to_value();
        assert_eq!(schema["additionalProperties"], false);
        for (name, field) in schema["properties"].as_object().unwrap() {
            assert!(field["description"].is_string(), "{name} has no description");
            assert!(field.get("default").is_some(), "{name} shows no default");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_series_gives_the_delays_of_the_policy() {
    let policy = RetryPolicy::default();
    let expected: Vec<_> = (1..5).map(|n| policy.delay(7, n).unwrap()).collect();
    let mut delays = policy.delays(7);
    delays.reset();
    assert_eq!(
        delays.by_ref().collect::<Vec<_>>(),
        expected,
        "a reset before the first failure changes nothing"
    );
    assert_eq!(delays.next_delay(), None);
    delays.reset();
    let again: Vec<_> = delays.collect();
    assert_eq!(again.len(), 4);
    assert_ne!(again, expected, "the jitter of the second series is another one");
}

#[tokio::test(start_paused = true)]
async fn a_series_ends_with_the_total_time() {
    let policy = plain()
        .with_max_attempts(u32::MAX)
        .with_total(Some(Duration::from_secs(10)));
    let mut delays = policy.delays(0);
    let begin = tokio::time::Instant::now();
    let mut begun = Vec::new();
    while let Some(delay) = delays.next_delay() {
        tokio::time::sleep(delay).await;
        begun.push(begin.elapsed().as_secs());
    }
    assert_eq!(begun, [1, 3, 7], "the next one would begin after 15 s");
    delays.reset();
    assert_eq!(delays.next_delay(), Some(Duration::from_secs(1)));
}

#[tokio::test(start_paused = true)]
async fn a_long_attempt_begins_a_new_series() {
    let minute = Duration::from_secs(60);
    let policy = plain()
        .with_max_attempts(3)
        .with_total(Some(minute * 3 / 2))
        .with_reset_after(Some(minute));
    let mut delays = policy.delays(0);
    for _ in 0..3 {
        for seconds in [1, 2] {
            let delay = delays.next_delay().unwrap();
            assert_eq!(delay, Duration::from_secs(seconds));
            tokio::time::sleep(delay).await;
        }
        tokio::time::sleep(minute).await;
    }
    delays.next_delay().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(
        delays.next_delay(),
        Some(Duration::from_secs(2)),
        "it ran for 59 s only"
    );
}

#[cfg(feature = "backoff")]
mod backoff_crate {
    use super::super::*;
    use backoff::{ExponentialBackoff, backoff::Backoff};

    #[tokio::test(start_paused = true)]
    async fn a_policy_runs_under_it() {
        let mut ours = RetryPolicy::default().into_backoff(9);
        let waits: Vec<_> = std::iter::from_fn(|| ours.next_backoff()).collect();
        assert_eq!(waits, RetryPolicy::default().delays(9).collect::<Vec<_>>());
        ours.reset();
        assert!(ours.next_backoff().is_some());
    }

    #[test]
    fn its_settings_become_a_valid_policy() {
        let theirs = ExponentialBackoff {
            initial_interval: Duration::ZERO,
            max_interval: Duration::ZERO,
            multiplier: f64::NAN,
            randomization_factor: 0.0,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        let policy = RetryPolicy::from(theirs);
        policy.validate().unwrap();
        assert_eq!(
            (policy.jitter, policy.total_ms, policy.max_attempts),
            (Jitter::None, None, u32::MAX)
        );
        let ours = RetryPolicy::from(ExponentialBackoff::default());
        assert_eq!((ours.jitter, ours.factor.to_bits()), (Jitter::Full, 1.5_f32.to_bits()));
    }
}
