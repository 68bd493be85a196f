use super::{super::*, Random};
use tokio::time::{Instant, advance};

fn budget(percent: u32, min_per_sec: u32, ttl: u64) -> RetryBudget {
    let config = BudgetConfig {
        percent,
        min_per_sec,
        ttl_ms: ttl * 1000,
    };
    RetryBudget::new(&config).unwrap()
}

fn draw_all(budget: &RetryBudget) -> u32 {
    (0..).take_while(|_| budget.withdraw()).count().try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn calls_pay_for_their_share_of_retries() {
    let budget = budget(30, 0, 10);
    for _ in 0..100 {
        budget.deposit();
    }
    let clone = budget.clone();
    assert_eq!(clone.balance(), 30, "a clone is the same budget");
    assert_eq!(draw_all(&budget), 30);
    assert_eq!(clone.balance(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_calls_there_is_the_reserve() {
    let budget = budget(20, 8, 10);
    assert_eq!(draw_all(&budget), 80);
    advance(Duration::from_secs(5)).await;
    assert!(
        (25..=40).contains(&draw_all(&budget)),
        "five seconds bring 40, less what fades"
    );
    advance(Duration::from_secs(3_600)).await;
    assert_eq!(draw_all(&budget), 80, "what is not used does not pile up");
}

#[tokio::test(start_paused = true)]
async fn unused_credit_fades() {
    let budget = budget(100, 0, 10);
    for _ in 0..1000 {
        budget.deposit();
    }
    advance(Duration::from_secs(10)).await;
    assert!((340..=370).contains(&budget.balance()), "{budget:?}");
    advance(Duration::from_secs(20)).await;
    assert!((40..=50).contains(&budget.balance()), "{budget:?}");
    advance(Duration::from_secs(3_600)).await;
    assert_eq!(draw_all(&budget), 0);
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_retries_are_the_share_and_the_reserve() {
    let budget = budget(20, 10, 10);
    let mut retries = 0;
    for second in 0..100 {
        for _ in 0..500 {
            budget.deposit();
            retries += u32::from(second >= 20 && budget.withdraw());
        }
        retries += if second >= 20 { draw_all(&budget) } else { 0 };
        advance(Duration::from_secs(1)).await;
    }
    // 80 s with 500 calls each at 20 % and 10 besides, and the credit of ten quiet seconds before
    assert!((8_800..=8_800 + 1_100).contains(&retries), "{retries}");
}

#[tokio::test(start_paused = true)]
async fn the_invariant_holds_for_any_traffic() {
    let mut random = Random(3);
    for _ in 0..200 {
        let (percent, per_sec, ttl) = (random.below(300), random.below(50), 1 + random.below(60));
        let budget = budget(percent.try_into().unwrap(), per_sec.try_into().unwrap(), ttl);
        let begin = Instant::now();
        let (mut calls, mut retries) = (0, 0);
        for _ in 0..400 {
            match random.below(8) {
                0 => advance(Duration::from_millis(random.below(3_000))).await,
                1..=3 => {
                    budget.deposit();
                    calls += 1;
                }
                _ => retries += u64::from(budget.withdraw()),
            }
            let millis = u64::try_from(begin.elapsed().as_millis()).unwrap();
            assert!(retries * 1000 <= calls * percent * 10 + per_sec * (ttl * 1000 + millis));
        }
    }
}

#[test]
fn threads_together_draw_no_more_than_there_is() {
    let budget = budget(100, 0, 600);
    let drawn: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..2_000).for_each(|_| budget.deposit());
                    (0..4_000).map(|_| u32::from(budget.withdraw())).sum::<u32>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(drawn + draw_all(&budget), 16_000);
}

#[test]
fn a_full_budget_stays_full() {
    let budget = budget(1000, u32::MAX, 600);
    budget.deposit();
    assert_eq!(budget.balance(), u32::MAX / 1000);
}
