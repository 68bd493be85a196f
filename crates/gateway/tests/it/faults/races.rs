//! Two things at once: either may win, and nothing is left over.

use super::{HOLD, Way, brisk};
use crate::site::{Site, post, put};
use crosspoint_core::CallState;
use crosspoint_testkit::Method;
use std::time::Duration;
use tokio::time::sleep;

const MS: Duration = Duration::from_millis(1);

async fn nothing_is_left(site: &Site, told: &str) {
    let stats = site.stats().await;
    assert_eq!((stats.ready, stats.delayed, stats.leased), (0, 0, 0), "{told}");
    assert_eq!(site.gate().in_flight, 0, "{told}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_hold_against_the_answer() {
    let mut seen = [0, 0];
    for adopted in [false, true] {
        for late in -3_i64..=3 {
            let told = format!("adopted {adopted}, {late} ms late");
            let site = brisk(|layer| layer);
            let other = if adopted {
                None
            } else {
                let other = site.send(post(1, "a"));
                site.scanner.begun(1).await;
                Some(other)
            };
            let call = site.send(post(2, "b"));
            if adopted {
                site.scanner.begun(1).await;
            }
            let at = u64::try_from(i64::try_from(HOLD.as_millis()).unwrap() + late).unwrap();
            if let Some(other) = other {
                site.until(|stats| stats.ready == 1).await;
                sleep(HOLD / 2).await;
                site.scanner.finish(1);
                assert_eq!(other.await.unwrap().status, 201);
                site.scanner.begun(2).await;
                sleep(Duration::from_millis(at) - HOLD / 2).await;
            } else {
                sleep(Duration::from_millis(at)).await;
            }
            site.scanner.finish(1);
            let answer = call.await.unwrap();
            let own = if adopted { "2 b direct" } else { "2 b acme/ann/1" };
            if answer.status == 202 {
                seen[1] += 1;
                sleep(MS).await;
                let reply = site.get(&format!("/requests/{}/response", answer.id())).await;
                assert_eq!((reply.status, reply.body.as_str()), (201, own), "{told}");
            } else {
                seen[0] += 1;
                assert_eq!((answer.status, answer.body.as_str()), (201, own), "{told}");
            }
            sleep(MS).await;
            nothing_is_left(&site, &told).await;
        }
    }
    assert!(seen[0] > 3 && seen[1] > 3, "both win: {seen:?}");
}

/// Leaving cancels in the store, so the store decides. Before the lease: the call is never begun. After it: the call has
/// begun, and is asked to stop with the next heartbeat; if it ends by then, its reply is stored like any other.
#[tokio::test(start_paused = true)]
async fn leaving_against_the_lease() {
    let mut begun = [0, 0];
    for turns in 0..12 {
        for slow in [Method::Cancel, Method::Lease, Method::Extend] {
            let told = format!("{turns} turns later, {slow:?} is slow");
            let site = brisk(|layer| layer);
            let other = site.send(post(1, "a"));
            site.scanner.begun(1).await;
            let held = site.send(post(2, "b"));
            site.until(|stats| stats.ready == 1).await;
            site.faults.delay(slow, 1, 20 * MS);
            site.scanner.finish(1);
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            held.abort();
            assert!(held.await.unwrap_err().is_cancelled());
            assert_eq!(other.await.unwrap().status, 201, "{told}");
            // The one that was begun does not end by itself: it is stopped, at the heartbeat and a grace.
            sleep(Duration::from_secs(6)).await;
            begun[site.scanner.count() - 1] += 1;
            if site.stats().await.leased == 1 {
                // Nobody wanted it to stop: this process had begun it when its client left.
                site.scanner.finish(1);
                sleep(MS).await;
            }
            nothing_is_left(&site, &told).await;
        }
    }
    assert!(begun[0] > 0, "{begun:?}: leaving never wins");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_against_a_call_that_is_being_stored() {
    for at in [0, 50, 100, 150] {
        // It waits in the queue for another process, or it got a lease with the commit and is waited for.
        for way in [Way::Held, Way::Asynchronous] {
            let told = format!("{way:?} at {at}");
            let site = way.site();
            let busy = way == Way::Held;
            let other = busy.then(|| site.send(post(9, "a")));
            if busy {
                site.scanner.begun(1).await;
            }
            sleep(MS).await;
            site.faults.delay(Method::Enqueue, 1, 100 * MS);
            let call = site.send(way.request("POST"));
            sleep(Duration::from_millis(at)).await;
            let gateway = site.gateway.clone();
            let drain = tokio::spawn(async move { gateway.drain(Duration::from_secs(5)).await });
            sleep(Duration::from_secs(1)).await;
            site.scanner.finish(2);
            let answer = call.await.unwrap();
            drain.await.unwrap();
            let id = answer.id();
            let state = site.status(&id).await.state;
            assert_eq!(
                state,
                if busy { CallState::Queued } else { CallState::Completed },
                "{told}"
            );
            if let Some(other) = other {
                assert_eq!(other.await.unwrap().status, 201, "{told}");
            }
            sleep(MS).await;
            assert_eq!(site.gate().in_flight, 0, "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_ends_while_its_call_is_stored() {
    let site = Site::with(|layer| layer.hold(100 * MS));
    let other = site.send(put(1, "a"));
    site.scanner.begun(1).await;
    site.faults.delay(Method::Enqueue, 1, 150 * MS);
    // The first one is adopted after its hold as well: its record is the slow one.
    let id = other.await.unwrap().id();
    let next = site.call(post(2, "b")).await.id();
    assert_eq!(site.status(&next).await.state, CallState::Queued);
    site.scanner.finish(2);
    sleep(2 * HOLD).await;
    for id in [id, next] {
        assert_eq!(site.status(&id).await.state, CallState::Completed);
    }
    nothing_is_left(&site, "both").await;
}
