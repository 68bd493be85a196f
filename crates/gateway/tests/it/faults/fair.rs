//! Whose turn it is, from the client to the handler.

use crate::site::{Site, impatient, post};
use axum::body::Body;
use crosspoint_gateway::HoldOrder;
use http::Request;
use std::time::Duration;
use tokio::time::sleep;

fn of(customer: &str, id: u32) -> Request<Body> {
    let request = Request::post(format!("/v1/scan/{id}")).header("x-customer", customer);
    request.body(Body::empty()).unwrap()
}

/// Which of the calls has been answered, in the order of the answers.
async fn order(site: &Site, calls: u32) -> Vec<u32> {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let first = site.send(post(0, ""));
    site.scanner.begun(1).await;
    for id in 1..=calls {
        let (tell, call) = (tell.clone(), site.send(post(id, "")));
        tokio::spawn(async move {
            assert_eq!(call.await.unwrap().status, 201);
            tell.send(id).unwrap();
        });
        sleep(Duration::from_millis(10)).await;
    }
    drop(tell);
    site.scanner.finish(1);
    assert_eq!(first.await.unwrap().status, 201);
    let mut order = Vec::new();
    for _ in 0..calls {
        site.scanner.finish(1);
        order.push(told.recv().await.unwrap());
    }
    order
}

#[tokio::test(start_paused = true)]
async fn the_first_or_the_last_goes_first() {
    for (hold, wanted) in [
        (HoldOrder::Predictive, [1, 2, 3, 4]),
        (HoldOrder::Fifo, [1, 2, 3, 4]),
        (HoldOrder::Lifo, [4, 3, 2, 1]),
    ] {
        let site = Site::with(|layer| {
            let mut policy = impatient();
            policy.hold = hold;
            layer.policy(policy).permits(1)
        });
        assert_eq!(order(&site, 4).await, wanted, "{hold:?}");
    }
}

/// One permit of fifty goes to calls that nobody waits for, however many are waited for.
#[tokio::test(start_paused = true)]
async fn the_sideline_is_not_starved_by_held_calls() {
    let site = Site::new();
    let mut held = vec![site.send(post(0, ""))];
    site.scanner.begun(1).await;
    for id in 1..=4 {
        held.push(site.send(of("acme", id)));
    }
    site.until(|stats| stats.ready == 4).await;
    let mut ids = Vec::new();
    for id in [901, 902] {
        let request = Request::post(format!("/v1/scan/{id}")).header("x-customer", "acme");
        let request = request.header("x-user", "ann").header("prefer", "respond-async");
        ids.push(site.call(request.body(Body::empty()).unwrap()).await.id());
    }
    let mut ended = [None; 2];
    for done in 0..240 {
        // There is always somebody who waits.
        held.push(site.send(of("acme", 100 + done)));
        site.scanner.finish(1);
        sleep(Duration::from_millis(5)).await;
        for (ended, id) in ended.iter_mut().zip(&ids) {
            if ended.is_none() && site.status(id).await.state.is_terminal() {
                *ended = Some(done);
            }
        }
    }
    let [first, second] = ended.map(|ended| ended.unwrap_or(u32::MAX));
    assert!(first >= 10, "held calls go first: {first}");
    assert!(first <= 60 && second <= 120, "{first}, {second}");
    site.scanner.finish(1_000);
    for call in held {
        assert_eq!(call.await.unwrap().status, 201);
    }
}

/// Beside others, a customer that has its share is passed over, at the door and in the queue, while permits are free.
#[tokio::test(start_paused = true)]
async fn who_has_its_share_is_passed_over() {
    let site = Site::with(|layer| layer.permits(10));
    let mut calls: Vec<_> = (0..5).map(|id| site.send(of("others", id))).collect();
    site.scanner.begun(5).await;
    // Half of the permits are in use, so customers are watched from the next look on.
    sleep(Duration::from_secs(1)).await;
    calls.extend((5..8).map(|id| site.send(of("greedy", id))));
    site.scanner.begun(8).await;
    calls.push(site.send(of("greedy", 8)));
    site.until(|stats| stats.ready == 1).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        (site.scanner.count(), site.gate().in_flight),
        (8, 8),
        "two permits are free"
    );
    calls.push(site.send(of("quiet", 9)));
    site.scanner.begun(9).await;
    assert_eq!(site.stats().await.ready, 1);
    // As soon as there is room for everybody it goes on.
    site.scanner.finish(5);
    site.scanner.begun(10).await;
    site.scanner.finish(5);
    for call in calls {
        assert_eq!(call.await.unwrap().status, 201);
    }
}
