//! Writing a call into the store in a task of its own, and what becomes of it when nobody wants it any more.

use crate::{
    OnDisconnect,
    accept::{Entrance, first},
    budget::Part,
    callback,
    gate::{Drain, Permit},
    gateway::Inner,
    intake::Pass,
    target::Target,
    worker,
};
use crosspoint_core::{Code, Enqueue, Enqueued, Envelope, Error, InvocationId, Lease, Result, Scope, Settle};
use std::{
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};

/// Whether a call ends when its client leaves before it has begun.
pub(crate) fn ends_with_client(envelope: &Envelope, entrance: Entrance) -> bool {
    matches!(entrance, Entrance::Diverted(OnDisconnect::Cancel)) && may_be_refused(envelope, entrance)
}

/// Whether a call whose client was told 503 must not be made. With a key its client asks for it again, and who submits does
/// so under the same id.
fn may_be_refused(envelope: &Envelope, entrance: Entrance) -> bool {
    matches!(entrance, Entrance::Diverted(_)) && envelope.invocation.meta.idempotency_key.is_none()
}

/// Whether nobody can say if a write that failed with this has taken effect.
pub(crate) fn is_unclear(error: &Error) -> bool {
    error.code().status() >= 500
}

/// The two ends of a write: who does it, and who waits for it.
pub(crate) fn ends_of(envelope: &Envelope, entrance: Entrance) -> (Teller, Listener) {
    let (tell, told) = oneshot::channel();
    let refused = Arc::new(AtomicBool::new(false));
    let teller = Teller {
        id: envelope.id(),
        tell,
        refused: Arc::clone(&refused),
        ends_with_client: ends_with_client(envelope, entrance),
        may_be_refused: may_be_refused(envelope, entrance),
    };
    (teller, Listener { told, refused })
}

/// The end of whoever waits for a write. Dropped when its client leaves.
pub(crate) struct Listener {
    told: oneshot::Receiver<Result<Enqueued>>,
    refused: Arc<AtomicBool>,
}

impl Listener {
    /// Waits for the store's acknowledgement; with a pass only so long.
    pub(crate) async fn acknowledged(self, most: Duration, pass: Option<Pass<'_>>) -> Result<Enqueued> {
        let lost = |e| Error::new(Code::Internal, "storing the call failed").caused_by(e);
        let Some(pass) = pass else {
            return self.told.await.map_err(lost)?;
        };
        let mut told = self.told;
        let Ok(stored) = timeout(most, &mut told).await else {
            pass.judge(false);
            // Before the other end sees that nobody listens.
            self.refused.store(true, Ordering::Release);
            return Err(Error::new(Code::StoreUnavailable, "the store did not answer in time"));
        };
        let stored = stored.map_err(lost)?;
        pass.judge(!stored.as_ref().is_err_and(is_unclear));
        stored
    }
}

/// The end of the write itself.
pub(crate) struct Teller {
    id: InvocationId,
    tell: oneshot::Sender<Result<Enqueued>>,
    /// Set when its client was told that the store did not answer.
    refused: Arc<AtomicBool>,
    ends_with_client: bool,
    may_be_refused: bool,
}

impl Teller {
    /// Whether the call is not to be made: nobody waits for it, and nobody can ask for it.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.tell.is_closed() && self.ends()
    }

    fn ends(&self) -> bool {
        self.ends_with_client || self.may_be_refused && self.refused.load(Ordering::Acquire)
    }

    /// Waits for the store. A permit is kept only while somebody listens, and for at most `most`: a store that hangs keeps
    /// nobody else from the target.
    pub(crate) async fn under<T>(
        &mut self,
        storing: impl Future<Output = T> + Send,
        permit: Option<Permit>,
        most: Duration,
    ) -> (T, Option<Permit>) {
        let mut storing = pin!(storing);
        tokio::select! {
            biased;
            stored = &mut storing => return (stored, permit),
            _ = timeout(most, self.tell.closed()) => drop(permit),
        }
        (storing.await, None)
    }

    /// Says how the write has ended. What may have been stored and is unwanted is cancelled.
    pub(crate) fn tell(self, inner: &Arc<Inner>, stored: Result<Enqueued>) {
        let (ours, ends) = (matches!(&stored, Ok(Enqueued::New(_))), self.ends());
        // Who listens hears 503 as well.
        let unclear = self.may_be_refused && stored.as_ref().is_err_and(is_unclear);
        let heard = self.tell.send(stored).is_ok();
        if unclear || ours && ends && !heard {
            inner.forsake(self.id);
        }
    }
}

/// One envelope on its way into the store.
pub(crate) struct Write {
    pub(crate) inner: Arc<Inner>,
    pub(crate) target: Arc<Target>,
    pub(crate) class: Drain,
    /// Until the envelope is stored.
    pub(crate) room: Option<Part>,
    pub(crate) teller: Teller,
}

impl Write {
    /// Starts it. A caller that leaves does not take a lease with it that the store has just granted.
    pub(crate) fn start(self, envelope: Envelope, permit: Option<Permit>) {
        let running = self.inner.loops.subscribe();
        tokio::spawn(self.run(envelope, permit, running));
    }

    async fn run(self, envelope: Envelope, permit: Option<Permit>, running: watch::Receiver<()>) {
        let Self {
            inner,
            target,
            class,
            room,
            mut teller,
        } = self;
        let sent = Instant::now();
        let item = match permit {
            Some(_) => Enqueue::leased(envelope, inner.terms()),
            None => Enqueue::queued(envelope),
        };
        let storing = inner.store.enqueue(callback::batch(item));
        let (stored, permit) = teller.under(storing, permit, inner.config.enqueue_timeout).await;
        let stored = stored.and_then(first);
        let queued = matches!(&stored, Ok(Enqueued::New(None)));
        let stored = match stored {
            Ok(Enqueued::New(Some(lease))) if teller.is_unwanted() => {
                drop(permit);
                return give_up(&inner, *lease).await;
            }
            Ok(Enqueued::New(Some(lease))) => {
                target.control.backlog().stored(1);
                let attempt = worker::begin(&inner, &target, *lease, sent, permit);
                teller.tell(&inner, Ok(Enqueued::New(None)));
                // From here on it is an attempt like any other, and no longer a write.
                drop((room, running));
                return attempt.await;
            }
            other => {
                drop(permit);
                other
            }
        };
        if queued {
            // Also if it had a permit, which the store would not have it use.
            target.backlog.queued(teller.id);
            target.control.backlog().stored(1);
            target.announce(class);
        }
        teller.tell(&inner, stored);
    }
}

/// Ends a call that the store has leased to us for nobody.
pub(crate) async fn give_up(inner: &Arc<Inner>, lease: Lease) {
    let lease = lease.reference;
    // Asked to stop first: then giving it back ends it.
    if inner.store.cancel(Scope::Fleet(&inner.fleet), lease.id).await.is_err() {
        inner.forsake(lease.id);
    }
    if let Err(error) = inner.store.settle(vec![Settle::Release { lease }]).await {
        tracing::warn!(%error, "a lease that nobody needs stays until it ends");
    }
}

impl Inner {
    /// Cancels a call that nobody waits for and that nobody was told about, as soon as the store can.
    pub(crate) fn forsake(self: &Arc<Self>, id: InvocationId) {
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
