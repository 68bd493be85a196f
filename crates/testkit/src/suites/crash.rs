//! One life, cut off before and after every write, and carried on by whoever comes next: it ends exactly once, with one
//! reply, its state moved once, its log written once, its follow-ups started once.
//!
//! A write that fails *before* it took effect is a process that died on its way to the store; one that fails *after* is
//! a process that died before it read the answer. Where the harness can, the store is opened anew in between.

use super::executions::success;
use crate::{Faults, Harness, Method, When, envelope, harness, scope};
use crosspoint_core::{
    Audience, Begun, CallState, Checkpointed, CloseReason, Enqueue, Enqueued, Envelope, ExecutionStatus, Finish,
    Finished, Lease, LeaseRef, Level, LogEntry, Outcome, Page, Result, Settle, Settled, StateSnapshot, Store,
};
use serde_json::json;
use std::sync::{Mutex, PoisonError};

/// A way through life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Queued,
    Leased,
    Prefetched,
    Retried,
    Checkpointed,
    Cancelled,
    Call,
    Held,
    Adopted,
}

/// One life of one call, apart from all others in the same store.
struct Case<'h> {
    h: &'h Harness,
    life: Life,
    name: String,
    envelope: Envelope,
    /// What the dead worker held.
    held: Mutex<Vec<LeaseRef>>,
}

impl<'h> Case<'h> {
    fn new(h: &'h Harness, life: Life, n: usize, when: When) -> Self {
        let name = format!("{life:?}-{n}-{when:?}");
        let envelope = match life {
            Life::Call | Life::Held | Life::Adopted => h.service(&name, &name),
            _ => h.flow(&name, &name),
        };
        let mut case = Self {
            h,
            life,
            name,
            envelope,
            held: Mutex::default(),
        };
        case.envelope.repeatable = life != Life::Adopted;
        if life == Life::Held {
            case.envelope.hold_until = Some(h.now().plus(harness::LEASE * 2));
        }
        case
    }

    fn follow_up(&self) -> Envelope {
        let target = format!("after-{}", self.name);
        envelope::derived(self.h.flow(&target, &self.name), &["after", &self.name])
    }

    fn hold(&self, lease: LeaseRef) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
    }

    async fn state(&self, store: &Store) -> Result<StateSnapshot> {
        let (fleet, installation) = (scope::fleet(), envelope::installation(&self.name));
        store.state.state((&fleet).into(), installation, "announce").await
    }

    /// The life as it goes when nothing fails.
    async fn live(&self, store: &Store) -> Result<()> {
        let call = self.envelope.clone();
        let item = match self.life {
            Life::Leased => Enqueue::leased(call, harness::terms("first")),
            Life::Adopted => Enqueue::adopted(call, harness::terms("first")),
            _ => Enqueue::queued(call),
        };
        let mut answers = store.dispatch.enqueue(vec![item]).await?;
        if let Some(Enqueued::New(Some(lease))) = answers.pop() {
            return self.work(store, *lease).await;
        }
        let mut request = harness::request(&self.name, 1);
        request.begin = self.life != Life::Prefetched;
        while let Some(lease) = store.dispatch.lease(request.clone()).await?.pop() {
            self.work(store, lease).await?;
        }
        Ok(())
    }

    /// What a worker does with a lease: begin, run, finish, settle.
    async fn work(&self, store: &Store, lease: Lease) -> Result<()> {
        let reference = lease.reference;
        self.hold(reference);
        if lease.envelope.flow.is_none() {
            let reply = envelope::reply("done");
            let settle = Settle::Complete {
                lease: reference,
                reply,
            };
            store.dispatch.settle(vec![settle]).await?;
            return Ok(());
        }
        if !lease.begun {
            match store.executions.begin(&scope::fleet(), reference).await? {
                Begun::Run => {}
                Begun::Finished(reply) => {
                    let settle = Settle::Complete {
                        lease: reference,
                        reply,
                    };
                    store.dispatch.settle(vec![settle]).await?;
                    return Ok(());
                }
                other => panic!("the lease was just made: {other:?}"),
            }
        }
        let mut finish = self.run(store, &lease).await?;
        if self.life == Life::Cancelled && lease.close.is_none() {
            let (fleet, id) = (scope::fleet(), reference.id);
            store.executions.cancel((&fleet).into(), id).await?;
            store.dispatch.extend(&[reference], harness::LEASE).await?;
            finish = closed(reference);
        }
        let ended = match &finish.outcome {
            Outcome::Ended { reply, .. } => Some(reply.clone()),
            _ => None,
        };
        let finished = store.executions.finish(&scope::fleet(), finish).await?;
        assert!(matches!(finished, Finished::Applied { .. }), "{finished:?}");
        if let Some(reply) = ended {
            let settle = Settle::Complete {
                lease: reference,
                reply,
            };
            store.dispatch.settle(vec![settle]).await?;
        }
        Ok(())
    }

    /// The flow itself: what it writes depends on nothing but its state and why it was delivered.
    async fn run(&self, store: &Store, lease: &Lease) -> Result<Finish> {
        if lease.close.is_some() {
            assert_eq!(lease.close, Some(CloseReason::Cancelled));
            return Ok(closed(lease.reference));
        }
        let mut state = self.state(store).await?;
        while self.life == Life::Checkpointed && state.version < 2 {
            let reached = StateSnapshot::new(state.version, json!(state.version));
            let fleet = scope::fleet();
            let kept = store.state.checkpoint(&fleet, lease.reference, reached);
            match kept.await? {
                Checkpointed::Applied { version } => state.version = version,
                other => panic!("the lease was just made: {other:?}"),
            }
        }
        let half_way = self.life == Life::Retried && state.version == 0;
        let (line, outcome) = if half_way {
            let failure = harness::failure("half way");
            (
                "half",
                Outcome::Retry {
                    at: self.h.now(),
                    failure,
                },
            )
        } else {
            ("done", success("done"))
        };
        let mut finish = Finish::new(lease.reference, outcome);
        finish.log = vec![LogEntry::new(self.h.now(), Level::Info, Audience::Customer, line)];
        finish.state = Some(StateSnapshot::new(state.version, json!(line)));
        if !half_way {
            finish.starts = vec![self.follow_up()];
        }
        Ok(finish)
    }

    /// Whoever called was given no answer, so calls again, under the same id; then the next worker takes over.
    async fn recover(&self, store: &Store) {
        let again = Enqueue::queued(self.envelope.clone());
        let lost = self.life == Life::Adopted;
        if !lost {
            store.dispatch.enqueue(vec![again]).await.unwrap();
        }
        for _ in 0..3 {
            self.h.expire_leases();
            while let Some(lease) = store
                .dispatch
                .lease(harness::request(&self.name, 1))
                .await
                .unwrap()
                .pop()
            {
                assert!(!lost, "what may not be repeated is not");
                self.work(store, lease).await.unwrap();
            }
        }
    }

    async fn check(&self, store: &Store) {
        let (fleet, id) = (scope::fleet(), self.envelope.id());
        let status = store.dispatch.get((&fleet).into(), id).await.unwrap();
        if self.life == Life::Adopted {
            let state = status.map(|status| status.state);
            let known = [None, Some(CallState::Unknown), Some(CallState::Completed)];
            assert!(known.contains(&state), "{}: {state:?}", self.name);
            return;
        }
        let status = status.expect("what was accepted is kept");
        let reply = status.reply.as_ref().expect("there is one reply");
        if matches!(self.life, Life::Call | Life::Held) {
            assert_eq!((status.state, &reply.body()[..]), (CallState::Completed, &b"done"[..]));
            return;
        }
        let execution = store.executions.get((&fleet).into(), id).await.unwrap().expect("kept");
        let lines = store
            .log
            .lines((&fleet).into(), id, Audience::Customer, Page::default());
        let lines: Vec<_> = lines
            .await
            .unwrap()
            .items
            .into_iter()
            .map(|line| line.message)
            .collect();
        let started = store
            .dispatch
            .lease(harness::request(&format!("after-{}", self.name), 9));
        let started = started.await.unwrap().len();
        let version = self.state(store).await.unwrap().version;
        let want = match self.life {
            Life::Cancelled => (ExecutionStatus::Cancelled, 0, vec![], 0),
            Life::Retried => (ExecutionStatus::Succeeded, 2, vec!["half", "done"], 1),
            Life::Checkpointed => (ExecutionStatus::Succeeded, 3, vec!["done"], 1),
            _ => (ExecutionStatus::Succeeded, 1, vec!["done"], 1),
        };
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!((execution.status, version, lines, started), want, "{}", self.name);
    }

    /// The dead worker was only slow, and tries to write after all.
    async fn rise(&self, store: &Store) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for lease in held {
            let late = Finish::new(lease, success("late"));
            let finished = store.executions.finish(&scope::fleet(), late).await.unwrap();
            assert_eq!(finished, Finished::Stale, "{}", self.name);
            let version = self.state(store).await.unwrap().version;
            let late = StateSnapshot::new(version, json!("late"));
            let kept = store.state.checkpoint(&scope::fleet(), lease, late).await.unwrap();
            assert_eq!(kept, Checkpointed::Stale, "{}", self.name);
            let settle = Settle::Release { lease };
            assert_eq!(store.dispatch.settle(vec![settle]).await.unwrap(), [Settled::Stale]);
        }
    }
}

fn closed(lease: LeaseRef) -> Finish {
    let outcome = Outcome::Ended {
        status: ExecutionStatus::Cancelled,
        reply: envelope::reply("cancelled"),
        failure: None,
    };
    Finish::new(lease, outcome)
}

async fn every_crash(h: &Harness, life: Life) {
    let mut crashes = 0;
    for when in [When::Before, When::After] {
        for n in 1.. {
            let case = Case::new(h, life, n, when);
            let (faulty, faults) = Faults::wrap(&h.store);
            faults.fail_write(n, when);
            let lived = case.live(&faulty).await;
            if faults.pending() {
                assert!(lived.is_ok(), "nothing failed");
                case.check(&h.store).await;
                break;
            }
            assert!(lived.is_err(), "the fault was met");
            crashes += 1;
            let store = h.after_crash().await;
            Box::pin(case.recover(&store)).await;
            case.check(&store).await;
            case.rise(&store).await;
            case.check_again(&store).await;
        }
    }
    assert!(crashes >= 4, "at least two writes, each from both sides");
}

impl Case<'_> {
    /// As [`Case::check`], without looking for the follow-up, which has been taken.
    async fn check_again(&self, store: &Store) {
        let (fleet, id) = (scope::fleet(), self.envelope.id());
        if let Some(status) = store.dispatch.get((&fleet).into(), id).await.unwrap() {
            assert!(status.state.is_terminal());
            assert!(status.reply.is_none_or(|reply| reply.body() != "late"));
        }
        let ready = store.dispatch.lease(harness::request(&self.name, 9)).await.unwrap();
        assert!(ready.is_empty());
    }
}

/// Stored, leased by a worker, run.
pub async fn a_queued_flow_survives_every_crash(h: &Harness) {
    Box::pin(every_crash(h, Life::Queued)).await;
}

/// Stored and leased in one commit.
pub async fn a_leased_flow_survives_every_crash(h: &Harness) {
    Box::pin(every_crash(h, Life::Leased)).await;
}

/// Leased ahead of time, begun apart.
pub async fn a_prefetched_flow_survives_every_crash(h: &Harness) {
    Box::pin(every_crash(h, Life::Prefetched)).await;
}

/// Failed once, half way, with its state kept.
pub async fn a_retried_flow_survives_every_crash(h: &Harness) {
    Box::pin(every_crash(h, Life::Retried)).await;
}

/// Keeps its state twice on the way: whatever was kept before the crash is not done again.
pub async fn a_flow_with_checkpoints_survives_every_crash(h: &Harness) {
    Box::pin(every_crash(h, Life::Checkpointed)).await;
}

/// Cancelled while it runs.
pub async fn a_cancelled_flow_survives_every_crash(h: &Harness) {
    Box::pin(every_crash(h, Life::Cancelled)).await;
}

/// A service's call that may be repeated.
pub async fn a_repeatable_call_survives_every_crash(h: &Harness) {
    Box::pin(every_crash(h, Life::Call)).await;
}

/// A service's call that somebody waits for, at first.
pub async fn a_held_call_survives_every_crash(h: &Harness) {
    Box::pin(every_crash(h, Life::Held)).await;
}

/// A direct call that became durable while it ran: it ends as completed or as unknown, and never runs twice.
pub async fn an_adopted_call_survives_every_crash(h: &Harness) {
    Box::pin(every_crash(h, Life::Adopted)).await;
}

/// A process that lives on after an answer got lost asks again, and nothing happens twice.
pub async fn a_lost_answer_is_asked_for_again(h: &Harness) {
    let case = Case::new(h, Life::Prefetched, 0, When::After);
    let (store, faults) = Faults::wrap(&h.store);
    let stored = || store.dispatch.enqueue(vec![Enqueue::queued(case.envelope.clone())]);
    faults.fail(Method::Enqueue, 1, When::After);
    assert!(stored().await.is_err());
    assert!(matches!(stored().await.unwrap().as_slice(), [Enqueued::Duplicate]));
    let lease = h.prefetch(&case.name).await;
    let fleet = scope::fleet();
    let begin = || store.executions.begin(&fleet, lease.reference);
    faults.fail(Method::Begin, 1, When::After);
    assert!(begin().await.is_err());
    assert!(matches!(begin().await.unwrap(), Begun::Run));
    let finish = case.run(&store, &lease).await.unwrap();
    faults.fail(Method::Finish, 1, When::After);
    assert!(store.executions.finish(&scope::fleet(), finish.clone()).await.is_err());
    assert_eq!(h.finish(finish).await, Finished::Stale, "it is written");
    match begin().await.unwrap() {
        Begun::Finished(reply) => assert_eq!(reply.body(), "done"),
        other => panic!("the worker learns that it was its own end: {other:?}"),
    }
    assert_eq!(h.complete(lease.reference, "done").await, Settled::Applied);
    case.check(&h.store).await;
}
