//! Adoption: a direct attempt that outlives the hold goes on under a durable record.
//!
//! Only when the record is stored is the client told 202. From then on the reply goes to the store first. If the record
//! cannot be stored, the client stays on its connection and nothing is promised.
//!
//! # The attempt may end while its record is being stored
//!
//! Its caller is answered at once, and the record gets the same answer: a repeat of its idempotency key reads that. An
//! attempt that was not begun (or may be begun again) has no answer yet; its caller waits for the write, and the record
//! then becomes the queued call. So one call never stands in the store twice, and no call is closed that was not answered.

use crate::{
    accept::first,
    callback,
    gate::Permit,
    gateway::{Inner, Stage},
    later,
    outcome::{Outcome, undelivered},
    target::Target,
    worker::{Ending, Job, conclude, outcome_of, supervise},
    write::{give_up, is_unclear},
};
use crosspoint_core::{Code, Enqueue, Enqueued, Envelope, Error, Lease, Reply, Result, Retry, TargetId};
use futures_util::FutureExt;
use http::Response;
use std::{convert::Infallible, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};

/// What the caller is told.
#[derive(Debug)]
pub(crate) enum Adopted<T> {
    /// It ended, and there is no record of it, or the same answer is being written there.
    Finished(T),
    /// It ended, and nobody knows whether a record of it was stored. If it was, then for nobody.
    Unrecorded(T),
    /// It is stored and goes on.
    Accepted,
}

/// What the end of direct work says.
pub(crate) trait Judged: Sized {
    /// What it says about the target.
    fn outcome(&self, target: &TargetId) -> Outcome;

    /// Whether the call may be made again, so that this is no answer yet. Only for calls whose request is kept.
    fn again(&self, envelope: &Envelope) -> bool;

    /// The same answer once more, for a record; only its status if it is a stream for its client.
    fn copy(&self) -> Result<Reply>;
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

    /// The layer sees to that, if the request came back.
    fn again(&self, _: &Envelope) -> bool {
        false
    }

    fn copy(&self) -> Result<Reply> {
        let response = match self {
            Ok(response) => response,
            Err(never) => match *never {},
        };
        let mut reply = Reply::default();
        *reply.status_mut() = response.status();
        Ok(reply)
    }
}

impl Judged for Result<Reply> {
    fn outcome(&self, target: &TargetId) -> Outcome {
        outcome_of(self, target)
    }

    fn again(&self, envelope: &Envelope) -> bool {
        // An answer is one, whatever its status.
        match self
            .as_ref()
            .err()
            .map(|_| self.outcome(&envelope.invocation.meta.target))
        {
            Some(Outcome::Unknown) => envelope.repeatable && envelope.max_attempts > 1,
            Some(outcome) => outcome.is_not_started(),
            None => false,
        }
    }

    fn copy(&self) -> Result<Reply> {
        match self {
            Ok(reply) => Ok(reply.clone()),
            Err(error) => Err(Error::new(error.code(), error.message()).with_retry(Retry::Never)),
        }
    }
}

/// A call that is about to be adopted, with the permit that it has held from the start.
pub(crate) struct Adoption {
    record: Record,
    permit: Permit,
}

/// What is stored.
struct Record {
    inner: Arc<Inner>,
    target: Arc<Target>,
    envelope: Envelope,
    /// Whether the envelope has the call's request.
    kept: bool,
}

impl Adoption {
    /// Of a call whose request went to its handler and is not kept.
    pub(crate) fn new(inner: &Arc<Inner>, target: &Arc<Target>, envelope: Envelope, permit: Permit) -> Self {
        let record = Record {
            inner: Arc::clone(inner),
            target: Arc::clone(target),
            envelope,
            kept: false,
        };
        Self { record, permit }
    }

    /// The envelope has the call's request: it can be begun again.
    pub(crate) const fn with_request(mut self) -> Self {
        self.record.kept = true;
        self
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
                self.permit.finish(ended.outcome(&self.record.target.id));
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
        if self.record.inner.stage() == Stage::Closing {
            // Nobody waits for a record that is made now, so that its 202 would end with the process.
            let ended = work.await;
            self.permit.finish(ended.outcome(&self.record.target.id));
            return Ok(Adopted::Finished(ended));
        }
        // From here on a shutdown waits for it: first for the record, then for the lease.
        let running = self.record.inner.loops.subscribe();
        let (tell, told) = oneshot::channel();
        tokio::spawn(self.run(work, keep, tell, running));
        told.await
            .map_err(|_| Error::new(Code::Internal, "the handler panicked"))
    }

    async fn run<F, T, K, R>(
        self,
        mut work: F,
        keep: K,
        mut tell: oneshot::Sender<Adopted<T>>,
        running: watch::Receiver<()>,
    ) where
        F: Future<Output = T> + Unpin + Send + 'static,
        T: Judged + Send + 'static,
        K: FnOnce(T) -> R + Send + 'static,
        R: Future<Output = Result<Reply>> + Send + 'static,
    {
        let Self { record, permit } = self;
        let (inner, target) = (Arc::clone(&record.inner), Arc::clone(&record.target));
        let sent = Instant::now();
        let callback = callback::rider(&record.envelope);
        let items = callback::batch(Enqueue::adopted(record.envelope.clone(), inner.terms()));
        let storing = inner.store.enqueue(items);
        let mut storing = storing.map(|stored| stored.and_then(first));
        let stored = tokio::select! {
            biased;
            stored = &mut storing => stored,
            ended = AssertUnwindSafe(&mut work).catch_unwind() => {
                let left = match ended {
                    Ok(ended) => {
                        permit.finish(ended.outcome(&target.id));
                        record.meanwhile(ended, storing, sent, keep, tell).await
                    }
                    Err(_) => {
                        permit.finish(Outcome::Failed);
                        drop(tell);
                        record.close(storing.await, sent, Ending::Panicked).await;
                        true
                    }
                };
                if let Some(callback) = callback.filter(|_| left) {
                    callback::cancel(&inner, callback);
                }
                return;
            }
        };
        match stored {
            Ok(Enqueued::New(Some(lease))) => {
                let holding = inner.hold_lease(&lease, sent);
                drop(running);
                drop(tell.send(Adopted::Accepted));
                let kept = async { keep(work.await).await };
                let ending = supervise(kept, &holding, None, Some(inner.config.stop_grace)).await;
                let ending = of_direct(ending, &target);
                permit.finish(ending.outcome(&target.id));
                conclude(&inner, &target, &holding, &record.job(&lease), ending).await;
            }
            other => {
                drop(running);
                let tell_so = if record.let_go(&other) {
                    Adopted::Unrecorded
                } else {
                    Adopted::Finished
                };
                if let Some(callback) = callback {
                    callback::cancel(&inner, callback);
                }
                tracing::warn!(target = %target.id, stored = ?other.map(drop), "not adopted; the client stays connected");
                tokio::select! {
                    ended = &mut work => {
                        permit.finish(ended.outcome(&target.id));
                        drop(tell.send(tell_so(ended)));
                    }
                    // As on the direct way: the attempt ends with its caller.
                    () = tell.closed() => {}
                }
            }
        }
    }
}

impl Record {
    /// The work has ended while its record is being stored. Answers whether its caller has been told how.
    async fn meanwhile<T, K, R>(
        self,
        ended: T,
        mut storing: impl Future<Output = Result<Enqueued>> + Unpin + Send,
        sent: Instant,
        keep: K,
        tell: oneshot::Sender<Adopted<T>>,
    ) -> bool
    where
        T: Judged,
        K: FnOnce(T) -> R,
        R: Future<Output = Result<Reply>>,
    {
        let inner = &self.inner;
        if !(self.kept && ended.again(&self.envelope)) {
            let ending = Ending::Ended(ended.copy());
            // The caller may have left; then nobody needs it.
            drop(tell.send(Adopted::Finished(ended)));
            self.close(storing.await, sent, of_direct(ending, &self.target)).await;
            return true;
        }
        match timeout(inner.config.enqueue_timeout, &mut storing).await {
            Ok(Ok(Enqueued::New(Some(lease)))) => {
                let holding = inner.hold_lease(&lease, sent);
                drop(tell.send(Adopted::Accepted));
                let ending = Ending::Ended(keep(ended).await);
                conclude(inner, &self.target, &holding, &self.job(&lease), ending).await;
                return false;
            }
            Ok(stored) if self.let_go(&stored) => drop(tell.send(Adopted::Unrecorded(ended))),
            Ok(_) => drop(tell.send(Adopted::Finished(ended))),
            Err(_) => {
                // The caller cannot wait for ever, and tries it under another id, unless a key leads it here.
                drop(tell.send(Adopted::Unrecorded(ended)));
                match storing.await {
                    Ok(Enqueued::New(Some(lease))) if self.is_keyed() => {
                        let holding = inner.hold_lease(&lease, sent);
                        let error = undelivered(Outcome::NotStarted, &self.target.id, "the attempt was not begun");
                        let ending = Ending::Ended(Err(error));
                        conclude(inner, &self.target, &holding, &self.job(&lease), ending).await;
                    }
                    Ok(Enqueued::New(Some(lease))) => give_up(inner, *lease).await,
                    stored => drop(self.let_go(&stored)),
                }
            }
        }
        true
    }

    /// Writes into a record how its call has ended; it is not made again.
    async fn close(&self, stored: Result<Enqueued>, sent: Instant, ending: Ending) {
        match stored {
            Ok(Enqueued::New(Some(lease))) => {
                let holding = self.inner.hold_lease(&lease, sent);
                let mut job = self.job(&lease);
                (job.kept, job.repeatable) = (false, false);
                conclude(&self.inner, &self.target, &holding, &job, ending).await;
            }
            other => drop(self.let_go(&other)),
        }
    }

    /// There is no record, or none that is ours. Answers whether nobody knows: then it is cancelled, unless it has a key
    /// under which somebody may ask for it.
    fn let_go(&self, stored: &Result<Enqueued>) -> bool {
        let unclear = stored.as_ref().is_err_and(is_unclear);
        if unclear && !self.is_keyed() {
            self.inner.forsake(self.envelope.id());
        }
        unclear
    }

    const fn is_keyed(&self) -> bool {
        self.envelope.invocation.meta.idempotency_key.is_some()
    }

    fn job(&self, lease: &Lease) -> Job {
        Job {
            kept: self.kept,
            ..Job::of(lease)
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
