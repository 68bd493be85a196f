//! Many workers at once, on threads of their own: what the model checks step by step, under real concurrency.

use super::{T, executions::success};
use crate::{Harness, ManualClock, envelope, harness, race, scope};
use crosspoint_core::{
    Audience, Clock, Envelope, ExecutionStatus, Finish, Finished, InvocationId, Lease, Level, LogEntry, Outcome, Page,
    Store,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const FLOWS: usize = 24;
const WORKERS: usize = 4;
/// No fair run needs nearly as many turns; a store that loses work never comes to an end.
const TURNS: usize = 5_000;

struct Worker {
    store: Store,
    clock: Arc<ManualClock>,
    /// How many ends were accepted, of all workers.
    ended: Arc<AtomicUsize>,
    dice: u64,
}

impl Worker {
    fn roll(&mut self) -> u64 {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.dice >> 40
    }

    async fn work(mut self) {
        for _ in 0..TURNS {
            if self.ended.load(Ordering::SeqCst) >= FLOWS {
                return;
            }
            let leases = self.store.dispatch.lease(harness::request(T, 2)).await.unwrap();
            if leases.is_empty() {
                // Time passes only when somebody has nothing to do; others may lose what they hold.
                self.clock.advance(Duration::from_secs(7));
            }
            for lease in leases {
                self.attempt(&lease).await;
            }
        }
        panic!("{} of {FLOWS} ended", self.ended.load(Ordering::SeqCst));
    }

    async fn attempt(&mut self, lease: &Lease) {
        let (line, outcome) = match (lease.close, self.roll() % 6) {
            (_, 0) => return,
            (_, 1) => ("released", Outcome::Released),
            (_, 2) => {
                let (at, failure) = (self.clock.now(), harness::failure("it failed"));
                ("failed", Outcome::Retry { at, failure })
            }
            (None, _) => ("end", success("done")),
            (Some(_), _) => {
                let (status, reply) = (ExecutionStatus::Failed, envelope::reply("closed"));
                (
                    "end",
                    Outcome::Ended {
                        status,
                        reply,
                        failure: None,
                    },
                )
            }
        };
        let ends = matches!(outcome, Outcome::Ended { .. });
        let mut finish = Finish::new(lease.reference, outcome);
        finish.log = vec![LogEntry::new(self.clock.now(), Level::Info, Audience::Developer, line)];
        if ends {
            finish.starts = vec![follow_up(&self.clock, lease.envelope.id())];
        }
        let finished = self.store.executions.finish(&scope::fleet(), finish).await.unwrap();
        if ends && matches!(finished, Finished::Applied { .. }) {
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn follow_up(clock: &ManualClock, of: InvocationId) -> Envelope {
    let start = envelope::flow(clock, "follow-ups", "acme");
    envelope::derived(start, &["follow-up", &of.to_string()])
}

/// Workers that succeed, fail, give back and vanish at random end every execution exactly once.
pub async fn every_execution_ends_once(h: &Harness) {
    let mut ids = Vec::new();
    for n in 0..FLOWS {
        let mut flow = h.flow(T, ["acme", "globex", "initech"].get(n % 3).expect("three"));
        if n % 4 == 0 {
            flow = envelope::ordered(flow, "k");
        }
        ids.push(h.queue(flow).await);
    }
    let ended = Arc::new(AtomicUsize::new(0));
    race(WORKERS, |n| {
        let worker = Worker {
            store: h.store.clone(),
            clock: Arc::clone(&h.clock),
            ended: Arc::clone(&ended),
            dice: 7 + n as u64,
        };
        worker.work()
    })
    .await;
    assert_eq!(ended.load(Ordering::SeqCst), FLOWS, "no end was accepted twice");
    let fleet = scope::fleet();
    for id in ids {
        assert!(h.execution(id).await.status.is_terminal());
        let lines = h
            .store
            .log
            .lines((&fleet).into(), id, Audience::Developer, Page::first(100))
            .await
            .unwrap();
        let ends = lines.items.iter().filter(|line| line.message == "end").count();
        assert_eq!(ends, 1, "{lines:?}");
    }
    h.expire_leases();
    assert!(h.try_take(T).await.is_none());
    assert_eq!(h.lease("follow-ups", 100).await.len(), FLOWS);
}
