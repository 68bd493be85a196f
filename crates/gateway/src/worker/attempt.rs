//! One attempt under one lease: run, watch, settle, wake.

use super::{
    Holding,
    verdict::{Verdict, not_begun, verdict},
};
use crate::{
    Settles,
    gate::{Drain, Permit, State},
    gateway::{Inner, Stage},
    http::stamp,
    inbox::Answer,
    later, metric,
    outcome::Outcome,
    target::Target,
    worker::leases::Held,
};
use crosspoint_core::{
    CallState, CloseReason, Code, Delivery, Error, Failure, InvocationId, Lease, Reply, Result, Settle, Settled,
    StopReason, Timestamp,
};
use futures_util::FutureExt;
use std::{future::Future, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use tracing::Instrument;

/// How long an attempt that was not begun waits before its lease is given back, so that a target that refuses single calls
/// is not hammered; by so much longer each time. Flows, and calls that a service has turned away, keep their permits for the
/// first part of it: that bounds how fast the queue is tried, and how much of it is here at once.
const AFTER_REFUSAL: Duration = Duration::from_millis(250);

/// The longest time for which a refusal, or its `Retry-After`, keeps a call from its queue.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// How long a call that was not begun stays away from its queue after it has come back so often before.
pub(super) fn refusal_pause(returned: u32) -> Duration {
    AFTER_REFUSAL
        .saturating_mul(returned.saturating_add(1))
        .min(LONGEST_REST)
}

/// A leased call and where it goes.
pub(crate) struct Attempt {
    pub(crate) inner: Arc<Inner>,
    pub(crate) target: Arc<Target>,
    pub(crate) holding: Holding,
    pub(crate) lease: Lease,
}

/// What settling needs to know of a call.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) id: InvocationId,
    pub(crate) attempt: u32,
    /// How many deliveries were no attempts.
    pub(crate) returned: u32,
    pub(crate) created: Timestamp,
    pub(crate) repeatable: bool,
    /// Until when somebody waits for it.
    pub(crate) hold_until: Option<Timestamp>,
    /// Whether its request is kept, so that it can be begun later or again.
    pub(crate) kept: bool,
    /// The class of its route.
    pub(crate) route: Arc<str>,
}

impl Job {
    /// The call of a lease, with its request.
    pub(crate) fn of(lease: &Lease) -> Self {
        let envelope = &lease.envelope;
        Self {
            id: lease.reference.id,
            attempt: lease.attempt,
            returned: lease.returned,
            created: envelope.created,
            repeatable: envelope.repeatable,
            hold_until: envelope.hold_until,
            kept: true,
            route: Arc::clone(&envelope.invocation.meta.route_class),
        }
    }

    /// Whether it was refused for long and often enough.
    pub(super) fn is_given_up(&self, inner: &Inner, target: &Target) -> bool {
        let policy = target.served().map(|served| served.retry.clone()).unwrap_or_default();
        let age = inner.clock.now().since(self.created);
        let over = policy.total_ms.is_some_and(|total| age > Duration::from_millis(total));
        over && self.returned >= policy.max_attempts
    }

    /// Where it stands when it is given back.
    fn queue(&self, inner: &Inner) -> Drain {
        match self.hold_until {
            Some(until) if until > inner.clock.now() => Drain::Held,
            _ => Drain::Sideline,
        }
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Ended(Result<Reply>),
    Panicked,
    /// It was told to stop, did not, and was dropped.
    Abandoned(StopReason),
}

impl Attempt {
    /// Runs the attempt to its end. Without a permit it waits for one first.
    pub(crate) async fn run(self, permit: Option<Permit>) {
        let span = tracing::info_span!(
            "dispatch.attempt",
            target = %self.target.id,
            id = %self.lease.reference.id,
            attempt = self.lease.attempt,
        );
        // Boxed: it is large, and beside a commit an allocation is nothing.
        Box::pin(self.run_inner(permit)).instrument(span).await;
    }

    async fn run_inner(self, permit: Option<Permit>) {
        let signal = self.holding.stop.signal();
        let mut permit = match permit {
            Some(permit) => permit,
            None => tokio::select! {
                permit = self.target.gate.drain(Drain::Held) => permit,
                _ = signal.stopped() => return self.give_back().await,
                () = self.holding.lapsed() => return,
            },
        };
        let Some(served) = self.target.served() else {
            drop(permit);
            return self.give_back().await;
        };
        let lease = &self.lease;
        if let (Some(reason), Settles::Gateway) = (lease.close, served.settles) {
            drop(permit);
            let ending = Ending::Ended(Err(Error::new(closed(reason), "delivered only to be closed")));
            return conclude(&self.inner, &self.target, &self.holding, &self.job(), ending).await;
        }
        if served.settles == Settles::Gateway && lease.lost >= self.inner.config.suspect_losses.max(1) {
            let times = lease.lost;
            drop(permit);
            tracing::error!(times, "the call is not begun again: its worker was lost each time");
            let message = format!("its worker was lost {times} times while it ran; it is not begun again by itself");
            let ending = Ending::Ended(Err(Error::new(Code::WorkersLost, message)));
            return conclude(&self.inner, &self.target, &self.holding, &self.job(), ending).await;
        }
        if served.settles == Settles::Gateway && lease.attempt == 1 {
            self.target.budget.deposit();
        }
        let mut invocation = lease.envelope.invocation.clone();
        let class = self.target.gate.class(&invocation.meta.route_class);
        permit.carries(class, &invocation.meta.customer);
        invocation.meta.attempt = lease.attempt;
        let mut delivery = Delivery::new(lease.reference, lease.begun, lease.close, lease.queued, signal);
        if let Some(flow) = &lease.envelope.flow {
            delivery = delivery.of_flow(flow.clone(), lease.envelope.created);
        }
        invocation.meta.delivery = Some(delivery);
        let deadline = invocation.meta.deadline.filter(|_| lease.close.is_none());
        let left = deadline.map(|deadline| deadline.since(self.inner.clock.now()));
        let queued = self.inner.clock.now().since(lease.envelope.created);
        let began = Instant::now();
        let work = served.handler.handle(invocation);
        // What a handler that settles by itself has set going may outlive its future.
        let grace = (served.settles == Settles::Gateway).then_some(self.inner.config.stop_grace);
        let mut ending = supervise(work, &self.holding, left, grace).await;
        match served.settles {
            Settles::Gateway => {
                finish(permit, ending.outcome(&self.target.id));
                if let Ending::Ended(Ok(reply)) = &mut ending {
                    stamp(reply.headers_mut(), queued, began.elapsed());
                }
                conclude(&self.inner, &self.target, &self.holding, &self.job(), ending).await;
            }
            Settles::Handler => self.after_handler(ending, permit).await,
        }
    }

    /// The handler has written the result itself, or will not.
    async fn after_handler(&self, ending: Ending, permit: Permit) {
        let id = self.lease.reference.id;
        match ending {
            Ending::Ended(Ok(reply)) => {
                permit.finish(Outcome::Success);
                self.inner.inbox.answer(id, Answer::Reply(reply));
            }
            Ending::Ended(Err(error)) if not_begun(&error) => {
                tracing::info!(%error, "the attempt was not begun");
                pause(&self.inner, &self.holding, AFTER_REFUSAL).await;
                drop(permit);
                let job = self.job();
                if error.code() != Code::ShuttingDown && job.is_given_up(&self.inner, &self.target) {
                    let (lease, failure) = (self.lease.reference, Failure::from(&error));
                    self.end(Settle::Dead { lease, failure }).await;
                    return self.tell().await;
                }
                let rest = refusal_pause(job.returned).saturating_sub(AFTER_REFUSAL);
                pause(&self.inner, &self.holding, rest).await;
                self.give_back().await;
            }
            Ending::Ended(Err(error)) => {
                tracing::info!(%error, "the attempt failed");
                permit.finish(Outcome::Failed);
                self.tell().await;
            }
            // The lease is not given back, because the work may still run: it runs out, and the store counts the attempt.
            Ending::Panicked => tracing::error!("the handler panicked"),
            Ending::Abandoned(reason) => tracing::warn!(?reason, "the attempt did not stop and was dropped"),
        }
    }

    async fn give_back(&self) {
        let lease = self.lease.reference;
        self.end(Settle::Release { lease }).await;
    }

    /// Somebody else has written the end, if it is one: whoever waits hears of it.
    async fn tell(&self) {
        let id = self.lease.reference.id;
        if self.inner.inbox.is_awaited(id) {
            self.inner.look(id).await;
        }
    }

    async fn end(&self, how: Settle) {
        if !self.holding.is_lost() {
            settle(&self.inner, &self.target, &self.holding, &self.job(), how).await;
        }
    }

    fn job(&self) -> Job {
        Job::of(&self.lease)
    }
}

/// Gives the permit of a queued call back; after a while if the target has turned the call away. It answers that at once,
/// and the next permit would bring it the next call of the queue in the same moment.
fn finish(permit: Permit, outcome: Outcome) {
    if !matches!(outcome, Outcome::Overloaded { .. }) {
        return permit.finish(outcome);
    }
    // The call itself does not wait for it: its client is answered, or its lease has a rest of its own.
    tokio::spawn(async move {
        sleep(AFTER_REFUSAL).await;
        permit.finish(outcome);
    });
}

/// Runs `work` until it ends, or until it was told to stop and did not within the grace; without a grace, until its lease
/// is lost as well. When this returns, the future of the work has ended or was dropped.
pub(crate) async fn supervise(
    work: impl Future<Output = Result<Reply>>,
    held: &Held,
    deadline: Option<Duration>,
    grace: Option<Duration>,
) -> Ending {
    let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
    let ended = |result: std::thread::Result<Result<Reply>>| result.map_or(Ending::Panicked, Ending::Ended);
    let signal = held.stop.signal();
    let late = async {
        match deadline {
            Some(left) => sleep(left).await,
            None => std::future::pending().await,
        }
    };
    let reason = tokio::select! {
        biased;
        result = &mut work => return ended(result),
        reason = signal.stopped() => reason,
        () = held.lapsed() => StopReason::LeaseLost,
        () = late => StopReason::Deadline,
    };
    held.stop.stop(reason);
    let patience = async {
        match grace {
            _ if reason == StopReason::LeaseLost => {
                sleep(grace.map_or(held.reserve, |most| held.reserve.min(most))).await;
            }
            Some(grace) => sleep(grace).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        result = &mut work => ended(result),
        () = patience => Ending::Abandoned(reason),
        // Stopped for another reason first: the lease does not wait for the grace to pass.
        () = held.lapsed(), if reason != StopReason::LeaseLost => Ending::Abandoned(StopReason::LeaseLost),
    }
}

/// Writes how an attempt ended, then wakes whoever waits. After a lost lease no failure is written.
pub(crate) async fn conclude(inner: &Inner, target: &Target, held: &Held, job: &Job, ending: Ending) {
    if let Ending::Ended(Ok(reply)) = &ending
        && let Some(within) = later::within(reply.extensions())
    {
        return later::leave(inner, held, within).await;
    }
    // A reply is offered even then: if nobody else has the lease yet, the store takes it, and else it answers `Stale`.
    if held.is_lost() && !matches!(ending, Ending::Ended(Ok(_))) {
        tracing::warn!("the lease was lost; nothing is written");
        return;
    }
    let settle_as = match verdict(inner, target, held, job, ending) {
        Verdict::Settle(settle) => {
            target.lull.end();
            settle
        }
        Verdict::NotBegun { failure, .. } if job.is_given_up(inner, target) => {
            tracing::warn!(id = %job.id, "a call that was never begun is given up");
            let lease = held.lease;
            Settle::Dead { lease, failure }
        }
        Verdict::NotBegun { retry_after, .. } => {
            rest(inner, target, held, job, retry_after).await;
            Settle::Release { lease: held.lease }
        }
    };
    let answer = match &settle_as {
        Settle::Complete { reply, .. } => Some(Answer::Reply(reply.clone())),
        Settle::Dead { failure, .. } => Some(Answer::Ended(CallState::Dead, Some(failure.clone()))),
        Settle::Unknown { .. } => Some(Answer::Ended(CallState::Unknown, None)),
        _ => None,
    };
    match settle(inner, target, held, job, settle_as).await {
        None => {}
        Some(settled) => match answer.filter(|_| settled == Settled::Applied) {
            Some(answer) => inner.inbox.answer(job.id, answer),
            // Given back or to be tried again, which the store may have turned into an end.
            None if inner.inbox.is_awaited(job.id) => {
                inner.look(job.id).await;
            }
            None => {}
        },
    }
}

/// Waits before a call that was not begun goes back to its queue. While the gate lets no queued work through, that is pause
/// enough; a cool-off in which it does must not become a race from the queue and back.
async fn rest(inner: &Inner, target: &Target, held: &Held, job: &Job, retry_after: Option<Duration>) {
    let open = target.gate.may_drain();
    if open && target.gate.snapshot().state == State::CoolOff {
        target.lull.refused();
    }
    let time = match retry_after {
        Some(told) => told.min(LONGEST_REST),
        None if !open => return,
        None => refusal_pause(job.returned),
    };
    pause(inner, held, time).await;
}

/// Waits, but not on the way out, nor for a lease that is over.
async fn pause(inner: &Inner, held: &Held, time: Duration) {
    let signal = held.stop.signal();
    tokio::select! {
        () = sleep(time) => {}
        () = inner.reached(Stage::Draining) => {}
        _ = signal.stopped() => {}
        () = held.lapsed() => {}
    }
}

/// Settles, again and again while the store fails and the lease lasts.
pub(crate) async fn settle(inner: &Inner, target: &Target, held: &Held, job: &Job, settle: Settle) -> Option<Settled> {
    let mut pause = Duration::from_millis(50);
    loop {
        match inner.store.settle(vec![settle.clone()]).await {
            Ok(answers) => {
                let answer = answers.into_iter().next()?;
                if answer == Settled::Stale && matches!(settle, Settle::Release { .. }) {
                    // The handler has given it back itself.
                    tracing::debug!(id = %held.lease.id, "the lease was over already");
                } else if answer == Settled::Stale {
                    metric::stale(target.id.as_str());
                    tracing::warn!(id = %held.lease.id, "a result came too late and was not stored");
                } else if matches!(settle, Settle::Release { .. }) {
                    target.backlog.released(job.id);
                    target.control.backlog().stored(1);
                    target.announce(job.queue(inner));
                }
                return Some(answer);
            }
            Err(error) => {
                tracing::warn!(%error, id = %held.lease.id, "a result could not be stored yet");
                tokio::select! {
                    () = sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
                    () = held.lapsed() => return None,
                }
            }
        }
    }
}

/// The code under which a call that is delivered only to be closed becomes a dead letter.
const fn closed(reason: CloseReason) -> Code {
    match reason {
        CloseReason::Expired => Code::Expired,
        CloseReason::Cancelled => Code::Cancelled,
        _ => Code::AttemptsExhausted,
    }
}
