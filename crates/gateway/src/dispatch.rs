//! Accepting calls: store first, wake second.

use crate::{
    CallPolicy, Gateway, Settles,
    adopt::{Adopted, Adoption},
    gate::Drain,
    gateway::{Inner, Stage},
    inbox::{Answer, Waiter},
    metric,
    target::Target,
    wait::from_now,
    worker,
};
use async_trait::async_trait;
use crosspoint_core::{
    CallState, Code, Enqueue, Enqueued, Envelope, Error, Failure, Invocation, InvocationId, Result, Submit, Submitted,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// An accepted call.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The call to ask for: not the envelope's own id if an idempotency key belongs to an earlier call.
    pub(crate) id: InvocationId,
    /// The answer, if it came while the caller was held.
    pub(crate) answer: Option<Answer>,
}

impl Inner {
    /// Stores an envelope durably and keeps the caller for up to `hold`. With `run`, a free permit spares it the queue.
    pub(crate) async fn accept(self: &Arc<Self>, envelope: Envelope, run: bool, hold: Duration) -> Result<Accepted> {
        let until = from_now(hold);
        let id = envelope.id();
        let target = self.target(&envelope.invocation.meta.target);
        let waiter = self.inbox.register(id);
        let enqueued = self.store_one(&target, envelope, run).await?;
        self.wait(waiter, enqueued, until).await
    }

    /// Waits for the call that an envelope has become.
    pub(crate) async fn wait(&self, mut waiter: Waiter, enqueued: Enqueued, until: Instant) -> Result<Accepted> {
        match enqueued {
            Enqueued::New(_) => {}
            Enqueued::Attached(other) => {
                waiter = self.inbox.register(other);
                self.look_again(other).await?;
            }
            Enqueued::KeyReused(_) => return Err(Error::new(Code::KeyReused, Code::KeyReused.title())),
            _ => self.look_again(waiter.id()).await?,
        }
        let answer = self.hold(&mut waiter, until).await;
        Ok(Accepted {
            id: waiter.id(),
            answer,
        })
    }

    /// Looks for the answer of a call that was accepted before. What has been deleted since will never be answered.
    async fn look_again(&self, id: InvocationId) -> Result<()> {
        if self.look(id).await {
            return Ok(());
        }
        Err(Error::new(Code::Gone, "the call was accepted before and is no longer kept").with("id", id))
    }

    async fn store_one(self: &Arc<Self>, target: &Arc<Target>, envelope: Envelope, run: bool) -> Result<Enqueued> {
        let free = run && target.served().is_some() && self.stage() == Stage::Running;
        let permit = free.then(|| target.gate.try_drain(Drain::Held)).flatten();
        let Some(permit) = permit else {
            let enqueued = first(self.store.enqueue(vec![Enqueue::queued(envelope)]).await?)?;
            target.queued.notify_one();
            return Ok(enqueued);
        };
        // In a task of its own: a caller that leaves must not take a lease with it that the store has just granted.
        let (inner, target) = (Arc::clone(self), Arc::clone(target));
        let stored = tokio::spawn(async move {
            let sent = Instant::now();
            let item = Enqueue::leased(envelope, inner.terms());
            match first(inner.store.enqueue(vec![item]).await?)? {
                Enqueued::New(Some(lease)) => {
                    worker::start(&inner, &target, *lease, sent, Some(permit));
                    Ok(Enqueued::New(None))
                }
                other => {
                    drop(permit);
                    target.queued.notify_one();
                    Ok(other)
                }
            }
        });
        stored
            .await
            .map_err(|e| Error::new(Code::Internal, "storing the call failed").caused_by(e))?
    }

    /// Waits for an answer until `until`, or until the process shuts down. `None`: not in time.
    pub(crate) async fn hold(&self, waiter: &mut Waiter, until: Instant) -> Option<Answer> {
        let seat = Seat::take(self)?;
        let answer = tokio::select! {
            biased;
            answer = waiter.answer() => Some(answer),
            () = sleep_until(until) => None,
            () = self.reached(Stage::Closing) => None,
        };
        drop(seat);
        answer
    }

    /// When a client should ask for the first time.
    pub(crate) const fn retry_after(&self) -> Duration {
        self.config.retry_after
    }
}

/// One of the places for clients that are kept waiting.
struct Seat<'a>(&'a Inner);

impl<'a> Seat<'a> {
    fn take(inner: &'a Inner) -> Option<Self> {
        let before = inner.holding.fetch_add(1, Ordering::Relaxed);
        let seat = Self(inner);
        (before < inner.config.max_held).then_some(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.holding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The one answer of a batch of one.
pub(crate) fn first<T>(answers: Vec<T>) -> Result<T> {
    let none = || Error::new(Code::Internal, "the store answered nothing for an item");
    answers.into_iter().next().ok_or_else(none)
}

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
        let permit = match target.gate.enter() {
            Ok(permit) => permit,
            Err(refusal) => {
                let began = Instant::now();
                let submitted = self.submit(envelope, hold).await;
                record(&target, refusal.as_str(), began, &submitted);
                return submitted;
            }
        };
        let handler = Arc::clone(&served.handler);
        let invocation = envelope.invocation.clone();
        let work = Box::pin(async move { handler.handle(invocation).await });
        let id = envelope.id();
        let adoption = Adoption::new(inner, &target, envelope, permit);
        match adoption.after(hold, work, |result| async { result }).await? {
            Adopted::Finished(result) => result.map(Submitted::Answered),
            Adopted::Accepted => Ok(inner.accepted(id)),
        }
    }
}

impl Inner {
    pub(crate) const fn accepted(&self, id: InvocationId) -> Submitted {
        Submitted::Accepted {
            id,
            retry_after: self.retry_after(),
        }
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
        let accepted = self.inner.accept(envelope, true, held).await?;
        match accepted.answer {
            Some(Answer::Reply(reply)) => Ok(Submitted::Answered(reply)),
            Some(Answer::Ended(state, failure)) => Err(ended(state, failure)),
            None => Ok(self.inner.accepted(accepted.id)),
        }
    }

    async fn enqueue(&self, envelopes: Vec<Envelope>) -> Result<Vec<Enqueued>> {
        let mut targets: Vec<_> = envelopes
            .iter()
            .map(|envelope| envelope.invocation.meta.target.clone())
            .collect();
        let items = envelopes.into_iter().map(Enqueue::queued).collect();
        let enqueued = self.inner.store.enqueue(items).await?;
        targets.sort();
        targets.dedup();
        for target in &targets {
            self.inner.target(target).queued.notify_one();
        }
        Ok(enqueued)
    }
}
