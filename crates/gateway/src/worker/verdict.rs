//! What the end of an attempt means: for its call, and for its target.

use super::{
    attempt::{Ending, Job},
    leases::Held,
};
use crate::{
    gateway::Inner,
    http::for_stored_reply,
    later,
    outcome::{Outcome, verdict_of},
    target::Target,
};
use crosspoint_core::{Code, Error, Failure, Reply, Result, Retry, Settle, StopReason, TargetId, retry::Next};
use std::time::Duration;

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Verdict {
    /// This is written.
    Settle(Settle),
    /// It was not begun: it goes back to its place without having used up an attempt.
    NotBegun {
        /// What becomes of it if this was the last time.
        failure: Failure,
        /// When the target wants to be asked again.
        retry_after: Option<Duration>,
    },
}

/// What the result of a handler says about its target.
pub(crate) fn outcome_of(result: &Result<Reply>, target: &TargetId) -> Outcome {
    match result {
        // A reply that comes later is none yet, and its status means nothing.
        Ok(reply) if later::within(reply.extensions()).is_some() => Outcome::Success,
        Ok(reply) => Outcome::of(reply.status(), reply.headers()),
        Err(error) => verdict_of(error, target),
    }
}

/// Errors by which a handler that settles by itself says that the attempt was not begun.
pub(super) fn not_begun(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::ShuttingDown | Code::TargetSaturated | Code::TargetUnavailable
    )
}

impl Ending {
    /// What it says about the target.
    pub(crate) fn outcome(&self, target: &TargetId) -> Outcome {
        match self {
            Self::Ended(result) => outcome_of(result, target),
            Self::Panicked => Outcome::Failed,
            Self::Abandoned(StopReason::Deadline) => Outcome::Unknown,
            Self::Abandoned(_) => Outcome::Cancelled,
        }
    }
}

/// What is written for an attempt of a service.
pub(super) fn verdict(inner: &Inner, target: &Target, held: &Held, job: &Job, ending: Ending) -> Verdict {
    let lease = held.lease;
    // A reply is the handler's own, whatever its status. An adopted call has no request to begin again with: what came of
    // it is its end.
    let refused = match &ending {
        Ending::Ended(Err(error)) if job.kept => Some((verdict_of(error, &target.id), error)),
        _ => None,
    };
    if let Some((outcome, error)) = refused.filter(|(outcome, _)| outcome.is_not_started()) {
        tracing::info!(?outcome, "the attempt was not begun");
        let retry_after = match outcome {
            Outcome::Overloaded { retry_after } => retry_after,
            _ => None,
        };
        return Verdict::NotBegun {
            failure: Failure::from(error),
            retry_after,
        };
    }
    Verdict::Settle(match ending {
        Ending::Ended(Ok(reply)) => return replied(inner, target, held, job, reply),
        Ending::Ended(Err(error)) if error.code() == Code::OutcomeUnknown => {
            if !job.repeatable {
                tracing::warn!(%error, "the outcome is unknown");
                return Verdict::Settle(Settle::Unknown { lease });
            }
            failed(inner, target, held, job, &error.with_retry(Retry::Backoff))
        }
        // It was told to stop and did.
        Ending::Ended(Err(error)) if error.code() == Code::ShuttingDown && held.stop.signal().reason().is_some() => {
            Settle::Release { lease }
        }
        // It says that something was not begun, but not that it was this call: these codes ask for no repeat by themselves.
        Ending::Ended(Err(error)) if not_begun(&error) && !(job.kept && job.repeatable) => {
            failed(inner, target, held, job, &error.with_retry(Retry::Never))
        }
        Ending::Ended(Err(error)) => failed(inner, target, held, job, &error),
        Ending::Panicked => {
            tracing::error!("the handler panicked");
            let retry = if job.repeatable { Retry::Backoff } else { Retry::Never };
            let error = Error::new(Code::Internal, "the handler panicked").with_retry(retry);
            failed(inner, target, held, job, &error)
        }
        // The store makes "cancelled" of a call that is given back after somebody wanted it to stop.
        Ending::Abandoned(StopReason::Cancelled) => Settle::Release { lease },
        // It was dropped half-way: only what may be repeated may go on.
        Ending::Abandoned(_) if !job.repeatable => Settle::Unknown { lease },
        Ending::Abandoned(StopReason::Deadline) => {
            let error = Error::new(Code::DeadlineExceeded, "the deadline passed").with_retry(Retry::Never);
            failed(inner, target, held, job, &error)
        }
        Ending::Abandoned(_) => Settle::Release { lease },
    })
}

/// A reply is the answer, unless it is a failure that may be repeated: 503 with `Retry-After` of a call that is repeatable,
/// or a failure that the route wants to have repeated; both only within the budget.
fn replied(inner: &Inner, target: &Target, held: &Held, job: &Job, mut reply: Reply) -> Verdict {
    let lease = held.lease;
    let again = match Outcome::of(reply.status(), reply.headers()) {
        _ if !job.kept => None,
        Outcome::Overloaded { retry_after } if job.repeatable && target.budget.withdraw() => {
            let told = retry_after.filter(|after| !after.is_zero());
            Some(told.map_or(Retry::Backoff, |after| Retry::At(inner.clock.now().plus(after))))
        }
        Outcome::Overloaded { .. } | Outcome::Failed if target.again_on_5xx(&job.route) => Some(Retry::Backoff),
        _ => None,
    };
    if let Some(again) = again {
        let message = format!("the service answered {}", reply.status().as_u16());
        let error = Error::new(Code::TargetUnavailable, message).with_retry(again);
        if let retry @ Settle::Retry { .. } = failed(inner, target, held, job, &error) {
            return Verdict::Settle(retry);
        }
    }
    for_stored_reply(&mut reply);
    Verdict::Settle(Settle::Complete { lease, reply })
}

fn failed(inner: &Inner, target: &Target, held: &Held, job: &Job, error: &Error) -> Settle {
    let lease = held.lease;
    let failure = Failure::from(error);
    let policy = target.served().map(|served| served.retry.clone()).unwrap_or_default();
    let seed = job.id.as_uuid().as_u64_pair().1;
    tracing::info!(%error, "the attempt failed");
    match policy.next(inner.clock.now(), job.created, job.attempt, error.retry(), seed) {
        Next::At(at) => Settle::Retry { lease, at, failure },
        _ => Settle::Dead { lease, failure },
    }
}
