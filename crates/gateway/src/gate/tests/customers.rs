//! Who has how much in flight, and what that means for the next call.

use super::*;

pub(super) fn watched(limit: u32) -> (Arc<Gate>, RouteClass) {
    let gate = gate(limit);
    let class = gate.class("/scan");
    gate.set_baseline(class, 10 * MS);
    gate.set_watch(true);
    (gate, class)
}

#[test]
fn beside_others_a_customer_gets_its_share_of_a_busy_target_and_no_more() {
    let (gate, class) = watched(20);
    let admit = |name: &'static str| {
        gate.admit(class, || Some(customer(name)))
            .map(|ticket| gate.permit(ticket))
    };
    let mut alone: Vec<_> = (0..20).map(|_| admit("acme").expect("nobody else is there")).collect();
    alone.truncate(13);
    let other = admit("other").unwrap();
    assert_eq!(admit("acme").unwrap_err(), Refusal::CustomerShare);
    let others: Vec<_> = (0..5).map(|_| admit("other").unwrap()).collect();
    assert_eq!(admit("other").unwrap_err(), Refusal::CustomerShare);
    let terms = gate.customer_terms(false).customers;
    let mut skipped: Vec<_> = terms
        .iter()
        .map(|terms| (terms.customer.as_str(), terms.skip))
        .collect();
    skipped.sort_unstable();
    assert_eq!(skipped, [("acme", true), ("other", true)]);
    drop((alone, other, others));
    assert!(gate.customer_terms(false).customers.is_empty());
    assert!(gate.customers().scan().iter().all(|reading| reading.in_flight == 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_customer_is_seen_capped_and_kept_out_of_the_histograms() {
    let (gate, class) = watched(40);
    let slow = customer("slow");
    let admit = || {
        gate.admit(class, || Some(slow.clone()))
            .map(|ticket| gate.permit(ticket))
    };
    let call = admit().unwrap();
    tokio::time::advance(70 * MS).await;
    let [reading] = gate.customers().scan()[..] else {
        panic!()
    };
    assert_eq!((reading.in_flight, reading.stalled), (1, 70 * MS));
    call.finish(Outcome::Success);
    assert_eq!(gate.readings().classes[0].count, 1);
    let [reading] = gate.customers().scan()[..] else {
        panic!()
    };
    assert!(
        (reading.ratio - 7.0).abs() < 1e-3 && reading.busy == 70 * MS,
        "{reading:?}"
    );
    assert_eq!(gate.customer_terms(false).customers[0].charge, 7);

    let flags = Flags {
        slow: true,
        excluded: true,
        ..Flags::default()
    };
    gate.customers().flag(reading.cell, flags);
    let running = [admit().unwrap(), admit().unwrap()];
    assert_eq!(admit().unwrap_err(), Refusal::CustomerShare);
    assert!(gate.customer_terms(false).customers[0].skip);
    for permit in running {
        permit.finish(Outcome::Success);
    }
    assert!(gate.readings().classes.is_empty());
    assert_eq!(gate.customers().scan()[0].flags, flags);
    gate.set_watch(false);
    assert!(gate.customer_terms(false).customers.is_empty(), "names are forgotten");
    assert!(admit().is_ok());
}

/// Cells by customer, of customers with one call each.
fn cells(seed: Option<u64>) -> Vec<u16> {
    let gate = Arc::new(Gate::new(100));
    if let Some(seed) = seed {
        gate.seed(seed);
    }
    gate.set_watch(true);
    let names = ["acme", "bolt", "cope", "dyne"];
    names
        .map(|name| gate.customers().cell(&customer(name)).unwrap())
        .to_vec()
}

#[test]
fn a_seed_decides_who_has_which_cell() {
    assert_eq!(cells(Some(7)), cells(Some(7)));
    assert_ne!(cells(Some(7)), cells(Some(8)));
    assert_ne!(cells(None), cells(None));
}

#[test]
fn one_lease_at_a_time_brings_calls_of_a_slow_customer() {
    let (gate, class) = watched(20);
    let slow = customer("slow");
    drop(gate.permit(gate.admit(class, || Some(slow.clone())).unwrap()));
    let cell = gate.customers().cell(&slow).unwrap();
    let flags = Flags {
        slow: true,
        ..Flags::default()
    };
    gate.customers().flag(cell, flags);
    assert!(gate.may_begin(&slow));
    let first = gate.customer_terms(true);
    assert!(first.scout.is_some() && first.customers.is_empty());
    let second = gate.customer_terms(true);
    assert!(second.scout.is_none() && second.customers[0].skip);
    let mut permit = gate.try_drain(Drain::Held).unwrap();
    permit.carries(class, &slow);
    drop(first);
    assert!(!gate.may_begin(&slow));
    let third = gate.customer_terms(true);
    assert!(
        third.scout.is_none() && third.customers[0].skip,
        "it has its one permit"
    );
    drop(permit);
    assert!(gate.customer_terms(true).scout.is_some());
}

#[tokio::test(start_paused = true)]
async fn waiting_in_memory_gives_no_customer_more_than_its_share() {
    let (gate, class) = watched(10);
    let full: Vec<_> = (0..10)
        .map(|at| {
            let name = customer(&format!("other-{at}"));
            gate.permit(gate.admit(class, || Some(name)).unwrap())
        })
        .collect();
    let noisy = customer("noisy");
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let (gate, noisy) = (Arc::clone(&gate), noisy.clone());
            tokio::spawn(async move { gate.admit_within(class, Some(&noisy), 100 * MS).await })
        })
        .collect();
    tokio::time::sleep(MS).await;
    let mut others = full.into_iter();
    others.by_ref().take(1).for_each(drop);
    tokio::time::sleep(MS).await;
    others.by_ref().take(1).for_each(drop);
    tokio::time::sleep(MS).await;
    others.by_ref().take(1).for_each(drop);
    tokio::time::sleep(MS).await;
    others.by_ref().take(1).for_each(drop);
    let mut admitted = Vec::new();
    let mut refused = 0;
    for call in waiting {
        match call.await.unwrap() {
            Ok(permit) => admitted.push(permit),
            Err(Refusal::CustomerShare) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((admitted.len(), refused), (3, 2), "30 % of ten");
}

#[test]
fn a_noisy_customer_takes_its_turn_in_the_queue_while_the_target_is_busy() {
    let (gate, class) = watched(20);
    let admit = |name: &'static str| {
        let customer = || Some(customer(name));
        gate.admit(class, customer).map(|ticket| gate.permit(ticket))
    };
    let first = admit("noisy").unwrap();
    let cell = gate.customers().cell(&customer("noisy")).unwrap();
    let flags = Flags {
        noisy: true,
        ..Flags::default()
    };
    gate.customers().flag(cell, flags);
    let others: Vec<_> = ["a", "b", "c"]
        .iter()
        .flat_map(|name| (0..4).map(|_| admit(name).unwrap()))
        .collect();
    drop(admit("noisy").expect("there is room"));
    let last = admit("d").unwrap();
    assert_eq!(admit("noisy").unwrap_err(), Refusal::CustomerShare);
    assert!(gate.may_begin(&customer("noisy")), "from the queue");
    assert!(admit("d").is_ok());
    drop((first, others, last));
}

#[tokio::test(start_paused = true)]
async fn one_late_call_does_not_make_a_customer_slow() {
    let (gate, class) = watched(20);
    let call = async |took: Duration| {
        let permit = gate.permit(gate.admit(class, || Some(customer("acme"))).unwrap());
        tokio::time::advance(took).await;
        permit.finish(Outcome::Success);
        gate.customers().scan()[0]
    };
    call(10 * MS).await;
    let late = call(400 * MS).await;
    assert!((late.ratio - 2.8).abs() < 0.01, "below what excludes: {late:?}");
    let flags = Flags {
        slow: true,
        ..Flags::default()
    };
    gate.customers().flag(late.cell, flags);
    let known = call(400 * MS).await;
    assert!(known.ratio > 10.0, "{known:?}");
}

#[test]
fn an_unwatched_customer_is_not_asked_for() {
    let gate = gate(1);
    let ticket = gate.admit(RouteClass::default(), || panic!("asked")).unwrap();
    gate.leave(ticket, Outcome::Success);
}

#[tokio::test(start_paused = true)]
async fn a_customer_alone_may_have_every_permit_and_beside_others_a_share() {
    let gate = Arc::new(Gate::new(10));
    gate.set_watch(true);
    let class = gate.class("");
    let admit = |name: &str| {
        let customer = CustomerId::new(name).unwrap();
        gate.admit(class, || Some(customer)).map(|ticket| gate.permit(ticket))
    };
    let in_hand = gate.try_drain(Drain::Held).unwrap();
    let mut own: Vec<_> = (0..6).map(|_| admit("acme").unwrap()).collect();
    for _ in 0..=20 {
        drop(gate.customers().scan());
    }
    own.extend((6..9).map(|_| admit("acme").unwrap()));
    assert!(
        gate.customer_terms(false).customers.is_empty(),
        "a permit of the drain is nobody else"
    );
    drop(in_hand);
    let other = admit("other").unwrap();
    drop(gate.customers().scan());
    own.pop();
    assert_eq!(admit("acme").unwrap_err(), Refusal::CustomerShare);
    drop(other);
}

/// What hangs from before a cool-off is nothing that a customer has of a target that comes back.
#[tokio::test(start_paused = true)]
async fn calls_that_are_left_over_are_not_counted_against_their_customers() {
    let (gate, class) = watched(20);
    let admit = |name: &'static str| {
        gate.admit(class, || Some(customer(name)))
            .map(|ticket| gate.permit(ticket))
    };
    let hung: Vec<_> = (0..14).map(|at| admit(["acme", "bolt"][at % 2]).unwrap()).collect();
    assert_eq!(admit("acme").unwrap_err(), Refusal::CustomerShare, "30 % of twenty");
    gate.customers().set_overdue(40 * MS);
    tokio::time::advance(100 * MS).await;
    gate.set_state(State::CoolOff);
    gate.set_limit(2);
    gate.set_state(State::Probing);
    let skipped = || {
        gate.customer_terms(true)
            .customers
            .iter()
            .filter(|terms| terms.skip)
            .count()
    };
    assert_eq!(skipped(), 0, "the drain may bring them");
    gate.set_limit(10);
    gate.set_state(State::Ramping);
    assert_eq!(skipped(), 0);
    assert!(gate.customers().scan().iter().all(|one| one.stalled.is_zero()));
    let mut next: Vec<_> = (0..7).map(|_| admit("acme").unwrap()).collect();
    assert_eq!(next.len(), 7, "less than 70 % of ten before it");
    next.truncate(6);
    next.push(admit("bolt").unwrap());
    assert_eq!(
        admit("acme").unwrap_err(),
        Refusal::CustomerShare,
        "30 % of ten, and not of 22"
    );
    drop(hung);
    assert!(
        !gate.may_begin(&customer("acme")),
        "what is left over takes nothing along"
    );
    drop(next);
    let idle = gate.customers().scan();
    assert!(idle.iter().all(|one| one.in_flight == 0), "{idle:?}");
}
