//! One attempt under one lease: run, watch, settle, wake.

use super::Holding;
use crate::{
    Settles,
    gate::{Drain, Permit},
    gateway::Inner,
    http::for_stored_reply,
    inbox::Answer,
    metric,
    target::Target,
    worker::leases::Held,
};
use crosspoint_core::{
    CallState, CloseReason, Code, Delivery, Error, Failure, InvocationId, Lease, Reply, Result, Retry, Settle, Settled,
    StopReason, Timestamp, retry::Next,
};
use futures_util::FutureExt;
use std::{future::Future, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::Instrument;

/// How long an attempt that was not begun keeps its permit before its lease is given back, so that a target that
/// refuses everything is not hammered.
const AFTER_REFUSAL: Duration = Duration::from_millis(250);

/// A leased call and where it goes.
pub(crate) struct Attempt {
    pub(crate) inner: Arc<Inner>,
    pub(crate) target: Arc<Target>,
    pub(crate) holding: Holding,
    pub(crate) lease: Lease,
}

/// What settling needs to know of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) id: InvocationId,
    pub(crate) attempt: u32,
    pub(crate) created: Timestamp,
    pub(crate) repeatable: bool,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
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
        self.run_inner(permit).instrument(span).await;
    }

    async fn run_inner(self, permit: Option<Permit>) {
        let signal = self.holding.stop.signal();
        let permit = match permit {
            Some(permit) => permit,
            None => tokio::select! {
                permit = self.target.gate.drain(Drain::Held) => permit,
                _ = signal.stopped() => return self.give_back().await,
                () = self.holding.lapsed() => return,
            },
        };
        let Some(served) = self.target.served() else {
            return self.give_back().await;
        };
        let lease = &self.lease;
        if let (Some(reason), Settles::Gateway) = (lease.close, served.settles) {
            let outcome = Outcome::Ended(Err(Error::new(closed(reason), "delivered only to be closed")));
            return conclude(&self.inner, &self.target, &self.holding, self.job(), outcome).await;
        }
        let mut invocation = lease.envelope.invocation.clone();
        invocation.meta.attempt = lease.attempt;
        let mut delivery = Delivery::new(lease.reference, lease.begun, lease.close, lease.queued, signal);
        if let Some(flow) = &lease.envelope.flow {
            delivery = delivery.of_flow(flow.clone(), lease.envelope.created);
        }
        invocation.meta.delivery = Some(delivery);
        let deadline = invocation.meta.deadline.filter(|_| lease.close.is_none());
        let left = deadline.map(|deadline| deadline.since(self.inner.clock.now()));
        let work = served.handler.handle(invocation);
        // What a handler that settles by itself has set going may outlive its future.
        let grace = (served.settles == Settles::Gateway).then_some(self.inner.config.stop_grace);
        let outcome = supervise(work, &self.holding, left, grace).await;
        match served.settles {
            Settles::Gateway => {
                drop(permit);
                conclude(&self.inner, &self.target, &self.holding, self.job(), outcome).await;
            }
            Settles::Handler => self.after_handler(outcome, permit).await,
        }
    }

    /// The handler has written the result itself, or will not.
    async fn after_handler(&self, outcome: Outcome, permit: Permit) {
        let id = self.lease.reference.id;
        match outcome {
            Outcome::Ended(Ok(reply)) => self.inner.inbox.answer(id, Answer::Reply(reply)),
            Outcome::Ended(Err(error)) if not_begun(&error) => {
                tracing::info!(%error, "the attempt was not begun");
                if error.code() != Code::ShuttingDown {
                    let draining = self.inner.reached(crate::gateway::Stage::Draining);
                    tokio::select! { () = sleep(AFTER_REFUSAL) => {}, () = draining => {} }
                }
                drop(permit);
                self.give_back().await;
            }
            Outcome::Ended(Err(error)) => {
                tracing::info!(%error, "the attempt failed");
                if self.inner.inbox.is_awaited(id) {
                    self.inner.look(id).await;
                }
            }
            // The lease is not given back, because the work may still run: it runs out, and the store counts the attempt.
            Outcome::Panicked => tracing::error!("the handler panicked"),
            Outcome::Abandoned(reason) => tracing::warn!(?reason, "the attempt did not stop and was dropped"),
        }
    }

    async fn give_back(&self) {
        if !self.holding.is_lost() {
            let lease = self.lease.reference;
            settle(&self.inner, &self.target, &self.holding, Settle::Release { lease }).await;
        }
    }

    fn job(&self) -> Job {
        Job {
            id: self.lease.reference.id,
            attempt: self.lease.attempt,
            created: self.lease.envelope.created,
            repeatable: self.lease.envelope.repeatable,
        }
    }
}

/// Errors by which a handler says that the attempt was not begun.
fn not_begun(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::ShuttingDown | Code::TargetSaturated | Code::TargetUnavailable
    )
}

/// Runs `work` until it ends, or until it was told to stop and did not within the grace; without a grace, until its lease
/// is lost as well. When this returns, the future of the work has ended or was dropped.
pub(crate) async fn supervise(
    work: impl Future<Output = Result<Reply>>,
    held: &Held,
    deadline: Option<Duration>,
    grace: Option<Duration>,
) -> Outcome {
    let mut work = pin!(AssertUnwindSafe(work).catch_unwind());
    let ended = |result: std::thread::Result<Result<Reply>>| result.map_or(Outcome::Panicked, Outcome::Ended);
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
        () = patience => Outcome::Abandoned(reason),
        // Stopped for another reason first: the lease does not wait for the grace to pass.
        () = held.lapsed(), if reason != StopReason::LeaseLost => Outcome::Abandoned(StopReason::LeaseLost),
    }
}

/// Writes how an attempt ended, then wakes whoever waits. After a lost lease no failure is written.
pub(crate) async fn conclude(inner: &Inner, target: &Target, held: &Held, job: Job, outcome: Outcome) {
    // A reply is offered even then: if nobody else has the lease yet, the store takes it, and else it answers `Stale`.
    if held.is_lost() && !matches!(outcome, Outcome::Ended(Ok(_))) {
        tracing::warn!("the lease was lost; nothing is written");
        return;
    }
    let settle_as = verdict(inner, target, held, job, outcome);
    let answer = match &settle_as {
        Settle::Complete { reply, .. } => Some(Answer::Reply(reply.clone())),
        Settle::Dead { failure, .. } => Some(Answer::Ended(CallState::Dead, Some(failure.clone()))),
        Settle::Unknown { .. } => Some(Answer::Ended(CallState::Unknown, None)),
        _ => None,
    };
    match settle(inner, target, held, settle_as).await {
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

/// What is written for an attempt of a service.
fn verdict(inner: &Inner, target: &Target, held: &Held, job: Job, outcome: Outcome) -> Settle {
    let lease = held.lease;
    let error = match outcome {
        Outcome::Ended(Ok(mut reply)) => {
            for_stored_reply(reply.headers_mut());
            return Settle::Complete { lease, reply };
        }
        Outcome::Ended(Err(error)) if error.code() == Code::OutcomeUnknown => {
            if !job.repeatable {
                tracing::warn!(%error, "the outcome is unknown");
                return Settle::Unknown { lease };
            }
            error.with_retry(Retry::Backoff)
        }
        Outcome::Ended(Err(error)) if error.code() == Code::ShuttingDown => return Settle::Release { lease },
        Outcome::Ended(Err(error)) => error,
        Outcome::Panicked => {
            tracing::error!("the handler panicked");
            let retry = if job.repeatable { Retry::Backoff } else { Retry::Never };
            Error::new(Code::Internal, "the handler panicked").with_retry(retry)
        }
        // The store makes "cancelled" of a call that is given back after somebody wanted it to stop.
        Outcome::Abandoned(StopReason::Cancelled) => return Settle::Release { lease },
        // It was dropped half-way: only what may be repeated may go on.
        Outcome::Abandoned(_) if !job.repeatable => return Settle::Unknown { lease },
        Outcome::Abandoned(StopReason::Deadline) => {
            Error::new(Code::DeadlineExceeded, "the deadline passed").with_retry(Retry::Never)
        }
        Outcome::Abandoned(_) => return Settle::Release { lease },
    };
    let failure = Failure::from(&error);
    let policy = target.served().map(|served| served.retry.clone()).unwrap_or_default();
    let seed = job.id.as_uuid().as_u64_pair().1;
    tracing::info!(%error, "the attempt failed");
    match policy.next(inner.clock.now(), job.created, job.attempt, error.retry(), seed) {
        Next::At(at) => Settle::Retry { lease, at, failure },
        _ => Settle::Dead { lease, failure },
    }
}

/// Settles, again and again while the store fails and the lease lasts.
pub(crate) async fn settle(inner: &Inner, target: &Target, held: &Held, settle: Settle) -> Option<Settled> {
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
                } else if matches!(settle, Settle::Release { .. } | Settle::Retry { .. }) {
                    target.queued.notify_one();
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
