//! The spawner: a task that starts runs, is their parent, and reaps them. Here is the host's side of it; the task's own is
//! [`work`].

mod work;

use super::{
    cgroup::Group,
    confined,
    desk::Desk,
    frail::{Frail, GONE},
    hogs::Hogs,
    ids::Id,
    net::Lease,
    orders::Orders,
    ready::Ready,
    step::{About, Step, Trouble, step},
    sweeper::Sweeper,
    sys::{self, Reaped},
    task::{self, Place},
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fd::OwnedFd,
    io::Errno,
    process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::{oneshot, watch};
use work::Work;

/// Kills what was started if it is dropped before somebody watches it.
pub(super) struct Unwatched(pub(super) Option<Arc<OwnedFd>>);

impl Drop for Unwatched {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            // What it has started itself is ended by the spawner, when this one is reaped.
            rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).ok();
        }
    }
}

/// What was started.
pub(super) struct Started {
    pub(super) unwatched: Unwatched,
    pub(super) pidfd: Arc<OwnedFd>,
    /// By which its processes are found, if it has no namespace for them.
    pub(super) mark: Option<u64>,
    /// The run's folder, its view of its processes, its listener.
    pub(super) handed: Vec<OwnedFd>,
    /// By which what it leaves in its folder is freed.
    pub(super) sweeper: Weak<Sweeper>,
    pub(super) network: Option<Lease>,
    pub(super) group: Option<Arc<Group>>,
    /// Its end, once all of it is dead.
    pub(super) end: oneshot::Receiver<Over>,
    /// True once nobody is left to tell its end, and it is dead.
    pub(super) gone: watch::Receiver<bool>,
}

/// The end of a run and of all that it has started.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) reaped: Reaped,
    /// Its user's, let go of by the host: the spawner should hold no lock that it need not.
    #[expect(dead_code, reason = "held for its `Drop`")]
    id: Option<Id>,
}

struct Request {
    orders: Box<Orders>,
    reply: oneshot::Sender<Result<Started, Trouble>>,
}

#[derive(Default)]
struct Queue {
    requests: VecDeque<Request>,
    closed: bool,
    /// Why nothing can be started here.
    dead: Option<Trouble>,
}

/// Whether the host's memory may be dumped, as it was before the first spawner of the process: later, what is read may be
/// the moment in which another one's child changes its user.
fn hosts_mark() -> Result<DumpableBehavior, Errno> {
    static MARK: OnceLock<DumpableBehavior> = OnceLock::new();
    match MARK.get() {
        Some(mark) => Ok(*mark),
        None => dumpable_behavior().map(|now| *MARK.get_or_init(|| now)),
    }
}

/// The host's side of a spawner.
pub(super) struct Spawner {
    queue: Frail<Queue>,
    wake: OwnedFd,
    /// Requests that were not answered yet.
    pub(super) load: AtomicUsize,
    desk: Desk<Work>,
    /// What the marks of its runs have in common, if they carry any.
    marks: AtomicU64,
    stumbled: AtomicBool,
    gone: watch::Sender<bool>,
    hogs: Hogs,
    /// Whether the host may be dumped.
    mark: DumpableBehavior,
    sweeper: Arc<Sweeper>,
    /// The number of a child that is in this memory. The kernel writes it, both ways.
    inside: AtomicU32,
}

impl Spawner {
    pub(super) fn start(
        name: &str,
        ready: Option<Arc<Ready>>,
        sweeper: Arc<Sweeper>,
        hogs: Hogs,
    ) -> Result<Arc<Self>, Trouble> {
        let wake = step(Step::Pipes, eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))?;
        let spawner = Arc::new(Self {
            queue: Frail::default(),
            wake,
            load: AtomicUsize::new(0),
            desk: Desk::default(),
            marks: AtomicU64::new(0),
            stumbled: AtomicBool::new(false),
            gone: watch::Sender::new(false),
            hogs,
            mark: step(Step::Identity, hosts_mark())?,
            sweeper,
            inside: AtomicU32::new(0),
        });
        let place = ready.clone().map_or(Place::Host, Place::Ready);
        let main = move |spawner: &Self, entered: Result<(), Trouble>| {
            let work = entered.and_then(|()| Work::new(ready, spawner));
            let end = match work {
                Ok(work) => spawner.desk.work(work, |work| work.run(spawner)),
                Err(trouble) => trouble,
            };
            spawner.end(end);
        };
        task::start(name, place, Arc::clone(&spawner), main, Self::clean_up)?;
        Ok(spawner)
    }

    /// Whether somebody has killed the task.
    pub(super) fn was_killed(&self) -> bool {
        self.queue.was_killed()
    }

    /// The task was killed. Takes no lock that it may have held.
    fn clean_up(&self) {
        self.queue.give_up();
        // SAFETY: this is called after the task's death.
        let mut work = unsafe { self.desk.left() };
        if let Some(work) = &mut work {
            work.stop();
        }
        let marks = self.marks.load(Ordering::Acquire);
        if marks != 0 {
            confined::kill_all(marks);
        }
        // Nobody hears of an end before all of it is dead.
        self.gone.send_replace(true);
        if let Some(work) = &mut work {
            work.forget_runs();
        }
        // A child that was just being started uses this memory, and descriptors of the task's, until it hears of its death.
        sys::await_zero(&self.inside);
        drop(work);
        set_dumpable_behavior(self.mark).ok();
    }

    fn wake(&self) {
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).ok();
    }

    /// Starts a run.
    pub(super) async fn request(&self, orders: Box<Orders>) -> Result<Started, Trouble> {
        let (reply, answer) = oneshot::channel();
        let mut gone = self.gone.subscribe();
        {
            let mut queue = self.queue.lock_from_host()?;
            if let Some(trouble) = queue.dead {
                return Err(trouble);
            }
            self.load.fetch_add(1, Ordering::Relaxed);
            queue.requests.push_back(Request { orders, reply });
        }
        self.wake();
        tokio::select! {
            biased;
            answer = answer => answer.unwrap_or(Err(GONE)),
            () = until(&mut gone) => Err(GONE),
        }
    }

    /// Ends the task, after the end of all its runs.
    pub(super) fn close(&self) {
        if let Ok(mut queue) = self.queue.lock_from_host() {
            queue.closed = true;
            drop(queue);
            self.wake();
        }
    }

    /// Whether it could not begin, or not go on, for a reason that may have passed.
    pub(super) fn has_stumbled(&self) -> bool {
        self.stumbled.load(Ordering::Acquire)
    }

    fn end(&self, why: Trouble) {
        let mut queue = self.queue.lock();
        queue.dead = Some(why);
        self.stumbled.store(why.about() == About::Now, Ordering::Release);
        for request in queue.requests.drain(..) {
            request.reply.send(Err(why)).ok();
        }
    }
}

/// Waits until a spawner was killed; for ever, if that does not come.
pub(super) async fn until(gone: &mut watch::Receiver<bool>) {
    if gone.wait_for(|gone| *gone).await.is_err() {
        std::future::pending::<()>().await;
    }
}
