//! The leases that this process holds, and their heartbeats.

use crate::wait::after;
use crosspoint_core::{DispatchStore, Extended, InvocationId, LeaseRef, StopReason, StopSource};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

/// One lease and the attempt that runs under it.
pub(crate) struct Held {
    pub(crate) lease: LeaseRef,
    pub(crate) stop: StopSource,
    /// How long an attempt may go on after the lease has lapsed here, while the store still keeps it.
    pub(crate) reserve: Duration,
    until: watch::Sender<Instant>,
    /// Whether it is no longer in the heartbeat.
    let_be: AtomicBool,
}

impl Held {
    /// Until when this process may act under the lease, by its own monotonic clock.
    pub(crate) fn until(&self) -> Instant {
        *self.until.borrow()
    }

    fn prolong(&self, until: Instant) {
        self.until.send_replace(until);
    }

    /// Resolves when the lease can no longer be relied on: at once when the store says that it is lost.
    pub(crate) async fn lapsed(&self) {
        let mut changes = self.until.subscribe();
        loop {
            let until = *changes.borrow_and_update();
            if Instant::now() >= until {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => {}
                // The sender lives in `self`: this ends with a new moment, never with an error.
                _ = changes.changed() => {}
            }
        }
    }

    /// Whether somebody else may own the work by now, so that nothing may be written.
    pub(crate) fn is_lost(&self) -> bool {
        self.stop.signal().reason() == Some(StopReason::LeaseLost) || Instant::now() >= self.until()
    }
}

/// All leases of this process.
#[derive(Default, Clone)]
pub(crate) struct Leases {
    held: Arc<Mutex<HashMap<LeaseRef, Arc<Held>>>>,
    ended: Arc<Notify>,
    /// Held while a heartbeat is under way.
    beating: Arc<tokio::sync::Mutex<()>>,
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leases({})", self.count())
    }
}

impl Leases {
    /// Takes a lease into the heartbeat; it leaves when the guard is dropped.
    pub(crate) fn hold(&self, lease: LeaseRef, until: Instant, reserve: Duration) -> Holding {
        let held = Arc::new(Held {
            lease,
            stop: StopSource::new(),
            reserve,
            until: watch::Sender::new(until),
            let_be: AtomicBool::new(false),
        });
        self.lock().insert(lease, Arc::clone(&held));
        Holding {
            leases: self.clone(),
            held,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// The calls that this process works on.
    pub(crate) fn ids(&self) -> Vec<InvocationId> {
        self.lock().keys().map(|lease| lease.id).collect()
    }

    /// Tells every attempt to stop.
    pub(crate) fn stop_all(&self, why: StopReason) {
        for held in self.all() {
            held.stop.stop(why);
        }
    }

    /// Resolves when no lease is left.
    pub(crate) async fn empty(&self) {
        loop {
            let ended = self.ended.notified();
            if self.count() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Extends every lease by one batch. Answers whether the store took it.
    pub(crate) async fn beat(&self, store: &dyn DispatchStore, length: Duration, margin: Duration) -> bool {
        let _beat = self.beating.lock().await;
        let mut all = self.all();
        all.retain(|held| !held.let_be.load(Ordering::Acquire));
        if all.is_empty() {
            return true;
        }
        let references: Vec<_> = all.iter().map(|held| held.lease).collect();
        let sent = Instant::now();
        let answers = match store.extend(&references, length).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(%error, leases = references.len(), "heartbeat failed");
                return false;
            }
        };
        for (held, answer) in all.iter().zip(answers) {
            match answer {
                Extended::Extended => held.prolong(after(sent, length.saturating_sub(margin))),
                Extended::CancelRequested => {
                    held.prolong(after(sent, length.saturating_sub(margin)));
                    held.stop.stop(StopReason::Cancelled);
                }
                _ => {
                    tracing::warn!(id = %held.lease.id, "lease lost");
                    held.prolong(sent);
                    held.stop.stop(StopReason::LeaseLost);
                }
            }
        }
        true
    }

    /// Takes a lease out of the heartbeat. When this returns, none that contains it is under way.
    pub(crate) async fn let_be(&self, held: &Held) {
        held.let_be.store(true, Ordering::Release);
        drop(self.beating.lock().await);
    }

    /// In order, so that they are told things in the same order in every run.
    fn all(&self) -> Vec<Arc<Held>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_unstable_by_key(|held| held.lease.token);
        all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LeaseRef, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lease in the heartbeat.
pub(crate) struct Holding {
    leases: Leases,
    held: Arc<Held>,
}

impl std::ops::Deref for Holding {
    type Target = Held;
    fn deref(&self) -> &Held {
        &self.held
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.leases.lock().remove(&self.held.lease);
        self.leases.ended.notify_waiters();
    }
}
