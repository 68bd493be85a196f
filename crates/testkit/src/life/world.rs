//! The store, the two workers, and the reference model of every call.

use super::{
    Kind, Lived, Step, Whose,
    call::{ATTEMPTS, Call, End, Place, check},
};
use crate::{Harness, LEASE, envelope, harness, scope, suites::executions::ended};
use bytes::Bytes;
use crosspoint_core::{
    Begun, CallState, Cancel, CloseReason, Enqueue, Enqueued, Extended, Finish, Finished, Lease, LeaseRef, Outcome,
    Settle, Settled, Timestamp,
};
use std::time::Duration;

const TARGET: &str = "life";

/// What a worker believes it holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    call: usize,
    lease: LeaseRef,
    begun: bool,
    close: Option<CloseReason>,
}

#[derive(Debug)]
pub(super) struct World<'h> {
    h: &'h Harness,
    calls: Vec<Call>,
    workers: [Vec<Held>; 2],
    /// Writes that were refused because their lease was not the current one.
    stale: usize,
}

type Kept = Result<(), String>;

impl<'h> World<'h> {
    pub(super) const fn new(h: &'h Harness) -> Self {
        Self {
            h,
            calls: Vec::new(),
            workers: [Vec::new(), Vec::new()],
            stale: 0,
        }
    }

    pub(super) async fn take(&mut self, step: &Step) -> Kept {
        if let Step::Clock(seconds) = *step {
            self.h
                .clock
                .set(Timestamp::from_millis(self.h.now().as_millis() + seconds * 1000));
            // Nobody looks: what has become due shows when somebody does.
            return Ok(());
        }
        self.tick();
        match *step {
            Step::Enqueue { .. } => self.enqueue(step).await,
            Step::Again(call) => self.again(call).await,
            Step::Lease { worker, max, begin } => self.lease(worker, max, begin).await,
            Step::Begin(whose) => self.begin(whose).await,
            Step::Extend(whose) => self.extend(whose).await,
            Step::Succeed(whose) => self.succeed(whose).await,
            Step::Fail(whose, delay) => self.fail(whose, Duration::from_secs(delay)).await,
            Step::Release(whose) => self.release(whose).await,
            Step::GiveUp(whose) => self.end_service(whose, CallState::Dead).await,
            Step::LoseTrack(whose) => self.end_service(whose, CallState::Unknown).await,
            Step::Crash(worker) => {
                self.workers[worker].clear();
                Ok(())
            }
            Step::Cancel(call) => self.cancel(call).await,
            Step::Purge(age, limit) => self.purge(age, limit).await,
            Step::Clock(_) => Ok(()),
        }
    }

    /// What becomes due the moment that somebody looks.
    fn tick(&mut self) {
        let now = self.h.now();
        for call in &mut self.calls {
            call.tick(now);
        }
    }

    async fn enqueue(&mut self, step: &Step) -> Kept {
        let Step::Enqueue {
            kind,
            customer,
            ordered,
            delay,
            expires,
            start,
            hold,
        } = *step
        else {
            return Ok(());
        };
        let (now, customer) = (self.h.now(), ["acme", "globex"][customer]);
        let mut envelope = match kind {
            Kind::Flow => self.h.flow(TARGET, customer),
            Kind::Call | Kind::Repeatable => self.h.service(TARGET, customer),
        };
        envelope.repeatable = kind != Kind::Call;
        envelope.max_attempts = ATTEMPTS;
        envelope.not_before = (delay > 0).then(|| now.plus(Duration::from_secs(delay)));
        envelope.expires = expires.map(|after| now.plus(Duration::from_secs(after)));
        envelope.hold_until = hold.map(|length| now.plus(Duration::from_secs(length)));
        if let Some(key) = ordered {
            envelope = envelope::ordered(envelope, ["a", "b"][key]);
        }
        let item = if start {
            Enqueue::leased(envelope.clone(), harness::terms("worker-0"))
        } else {
            Enqueue::queued(envelope.clone())
        };
        // A held call goes before the sideline.
        let held = |envelope: &crosspoint_core::Envelope| envelope.hold_until.is_some_and(|until| until > now);
        let waits = (0..self.calls.len()).any(|other| {
            let before = &self.calls[other].envelope;
            self.is_ready(other) && before.customer() == envelope.customer() && (held(before) || !held(&envelope))
        });
        self.calls.push(Call::new(envelope, kind, now));
        let call = self.calls.len() - 1;
        match self.h.enqueue(item).await {
            Enqueued::New(None) => Ok(()),
            Enqueued::New(Some(lease)) => {
                check(start && !waits && self.is_ready(call), || {
                    "leased out of turn".to_owned()
                })?;
                self.leased(0, &lease, true)
            }
            other => Err(format!("a new id is {other:?}")),
        }
    }

    async fn again(&self, call: usize) -> Kept {
        let Some(call) = self.calls.get(call % self.calls.len().max(1)) else {
            return Ok(());
        };
        if call.place == Place::Purged {
            return Ok(());
        }
        let answer = self.h.enqueue(Enqueue::queued(call.envelope.clone())).await;
        check(matches!(answer, Enqueued::Duplicate), || {
            format!("a known id is {answer:?}")
        })
    }

    /// Whether nothing keeps a call from being leased.
    fn is_ready(&self, which: usize) -> bool {
        let call = &self.calls[which];
        let key = &call.envelope.invocation.meta.ordering_key;
        let before = self.calls[..which]
            .iter()
            .any(|other| key.is_some() && other.is_open() && &other.envelope.invocation.meta.ordering_key == key);
        call.place == Place::Waiting && (call.close.is_some() || !before)
    }

    fn leased(&mut self, worker: usize, lease: &Lease, begin: bool) -> Kept {
        let id = lease.envelope.id();
        let found = self.calls.iter().position(|call| call.envelope.id() == id);
        let Some(which) = found else {
            return Err(format!("{id} was never stored"));
        };
        let ready = self.is_ready(which);
        let (now, call) = (self.h.now(), &mut self.calls[which]);
        check(ready, || {
            format!("leased as {:?}, behind others or twice: {call:?}", call.place)
        })?;
        check(call.is_flow() || !call.is_expired(now), || {
            "begun after it had expired".to_owned()
        })?;
        check(lease.begun == begin, || format!("begun {}, not {begin}", lease.begun))?;
        call.leased(lease, now)?;
        self.workers[worker].push(Held {
            call: which,
            lease: lease.reference,
            begun: lease.begun,
            close: lease.close,
        });
        Ok(())
    }

    async fn lease(&mut self, worker: usize, max: usize, begin: bool) -> Kept {
        let mut request = harness::request(TARGET, max);
        request.begin = begin;
        let leases = self.h.store.dispatch.lease(request).await.unwrap();
        check(leases.len() <= max, || "more than was asked for".to_owned())?;
        // Those that had expired were ended when their turn came, and whoever stood behind them is the next.
        let expired = self.see_expired().await?;
        for lease in &leases {
            self.leased(worker, lease, begin)?;
        }
        let forgotten = (0..self.calls.len()).find(|call| self.is_ready(*call));
        // An expired head may let a held call go whose queue has had its turn: it comes with the next lease.
        match forgotten.filter(|_| leases.len() < max && !expired) {
            Some(call) => Err(format!("ready but not offered: {:?}", self.calls[call])),
            None => Ok(()),
        }
    }

    /// A service's call that has expired may be ended by the store at any time before somebody begins it.
    /// Answers whether any call was ended since the last look.
    async fn see_expired(&mut self) -> Result<bool, String> {
        let now = self.h.now();
        let mut any = false;
        for call in &mut self.calls {
            let waits = matches!(call.place, Place::Waiting | Place::Delayed(_));
            if waits && !call.is_flow() && call.is_expired(now) {
                let status = self.h.try_status(call.envelope.id()).await;
                let state = status.ok_or("an accepted call is gone")?.state;
                if state == CallState::Expired {
                    call.place = Place::Ended(state);
                    any = true;
                }
            }
        }
        Ok(any)
    }

    fn held(&self, Whose { worker, lease }: Whose) -> Option<(usize, Held)> {
        let all = &self.workers[worker];
        let at = lease % all.len().max(1);
        Some((at, *all.get(at)?))
    }

    async fn begin(&mut self, whose: Whose) -> Kept {
        let Some((at, held)) = self.held(whose).filter(|(_, held)| !held.begun) else {
            return Ok(());
        };
        let may = self.calls[held.call].may_write(held.lease);
        match self
            .h
            .store
            .executions
            .begin(&scope::fleet(), held.lease)
            .await
            .unwrap()
        {
            Begun::Run => check(may, || "a stale begin may run".to_owned())?,
            Begun::Stale => check(!may, || "the current lease may not run".to_owned())?,
            Begun::Finished(_) => check(!self.calls[held.call].is_open(), || "finished, but open".to_owned())?,
            other => return Err(format!("{other:?}")),
        }
        if may {
            self.calls[held.call].began();
            self.workers[whose.worker][at].begun = true;
        } else {
            self.workers[whose.worker].remove(at);
        }
        Ok(())
    }

    async fn extend(&mut self, whose: Whose) -> Kept {
        let Some((_, held)) = self.held(whose) else {
            return Ok(());
        };
        let answer = self.h.extend(held.lease).await;
        let (now, call) = (self.h.now(), &mut self.calls[held.call]);
        if !call.may_write(held.lease) {
            return check(answer == Extended::Stale, || format!("a stale heartbeat: {answer:?}"));
        }
        call.place = Place::Held(now.plus(LEASE));
        let right = match answer {
            Extended::Extended => !call.stop || held.close.is_some(),
            Extended::CancelRequested => call.stop,
            _ => false,
        };
        check(right, || format!("{answer:?} for {call:?}"))
    }

    /// Notes a write that was tried. Answers whether it was applied, which must be whether its lease may write.
    fn wrote(&mut self, whose: Whose, applied: bool) -> Result<Option<&mut Call>, String> {
        let Some((at, held)) = self.held(whose) else {
            return Ok(None);
        };
        self.workers[whose.worker].remove(at);
        let call = &mut self.calls[held.call];
        let may = call.may_write(held.lease);
        check(applied == may, || {
            format!("applied: {applied}, under a lease that may write: {may}; {call:?}")
        })?;
        self.stale += usize::from(!applied);
        Ok(applied.then_some(call))
    }

    async fn settle(&self, settle: Settle) -> bool {
        self.h.settle(settle).await == Settled::Applied
    }

    async fn outcome(&self, lease: LeaseRef, outcome: Outcome) -> Result<bool, String> {
        match self.h.finish(Finish::new(lease, outcome)).await {
            Finished::Applied { .. } => Ok(true),
            Finished::Stale => Ok(false),
            other => Err(format!("{other:?}")),
        }
    }

    async fn succeed(&mut self, whose: Whose) -> Kept {
        let Some((_, held)) = self.held(whose) else {
            return Ok(());
        };
        let (worker, fence) = (whose.worker, held.lease.fence);
        let body = format!("worker {worker}, fence {fence}");
        let applied = if self.calls[held.call].is_flow() {
            let outcome = ended(held.close, &body);
            self.outcome(held.lease, outcome).await?
        } else {
            self.h.complete(held.lease, &body).await == Settled::Applied
        };
        if let Some(call) = self.wrote(whose, applied)? {
            check(call.reply.is_none(), || "a second reply".to_owned())?;
            call.reply = Some(body);
            // How the ends of flows are called in the queue follows from why they were closed.
            call.place = Place::Ended(match held.close {
                Some(CloseReason::Cancelled) if call.is_flow() => CallState::Cancelled,
                Some(_) if call.is_flow() => CallState::Dead,
                _ => CallState::Completed,
            });
        }
        Ok(())
    }

    async fn fail(&mut self, whose: Whose, delay: Duration) -> Kept {
        let Some((_, held)) = self.held(whose) else {
            return Ok(());
        };
        let (now, failure) = (self.h.now(), harness::failure("it failed"));
        let (lease, at) = (held.lease, now.plus(delay));
        let applied = if self.calls[held.call].is_flow() {
            self.outcome(lease, Outcome::Retry { at, failure }).await?
        } else {
            self.settle(Settle::Retry { lease, at, failure }).await
        };
        if let Some(call) = self.wrote(whose, applied)? {
            call.fail(at, now);
        }
        Ok(())
    }

    async fn release(&mut self, whose: Whose) -> Kept {
        let Some((_, held)) = self.held(whose) else {
            return Ok(());
        };
        let applied = if self.calls[held.call].is_flow() && held.begun {
            self.outcome(held.lease, Outcome::Released).await?
        } else {
            self.settle(Settle::Release { lease: held.lease }).await
        };
        if let Some(call) = self.wrote(whose, applied)? {
            call.release();
        }
        Ok(())
    }

    async fn end_service(&mut self, whose: Whose, state: CallState) -> Kept {
        let found = self.held(whose);
        let Some((_, held)) = found.filter(|(_, held)| !self.calls[held.call].is_flow()) else {
            return Ok(());
        };
        let (lease, failure) = (held.lease, harness::failure("no more"));
        let applied = match state {
            CallState::Unknown => self.settle(Settle::Unknown { lease }).await,
            _ => self.settle(Settle::Dead { lease, failure }).await,
        };
        if let Some(call) = self.wrote(whose, applied)? {
            call.place = Place::Ended(state);
        }
        Ok(())
    }

    async fn cancel(&mut self, which: usize) -> Kept {
        let which = which % self.calls.len().max(1);
        let Some(id) = self.calls.get(which).map(|call| call.envelope.id()) else {
            return Ok(());
        };
        self.see_expired().await?;
        let answer = self.h.cancel(id).await;
        let call = &mut self.calls[which];
        let right = match call.place {
            Place::Purged => Cancel::NotFound,
            Place::Ended(_) => Cancel::Finished,
            Place::Held(_) => Cancel::Requested,
            _ if call.is_flow() => Cancel::Requested,
            _ => Cancel::Cancelled,
        };
        call.stop |= right == Cancel::Requested;
        if right == Cancel::Cancelled {
            call.place = Place::Ended(CallState::Cancelled);
        } else if right == Cancel::Requested && call.close.is_none() && !matches!(call.place, Place::Held(_)) {
            call.close_for(CloseReason::Cancelled);
        }
        check(answer == right, || format!("{answer:?}, not {right:?}: {call:?}"))
    }

    async fn purge(&mut self, age: u64, limit: usize) -> Kept {
        let Some(admin) = self.h.store.dispatch.admin() else {
            return Ok(());
        };
        let before = Timestamp::from_millis(self.h.now().as_millis().saturating_sub_unsigned(age * 1000));
        let went = admin.purge(before, limit).await.unwrap();
        check(went <= limit, || format!("{went} went, {limit} at most"))?;
        let mut gone = 0;
        for call in &mut self.calls {
            let old = call
                .end
                .as_ref()
                .is_some_and(|end| end.finished.is_some_and(|at| at < before));
            if old && call.place != Place::Purged && self.h.try_status(call.envelope.id()).await.is_none() {
                call.place = Place::Purged;
                gone += 1;
            }
        }
        check(gone == went, || format!("{went} went, of those that had ended {gone}"))
    }

    /// The store says of every call what the model says, and an end stays as it was.
    pub(super) async fn verify(&mut self) -> Kept {
        self.tick();
        self.see_expired().await?;
        for call in &mut self.calls {
            let Some(status) = self.h.try_status(call.envelope.id()).await else {
                check(call.place == Place::Purged, || format!("gone: {call:?}"))?;
                continue;
            };
            let state = status.state;
            let right = match call.place {
                Place::Held(_) => state == CallState::Leased,
                Place::Ended(ended) => state == ended || (call.is_flow() && state.is_terminal()),
                Place::Waiting | Place::Delayed(_) => matches!(state, CallState::Queued | CallState::Delayed),
                Place::Purged => false,
            };
            check(right, || format!("the store says {state:?}: {call:?}"))?;
            if !state.is_terminal() {
                check(status.attempt == call.attempts, || {
                    format!("the store says attempt {}: {call:?}", status.attempt)
                })?;
                continue;
            }
            let end = End {
                state,
                reply: status.reply.map(|reply| reply.body().clone()),
                finished: status.finished,
                attempt: status.attempt,
            };
            check(end.finished.is_some(), || format!("an end without a time: {call:?}"))?;
            check(end.reply == call.reply.clone().map(Bytes::from), || {
                format!("the store has the reply {:?}: {call:?}", end.reply)
            })?;
            let first = call.end.get_or_insert_with(|| end.clone());
            check(*first == end, || {
                format!("an end has changed from {first:?} to {end:?}")
            })?;
        }
        Ok(())
    }

    /// A fair world: leases run out, delays pass, a worker takes what is offered and finishes it. Everything must end, and
    /// whoever wakes up late must not change anything.
    pub(super) async fn end(&mut self) -> Kept {
        let late: Vec<Held> = self.workers.iter().flatten().copied().collect();
        for _ in 0..=self.calls.len() {
            self.h.advance(LEASE * 4);
            self.tick();
            self.workers = [Vec::new(), Vec::new()];
            self.lease(1, 100, true).await?;
            while !self.workers[1].is_empty() {
                self.succeed(Whose { worker: 1, lease: 0 }).await?;
            }
            self.verify().await?;
        }
        let open = self.calls.iter().find(|call| call.is_open());
        check(open.is_none(), || format!("stuck: {open:?}"))?;
        self.workers[0] = late;
        while !self.workers[0].is_empty() {
            self.succeed(Whose { worker: 0, lease: 0 }).await?;
        }
        self.verify().await
    }

    pub(super) fn lived(&self) -> Lived {
        let ended = |wanted: CallState| {
            let ends = self.calls.iter().filter_map(|call| call.end.as_ref());
            ends.filter(|end| end.state == wanted).count()
        };
        Lived {
            calls: self.calls.len(),
            completed: ended(CallState::Completed),
            dead: ended(CallState::Dead),
            unknown: ended(CallState::Unknown),
            cancelled: ended(CallState::Cancelled),
            expired: ended(CallState::Expired),
            purged: self.calls.iter().filter(|call| call.place == Place::Purged).count(),
            stale: self.stale,
        }
    }
}
