//! The writer: one thread that commits groups.
//!
//! Operations arrive in two inboxes (heartbeats, and the rest) and are taken whole each time. Nobody waits for a fuller
//! group: the commit in progress is the window in which the next group gathers. A group ends when the inboxes are
//! empty, at 512 operations, or after 4 ms, so that heartbeats, here and in other processes, wait for no more than
//! that. Answers leave after the commit. Leases that found nothing stay in the writer and are tried again at the end of
//! every group, inside it, so that work is handed to a waiting worker by the commit that brings it.

mod engine;
mod waiter;

pub(crate) use waiter::LeaseCall;

use crate::{
    fail::{Fail, closed, shared},
    ledger::Ledger,
    turnstile::Turnstile,
};
use crosspoint_core::{Code, Error, Result};
use engine::{Back, Engine};
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};
use tokio::sync::oneshot;

/// Told to each operation of a group after its commit: what kept it from being committed, if anything did.
type Verdict<'a> = Option<&'a Error>;
/// Leases by row and fence.
pub(crate) type GivenBack = Vec<(i64, i64)>;
type Answer = Box<dyn FnOnce(Verdict<'_>) + Send>;
/// Gets the ledger, or the reason why there is none to be had.
type Job = Box<dyn FnOnce(Result<&mut Ledger, &Error>) -> Applied + Send>;

/// An operation that was applied and waits for the commit.
struct Applied {
    /// Why the whole group must be rolled back.
    spoilt: Option<Error>,
    answer: Answer,
}

enum Command {
    Job(Job),
    /// One that looks at no row but those that are leased, and its own new ones.
    Call(Job),
    Lease(LeaseCall),
}

/// Which inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inbox {
    /// Goes first; looks only at what is leased.
    Heartbeats,
    /// The same inbox as `Work`, for what looks at no row but those that are leased, and its own new ones.
    Calls,
    /// Everything else.
    Work,
}

#[derive(Default)]
struct Inboxes {
    heartbeats: VecDeque<Job>,
    work: VecDeque<Command>,
    /// A waiting lease has run out of time: look, although nothing has come.
    look: bool,
    closing: bool,
    closed: bool,
    /// Told when the thread has gone.
    gone: Vec<oneshot::Sender<()>>,
}

impl Inboxes {
    fn has_work(&self) -> bool {
        !self.heartbeats.is_empty() || !self.work.is_empty() || self.look
    }

    fn is_quiet(&self) -> bool {
        !self.has_work() && !self.closing
    }
}

pub(crate) struct Shared {
    inboxes: Mutex<Inboxes>,
    bell: Condvar,
    /// When the next timer is due, for readers.
    due: AtomicI64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inboxes> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends operations to the thread; the thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    back: Back,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(ledger: Ledger, turnstile: Turnstile, watch_clock: bool) -> Result<Self> {
        let shared = Arc::new(Shared {
            inboxes: Mutex::default(),
            bell: Condvar::new(),
            due: AtomicI64::new(ledger.due()),
        });
        let (engine, back) = Engine::new(ledger, turnstile, Arc::clone(&shared), watch_clock);
        std::thread::Builder::new()
            .name("crosspoint-sqlite".to_owned())
            .spawn(move || engine.run())
            .map_err(|e| Error::new(Code::StoreUnavailable, "the writer's thread could not be started").caused_by(e))?;
        Ok(Self { shared, back })
    }

    /// Runs `f` in the next group and answers when it is durable.
    pub(crate) async fn write<T, F>(&self, inbox: Inbox, f: F) -> Result<T>
    where
        F: FnOnce(&mut Ledger) -> Result<T, Fail> + Send + 'static,
        T: Send + 'static,
    {
        self.write_or(inbox, f, |_| GivenBack::new()).await
    }

    /// The same; if whoever asked has left by the time of the commit, the leases that `left` finds in the answer come
    /// back at once, instead of when they end.
    pub(crate) async fn write_or<T, F, L>(&self, inbox: Inbox, f: F, left: L) -> Result<T>
    where
        F: FnOnce(&mut Ledger) -> Result<T, Fail> + Send + 'static,
        L: FnOnce(T) -> GivenBack + Send + 'static,
        T: Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let back = self.back.clone();
        let tell = move |answer| {
            if let Err(Ok(unheard)) = tell.send(answer) {
                give_back(&back, left(unheard));
            }
        };
        self.post(inbox, Box::new(move |ledger| apply(f, ledger, tell)))?;
        told.await.unwrap_or_else(|_| Err(closed()))
    }

    fn post(&self, inbox: Inbox, job: Job) -> Result<()> {
        let mut inboxes = self.shared.lock();
        if inboxes.closed || inboxes.closing {
            return Err(closed());
        }
        match inbox {
            Inbox::Heartbeats => inboxes.heartbeats.push_back(job),
            Inbox::Calls => inboxes.work.push_back(Command::Call(job)),
            Inbox::Work => inboxes.work.push_back(Command::Job(job)),
        }
        drop(inboxes);
        self.shared.bell.notify_one();
        Ok(())
    }

    fn post_lease(&self, call: LeaseCall) -> Result<()> {
        let mut inboxes = self.shared.lock();
        if inboxes.closed || inboxes.closing {
            return Err(closed());
        }
        inboxes.work.push_back(Command::Lease(call));
        drop(inboxes);
        self.shared.bell.notify_one();
        Ok(())
    }

    fn look(&self) {
        self.shared.lock().look = true;
        self.shared.bell.notify_one();
    }

    /// When the next timer is due, in milliseconds since 1970.
    pub(crate) fn due(&self) -> i64 {
        self.shared.due.load(Ordering::Acquire)
    }

    /// Lets the thread finish what it has, and waits until the file is closed.
    pub(crate) async fn close(&self) {
        let (tell, told) = oneshot::channel();
        {
            let mut inboxes = self.shared.lock();
            if inboxes.closed {
                return;
            }
            inboxes.closing = true;
            inboxes.gone.push(tell);
        }
        self.shared.bell.notify_one();
        // An error means that the thread has gone, which is what is waited for.
        drop(told.await);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.bell.notify_one();
    }
}

/// The writer's thread holds the other end as long as it runs.
fn give_back(back: &Back, leases: GivenBack) {
    if !leases.is_empty() && back.send(leases).is_err() {
        tracing::debug!("leases that nobody took end by themselves");
    }
}

fn apply<T, F, S>(f: F, ledger: Result<&mut Ledger, &Error>, tell: S) -> Applied
where
    F: FnOnce(&mut Ledger) -> Result<T, Fail>,
    S: FnOnce(Result<T>) + Send + 'static,
    T: Send + 'static,
{
    let outcome = match ledger {
        Ok(ledger) => f(ledger),
        Err(error) => Err(Fail::Refused(shared(error))),
    };
    let (spoilt, answer) = match outcome {
        Ok(answer) => (None, Ok(answer)),
        Err(Fail::Refused(error)) => (None, Err(error)),
        Err(Fail::Group(error)) => (Some(shared(&error)), Err(error)),
    };
    let answer = move |verdict: Verdict<'_>| {
        let answer = match verdict {
            // The one who asked for the impossible gets the cause as well.
            Some(failed) if answer.is_ok() => Err(shared(failed)),
            _ => answer,
        };
        tell(answer);
    };
    Applied {
        spoilt,
        answer: Box::new(answer),
    }
}
