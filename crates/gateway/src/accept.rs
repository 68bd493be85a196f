//! Accepting calls: store first, wake second.
//!
//! # Order, and the races that it decides
//!
//! 1. *Register, store, settle, wake.* A waiter is registered before its call is stored, so that an answer that comes at
//!    once finds it. The answer is in the store before anybody is woken; whoever is not woken finds it by the slow poll.
//! 2. *A client that leaves, against the lease of its call.* Leaving cancels in the store, which knows whether a worker
//!    was faster: then the attempt is asked to stop at the next heartbeat, as a direct attempt ends with its client. A
//!    call that this process has begun is left alone.
//! 3. *A client that leaves, or is told 503, while its call is being stored.* The write goes on in a task of its own
//!    ([`write`](crate::write)). A call whose client has left by then ends as its route says; one whose client was told 503,
//!    because the write took too long or may have taken effect though it failed, is cancelled in any case (with an
//!    idempotency key it goes on: the client can ask for it again).
//! 4. *The end of the hold, against the answer.* An answer that is in the store wins, whichever process has brought it
//!    there; one that comes later is found by the id of the 202.
//! 5. *A shutdown, against a new call.* Whoever was held before it began gets 202 when the grace is over. A write that has
//!    begun is waited for, and so is a lease that the store grants with it.

use crate::{
    OnDisconnect,
    backlog::Place,
    budget::Part,
    gate::Drain,
    gateway::{Inner, Stage},
    inbox::{Answer, Waiter},
    target::Target,
    wait::from_now,
    write::{Listener, Write, ends_of, ends_with_client},
};
use crosspoint_core::{Code, CustomerId, Enqueued, Envelope, Error, InvocationId, Result};
use futures_util::FutureExt;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout};

/// How long the store may take to say whether a call has been answered when its hold ends.
const LAST_LOOK: Duration = Duration::from_millis(50);

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
        room: Option<Part>,
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
        let (place, seat) = self.offer_hold(&target, &envelope, entrance, hold).unzip();
        let held = seat.is_some();
        let mut leaver = Leaver::new(self, &envelope, entrance, place);
        envelope.hold_until = held.then(|| now.plus(until - Instant::now()));
        let waiter = self.inbox.register(id);
        let listener = self.write(&target, envelope, entrance, alone, room);
        let enqueued = listener.acknowledged(self.config.enqueue_timeout, pass).await;
        if !matches!(enqueued, Ok(Enqueued::New(_))) {
            // It is somebody else's call, or was stored before; or it was refused, and the write sees to it.
            leaver.step_back();
        }
        let enqueued = enqueued?;
        let until = if held { until } else { Instant::now() };
        let accepted = self.wait(waiter, enqueued, until).await;
        leaver.stay();
        if matches!(&accepted, Ok(Accepted { answer: None, .. })) && held {
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
    ) -> Option<(Place, Part)> {
        if hold.is_zero() || self.stage() != Stage::Running {
            return None;
        }
        let seat = self.seats.take(1, Some(envelope.customer())).ok()?;
        // Who submits has said how long to wait.
        let submitted = matches!(entrance, Entrance::Submitted);
        let may = |ahead| submitted || target.may_hold(ahead, hold);
        let place = target.backlog.join(envelope.id(), envelope.customer(), may)?;
        Some((place, seat))
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
        let waits = until > Instant::now();
        let mut answer = self.until(&mut waiter, until).await;
        if waits && answer.is_none() && self.stage() == Stage::Running {
            answer = self.last_look(&mut waiter).await;
        }
        Ok(Accepted {
            id: waiter.id(),
            answer,
        })
    }

    /// Looks in the store when a hold ends: another process may have answered since the slow poll. In an overload most
    /// answers come shortly before the end, so that without this look most of the work of other processes would be late.
    async fn last_look(&self, waiter: &mut Waiter) -> Option<Answer> {
        if let Ok(Ok(ended)) = timeout(LAST_LOOK, self.store.ended(&[waiter.id()])).await {
            self.tell(ended);
        }
        waiter.answer().now_or_never()
    }

    /// Looks for the answer of a call that was accepted before. What has been deleted since will never be answered.
    async fn look_again(&self, id: InvocationId) -> Result<()> {
        if self.look(id).await {
            return Ok(());
        }
        Err(Error::new(Code::Gone, "the call was accepted before and is no longer kept").with("id", id))
    }

    /// Waits for an answer until `until`, or until the process shuts down, if there is a seat left for this customer. `None`:
    /// not in time.
    pub(crate) async fn hold(&self, customer: &CustomerId, waiter: &mut Waiter, until: Instant) -> Option<Answer> {
        let _seat = self.seats.take(1, Some(customer)).ok()?;
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

    /// Starts to store an envelope.
    fn write(
        self: &Arc<Self>,
        target: &Arc<Target>,
        envelope: Envelope,
        entrance: Entrance,
        alone: bool,
        room: Option<Part>,
    ) -> Listener {
        let class = if envelope.hold_until.is_some() {
            Drain::Held
        } else {
            Drain::Sideline
        };
        let ready = alone
            && target.served().is_some()
            && self.stage() == Stage::Running
            && target.gate.may_begin(envelope.customer());
        let permit = ready.then(|| target.gate.try_drain(class)).flatten();
        if permit.is_some() && envelope.hold_until.is_some() {
            // It is to be begun as it is stored: whoever comes meanwhile is not kept from the same.
            target.backlog.permitted(envelope.id());
        }
        let (teller, listener) = ends_of(&envelope, entrance);
        let write = Write {
            inner: Arc::clone(self),
            target: Arc::clone(target),
            class,
            room,
            teller,
        };
        write.start(envelope, permit);
        listener
    }
}

/// Notices that a caller left before it was told anything.
struct Leaver<'a> {
    inner: &'a Arc<Inner>,
    id: InvocationId,
    /// Who leaves is still seen to wait: it is given up after the call.
    place: Option<Place>,
    armed: bool,
}

impl<'a> Leaver<'a> {
    fn new(inner: &'a Arc<Inner>, envelope: &Envelope, entrance: Entrance, place: Option<Place>) -> Self {
        Self {
            inner,
            id: envelope.id(),
            place,
            armed: ends_with_client(envelope, entrance),
        }
    }

    const fn stay(&mut self) {
        self.armed = false;
    }

    /// Whoever waits does so for another call, or for none.
    fn step_back(&mut self) {
        self.stay();
        self.place = None;
    }
}

impl Drop for Leaver<'_> {
    fn drop(&mut self) {
        if self.armed && self.place.as_ref().is_none_or(Place::waits) {
            self.inner.forsake(self.id);
        }
    }
}

/// The one answer of a batch of one.
pub(crate) fn first<T>(answers: Vec<T>) -> Result<T> {
    let none = || Error::new(Code::Internal, "the store answered nothing for an item");
    answers.into_iter().next().ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Gateway, Settles, TargetConfig};
    use crosspoint_core::{Clock, Handler, IdempotencyKey, Invocation, Memory, Meta, Reply, SystemClock, TargetId};

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_call_that_was_there_before_has_no_place_of_its_own() {
        let clock = SystemClock::new();
        let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(clock), Config::default());
        let target = gateway.inner.target(&TargetId::new("scan").unwrap());
        let hour = Duration::from_secs(3600);
        let mut calls = Vec::new();
        for (key, waiting) in [(1, 1), (1, 1), (2, 2)] {
            let customer = CustomerId::new("acme").unwrap();
            let mut meta = Meta::new(InvocationId::mint(&clock), customer, target.id.clone());
            let expires = clock.now().plus(hour);
            meta.idempotency_key = Some(IdempotencyKey::new([key; 16], [key; 16], expires));
            let envelope = Envelope::service(Invocation::new(meta, http::Request::default()), clock.now());
            let inner = Arc::clone(&gateway.inner);
            calls.push(tokio::spawn(async move {
                inner.accept(envelope, Entrance::Submitted, hour, None).await
            }));
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(target.backlog.waiting(), waiting);
        }
        assert_eq!(gateway.inner.seats.taken(), 3, "they are kept waiting all the same");
    }

    #[derive(Debug)]
    struct Forever;

    #[async_trait::async_trait]
    impl Handler for Forever {
        async fn handle(&self, _: Invocation) -> Result<Reply> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_a_permit_waits_only_if_the_store_has_it_wait() {
        let clock = SystemClock::new();
        let gateway = Gateway::new(Arc::new(Memory::new()), Arc::new(clock), Config::default());
        let name = TargetId::new("flows").unwrap();
        let config = TargetConfig::default().permits(4).settles(Settles::Handler);
        gateway.register(name.clone(), Arc::new(Forever), config).unwrap();
        let target = gateway.inner.target(&name);
        let mut calls = Vec::new();
        for (order, waiting) in [("one", 0), ("two", 0), ("one", 1)] {
            let customer = CustomerId::new("acme").unwrap();
            let mut meta = Meta::new(InvocationId::mint(&clock), customer, name.clone());
            meta.ordering_key = Some(order.into());
            let envelope = Envelope::service(Invocation::new(meta, http::Request::default()), clock.now());
            let inner = Arc::clone(&gateway.inner);
            let hour = Duration::from_secs(3600);
            calls.push(tokio::spawn(async move {
                inner.accept(envelope, Entrance::Submitted, hour, None).await
            }));
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(target.backlog.waiting(), waiting, "{order}");
        }
    }
}
