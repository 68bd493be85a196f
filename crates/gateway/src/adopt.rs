//! Adoption: a direct attempt that outlives the hold goes on under a durable record.
//!
//! Only when the record is stored is the client told 202. From then on the reply goes to the store first. If the record
//! cannot be stored, the client stays on its connection and nothing is promised.

use crate::{
    accept::first,
    callback,
    gate::Permit,
    gateway::Inner,
    later,
    outcome::Outcome,
    target::Target,
    worker::{Ending, Holding, Job, conclude, outcome_of, supervise},
};
use crosspoint_core::{Code, Enqueue, Enqueued, Envelope, Error, Reply, Result, Settle, TargetId};
use http::Response;
use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

/// What the caller is told.
#[derive(Debug)]
pub(crate) enum Adopted<T> {
    /// It ended in time.
    Finished(T),
    /// It is stored and goes on.
    Accepted,
}

/// What the end of direct work says about its target.
pub(crate) trait Judged {
    /// The verdict.
    fn outcome(&self, target: &TargetId) -> Outcome;
}

impl<R> Judged for Result<Response<R>, Infallible> {
    fn outcome(&self, _: &TargetId) -> Outcome {
        let response = match self {
            Ok(response) => response,
            Err(never) => match *never {},
        };
        let returned = response.extensions().get::<crate::outcome::Returned>();
        returned.map_or_else(
            || Outcome::of(response.status(), response.headers()),
            crate::outcome::Returned::outcome,
        )
    }
}

impl Judged for Result<Reply> {
    fn outcome(&self, target: &TargetId) -> Outcome {
        outcome_of(self, target)
    }
}

/// A call that is about to be adopted, with the permit that it has held from the start.
pub(crate) struct Adoption {
    inner: Arc<Inner>,
    target: Arc<Target>,
    envelope: Envelope,
    permit: Permit,
}

impl Adoption {
    pub(crate) fn new(inner: &Arc<Inner>, target: &Arc<Target>, envelope: Envelope, permit: Permit) -> Self {
        Self {
            inner: Arc::clone(inner),
            target: Arc::clone(target),
            envelope,
            permit,
        }
    }

    /// Runs `work` on its caller's own time for up to `hold`, then adopts it. Dropping this before the hold has passed
    /// cancels the work.
    pub(crate) async fn after<F, T, K, R>(self, hold: Duration, mut work: F, keep: K) -> Result<Adopted<T>>
    where
        F: Future<Output = T> + Unpin + Send + 'static,
        T: Judged + Send + 'static,
        K: FnOnce(T) -> R + Send + 'static,
        R: Future<Output = Result<Reply>> + Send + 'static,
    {
        tokio::select! {
            biased;
            ended = &mut work => {
                self.permit.finish(ended.outcome(&self.target.id));
                return Ok(Adopted::Finished(ended));
            }
            () = sleep(hold) => {}
        }
        self.start(work, keep).await
    }

    /// Moves the attempt into a task and answers when its caller can be told something.
    pub(crate) async fn start<F, T, K, R>(self, work: F, keep: K) -> Result<Adopted<T>>
    where
        F: Future<Output = T> + Unpin + Send + 'static,
        T: Judged + Send + 'static,
        K: FnOnce(T) -> R + Send + 'static,
        R: Future<Output = Result<Reply>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        tokio::spawn(self.run(work, keep, tell));
        told.await
            .map_err(|_| Error::new(Code::Internal, "the handler panicked"))
    }

    async fn run<F, T, K, R>(self, mut work: F, keep: K, mut tell: oneshot::Sender<Adopted<T>>)
    where
        F: Future<Output = T> + Unpin + Send + 'static,
        T: Judged + Send + 'static,
        K: FnOnce(T) -> R + Send + 'static,
        R: Future<Output = Result<Reply>> + Send + 'static,
    {
        let Self {
            inner,
            target,
            envelope,
            permit,
        } = self;
        let job = |attempt| Job {
            id: envelope.id(),
            attempt,
            returned: 0,
            created: envelope.created,
            repeatable: envelope.repeatable,
            hold_until: None,
            // Its request went to the handler and is not kept.
            kept: false,
            route: Arc::clone(&envelope.invocation.meta.route_class),
        };
        let sent = Instant::now();
        let callback = callback::rider(&envelope);
        let items = callback::batch(Enqueue::adopted(envelope.clone(), inner.terms()));
        let mut storing = inner.store.enqueue(items);
        let stored = tokio::select! {
            biased;
            stored = &mut storing => stored.and_then(first),
            ended = &mut work => {
                permit.finish(ended.outcome(&target.id));
                // The caller may have left; then nobody needs it.
                drop(tell.send(Adopted::Finished(ended)));
                let stored = storing.await;
                if let Some(callback) = callback {
                    callback::cancel(&inner, callback);
                }
                return answered_meanwhile(&inner, stored).await;
            }
        };
        match stored {
            Ok(Enqueued::New(Some(lease))) => {
                let holding: Holding = inner.hold_lease(&lease, sent);
                drop(tell.send(Adopted::Accepted));
                let kept = async { keep(work.await).await };
                let ending = supervise(kept, &holding, None, Some(inner.config.stop_grace)).await;
                let ending = of_direct(ending, &target);
                permit.finish(ending.outcome(&target.id));
                conclude(&inner, &target, &holding, &job(lease.attempt), ending).await;
            }
            other => {
                tracing::warn!(target = %target.id, stored = ?other.map(drop), "not adopted; the client stays connected");
                tokio::select! {
                    ended = &mut work => {
                        permit.finish(ended.outcome(&target.id));
                        drop(tell.send(Adopted::Finished(ended)));
                    }
                    // As on the direct way: the attempt ends with its caller.
                    () = tell.closed() => {}
                }
            }
        }
    }
}

/// A call that was begun without a record had no token to answer with later.
fn of_direct(ending: Ending, target: &Target) -> Ending {
    match ending {
        Ending::Ended(Ok(reply)) if later::unrecorded(reply.extensions(), &target.id) => {
            let message = "the handler answers later, and the call was not recorded before it began";
            Ending::Ended(Err(Error::new(Code::SetupInvalid, message)))
        }
        other => other,
    }
}

/// The caller was answered while its record was being stored. Nobody was told the record's id, so it is closed empty.
async fn answered_meanwhile(inner: &Inner, stored: Result<Vec<Enqueued>>) {
    if let Ok(Enqueued::New(Some(lease))) = stored.and_then(first) {
        let lease = lease.reference;
        let reply = Reply::default();
        if let Err(error) = inner.store.settle(vec![Settle::Complete { lease, reply }]).await {
            tracing::warn!(%error, "a record that nobody asks for stays until its lease ends");
        }
    }
}
