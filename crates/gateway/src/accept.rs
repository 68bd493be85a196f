//! Accepting calls: store first, wake second.
//!
//! # Order, and the races that it decides
//!
//! 1. *Register, store, settle, wake.* A waiter is registered before its call is stored, so that an answer that comes at
//!    once finds it. The answer is in the store before anybody is woken; whoever is not woken finds it by the slow poll.
//! 2. *A client that leaves, against the lease of its call.* Leaving cancels in the store, which knows whether a worker
//!    was faster: then the attempt is asked to stop at the next heartbeat, as a direct attempt ends with its client. A
//!    call that this process has begun is left alone.
//! 3. *A client that leaves, or is told 503, while its call is being stored.* The write goes on in a task of its own.
//!    If nobody listens when it ends, or if it failed and may have been stored all the same, the call is cancelled
//!    afterwards (with an idempotency key it goes on: the client can ask for it again).
//! 4. *The end of the hold, against the answer.* An answer that has been delivered wins; one that comes later is found
//!    by the id of the 202.
//! 5. *A shutdown, against a new call.* Whoever was held before it began gets 202 when the grace is over. A lease that the
//!    store grants together with the write is waited for by the shutdown like any other.

use crate::{
    OnDisconnect,
    backlog::Place,
    callback,
    gate::{Drain, Permit},
    gateway::{Inner, Stage},
    inbox::{Answer, Waiter},
    intake::Pass,
    seats::Seat,
    target::Target,
    wait::from_now,
    worker,
};
use crosspoint_core::{Code, Enqueue, Enqueued, Envelope, Error, InvocationId, Lease, Result, Scope, Settle};
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};

/// An accepted call.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// The call to ask for: not the envelope's own id if an idempotency key belongs to an earlier call.
    pub(crate) id: InvocationId,
    /// The answer, if it came while the caller was held.
    pub(crate) answer: Option<Answer>,
}

/// How a call comes in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entrance {
    /// Somebody wants it stored, however long that takes; it no longer depends on its caller.
    Submitted,
    /// There was no capacity for it. Its client is told soon if it cannot be stored.
    Diverted(OnDisconnect),
}

impl Inner {
    /// Stores an envelope durably and keeps the caller for up to `hold`. A free permit spares the call the queue.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        mut envelope: Envelope,
        entrance: Entrance,
        hold: Duration,
    ) -> Result<Accepted> {
        let target = self.target(&envelope.invocation.meta.target);
        let id = envelope.id();
        let now = self.clock.now();
        let until = from_now(hold);
        let alone = target.backlog.waiting() == 0;
        let pass = match entrance {
            Entrance::Submitted => None,
            Entrance::Diverted(_) => Some(self.intake.enter()?),
        };
        // Dropped in the opposite order: who leaves must still be seen to wait.
        let held = self.offer_hold(&target, &envelope, entrance, hold);
        let mut leaver = Leaver::new(self, &envelope, entrance);
        envelope.hold_until = held.is_some().then(|| now.plus(until - Instant::now()));
        leaver.place = held.as_ref().map(|held| &held.place);
        let waiter = self.inbox.register(id);
        let told = self.write(&target, envelope, entrance, alone);
        let enqueued = self.acknowledged(told, pass).await?;
        if !matches!(enqueued, Enqueued::New(_)) {
            // Somebody else's call, or one that was stored before.
            leaver.stay();
        }
        let until = if held.is_some() { until } else { Instant::now() };
        let accepted = self.wait(waiter, enqueued, until).await;
        leaver.stay();
        if matches!(&accepted, Ok(Accepted { answer: None, .. })) && held.is_some() {
            // Its hold is over, and the store has moved it.
            target.sideline.notify_one();
        }
        accepted
    }

    /// Decides whether the caller is kept waiting.
    fn offer_hold(
        &self,
        target: &Arc<Target>,
        envelope: &Envelope,
        entrance: Entrance,
        hold: Duration,
    ) -> Option<Hold> {
        if hold.is_zero() || self.stage() != Stage::Running {
            return None;
        }
        let seat = self.seats.take(Some(envelope.customer()))?;
        // Who submits has said how long to wait.
        let submitted = matches!(entrance, Entrance::Submitted);
        let may = |ahead| submitted || target.may_hold(ahead, hold);
        let place = target.backlog.join(envelope.id(), envelope.customer(), may)?;
        Some(Hold { place, _seat: seat })
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
        let answer = self.until(&mut waiter, until).await;
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

    /// Waits for an answer until `until`, or until the process shuts down, if there is a seat left. `None`: not in time.
    pub(crate) async fn hold(&self, waiter: &mut Waiter, until: Instant) -> Option<Answer> {
        let _seat = self.seats.take(None)?;
        self.until(waiter, until).await
    }

    async fn until(&self, waiter: &mut Waiter, until: Instant) -> Option<Answer> {
        tokio::select! {
            biased;
            answer = waiter.answer() => Some(answer),
            () = sleep_until(until) => None,
            () = self.reached(Stage::Closing) => None,
        }
    }

    /// Starts to store an envelope, in a task of its own: a caller that leaves must not take a lease with it that the
    /// store has just granted.
    fn write(
        self: &Arc<Self>,
        target: &Arc<Target>,
        envelope: Envelope,
        entrance: Entrance,
        alone: bool,
    ) -> oneshot::Receiver<Result<Enqueued>> {
        let class = if envelope.hold_until.is_some() {
            Drain::Held
        } else {
            Drain::Sideline
        };
        let ready = alone && target.served().is_some() && self.stage() == Stage::Running;
        // Whoever was refused at the door for having its share already must not come in here.
        let ready = ready && !target.gate.passes_over(envelope.customer());
        let permit = ready.then(|| target.gate.try_drain(class)).flatten();
        let (tell, told) = oneshot::channel();
        let write = Write {
            inner: Arc::clone(self),
            target: Arc::clone(target),
            forsake: forsakes(&envelope, entrance),
            class,
            tell,
        };
        tokio::spawn(write.run(envelope, permit));
        told
    }

    /// Waits for the store's acknowledgement; with a pass only so long.
    async fn acknowledged(
        &self,
        told: oneshot::Receiver<Result<Enqueued>>,
        pass: Option<Pass<'_>>,
    ) -> Result<Enqueued> {
        let lost = |e| Error::new(Code::Internal, "storing the call failed").caused_by(e);
        let Some(pass) = pass else {
            return told.await.map_err(lost)?;
        };
        let Ok(stored) = timeout(self.config.enqueue_timeout, told).await else {
            pass.judge(false);
            return Err(Error::new(Code::StoreUnavailable, "the store did not answer in time"));
        };
        let stored = stored.map_err(lost)?;
        pass.judge(!matches!(&stored, Err(error) if error.code().status() >= 500));
        stored
    }

    /// Cancels a call that nobody waits for and that nobody was told about, as soon as the store can.
    fn forsake(self: &Arc<Self>, id: InvocationId) {
        tokio::spawn(forsake(Arc::downgrade(self), id));
    }
}

async fn forsake(gateway: Weak<Inner>, id: InvocationId) {
    let mut pause = Duration::from_millis(50);
    loop {
        let Some(inner) = gateway.upgrade() else { return };
        match inner.store.cancel(Scope::Fleet(&inner.fleet), id).await {
            Ok(cancelled) => {
                tracing::debug!(%id, ?cancelled, "nobody waits for a call");
                return;
            }
            Err(error) => tracing::warn!(%error, %id, "a call that nobody waits for could not be cancelled yet"),
        }
        drop(inner);
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Whether a call ends when nobody waits for it.
fn forsakes(envelope: &Envelope, entrance: Entrance) -> bool {
    let keyed = envelope.invocation.meta.idempotency_key.is_some();
    matches!(entrance, Entrance::Diverted(OnDisconnect::Cancel)) && !keyed
}

/// A caller that is kept waiting.
struct Hold {
    place: Place,
    _seat: Seat,
}

/// Notices that a caller left before it was told anything.
struct Leaver<'a> {
    inner: &'a Arc<Inner>,
    id: InvocationId,
    place: Option<&'a Place>,
    armed: bool,
}

impl<'a> Leaver<'a> {
    fn new(inner: &'a Arc<Inner>, envelope: &Envelope, entrance: Entrance) -> Self {
        Self {
            inner,
            id: envelope.id(),
            place: None,
            armed: forsakes(envelope, entrance),
        }
    }

    const fn stay(&mut self) {
        self.armed = false;
    }
}

impl Drop for Leaver<'_> {
    fn drop(&mut self) {
        if self.armed && self.place.is_none_or(Place::waits) {
            self.inner.forsake(self.id);
        }
    }
}

/// One envelope on its way into the store.
struct Write {
    inner: Arc<Inner>,
    target: Arc<Target>,
    /// Whether the call ends if nobody listens.
    forsake: bool,
    class: Drain,
    tell: oneshot::Sender<Result<Enqueued>>,
}

impl Write {
    async fn run(self, envelope: Envelope, permit: Option<Permit>) {
        let Self {
            inner,
            target,
            forsake,
            class,
            tell,
        } = self;
        let _running = inner.loops.subscribe();
        let id = envelope.id();
        let sent = Instant::now();
        let item = match permit {
            Some(_) => Enqueue::leased(envelope, inner.terms()),
            None => Enqueue::queued(envelope),
        };
        let mut queued = false;
        let stored = match inner.store.enqueue(callback::batch(item)).await.and_then(first) {
            Ok(Enqueued::New(Some(lease))) if forsake && tell.is_closed() => {
                return give_up(&inner, *lease).await;
            }
            Ok(Enqueued::New(Some(lease))) => {
                target.control.backlog().stored(1);
                worker::start(&inner, &target, *lease, sent, permit);
                Ok(Enqueued::New(None))
            }
            other => {
                drop(permit);
                queued = matches!(&other, Ok(Enqueued::New(None)));
                other
            }
        };
        if queued {
            target.control.backlog().stored(1);
            target.announce(class);
        }
        let ours = matches!(&stored, Ok(Enqueued::New(_)) | Err(_));
        if tell.send(stored).is_err() && ours && forsake {
            inner.forsake(id);
        }
    }
}

/// Ends a call that the store has leased to us for nobody.
async fn give_up(inner: &Arc<Inner>, lease: Lease) {
    let lease = lease.reference;
    // Asked to stop first: then giving it back ends it.
    if inner.store.cancel(Scope::Fleet(&inner.fleet), lease.id).await.is_err() {
        inner.forsake(lease.id);
    }
    if let Err(error) = inner.store.settle(vec![Settle::Release { lease }]).await {
        tracing::warn!(%error, "a lease that nobody needs stays until it ends");
    }
}

/// The one answer of a batch of one.
pub(crate) fn first<T>(answers: Vec<T>) -> Result<T> {
    let none = || Error::new(Code::Internal, "the store answered nothing for an item");
    answers.into_iter().next().ok_or_else(none)
}
