//! Adds and removes replicas by the demand.

use crate::{
    Pool,
    case::{self, Case},
    world::TICK,
};

/// For how long arrivals are averaged, in seconds.
const HORIZON: f64 = 3.0;
/// In how many seconds the backlog should be gone.
const CLEAR: f64 = 30.0;

pub(crate) struct Autoscaler {
    settings: case::Autoscaler,
    workers: f64,
    least: usize,
    service: f64,
    rate: f64,
    next: f64,
    lower_since: f64,
}

impl Autoscaler {
    pub(crate) fn new(settings: &case::Autoscaler, case: &Case) -> Self {
        Self {
            settings: settings.clone(),
            workers: f64::from(case.pool.workers),
            least: case.pool.replicas,
            service: case.load.classes.first().map_or(0.05, |class| class.seconds),
            rate: case.load.rate_at(0.0),
            next: 0.0,
            lower_since: 0.0,
        }
    }

    /// One look: `arrived` requests came since the last, `backlog` calls wait somewhere. `demand` is what the gateways
    /// ask for, in calls at once; without it, it is worked out here in the same way.
    pub(crate) fn step(&mut self, pool: &Pool, now: f64, arrived: u64, backlog: usize, demand: Option<f64>) {
        self.rate += (1.0 - (-TICK / HORIZON).exp()) * (arrived as f64 / TICK - self.rate);
        let demand = demand.unwrap_or((self.rate + backlog as f64 / CLEAR) * self.service);
        let settings = &self.settings;
        let wanted = (demand / (settings.utilisation * self.workers)).ceil() as usize;
        let wanted = wanted.clamp(self.least, settings.most.max(self.least));
        let have = pool.replicas();
        if wanted >= have {
            self.lower_since = now;
        }
        if now < self.next {
            return;
        }
        if wanted > have {
            pool.add(settings.ready);
            self.next = now + settings.pause;
        } else if wanted < have && now - self.lower_since > settings.down {
            pool.remove();
            self.lower_since = now - settings.down * 0.75;
        }
    }
}
