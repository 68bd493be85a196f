//! Calling a target from code, without HTTP.

use crate::{
    CallPolicy, Gateway, Settles,
    accept::{Accepted, Entrance},
    adopt::{Adopted, Adoption, Judged},
    gate::{Drain, Permit, RouteClass},
    gateway::{Inner, Stage},
    inbox::Answer,
    later, metric,
    outcome::Outcome,
    target::Target,
    wait::from_now,
};
use async_trait::async_trait;
use crosspoint_core::{
    CallState, Code, Enqueue, Enqueued, Envelope, Error, Failure, Handler, Invocation, InvocationId, Reply, Result,
    Retry, Submit, Submitted,
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

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
    /// The direct way does not touch the store. A direct attempt that outlives the hold is adopted: stored as started, with
    /// its request and its idempotency key, and its reply goes to the store first. A repeat of the key finds a call that
    /// was stored; one that was answered directly left nothing behind, so that a repeat is a new call.
    ///
    /// Calls with an ordering key always go through the store, in its order. A call is not begun after its deadline, and an
    /// attempt that reaches it is dropped: [`Code::DeadlineExceeded`] if the call may be repeated, else
    /// [`Code::OutcomeUnknown`], as nobody knows what was carried out. Calls of targets that settle by themselves (flows)
    /// always go through [`Submit::submit`].
    ///
    /// [`Submitted::Accepted`] says which id to ask for. It is not always the invocation's own: if the target did not begin
    /// an attempt while the store left open whether it had been recorded, the call is stored again under a new one (with
    /// the same run key).
    ///
    /// # Errors
    /// The handler's own error on the direct way; [`Code::SetupInvalid`] when the target is not served by this process
    /// or is one of flows; [`Code::Expired`] when the deadline has passed; [`Code::RateLimited`] when it has to wait and as
    /// many of its customer's calls wait as may; the store's error when the call could not be stored. In all these cases it
    /// was not begun, or may be repeated.
    pub async fn call(&self, invocation: Invocation, policy: CallPolicy) -> Result<Submitted> {
        let inner = &self.inner;
        let target = inner.known(&invocation.meta.target);
        let service = target.as_ref().and_then(|target| Some((target, target.served()?)));
        let Some((target, served)) = service.filter(|(_, served)| served.settles == Settles::Gateway) else {
            let error = Error::new(Code::SetupInvalid, "the target is not served here as a service");
            return Err(error.with("target", &invocation.meta.target));
        };
        let hold = policy.hold.unwrap_or(inner.config.hold);
        let until = from_now(hold);
        let mut envelope = Envelope::service(invocation, inner.clock.now());
        envelope.repeatable = policy.repeatable;
        envelope.max_attempts = served.retry.max_attempts;
        envelope.expires = envelope.invocation.meta.deadline;
        let patience = hold.min(inner.left(&envelope)?.unwrap_or(Duration::MAX));
        let permit = match enter(target, &envelope, patience).await {
            Ok(permit) => permit,
            Err(why) => return Box::pin(self.divert(target, envelope, policy, until, why)).await,
        };
        let work = within(
            inner.left(&envelope)?,
            envelope.repeatable,
            Arc::clone(&served.handler),
            envelope.invocation.clone(),
        );
        let id = envelope.id();
        let hold = until.saturating_duration_since(Instant::now());
        let adoption = Adoption::new(inner, target, envelope.clone(), permit).with_request();
        let adopted = Box::pin(adoption.after(hold, Box::pin(work), |result| async { result })).await?;
        let recorded = !matches!(adopted, Adopted::Unrecorded(_));
        let result = match adopted {
            Adopted::Finished(result) | Adopted::Unrecorded(result) => result,
            Adopted::Accepted => return Ok(inner.accepted(id)),
        };
        if !result.again(&envelope) {
            return result.map(|reply| {
                later::unrecorded(reply.extensions(), &target.id);
                Submitted::Answered(reply)
            });
        }
        if result.outcome(&target.id) == Outcome::Unknown {
            // That was an attempt.
            envelope.max_attempts -= 1;
        }
        if !recorded && envelope.invocation.meta.idempotency_key.is_none() {
            // What may be in the store under its id is cancelled.
            envelope.invocation.meta.id = InvocationId::mint(&*inner.clock);
        }
        Box::pin(self.divert(target, envelope, policy, until, "returned")).await
    }

    async fn divert(
        &self,
        target: &Target,
        envelope: Envelope,
        policy: CallPolicy,
        until: Instant,
        why: &'static str,
    ) -> Result<Submitted> {
        let began = Instant::now();
        let hold = until.saturating_duration_since(began);
        self.start_tasks();
        let entrance = Entrance::Diverted(policy.on_disconnect);
        let submitted = async {
            let (customer, bytes) = (envelope.customer(), envelope.invocation.request.body().len());
            self.inner.may_wait(&target.id, customer).await?;
            self.inner.waiting.comes(&target.id, customer, bytes);
            let accepted = self.inner.accept(envelope, entrance, hold, None).await?;
            self.inner.submitted(accepted)
        };
        let submitted = submitted.await;
        record(target, why, began, &submitted);
        submitted
    }
}

/// A permit, after a wait in memory of at most `most`; or why the call goes through the store.
async fn enter(target: &Arc<Target>, envelope: &Envelope, most: Duration) -> Result<Permit, &'static str> {
    if envelope.invocation.meta.ordering_key.is_some() {
        return Err("ordered");
    }
    let class = RouteClass::default();
    let patience = target.patience().min(most);
    let permit = target
        .gate
        .admit_within(class, Some(envelope.customer()), patience)
        .await;
    permit.map_err(|refusal| {
        target.gate.note_divert(refusal);
        refusal.as_str()
    })
}

/// An attempt that ends with its deadline.
async fn within(
    left: Option<Duration>,
    repeatable: bool,
    handler: Arc<dyn Handler>,
    invocation: Invocation,
) -> Result<Reply> {
    let work = handler.handle(invocation);
    let Some(left) = left else { return work.await };
    timeout(left, work).await.unwrap_or_else(|_| {
        let code = if repeatable {
            Code::DeadlineExceeded
        } else {
            Code::OutcomeUnknown
        };
        Err(Error::new(code, "the deadline passed while the call ran").with_retry(Retry::Never))
    })
}

impl Inner {
    /// How long a call may still take, if it has a deadline.
    fn left(&self, envelope: &Envelope) -> Result<Option<Duration>> {
        let deadline = envelope.invocation.meta.deadline;
        let left = deadline.map(|deadline| deadline.since(self.clock.now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Error::new(
                Code::Expired,
                "the deadline had passed before the call could begin",
            ));
        }
        Ok(left)
    }

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
        // Targets that this process has never heard of are somebody else's to work off.
        for (target, stored) in targets.iter().zip(&enqueued) {
            if let (Enqueued::New(_), Some(target)) = (stored, self.inner.known(target)) {
                target.control.backlog().stored(1);
            }
        }
        targets.sort();
        targets.dedup();
        for target in targets.iter().filter_map(|target| self.inner.known(target)) {
            target.announce(Drain::Held);
            target.announce(Drain::Sideline);
        }
        Ok(enqueued)
    }
}
