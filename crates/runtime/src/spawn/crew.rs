//! Spawners and the threads beside them.

use super::{
    guard::Guards,
    hogs::Hogs,
    net::Networks,
    orders::{Ends, Orders},
    ready::Ready,
    running::Child,
    slots::Floor,
    spawner::{Spawner, Started},
    step::{Step, Trouble, io_step},
    sweeper::Sweeper,
};
use crosspoint_core::Limits;
use rustix::io::Errno;
use std::sync::{Arc, atomic::Ordering};

/// What one level's runs are started, watched and cleaned up by.
pub(super) struct Crew {
    spawners: Vec<Arc<Spawner>>,
    sweeper: Arc<Sweeper>,
    guards: Arc<Guards>,
    networks: Option<Arc<Networks>>,
}

impl Crew {
    pub(super) fn start(
        count: usize,
        ready: Option<&Arc<Ready>>,
        networks: Option<Arc<Networks>>,
        hogs: &Hogs,
        floor: &Floor,
    ) -> Result<Self, Trouble> {
        let sweeper = Sweeper::start(floor.clone())?;
        let guards = io_step(Step::Thread, Guards::start(hogs.clone()))?;
        let mut crew = Self {
            spawners: Vec::new(),
            sweeper: Arc::clone(&sweeper),
            guards,
            networks,
        };
        for n in 0..count {
            let name = format!("crosspoint-sp{n}");
            let spawner = Spawner::start(&name, ready.cloned(), Arc::clone(&sweeper), hogs.clone())?;
            crew.spawners.push(spawner);
        }
        Ok(crew)
    }

    /// Whether somebody has killed a task of it, or one could not begin for want of something that there may be again. Its
    /// runs go on, as far as they can.
    pub(super) fn is_broken(&self) -> bool {
        let spawner = |spawner: &Arc<Spawner>| spawner.was_killed() || spawner.has_stumbled();
        let networks = |networks: &Arc<Networks>| networks.was_killed() || networks.has_stumbled();
        self.sweeper.was_killed() || self.spawners.iter().any(spawner) || self.networks.as_ref().is_some_and(networks)
    }

    /// Starts a run.
    pub(super) async fn start_run(&self, orders: Box<Orders>) -> Result<Started, Trouble> {
        self.pick()?.request(orders).await
    }

    /// Watches a run that was started.
    pub(super) fn watch(&self, started: Started, ends: Ends, limits: Limits) -> Result<Child, Trouble> {
        Child::new(started, ends, limits, &self.guards)
    }

    /// The spawner with the least to do.
    fn pick(&self) -> Result<&Spawner, Trouble> {
        let least = self
            .spawners
            .iter()
            .min_by_key(|spawner| spawner.load.load(Ordering::Relaxed));
        least.map(|spawner| &**spawner).ok_or(Trouble {
            step: Step::Gone,
            errno: Errno::SRCH,
        })
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for spawner in &self.spawners {
            spawner.close();
        }
        if let Some(networks) = &self.networks {
            networks.close();
        }
        self.guards.close();
    }
}
