//! The process dies, at every step of every way, and another one comes after it.

use super::{HOLD, Way, in_a_process};
use crate::site::{Site, from_ann};
use async_trait::async_trait;
use axum::body::Body;
use crosspoint_core::{
    CallState, CustomerId, Envelope, Handler, Invocation, InvocationId, Memory, Meta, Reply, Result, Submit,
};
use crosspoint_gateway::{Config, Gateway, TargetConfig};
use crosspoint_testkit::{Method, VirtualClock, When, scope};
use http::Request;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// Longer than a lease.
const IN_THE_END: Duration = Duration::from_secs(8);

struct Cut {
    way: Way,
    method: &'static str,
    step: (Method, usize),
    when: When,
}

impl Cut {
    /// Dies there. Answers the successor, and the id if the client was told one.
    async fn make(&self) -> (Site, Option<String>) {
        let site = self.way.site();
        sleep(Duration::from_millis(1)).await;
        site.faults.die(self.step.0, self.step.1, self.when);
        let call = self.way.go(&site, self.method).await;
        timeout(HOLD * 9, site.faults.died())
            .await
            .unwrap_or_else(|_| panic!("{}: was not reached", self.told()));
        // Connections are cut with the process.
        let answered = call.is_finished();
        call.abort();
        let told = match call.await {
            Ok(answer) if answered => {
                assert!(
                    matches!(answer.status, 201 | 202 | 503),
                    "{}: {}",
                    self.told(),
                    answer.body
                );
                (answer.status == 202).then(|| answer.id())
            }
            _ => None,
        };
        let next = site.beside(self.way.route());
        // Nothing of it runs any more, or reaches the store.
        drop(site);
        (next, told)
    }

    fn told(&self) -> String {
        let Self {
            way,
            method,
            step,
            when,
        } = self;
        format!("{way:?} {method}, dies {when:?} {step:?}")
    }
}

#[test]
fn at_every_step_of_every_way() {
    let steps = [
        (Way::Asynchronous, (Method::Enqueue, 1)),
        (Way::Asynchronous, (Method::Settle, 1)),
        (Way::Held, (Method::Enqueue, 1)),
        (Way::Held, (Method::Lease, 1)),
        (Way::Held, (Method::Settle, 1)),
        (Way::Adopted, (Method::Enqueue, 1)),
        (Way::Adopted, (Method::Extend, 1)),
        (Way::Adopted, (Method::Extend, 2)),
        (Way::Adopted, (Method::Extend, 3)),
        (Way::Adopted, (Method::Settle, 1)),
        (Way::Recorded, (Method::Enqueue, 1)),
        (Way::Recorded, (Method::Settle, 1)),
    ];
    for (way, step) in steps {
        for (method, when) in [
            ("POST", When::Before),
            ("POST", When::After),
            ("PUT", When::Before),
            ("PUT", When::After),
        ] {
            in_a_process(check(Cut {
                way,
                method,
                step,
                when,
            }));
        }
    }
}

async fn check(cut: Cut) {
    let Cut {
        way,
        method,
        step,
        when,
    } = cut;
    let told = cut.told();
    let (next, id) = cut.make().await;
    next.scanner.finish(9);
    sleep(IN_THE_END).await;
    let stats = next.stats().await;
    assert_eq!((stats.ready, stats.delayed, stats.leased), (0, 0, 0), "{told}");
    assert_eq!(next.gate().in_flight, 0, "{told}");
    // An adopted call has no request to begin again with.
    let again = method == "PUT" && way != Way::Adopted;
    let stored = (step, when) == ((Method::Settle, 1), When::After);
    if step.0 != Method::Enqueue && !(way == Way::Held && step.0 == Method::Lease) && !again {
        assert_eq!(next.scanner.count(), 0, "{told}: it was begun a second time");
    }
    if way == Way::Adopted {
        assert_eq!(
            id.is_some(),
            step.0 != Method::Enqueue,
            "{told}: 202 exactly with the record"
        );
        assert_eq!(next.scanner.count(), 0, "{told}");
    }
    let Some(id) = id else { return };
    let state = next.status(&id).await.state;
    let wanted = if stored || again {
        CallState::Completed
    } else {
        CallState::Unknown
    };
    assert_eq!(state, wanted, "{told}");
    let reply = next.get(&format!("/requests/{id}/response")).await;
    assert_eq!(
        reply.status,
        if state == CallState::Completed { 201 } else { 504 },
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_finds_its_call_after_the_gateway_died() {
    for (step, when, wanted) in [
        // Nothing was recorded: it is a new call.
        (Method::Enqueue, When::Before, 201),
        // Recorded as started; whether it was, nobody knows.
        (Method::Enqueue, When::After, 504),
        (Method::Settle, When::Before, 504),
        (Method::Settle, When::After, 201),
    ] {
        let cut = Cut {
            way: Way::Recorded,
            method: "POST",
            step: (step, 1),
            when,
        };
        let told = cut.told();
        let (next, _) = cut.make().await;
        next.scanner.finish(1);
        let retry = || next.send(Way::Recorded.request("POST"));
        let mut answer = retry().await.unwrap();
        if answer.status == 202 {
            // The dead one still has the lease.
            sleep(IN_THE_END).await;
            answer = retry().await.unwrap();
        }
        assert_eq!(answer.status, wanted, "{told}: {}", answer.body);
        let begun = usize::from((step, when) == (Method::Enqueue, When::Before));
        assert_eq!(next.scanner.count(), begun, "{told}");
        let other = from_ann("POST", "/v1/scan/1").header("idempotency-key", "k");
        let other = next.call(other.body(Body::from("other")).unwrap()).await;
        assert_eq!((other.status, other.code().as_str()), (422, "key-reused"), "{told}");
    }
}

#[derive(Debug)]
struct Tenth;

#[async_trait]
impl Handler for Tenth {
    async fn handle(&self, invocation: Invocation) -> Result<Reply> {
        sleep(Duration::from_millis(100)).await;
        Ok(Reply::new(invocation.meta.id.to_string().into()))
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_oldest_goes_first() {
    const CALLS: usize = 1_000;
    let clock = Arc::new(VirtualClock::new());
    let store = Arc::new(Memory::with_clock(clock.clone()));
    let target = crate::site::target();
    let call = |n: usize| {
        let customer = CustomerId::new(format!("c{}", n % 10)).unwrap();
        let meta = Meta::new(InvocationId::derive(&["old", &n.to_string()]), customer, target.clone());
        Envelope::service(
            Invocation::new(meta, Request::new("".into())),
            crosspoint_core::Clock::now(&*clock),
        )
    };
    // A process that only stores: it dies with a backlog of a thousand.
    let before = Gateway::new(store.clone(), clock.clone(), Config::default());
    for n in 0..CALLS {
        before.enqueue(vec![call(n)]).await.unwrap();
    }
    drop(before);
    sleep(Duration::from_secs(600)).await;
    let began = Instant::now();
    let after = Gateway::new(store.clone(), clock.clone(), Config::default());
    after
        .register(target.clone(), Arc::new(Tenth), TargetConfig::default().permits(20))
        .unwrap();
    // New calls come all the while, for half of the capacity.
    let fresh = tokio::spawn({
        let (after, calls): (_, Vec<_>) = (after.clone(), (CALLS..CALLS + 1_000).map(call).collect());
        async move {
            for call in calls {
                after.enqueue(vec![call]).await.unwrap();
                sleep(Duration::from_millis(10)).await;
            }
        }
    });
    // 200 a second: the backlog alone takes five seconds, and no old call waits for a new one of its customer.
    let mut last = Duration::ZERO;
    let ids: Vec<_> = (0..CALLS).map(|n| call(n).id()).collect();
    let fleet = scope::fleet();
    for id in &ids {
        loop {
            use crosspoint_core::DispatchStore;
            let status = store.get((&fleet).into(), *id).await.unwrap().unwrap();
            if status.state == CallState::Completed {
                last = last.max(began.elapsed());
                break;
            }
            sleep(Duration::from_millis(10)).await;
            assert!(began.elapsed() < Duration::from_secs(7), "{last:?}");
        }
    }
    fresh.await.unwrap();
}
