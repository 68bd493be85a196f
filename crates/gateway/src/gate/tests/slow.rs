//! Customers whose calls take too long: how soon that is noticed, and how it is forgotten.

use super::{customers::watched, *};

const SLOW: Flags = Flags {
    slow: true,
    excluded: true,
    noisy: false,
};

struct Calls {
    gate: Arc<Gate>,
    class: RouteClass,
}

impl Calls {
    /// Beside a call of somebody else. Customers may be silent for 40 ms.
    fn new(limit: u32) -> (Self, Permit) {
        let (gate, class) = watched(limit);
        gate.customers().set_overdue(40 * MS);
        let calls = Self { gate, class };
        let other = calls.begin("other").unwrap();
        (calls, other)
    }

    fn begin(&self, name: &str) -> Result<Permit, Refusal> {
        let ticket = self.gate.admit(self.class, || Some(customer(name)))?;
        Ok(self.gate.permit(ticket))
    }

    fn cell(&self, name: &str) -> u16 {
        self.gate.customers().cell(&customer(name)).unwrap()
    }

    fn scan(&self, name: &str) -> CustomerReading {
        let cell = self.cell(name);
        let found = self.gate.customers().scan().into_iter().find(|one| one.cell == cell);
        found.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_customer_gets_no_more_calls_but_one_to_try_it_out() {
    let (calls, other) = Calls::new(20);
    let mut running = vec![calls.begin("slow").unwrap()];
    tokio::time::advance(40 * MS).await;
    running.push(calls.begin("slow").expect("not silent for long"));
    tokio::time::advance(MS).await;
    running.push(calls.begin("slow").expect("a trial"));
    for _ in 0..15 {
        assert_eq!(calls.begin("slow").unwrap_err(), Refusal::CustomerShare);
        assert!(
            calls
                .gate
                .customer_terms(false)
                .customers
                .iter()
                .any(|terms| terms.skip)
        );
        tokio::time::advance(40 * MS).await;
    }
    drop(calls.begin("third").expect("the others go on"));
    tokio::time::advance(41 * MS).await;
    // Given up and not answered: that shows nothing.
    drop(calls.begin("slow").expect("another trial, a good while later"));
    tokio::time::advance(41 * MS).await;
    assert_eq!(calls.begin("slow").unwrap_err(), Refusal::CustomerShare);
    drop(other);
    assert!(calls.begin("slow").is_ok(), "alone it harms nobody");
}

#[tokio::test(start_paused = true)]
async fn who_is_known_to_be_slow_is_not_tried_out() {
    let (calls, _other) = Calls::new(20);
    calls.gate.customers().flag(calls.cell("slow"), SLOW);
    let call = calls.begin("slow").unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    call.finish(Outcome::Success);
    let _call = calls.begin("slow").unwrap();
    for _ in 0..20 {
        tokio::time::advance(100 * MS).await;
        assert_eq!(calls.begin("slow").unwrap_err(), Refusal::CustomerShare);
    }
}

/// One replica of several hangs, and has got one of its calls.
#[tokio::test(start_paused = true)]
async fn a_quick_trial_shows_that_one_call_hangs_and_not_the_customer() {
    let (calls, _other) = Calls::new(20);
    let _hung = calls.begin("acme").unwrap();
    for _ in 0..20 {
        tokio::time::advance(50 * MS).await;
        let trial = calls.begin("acme").expect("a trial");
        tokio::time::advance(10 * MS).await;
        trial.finish(Outcome::Success);
        let next = [calls.begin("acme").unwrap(), calls.begin("acme").unwrap()];
        tokio::time::advance(10 * MS).await;
        for call in next {
            call.finish(Outcome::Success);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_slow_gets_its_places_back_one_after_the_other() {
    let (calls, _other) = Calls::new(100);
    let cell = calls.cell("slow");
    calls.gate.customers().flag(cell, SLOW);
    let call = calls.begin("slow").unwrap();
    tokio::time::advance(500 * MS).await;
    call.finish(Outcome::Success);
    calls.gate.customers().flag(cell, Flags::default());
    let mut places = Vec::new();
    for _ in 0..60 {
        let mut running = Vec::new();
        while let (true, Ok(permit)) = (running.len() < 50, calls.begin("slow")) {
            running.push(permit);
        }
        places.push(running.len());
        tokio::time::advance(10 * MS).await;
        for permit in running {
            permit.finish(Outcome::Success);
        }
        calls.scan("slow");
        assert!(
            calls.gate.customer_terms(true).scout.is_some() || places.len() > 50,
            "one lease at a time"
        );
    }
    assert_eq!(places.first(), Some(&5), "as many as while it was slow");
    assert!(places.is_sorted(), "{places:?}");
    assert!(places[25] < 20 && places.last() == Some(&50), "{places:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_customer_that_has_gone_fades() {
    let (calls, _other) = Calls::new(20);
    let cell = calls.cell("slow");
    calls.gate.customers().flag(cell, SLOW);
    let call = calls.begin("slow").unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    call.finish(Outcome::Success);
    let known = calls.scan("slow").ratio;
    assert!(known > 20.0, "{known}");
    tokio::time::advance(Duration::from_secs(10)).await;
    let later = calls.scan("slow").ratio;
    assert!((0.3..0.4).contains(&(later / known)), "{known} {later}");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(calls.scan("slow").ratio < 1.5);
    calls.gate.customers().flag(cell, Flags::default());
    assert!(calls.gate.customers().scan().iter().all(|one| one.cell != cell));
}

#[test]
fn customers_that_fall_together_are_told_apart() {
    let gate = Arc::new(Gate::new(100));
    gate.seed(1);
    gate.set_watch(true);
    let mut cells: Vec<_> = (0..1000)
        .map(|id| gate.customers().cell(&customer(&format!("customer-{id}"))).unwrap())
        .collect();
    let again = gate.customers().cell(&customer("customer-7")).unwrap();
    assert_eq!(again, cells[7]);
    cells.sort_unstable();
    cells.dedup();
    assert_eq!(cells.len(), 1000);
}

#[tokio::test(start_paused = true)]
async fn cells_that_nobody_needs_any_more_are_given_back() {
    let (calls, _other) = Calls::new(100);
    for round in 0..10 {
        for id in 0..1000 {
            drop(calls.begin(&format!("{round}-{id}")).unwrap());
        }
        tokio::time::advance(Duration::from_secs(6)).await;
        drop(calls.gate.customers().scan());
        let known = format!("{:?}", calls.gate.customers());
        assert_eq!(known, "Customers(1 named)", "the one with a call in flight");
    }
}
