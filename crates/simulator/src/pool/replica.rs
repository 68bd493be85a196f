//! One replica: workers, the queue before them, and how it slows down.

use super::{ATTEMPT, Fate, Pool, QUICK};
use crate::{
    case::{self, Health},
    time::whole_millis,
};
use std::sync::Arc;
use tokio::{sync::Semaphore, time::sleep};

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) ready: f64,
    pub(super) cold_until: f64,
    pub(super) removed: bool,
    /// Calls that it has, waiting ones included.
    pub(super) load: u32,
    pub(super) workers: Arc<Semaphore>,
    pub(super) ejected_until: f64,
    errors: u32,
    ejections: u32,
    /// How long it has stood still altogether.
    paused: f64,
    paused_until: f64,
}

impl Replica {
    pub(super) fn new(pool: &case::Pool, ready: f64, cold_until: f64) -> Self {
        Self {
            ready,
            cold_until,
            removed: false,
            load: 0,
            workers: Arc::new(Semaphore::new(pool.workers as usize)),
            ejected_until: 0.0,
            errors: 0,
            ejections: 0,
            paused: 0.0,
            paused_until: 0.0,
        }
    }

    pub(super) fn is_there(&self, now: f64) -> bool {
        !self.removed && self.ready <= now
    }

    pub(super) fn pause(&mut self, now: f64, length: f64) {
        self.paused += length;
        self.paused_until = now + length;
    }
}

/// A place in a replica; given back when dropped.
pub(super) struct Seat {
    pool: Pool,
    index: usize,
}

impl Seat {
    pub(super) const fn new(pool: Pool, index: usize) -> Self {
        Self { pool, index }
    }

    pub(super) const fn index(&self) -> usize {
        self.index
    }

    /// Counts errors in a row.
    pub(super) fn note(&self, fate: Fate) {
        let inner = &*self.pool.0;
        let (now, pool) = (inner.time.now(), &inner.case.pool);
        let mut state = self.pool.state();
        let Some(replica) = state.replicas.get_mut(self.index) else {
            return;
        };
        match fate {
            Fate::Done => replica.errors = 0,
            _ => replica.errors += 1,
        }
        if pool.eject_after > 0 && replica.errors >= pool.eject_after {
            replica.errors = 0;
            replica.ejections += 1;
            replica.ejected_until = now + pool.eject * f64::from(replica.ejections.min(6));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(replica) = self.pool.state().replicas.get_mut(self.index) {
            replica.load = replica.load.saturating_sub(1);
        }
    }
}

impl Pool {
    /// Has replica `index` carry a request out: waits for one of its workers, then works as long as it takes.
    pub async fn work(&self, index: usize, request: usize) -> Fate {
        let inner = &*self.0;
        let (time, plan) = (&inner.time, &inner.plan);
        let sent = time.now();
        match plan.health(index, sent) {
            Health::Errors => {
                sleep(QUICK).await;
                return Fate::Error;
            }
            Health::Hangs(until) => return self.hang(sent, until).await,
            Health::Well => {}
        }
        let workers = self
            .state()
            .replicas
            .get(index)
            .map(|replica| Arc::clone(&replica.workers));
        let Some(workers) = workers else {
            return Fate::NotStarted;
        };
        let Ok(_worker) = workers.acquire().await else {
            return Fate::NotStarted;
        };
        let begun = time.now();
        if plan.is_down(begun) {
            sleep(QUICK).await;
            return Fate::NotStarted;
        }
        inner.ledger.begin(request);
        let (length, poison) = self.length(index, request, begun);
        let mut paused = self.paused(index);
        sleep(whole_millis(if poison { length / 2.0 } else { length })).await;
        if poison {
            return Fate::Lost;
        }
        loop {
            let more = self.paused(index) - paused;
            if more < 1e-9 {
                break;
            }
            paused += more;
            sleep(whole_millis(more)).await;
        }
        let now = time.now();
        match plan.health(index, now) {
            Health::Hangs(until) => self.hang(sent, until).await,
            _ if plan.is_down(now) => Fate::Lost,
            _ => Fate::Done,
        }
    }

    async fn hang(&self, sent: f64, until: f64) -> Fate {
        let time = &self.0.time;
        time.until(until.min((sent + ATTEMPT).max(time.now()))).await;
        Fate::Lost
    }

    fn paused(&self, index: usize) -> f64 {
        self.state().replicas.get(index).map_or(0.0, |replica| replica.paused)
    }

    /// How long the request takes here and now, and whether it is poison.
    fn length(&self, index: usize, request: usize, now: f64) -> (f64, bool) {
        let inner = &*self.0;
        let (pool, plan) = (&inner.case.pool, &inner.plan);
        let (own, poison) = self.service_time(request);
        let state = self.state();
        let Some(replica) = state.replicas.get(index) else {
            return (own, poison);
        };
        let over = (f64::from(replica.load) / f64::from(pool.workers) - 1.0).clamp(0.0, pool.contention_most);
        let cold = now < replica.cold_until || plan.is_cold(now, pool.cold);
        let factor = plan.slowness(now) * (1.0 + pool.contention * over) * if cold { pool.cold_factor } else { 1.0 };
        (own * factor + (replica.paused_until - now).max(0.0), poison)
    }
}
