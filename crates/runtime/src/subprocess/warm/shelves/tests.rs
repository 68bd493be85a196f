use super::*;
use tokio::time::advance;

type Letters = Shelves<&'static str, u32>;

fn customer(name: &str) -> CustomerId {
    CustomerId::new(name).unwrap()
}

/// Uses a script of the customer that its name begins with; answers what was ready.
fn used(shelves: &mut Letters, key: &'static str) -> Option<u32> {
    let (worker, dead) = shelves.take(&key, &customer(key.get(..1).unwrap()), Instant::now(), |worker| {
        *worker != 0
    });
    assert!(dead.iter().all(|worker| *worker == 0));
    worker
}

/// Makes what is wanted; answers for whom, and what had to go.
fn made(shelves: &mut Letters, held: u64) -> (Vec<&'static str>, Vec<u32>) {
    let (mut keys, mut all_gone) = (Vec::new(), Vec::new());
    loop {
        let (next, gone) = shelves.next(Instant::now(), 2);
        let done = next.is_none() && gone.is_empty();
        all_gone.extend(gone);
        if let Some((id, key)) = next {
            keys.push(key);
            let number = u32::try_from(keys.len()).unwrap();
            assert_eq!(shelves.put(id, number, held), None);
        }
        if done {
            return (keys, all_gone);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_wait_as_were_used_in_a_second() {
    let mut shelves = Letters::new(WarmOptions::new());
    assert_eq!(used(&mut shelves, "a"), None);
    assert_eq!(made(&mut shelves, 1), (vec![], vec![]), "used once");
    for _ in 0..3 {
        assert_eq!(used(&mut shelves, "a"), None);
    }
    assert_eq!(made(&mut shelves, 5), (vec!["a"; 4], vec![]));
    let stats = shelves.stats();
    assert_eq!((stats.ready, stats.memory, stats.hits, stats.misses), (4, 20, 0, 4));
    assert_eq!(used(&mut shelves, "a"), Some(1), "the oldest first");
    assert_eq!(used(&mut shelves, "b"), None, "nobody else's");
    advance(Duration::from_secs(30)).await;
    assert_eq!(
        shelves.tidy(Instant::now(), |_| true),
        [0; 0],
        "the peak may come again"
    );
    advance(Duration::from_secs(29)).await;
    assert_eq!(used(&mut shelves, "a"), Some(2));
    advance(Duration::from_secs(1)).await;
    assert_eq!(shelves.tidy(Instant::now(), |_| true), [3], "one at a time goes");
    assert_eq!(shelves.tidy(Instant::now(), |_| true), [0; 0]);
    advance(Duration::from_secs(59)).await;
    assert_eq!(shelves.tidy(Instant::now(), |_| true), [4], "idle");
    assert!(shelves.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_second_one_is_made_at_the_same_time_only_in_need() {
    let mut shelves = Letters::new(WarmOptions::new());
    for _ in 0..4 {
        used(&mut shelves, "a");
    }
    let next = |shelves: &mut Letters| shelves.next(Instant::now(), 2).0;
    let (one, two) = (next(&mut shelves).unwrap().0, next(&mut shelves).unwrap().0);
    assert_eq!(next(&mut shelves), None, "never more than two");
    shelves.put(one, 1, 1);
    assert_eq!(next(&mut shelves), None, "half of them are there, or nearly");
    shelves.put(two, 2, 1);
    assert!(next(&mut shelves).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_dead_are_never_handed_out() {
    let mut shelves = Letters::new(WarmOptions::new());
    for _ in 0..3 {
        used(&mut shelves, "a");
    }
    made(&mut shelves, 1);
    shelves.shelves[0].ready[0].0 = 0;
    assert_eq!(used(&mut shelves, "a"), Some(2));
    shelves.shelves[0].ready[0].0 = 0;
    assert_eq!(shelves.tidy(Instant::now(), |worker| *worker != 0), [0]);
    assert_eq!(used(&mut shelves, "a"), None);
}

#[tokio::test(start_paused = true)]
async fn failures_are_repeated_less_and_less_often() {
    let mut shelves = Letters::new(WarmOptions::new());
    let mut tries = Vec::new();
    for second in 0..120_u64 {
        used(&mut shelves, "a");
        while let (Some((id, _)), _) = shelves.next(Instant::now(), 1) {
            tries.push(second);
            shelves.failed(id, Instant::now());
        }
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(tries, [1, 2, 4, 8, 16, 32, 64, 96]);
}

#[tokio::test(start_paused = true)]
async fn limits_hold_and_the_one_used_longest_ago_makes_room() {
    let options = WarmOptions::new().per_customer(3).total(4).memory(100);
    let mut shelves = Letters::new(options);
    for key in ["a1", "a2", "b1"] {
        for _ in 0..2 {
            used(&mut shelves, key);
        }
    }
    // Nothing was measured yet, so memory is guessed at more than there is.
    assert_eq!(made(&mut shelves, 10), (vec![], vec![]));
    shelves.options.memory = 1 << 40;
    assert_eq!(
        made(&mut shelves, 10),
        (vec!["a1", "a2", "b1", "a1"], vec![]),
        "the emptiest first"
    );
    advance(BUSY - Duration::from_secs(1)).await;
    for _ in 0..2 {
        used(&mut shelves, "c1");
    }
    assert_eq!(made(&mut shelves, 10), (vec![], vec![]), "all of them are busy");
    advance(Duration::from_secs(1)).await;
    assert_eq!(
        made(&mut shelves, 10),
        (vec![], vec![]),
        "it was not used so much later"
    );
    assert_eq!(used(&mut shelves, "c1"), None);
    let (keys, gone) = made(&mut shelves, 10);
    assert_eq!((keys, gone.len()), (vec!["c1", "c1"], 2), "a1 makes room for two");
    assert_eq!(shelves.stats().ready, 4);
    shelves.options.memory = 40;
    for _ in 0..2 {
        used(&mut shelves, "b2");
    }
    shelves.shelves.iter_mut().for_each(|shelf| shelf.held = 10);
    let (keys, gone) = made(&mut shelves, 10);
    assert_eq!(
        (keys, gone.len()),
        (vec!["b2", "b2"], 2),
        "b1 or a2, and both if one is not enough"
    );
    assert!(shelves.stats().memory <= 40);
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_has_a_limit() {
    let mut shelves = Letters::new(WarmOptions::new());
    for _ in 0..2 {
        used(&mut shelves, "a");
    }
    made(&mut shelves, 1);
    let names: Vec<&'static str> = (0..2000).map(|n| &*format!("b{n}").leak()).collect();
    for name in names {
        used(&mut shelves, name);
        assert!(shelves.shelves.len() <= KNOWN);
    }
    assert_eq!(used(&mut shelves, "a"), Some(1));
}
