//! Calling a target from code, without HTTP.

use crate::{
    CallPolicy, Gateway, Settles,
    accept::{Accepted, Entrance},
    adopt::{Adopted, Adoption, Judged},
    gate::{Drain, Permit, Refusal, RouteClass},
    gateway::{Inner, Stage},
    inbox::Answer,
    later, metric,
    outcome::Outcome,
    target::Target,
};
use async_trait::async_trait;
use crosspoint_core::{
    CallState, Code, Enqueue, Enqueued, Envelope, Error, Failure, Invocation, InvocationId, Result, Submit, Submitted,
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// The error that stands for a call that ended without a reply.
pub(crate) fn ended(state: CallState, failure: Option<Failure>) -> Error {
    let code = match (state, &failure) {
        (CallState::Unknown, _) => Code::OutcomeUnknown,
        (CallState::Cancelled, _) => Code::Cancelled,
        (CallState::Expired, _) => Code::Expired,
        (_, Some(failure)) => failure.code,
        _ => Code::Internal,
    };
    let message = failure.map_or_else(|| code.title().to_owned(), |failure| failure.message);
    Error::new(code, message)
}

impl Gateway {
    /// Calls a target of this process: straight away with a permit, and otherwise through the store.
    ///
    /// The direct way does not touch the store. A direct attempt that outlives the hold is adopted: stored as started,
    /// and its reply goes to the store first. Calls of targets that settle by themselves (flows) always go through
    /// [`Submit::submit`].
    ///
    /// # Errors
    /// The handler's own error on the direct way; [`Code::SetupInvalid`] when the target is not served by this process
    /// or is one of flows; the store's error when the call could not be stored, in which case it was not begun.
    pub async fn call(&self, invocation: Invocation, policy: CallPolicy) -> Result<Submitted> {
        let inner = &self.inner;
        let target = inner.target(&invocation.meta.target);
        let Some(served) = target.served().filter(|served| served.settles == Settles::Gateway) else {
            let error = Error::new(Code::SetupInvalid, "the target is not served here as a service");
            return Err(error.with("target", &target.id));
        };
        let hold = policy.hold.unwrap_or(inner.config.hold);
        let mut envelope = Envelope::service(invocation, inner.clock.now());
        envelope.repeatable = policy.repeatable;
        envelope.max_attempts = served.retry.max_attempts;
        let permit = match enter(&target, &envelope).await {
            Ok(permit) => permit,
            Err(refusal) => {
                target.gate.note_divert(refusal);
                let why = refusal.as_str();
                return Box::pin(self.divert(&target, envelope, policy, hold, why)).await;
            }
        };
        let handler = Arc::clone(&served.handler);
        let invocation = envelope.invocation.clone();
        let work = Box::pin(async move { handler.handle(invocation).await });
        let id = envelope.id();
        let began = Instant::now();
        let adoption = Adoption::new(inner, &target, envelope.clone(), permit);
        let result = match Box::pin(adoption.after(hold, work, |result| async { result })).await? {
            Adopted::Finished(result) => result,
            Adopted::Accepted => return Ok(inner.accepted(id)),
        };
        let again = match result.outcome(&target.id) {
            _ if result.is_ok() => false,
            outcome if outcome.is_not_started() => true,
            Outcome::Unknown if envelope.repeatable && envelope.max_attempts > 1 => {
                envelope.max_attempts -= 1;
                true
            }
            _ => false,
        };
        if !again {
            return result.map(|reply| {
                later::unrecorded(reply.extensions(), &target.id);
                Submitted::Answered(reply)
            });
        }
        let left = hold.saturating_sub(began.elapsed());
        Box::pin(self.divert(&target, envelope, policy, left, "returned")).await
    }

    async fn divert(
        &self,
        target: &Target,
        envelope: Envelope,
        policy: CallPolicy,
        hold: Duration,
        why: &'static str,
    ) -> Result<Submitted> {
        let began = Instant::now();
        self.start_tasks();
        let entrance = Entrance::Diverted(policy.on_disconnect);
        let accepted = self.inner.accept(envelope, entrance, hold, None).await;
        let submitted = accepted.and_then(|accepted| self.inner.submitted(accepted));
        record(target, why, began, &submitted);
        submitted
    }
}

/// A permit, after a short wait in memory if need be.
async fn enter(target: &Arc<Target>, envelope: &Envelope) -> Result<Permit, Refusal> {
    let class = RouteClass::default();
    let customer = envelope.customer();
    match target.gate.admit(class, || Some(customer.clone())) {
        Ok(ticket) => Ok(target.gate.permit(ticket)),
        Err(Refusal::Saturated) => {
            let patience = target.patience();
            target.gate.admit_within(class, Some(customer), patience).await
        }
        Err(refusal) => Err(refusal),
    }
}

impl Inner {
    pub(crate) const fn accepted(&self, id: InvocationId) -> Submitted {
        Submitted::Accepted {
            id,
            retry_after: self.retry_after(),
        }
    }

    fn submitted(&self, accepted: Accepted) -> Result<Submitted> {
        match accepted.answer {
            Some(Answer::Reply(reply)) => Ok(Submitted::Answered(reply)),
            Some(Answer::Ended(state, failure)) => Err(ended(state, failure)),
            None => Ok(self.accepted(accepted.id)),
        }
    }

    /// When a client should ask for the first time.
    pub(crate) const fn retry_after(&self) -> Duration {
        self.config.retry_after
    }
}

fn record(target: &Target, reason: &'static str, began: Instant, submitted: &Result<Submitted>) {
    let path = match submitted {
        Ok(Submitted::Answered(_)) => metric::Path::Queued,
        Ok(_) => metric::Path::Accepted,
        Err(_) => metric::Path::Rejected,
    };
    metric::answered(target.id.as_str(), path, reason, began.elapsed());
}

#[async_trait]
impl Submit for Gateway {
    async fn submit(&self, envelope: Envelope, hold: Duration) -> Result<Submitted> {
        self.start_tasks();
        let held = if self.inner.stage() == Stage::Running {
            hold
        } else {
            Duration::ZERO
        };
        let accepted = self.inner.accept(envelope, Entrance::Submitted, held, None).await?;
        self.inner.submitted(accepted)
    }

    async fn enqueue(&self, envelopes: Vec<Envelope>) -> Result<Vec<Enqueued>> {
        let mut targets: Vec<_> = envelopes
            .iter()
            .map(|envelope| envelope.invocation.meta.target.clone())
            .collect();
        let items = envelopes.into_iter().map(Enqueue::queued).collect();
        let enqueued = self.inner.store.enqueue(items).await?;
        for (target, stored) in targets.iter().zip(&enqueued) {
            if matches!(stored, Enqueued::New(_)) {
                self.inner.target(target).control.backlog().stored(1);
            }
        }
        targets.sort();
        targets.dedup();
        for target in &targets {
            let target = self.inner.target(target);
            target.announce(Drain::Held);
            target.announce(Drain::Sideline);
        }
        Ok(enqueued)
    }
}
