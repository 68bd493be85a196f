//! A run: arrivals, autoscaler and faults around the doors that clients call.

use crate::{
    Front, Ledger, Pool, Random, Report, RunStore, RunTime,
    autoscaler::Autoscaler,
    case::{Case, Client, Fault, Plan},
    client,
    front::{Crosspoint, Door, Site, share, target},
    ledger::{End, Sample, Stage},
    measure::measure,
    time::seconds,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering};
use tokio::{runtime::Builder, time::sleep};

/// How often the world looks around, in seconds.
pub(crate) const TICK: f64 = 0.1;
/// How long after the last arrival accepted calls are waited for.
const PATIENCE: f64 = 3600.0;

/// Everything of a run that outlives a gateway.
pub(crate) struct World {
    pub(crate) site: Site,
    pub(crate) ledger: Arc<Ledger>,
    moving: Mutex<Moving>,
}

struct Moving {
    doors: Vec<Option<Door>>,
    turn: usize,
    arrivals: Random,
    /// When the next call comes.
    next: f64,
    /// Retries that clients may still make.
    budget: f64,
    opened: usize,
}

/// Runs a case with the real gateway.
///
/// # Errors
/// A policy that does not exist, or no runtime.
pub fn run(case: &Case, seed: u64) -> Result<Report, String> {
    run_behind(case, seed, &Crosspoint)
}

/// Runs a case with whatever `front` puts before the pool.
///
/// # Errors
/// As [`run`].
pub fn run_behind(case: &Case, seed: u64, front: &dyn Front) -> Result<Report, String> {
    let world = World::new(case, seed);
    let mut from = 0.0;
    let mut away = 0.0;
    let mut kills = Plan::new(&case.faults).kills().into_iter();
    loop {
        let kill = kills.next();
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let until = kill.map(|(at, _)| at);
        let lived = runtime.block_on(world.live(front, from, away, until));
        // First the tasks, then the gateways: as when a process dies.
        drop(runtime);
        world.moving().doors.clear();
        lived?;
        match kill {
            Some((at, pause)) => (from, away) = (at, pause),
            None => return Ok(measure(&world.site, &world.ledger)),
        }
    }
}

/// Runs a case in real time within the runtime it is called from. Gateways are not killed.
///
/// # Errors
/// As [`run`].
pub async fn run_here(case: &Case, seed: u64, front: &dyn Front) -> Result<Report, String> {
    let world = World::new(case, seed);
    world.live(front, 0.0, 0.0, None).await?;
    world.moving().doors.clear();
    Ok(measure(&world.site, &world.ledger))
}

impl World {
    fn new(case: &Case, seed: u64) -> Arc<Self> {
        let (case, time, ledger) = (
            Arc::new(case.clone()),
            Arc::new(RunTime::new(seed)),
            Arc::new(Ledger::default()),
        );
        let pool = Pool::new(&case, seed, &time, &ledger);
        let store = Arc::new(RunStore::new(seed, &time, &case));
        let mut arrivals = Random::keyed(seed, 1);
        let next = arrivals.gap(case.load.rate_at(0.0));
        Arc::new(Self {
            site: Site {
                case,
                seed,
                time,
                pool,
                store,
            },
            ledger,
            moving: Mutex::new(Moving {
                doors: Vec::new(),
                turn: 0,
                arrivals,
                next,
                budget: 10.0,
                opened: 0,
            }),
        })
    }

    fn moving(&self) -> MutexGuard<'_, Moving> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lives from second `from`, with doors that open `away` seconds later, to the end or until it is killed.
    async fn live(self: &Arc<Self>, front: &dyn Front, from: f64, away: f64, until: Option<f64>) -> Result<(), String> {
        self.site.time.resume(from);
        let mut tasks = vec![tokio::spawn(Arc::clone(self).tick(from))];
        tasks.extend(self.pauses(from));
        let crowd = tokio::spawn(Arc::clone(self).crowd());
        let orphans: Vec<usize> = {
            let book = self.ledger.book();
            let open = book.calls.iter().enumerate();
            open.filter(|(_, call)| !matches!(call.stage, Stage::Ended(..)))
                .map(|(number, _)| number)
                .collect()
        };
        for call in orphans {
            tokio::spawn(client::resume(Arc::clone(self), call));
        }
        sleep(seconds(away)).await;
        for number in 0..self.site.case.gateway.count {
            let door = self.open(front)?;
            let mut moving = self.moving();
            let count = moving.doors.len().max(number + 1);
            moving.doors.resize(count, None);
            if let Some(place) = moving.doors.get_mut(number) {
                *place = Some(door);
            }
        }
        let finished = async {
            tokio::join!(self.deploys(front, from), async {
                drop(crowd.await);
                let cap = self.site.case.duration + PATIENCE;
                while self.ledger.book().outstanding > 0 && self.site.time.now() < cap {
                    sleep(seconds(0.25)).await;
                }
            });
        };
        match until {
            None => finished.await,
            Some(at) => tokio::select! {
                biased;
                () = self.site.time.until(at) => {}
                () = finished => {}
            },
        }
        for task in tasks {
            task.abort();
        }
        Ok(())
    }

    fn open(&self, front: &dyn Front) -> Result<Door, String> {
        let number = {
            let mut moving = self.moving();
            moving.opened += 1;
            moving.opened - 1
        };
        front.open(&self.site, number).map_err(|error| error.to_string())
    }

    /// The door for the next request: the open ones in turn.
    pub(crate) fn door(&self) -> Option<Door> {
        let mut moving = self.moving();
        let count = moving.doors.len();
        for _ in 0..count {
            moving.turn = (moving.turn + 1) % count;
            if let Some(door) = moving.doors.get(moving.turn).and_then(Option::as_ref) {
                return Some(door.clone());
            }
        }
        None
    }

    pub(crate) fn end(&self, call: usize, end: End) {
        self.end_at(call, end, None);
    }

    pub(crate) fn end_at(&self, call: usize, end: End, at: Option<f64>) {
        self.ledger
            .stage(call, Stage::Ended(end, at.unwrap_or_else(|| self.site.time.now())));
    }

    /// Takes one retry from the budget that clients share.
    pub(crate) fn may_retry(&self, client: &Client) -> bool {
        if client.budget.is_none() {
            return true;
        }
        let mut moving = self.moving();
        let may = moving.budget >= 1.0;
        moving.budget -= f64::from(u8::from(may));
        may
    }

    /// Lets calls arrive until their time is over.
    async fn crowd(self: Arc<Self>) {
        let load = &self.site.case.load;
        loop {
            let intended = self.moving().next;
            if intended >= self.site.case.duration {
                return;
            }
            self.site.time.until(intended).await;
            let call = {
                let mut moving = self.moving();
                let noisy = if self.site.case.disturbed(intended) {
                    load.customers.noisy - 1.0
                } else {
                    0.0
                };
                let crowd = load.customers.count as f64;
                let customer = (moving.arrivals.unit() * (crowd + noisy) - noisy).max(0.0) as usize;
                let class = usize::from(moving.arrivals.unit() < load.second_class(intended));
                let poison = moving.arrivals.unit() < load.poison;
                let rate = load.rate_at(intended) * (crowd + noisy) / crowd;
                moving.next = intended + moving.arrivals.gap(rate);
                moving.budget += load.client.budget.unwrap_or_default();
                let customer = customer.min(load.customers.count - 1);
                self.ledger.arrive(intended, customer, class, poison)
            };
            tokio::spawn(client::call(Arc::clone(&self), call, intended));
        }
    }

    /// Looks around ten times a second: capacity, autoscaler, limits.
    async fn tick(self: Arc<Self>, from: f64) {
        let case = &self.site.case;
        let mut autoscaler = case.autoscaler.as_ref().map(|settings| Autoscaler::new(settings, case));
        let mut step = (from / TICK).round();
        let (mut arrived, mut state) = (self.ledger.book().arrived, None);
        loop {
            step += 1.0;
            self.site.time.until(step * TICK).await;
            let doors: Vec<Door> = self.moving().doors.iter().flatten().cloned().collect();
            let gates: Vec<_> = doors
                .iter()
                .filter_map(|door| door.gateway.as_ref()?.snapshot(&target()))
                .collect();
            let first = gates.first();
            let (capacity, workers, replicas) = (
                self.site.pool.capacity(),
                self.site.pool.workers(),
                self.site.pool.replicas(),
            );
            let waiting: usize = doors.iter().map(|door| door.waiting.load(Ordering::Relaxed)).sum();
            let stored = self.site.store.waiting();
            let new = {
                let mut book = self.ledger.book();
                book.capacity.push(capacity);
                let held = book.open.saturating_sub(book.direct);
                book.peak_held = book.peak_held.max(held);
                if self.site.time.now() <= case.duration + TICK / 2.0 {
                    book.replica_seconds += replicas as f64 * TICK;
                }
                let limit = first.map_or(0, |gate| gate.limit);
                let at_target = book.at_target;
                book.samples.push(Sample {
                    at: step * TICK,
                    limit,
                    limits: gates.iter().map(|gate| gate.limit).sum(),
                    at_target,
                    workers,
                    held,
                    stored,
                });
                let new = book.arrived - arrived;
                arrived = book.arrived;
                if let Some(gate) = first {
                    let now = crate::front::state_of(gate);
                    if state.is_some_and(|before| before != now) {
                        book.changes += 1;
                        book.openings += u64::from(now == "ramping" || (now == "direct" && state != Some("ramping")));
                    }
                    state = Some(now);
                }
                new
            };
            if let Some(autoscaler) = &mut autoscaler {
                autoscaler.step(
                    &self.site.pool,
                    self.site.time.now(),
                    new,
                    stored + waiting,
                    demand(&doors),
                );
            }
            let known = share(workers, doors.len());
            for gateway in doors
                .iter()
                .filter(|door| door.known_limit)
                .filter_map(|door| door.gateway.as_ref())
            {
                if gateway.snapshot(&target()).is_some_and(|gate| gate.limit != known) {
                    gateway.set_permits(&target(), known);
                }
            }
        }
    }

    /// One task for each replica that pauses.
    fn pauses(self: &Arc<Self>, from: f64) -> Vec<tokio::task::JoinHandle<()>> {
        let mut tasks = Vec::new();
        let replicas = self.site.case.pool.replicas;
        for fault in &self.site.case.faults {
            let Fault::Pauses {
                from: first,
                every,
                length,
                together,
            } = *fault
            else {
                continue;
            };
            for replica in 0..replicas {
                let shift = if together {
                    0.0
                } else {
                    every * replica as f64 / replicas as f64
                };
                let world = Arc::clone(self);
                tasks.push(tokio::spawn(async move {
                    let mut at = first + shift;
                    while at < world.site.case.duration {
                        if at >= from {
                            world.site.time.until(at).await;
                            world.site.pool.pause(replica, length);
                        }
                        at += every;
                    }
                }));
            }
        }
        tasks
    }

    /// Replaces what the case says, when it says.
    async fn deploys(self: &Arc<Self>, front: &dyn Front, since: f64) {
        for fault in &self.site.case.faults {
            match *fault {
                Fault::DeployGateways { from, every, grace } if from >= since => {
                    for number in 0..self.site.case.gateway.count {
                        self.site.time.until(from + every * number as f64).await;
                        let old = self.moving().doors.get_mut(number).and_then(Option::take);
                        if let Some(gateway) = old.and_then(|door| door.gateway) {
                            gateway.drain(seconds(grace)).await;
                        }
                        if let Ok(door) = self.open(front)
                            && let Some(place) = self.moving().doors.get_mut(number)
                        {
                            *place = Some(door);
                        }
                    }
                }
                Fault::DeployReplicas { from, every } if from >= since => {
                    for replica in 0..self.site.case.pool.replicas {
                        self.site.time.until(from + every * replica as f64).await;
                        self.site.pool.replace(replica);
                    }
                }
                _ => {}
            }
        }
    }
}

/// What the gateways say, if they say something.
fn demand(doors: &[Door]) -> Option<f64> {
    let all: Vec<f64> = doors
        .iter()
        .filter_map(|door| crate::front::demand_of(door.gateway.as_ref()?))
        .collect();
    (!all.is_empty()).then(|| all.iter().sum())
}
