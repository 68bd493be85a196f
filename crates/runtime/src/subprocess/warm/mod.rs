//! Interpreters that are started ahead, for scripts that ask for it: a run starts in a fraction of a millisecond.
//!
//! A [`worker`] is an ordinary run of the interpreter at the script's own level, with a program of ours that imports modules
//! and waits ([`python`]). It was started for one script of one customer, serves one run, and ends with it. The
//! [`shelves`] hold those that wait and decide by [`demand`] how many there should be; one task makes them, one after
//! another and never in the moment in which a run was handed over. Where the host can raise the priority of a process again
//! they get ready, and are taken apart, at a low one. What comes after the hand-over is the same for all
//! runs, but that the end may be told before the interpreter's memory is given back ([`farewell`]).

mod demand;
mod farewell;
mod options;
mod python;
mod shelves;
mod worker;

pub use options::{WarmOptions, WarmStats};
pub(super) use python::check;
pub(crate) use python::is_module;

use super::setting::Setting;
use shelves::Shelves;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};
use worker::Worker;

/// After a hand-over nothing is started for so long: most warm runs are over by then.
const QUIET: Duration = Duration::from_millis(2);

/// Interpreters that get ready at the same time, at most.
const AT_ONCE: usize = 2;

/// From one look at those that wait to the next.
const TICK: Duration = Duration::from_secs(1);

/// The interpreters of one runner. They end with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    kept: Mutex<Kept>,
    stats: watch::Sender<WarmStats>,
    /// Somebody was served or went without: there may be something to make.
    bell: Arc<Notify>,
}

#[derive(Debug)]
struct Kept {
    shelves: Shelves<Setting, Worker>,
    handed_over: Option<Instant>,
    keeper: Option<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        let kept = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = &kept.keeper {
            keeper.abort();
        }
    }
}

impl Inner {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, kept: MutexGuard<'_, Kept>) {
        let stats = kept.shelves.stats();
        drop(kept);
        self.stats.send_replace(stats);
    }
}

impl Pool {
    pub(super) fn new(options: WarmOptions) -> Self {
        let kept = Kept {
            shelves: Shelves::new(options),
            handed_over: None,
            keeper: None,
        };
        Self {
            inner: Arc::new(Inner {
                kept: Mutex::new(kept),
                stats: watch::Sender::default(),
                bell: Arc::default(),
            }),
        }
    }

    pub(super) fn options(&self) -> WarmOptions {
        self.inner.kept().shelves.options()
    }

    pub(super) fn stats(&self) -> WarmStats {
        self.inner.kept().shelves.stats()
    }

    pub(super) async fn until(&self, wished: impl FnMut(&WarmStats) -> bool + Send) {
        let mut stats = self.inner.stats.subscribe();
        // The sender is ours: it does not go away while we wait.
        stats.wait_for(wished).await.ok();
    }

    /// An interpreter for a run, if one is ready. Either way, more may be made.
    pub(super) fn take(&self, setting: &Setting) -> Option<Worker> {
        let now = Instant::now();
        let mut kept = self.inner.kept();
        let (worker, dead) = kept.shelves.take(setting, &setting.customer, now, Worker::lives);
        if worker.is_some() {
            kept.handed_over = Some(now);
        }
        if kept.keeper.as_ref().is_none_or(AbortHandle::is_finished) {
            let keeping = keep(Arc::downgrade(&self.inner), Arc::clone(&self.inner.bell));
            kept.keeper = Some(tokio::spawn(keeping).abort_handle());
        }
        self.inner.tell(kept);
        drop(dead);
        self.inner.bell.notify_one();
        worker
    }

    /// The one that was taken last ended before its run began.
    pub(super) fn lost(&self, setting: &Setting) {
        let mut kept = self.inner.kept();
        kept.shelves.lost(setting, Instant::now());
        self.inner.tell(kept);
    }
}

/// Makes what is needed and lets go of what is not, until the pool is gone.
async fn keep(pool: Weak<Inner>, bell: Arc<Notify>) {
    let mut warming = JoinSet::new();
    loop {
        let Some(due) = turn(&pool, &mut warming) else { return };
        tokio::select! {
            Some(made) = warming.join_next() => {
                let Some(inner) = pool.upgrade() else { return };
                // A task that panicked would leave its shelf with one that is never ready; none does.
                if let Ok((id, made)) = made {
                    settle(&inner, id, made);
                }
            }
            () = bell.notified() => {}
            () = sleep_until(due) => {}
        }
    }
}

/// One look at everything; answers when to look again, if nothing happens. `None` if the pool is gone.
fn turn(pool: &Weak<Inner>, warming: &mut JoinSet<(u64, crosspoint_core::Result<Worker>)>) -> Option<Instant> {
    let inner = pool.upgrade()?;
    let now = Instant::now();
    let mut kept = inner.kept();
    let mut gone = kept.shelves.tidy(now, Worker::lives);
    let quiet = kept.handed_over.map_or(now, |at| at + QUIET);
    let mut due = if kept.shelves.is_empty() {
        now + crate::FAR
    } else {
        now + TICK
    };
    if now < quiet {
        due = due.min(quiet);
    } else {
        loop {
            let (next, room) = kept.shelves.next(now, AT_ONCE);
            gone.extend(room);
            let Some((id, setting)) = next else { break };
            warming.spawn(async move { (id, Worker::ready(&setting).await) });
        }
    }
    inner.tell(kept);
    drop(gone);
    Some(due)
}

fn settle(inner: &Inner, id: u64, made: crosspoint_core::Result<Worker>) {
    let mut kept = inner.kept();
    let unwanted = match made {
        Ok(worker) => {
            let held = worker.held;
            kept.shelves.put(id, worker, held)
        }
        Err(error) => {
            tracing::warn!(?error, "an interpreter could not be made ready; runs start without");
            kept.shelves.failed(id, Instant::now());
            None
        }
    };
    inner.tell(kept);
    drop(unwanted);
}
