//! The store fails at every call that it is asked, in every way that a call goes.

use super::{HOLD, WAYS, Way, in_a_process};
use crate::site::{Answer, Site};
use crosspoint_core::CallState;
use crosspoint_testkit::{Method, When};
use std::{collections::HashMap, time::Duration};
use tokio::time::sleep;

const WRITES: [Method; 5] = [
    Method::Enqueue,
    Method::Lease,
    Method::Extend,
    Method::Settle,
    Method::Cancel,
];

/// Of these it does not matter on which side they fail.
const READS: [Method; 5] = [
    Method::Get,
    Method::Ended,
    Method::Stats,
    Method::Recall,
    Method::Remember,
];

/// Longer than a lease, all pauses after failures and a few polls.
const IN_THE_END: Duration = Duration::from_secs(8);

/// The promise, once the fault has passed.
async fn promise(site: &Site, way: Way, method: &str, answer: &Answer, told: &str) {
    site.faults.up();
    // Whatever is begun again can end.
    site.scanner.finish(9);
    sleep(IN_THE_END).await;
    let stats = site.stats().await;
    assert_eq!((stats.ready, stats.delayed, stats.leased), (0, 0, 0), "{told}");
    assert_eq!(site.gate().in_flight, 0, "{told}");
    let begun = site.scanner.count() - way.others();
    if method == "POST" {
        assert!(begun <= 1, "{told}: begun {begun} times");
    }
    match answer.status {
        201 => assert!(begun >= 1, "{told}"),
        202 => {
            let id = answer.id();
            let state = site.status(&id).await.state;
            let begins_again = method == "PUT" && way != Way::Adopted;
            assert!(
                state == CallState::Completed || state == CallState::Unknown && !begins_again,
                "{told}: {state:?}"
            );
            let reply = site.get(&format!("/requests/{id}/response")).await;
            let wanted = if state == CallState::Completed { 201 } else { 504 };
            assert_eq!(reply.status, wanted, "{told}");
            let again = site.get(&format!("/requests/{id}/response")).await;
            assert_eq!((again.status, again.body), (reply.status, reply.body), "{told}");
        }
        // Nothing was promised, and the client was told so.
        503 | 504 => assert!(!answer.code().is_empty(), "{told}"),
        other => panic!("{told}: {other} {}", answer.body),
    }
    if answer.status == 503 && method == "POST" && way != Way::Recorded {
        assert_eq!(begun, 0, "{told}: refused, and carried out all the same");
    }
    if way == Way::Recorded && method == "POST" {
        // The key stands for the one call that there was, or for none: then it may be made now.
        let again = site.call(way.request(method)).await;
        assert!(matches!(again.status, 201 | 504), "{told}: {}", again.body);
        assert!(site.scanner.count() <= 1, "{told}");
    }
}

async fn one(way: Way, method: &str, order: impl Fn(&Site), told: &str) -> (Answer, Site) {
    let site = way.site();
    sleep(Duration::from_millis(1)).await;
    order(&site);
    let call = way.go(&site, method).await;
    let answered = tokio::time::timeout(HOLD * 9, call).await;
    let answer = answered.unwrap_or_else(|_| panic!("{told}: no answer")).unwrap();
    // What is still to be written after the answer may fail as well.
    sleep(HOLD).await;
    (answer, site)
}

/// Answers how often each method failed.
fn failing(way: Way) -> HashMap<Method, usize> {
    let mut failed = HashMap::new();
    let writes = WRITES.map(|of| [(of, When::Before), (of, When::After)]);
    let reads = READS.map(|of| (of, When::Before));
    for method in ["POST", "PUT"] {
        for (of, when) in writes.into_iter().flatten().chain(reads) {
            for n in [1, 2] {
                let told = format!("{way:?} {method}, {of:?} {n} fails {when:?}");
                let happened = in_a_process(async {
                    let (answer, site) = one(way, method, |site| site.faults.fail(of, n, when), &told).await;
                    let happened = !site.faults.pending();
                    promise(&site, way, method, &answer, &told).await;
                    if way == Way::Direct {
                        assert_eq!((answer.status, answer.body.as_str()), (201, "1 x direct"), "{told}");
                    }
                    happened
                });
                *failed.entry(of).or_default() += usize::from(happened);
            }
        }
    }
    failed
}

#[test]
fn a_direct_call_does_not_notice() {
    failing(Way::Direct);
}

#[test]
fn an_asynchronous_call_is_stored_or_refused() {
    let failed = failing(Way::Asynchronous);
    for of in [Method::Enqueue, Method::Settle] {
        assert!(failed[&of] >= 4, "{of:?} {failed:?}");
    }
}

#[test]
fn a_held_call_is_answered_stored_or_refused() {
    let failed = failing(Way::Held);
    for of in [Method::Enqueue, Method::Settle, Method::Lease, Method::Ended] {
        assert!(failed[&of] >= 2, "{of:?} {failed:?}");
    }
}

#[test]
fn an_adopted_call_is_stored_or_its_client_stays() {
    let failed = failing(Way::Adopted);
    for of in [Method::Enqueue, Method::Settle, Method::Extend] {
        assert!(failed[&of] >= 4, "{of:?} {failed:?}");
    }
}

#[test]
fn a_recorded_call_is_recorded_or_refused() {
    let failed = failing(Way::Recorded);
    for of in [Method::Enqueue, Method::Settle] {
        assert!(failed[&of] >= 4, "{of:?} {failed:?}");
    }
}

#[test]
fn the_store_is_away_for_a_while() {
    for way in WAYS {
        for method in ["POST", "PUT"] {
            for when in [When::Before, When::After] {
                let told = format!("{way:?} {method}, all fails {when:?}");
                let down = |site: &Site| {
                    site.faults.down(when);
                    let faults = site.faults.clone();
                    tokio::spawn(async move {
                        sleep(HOLD / 4).await;
                        faults.up();
                    });
                };
                in_a_process(async {
                    let (answer, site) = one(way, method, down, &told).await;
                    promise(&site, way, method, &answer, &told).await;
                });
            }
        }
    }
}
