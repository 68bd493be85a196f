//! The world of one path: the store, and the few facts from which its right answers follow.

mod rules;

use super::{Case, Entry, step::Step};
use crate::{
    Harness, LEASE, envelope, harness, scope,
    suites::executions::{ended, success},
};
use bytes::Bytes;
use crosspoint_core::{
    Audience, Begun, CallState, Cancel, CloseReason, Enqueue, Enqueued, Envelope, ExecutionStatus, Fence, Finish,
    Finished, InvocationId, Lease, LeaseRef, LeaseRequest, Level, LogEntry, Outcome, Queue, Settle, Settled,
    StateSnapshot, Timestamp,
};
use rules::End;
use serde_json::json;
use std::time::Duration;

const ATTEMPTS: u32 = 2;

/// What a worker believes it holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    lease: LeaseRef,
    begun: bool,
    close: Option<CloseReason>,
}

/// The lease that may write, as the store granted it.
#[derive(Debug, Clone, Copy)]
struct Current {
    fence: Fence,
    until: Timestamp,
    begun: bool,
}

#[derive(Debug)]
pub(super) struct World<'h> {
    h: &'h Harness,
    case: Case,
    /// The whole path, for messages.
    path: &'h [Step],
    name: String,
    id: InvocationId,
    workers: [Option<Held>; 2],
    /// Until when somebody waits for the call.
    hold: Option<Timestamp>,
    /// The lease that may write.
    current: Option<Current>,
    /// The highest fence seen.
    newest: Fence,
    /// Attempts that count.
    attempts: u32,
    used: bool,
    cancelled: bool,
    /// A lease of begun work ran out.
    lost_begun: bool,
    /// The reply that was accepted.
    reply: Option<String>,
    /// How many lines were accepted.
    lines: usize,
    /// How many executions that end were accepted.
    ends: usize,
    end: Option<End>,
}

impl<'h> World<'h> {
    pub(super) async fn new(h: &'h Harness, case: Case, number: usize, path: &'h [Step]) -> Self {
        let name = format!("model-{number}");
        let mut call = if case.flow {
            h.flow(&name, &name)
        } else {
            h.service(&name, &name)
        };
        call.repeatable = case.repeatable;
        call.max_attempts = ATTEMPTS;
        call.hold_until = (!case.hold.is_zero()).then(|| h.now().plus(case.hold));
        let mut world = Self {
            h,
            case,
            path,
            id: call.id(),
            hold: call.hold_until,
            name,
            workers: [None, None],
            current: None,
            newest: Fence::default(),
            attempts: 0,
            used: false,
            cancelled: false,
            lost_begun: false,
            reply: None,
            lines: 0,
            ends: 0,
            end: None,
        };
        world.enter(call).await;
        world
    }

    async fn enter(&mut self, call: Envelope) {
        let terms = harness::terms("worker-0");
        let item = match self.case.entry {
            Entry::Queue => Enqueue::queued(call),
            Entry::Start => Enqueue::leased(call, terms),
            Entry::Adopt => Enqueue::adopted(call, terms),
        };
        match self.h.enqueue(item).await {
            Enqueued::New(None) => assert_eq!(self.case.entry, Entry::Queue),
            Enqueued::New(Some(lease)) => {
                assert!(lease.begun);
                self.leased(0, &lease);
            }
            other => panic!("a new id: {other:?}"),
        }
    }

    /// What can happen next. Worker 1 moves only after worker 0 has: they are alike.
    pub(super) fn enabled(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let open = self.end.is_none();
        for (w, held) in self.workers.iter().enumerate() {
            match held {
                None if open && !self.is_held() && (w == 0 || self.used) => steps.push(Step::Lease(w)),
                None => {}
                Some(held) if !held.begun => steps.extend([Step::Begin(w), Step::Release(w), Step::Crash(w)]),
                Some(_) => steps.extend([Step::Succeed(w), Step::Fail(w), Step::Release(w), Step::Crash(w)]),
            }
        }
        if open && (self.is_held() || !self.case.delay.is_zero()) {
            steps.push(Step::Expire);
        }
        if open && !self.cancelled {
            steps.push(Step::Cancel);
        }
        steps
    }

    pub(super) async fn take(&mut self, step: Step) {
        match step {
            Step::Lease(w) => self.lease(w).await,
            Step::Begin(w) => self.begin(w).await,
            Step::Succeed(w) => self.succeed(w).await,
            Step::Fail(w) => self.fail(w).await,
            Step::Release(w) => self.release(w).await,
            Step::Crash(w) => self.drop_lease(w),
            Step::Expire => self.expire(),
            Step::Cancel => self.cancel().await,
        }
    }

    fn is_held(&self) -> bool {
        self.current.is_some_and(|current| self.h.now() < current.until)
    }

    /// Whether this lease may still write.
    fn may_write(&self, lease: LeaseRef) -> bool {
        self.is_held() && self.current.is_some_and(|current| current.fence == lease.fence)
    }

    fn held(&self, w: usize) -> Held {
        self.workers
            .get(w)
            .copied()
            .flatten()
            .expect("enabled only with a lease")
    }

    fn drop_lease(&mut self, w: usize) {
        if let Some(worker) = self.workers.get_mut(w) {
            *worker = None;
        }
    }

    fn expire(&mut self) {
        self.lost_begun |= self.is_held() && self.current.is_some_and(|current| current.begun);
        self.h.advance(LEASE + Duration::from_millis(1));
    }

    fn leased(&mut self, w: usize, lease: &Lease) {
        let (path, fence) = (self.path, lease.reference.fence);
        assert!(!self.is_held(), "two leases at once: {path:?}");
        assert!(fence > self.newest, "{fence} after {}: {path:?}", self.newest);
        assert_eq!(lease.envelope.id(), self.id);
        if lease.close.is_none() {
            self.attempts += 1;
            assert!(!self.cancelled, "run after a cancel: {path:?}");
            assert!(self.case.repeatable || !self.lost_begun, "repeated: {path:?}");
            assert!(self.attempts <= ATTEMPTS, "one attempt too many: {path:?}");
        } else {
            assert!(self.case.flow, "a service's call is not closed: {path:?}");
        }
        match lease.close {
            Some(CloseReason::Cancelled) => assert!(self.cancelled, "{path:?}"),
            Some(CloseReason::Exhausted) => assert_eq!(self.attempts, ATTEMPTS, "{path:?}"),
            Some(other) => panic!("closed as {other:?}: {path:?}"),
            None => {}
        }
        assert_eq!(lease.attempt, self.attempts, "{path:?}");
        (self.newest, self.used) = (fence, true);
        self.current = Some(Current {
            fence,
            until: lease.until,
            begun: lease.begun,
        });
        if let Some(worker) = self.workers.get_mut(w) {
            *worker = Some(Held {
                lease: lease.reference,
                begun: lease.begun,
                close: lease.close,
            });
        }
    }

    fn request(&self, begin: bool) -> LeaseRequest {
        let mut request = harness::request(&self.name, 1);
        request.begin = begin;
        request
    }

    async fn lease(&mut self, w: usize) {
        let mut request = self.request(self.case.begin);
        // It is offered by the queue in which it belongs by now, and by no other.
        let held = self.hold.is_some_and(|until| until > self.h.now());
        request.queue = if held { Queue::Sideline } else { Queue::Held };
        let wrong = self.h.store.dispatch.lease(request.clone()).await.unwrap();
        assert!(wrong.is_empty(), "in the wrong queue, held = {held}: {:?}", self.path);
        request.queue = if held { Queue::Held } else { Queue::Sideline };
        match self.h.store.dispatch.lease(request).await.unwrap().pop() {
            Some(lease) => self.leased(w, &lease),
            None => {
                let state = self.h.status(self.id).await.state;
                let waits = !self.case.delay.is_zero() && state == CallState::Delayed;
                assert!(
                    state.is_terminal() || waits,
                    "{state:?} but not offered: {:?}",
                    self.path
                );
            }
        }
    }

    async fn begin(&mut self, w: usize) {
        let held = self.held(w);
        let may = self.may_write(held.lease);
        match self
            .h
            .store
            .executions
            .begin(&scope::fleet(), held.lease)
            .await
            .unwrap()
        {
            Begun::Run => assert!(may, "a stale begin may run: {:?}", self.path),
            Begun::Stale => assert!(!may, "the current lease may not run: {:?}", self.path),
            Begun::Finished(reply) => {
                let accepted = self.reply.as_ref().map(|reply| Bytes::from(reply.clone()));
                assert_eq!(Some(reply.into_body()), accepted, "{:?}", self.path);
            }
            other => panic!("{other:?}"),
        }
        if !may {
            self.drop_lease(w);
            return;
        }
        if let Some(Some(held)) = self.workers.get_mut(w) {
            held.begun = true;
        }
        if let Some(current) = &mut self.current {
            current.begun = true;
        }
    }

    /// Notes a write that was tried, and whether it went as it must.
    fn wrote(&mut self, w: usize, applied: bool) -> bool {
        let held = self.held(w);
        let may = self.may_write(held.lease);
        assert_eq!(
            applied, may,
            "a write of worker {w} by a lease that may write = {may}: {:?}",
            self.path
        );
        self.drop_lease(w);
        if applied {
            self.current = None;
        }
        applied
    }

    async fn finish(&self, lease: LeaseRef, outcome: Outcome) -> bool {
        let mut finish = Finish::new(lease, outcome);
        finish.log = vec![LogEntry::new(self.h.now(), Level::Info, Audience::Customer, "A line.")];
        if matches!(
            finish.outcome,
            Outcome::Ended {
                status: ExecutionStatus::Succeeded,
                ..
            }
        ) {
            finish.state = Some(StateSnapshot::new(0, json!(lease.fence)));
            let target = format!("after-{}", self.name);
            let start = self.h.flow(&target, &self.name);
            finish.starts = vec![envelope::derived(start, &["after", &lease.id.to_string()])];
        }
        match self.h.finish(finish).await {
            Finished::Applied { .. } => true,
            Finished::Stale => false,
            other => panic!("{other:?}: {:?}", self.path),
        }
    }

    async fn succeed(&mut self, w: usize) {
        let held = self.held(w);
        let body = format!("worker {w}, fence {}", held.lease.fence);
        if !self.case.flow {
            let settled = self.h.complete(held.lease, &body).await;
            if self.wrote(w, settled == Settled::Applied) {
                self.ends += 1;
                self.reply = Some(body);
            }
            return;
        }
        let outcome = ended(held.close, &body);
        let applied = self.finish(held.lease, outcome).await;
        if self.wrote(w, applied) {
            self.ends += 1;
            self.lines += 1;
            self.reply = Some(body);
        }
    }

    async fn fail(&mut self, w: usize) {
        let lease = self.held(w).lease;
        let delay = self.case.delay;
        let applied = if self.case.flow {
            let (at, failure) = (self.h.now().plus(delay), harness::failure("it failed"));
            let applied = self.finish(lease, Outcome::Retry { at, failure }).await;
            self.lines += usize::from(applied);
            applied
        } else {
            self.h.retry(lease, delay).await == Settled::Applied
        };
        self.wrote(w, applied);
    }

    async fn release(&mut self, w: usize) {
        let held = self.held(w);
        let applied = if self.case.flow && held.begun {
            let applied = self.finish(held.lease, Outcome::Released).await;
            self.lines += usize::from(applied);
            applied
        } else {
            self.h.settle(Settle::Release { lease: held.lease }).await == Settled::Applied
        };
        if self.wrote(w, applied) && held.close.is_none() {
            self.attempts -= 1;
        }
    }

    async fn cancel(&mut self) {
        let before = self.h.status(self.id).await.state;
        let answer = self.h.cancel(self.id).await;
        let right = match before {
            state if state.is_terminal() => Cancel::Finished,
            CallState::Leased => Cancel::Requested,
            _ if self.case.flow => Cancel::Requested,
            _ => Cancel::Cancelled,
        };
        assert_eq!(answer, right, "{before:?}: {:?}", self.path);
        self.cancelled |= answer != Cancel::Finished;
    }

    /// A fair world: leases run out, a worker takes what is offered and finishes it. The call must end; then the other
    /// workers wake up and must not change anything. Answers whether a worker's success was accepted.
    pub(super) async fn complete(mut self) -> bool {
        let sleepers: Vec<Held> = self.workers.iter().flatten().copied().collect();
        for _ in 0..=ATTEMPTS {
            self.expire();
            self.workers = [None, None];
            let Some(lease) = self.h.store.dispatch.lease(self.request(true)).await.unwrap().pop() else {
                break;
            };
            self.leased(0, &lease);
            self.succeed(0).await;
        }
        let status = self.h.status(self.id).await;
        assert!(
            status.state.is_terminal(),
            "stuck as {:?}: {:?}",
            status.state,
            self.path
        );
        self.verify_end(&status);
        for held in sleepers {
            let late = if self.case.flow {
                self.finish(held.lease, success("late")).await
            } else {
                self.h.complete(held.lease, "late").await == Settled::Applied
            };
            assert!(!late, "a late write was accepted: {:?}", self.path);
        }
        assert_eq!(self.h.cancel(self.id).await, Cancel::Finished);
        let more = self.h.store.dispatch.lease(self.request(true)).await.unwrap();
        assert!(more.is_empty(), "offered after its end: {:?}", self.path);
        self.verify_end(&self.h.status(self.id).await);
        if self.case.flow {
            self.verify_records(true).await;
        }
        status.state == CallState::Completed
    }
}
