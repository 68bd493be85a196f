//! Fair turns between customers: stride scheduling over lanes, one per target and customer.
//!
//! A lane is charged when it is served, and an idle lane re-enters at the current virtual time, so that it can save
//! nothing up. Whether a lane has ready rows is found out at the lease: a lane that gave fewer than it was asked for
//! becomes inactive, and so no counter has to be kept.
//!
//! A lane is two lines, of the sideline and of the held queue, each with turns of its own. The held line goes by the
//! lane's number negated, and a target's held queue by the target's.

use super::Ledger;
use crate::{fail::Fail, sql};
use crosspoint_core::{CustomerId, CustomerTerms, InstallationId, TargetId};
use rusqlite::OptionalExtension;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

/// What a turn costs; all weights are equal.
pub(super) const STRIDE: i64 = 1 << 10;

/// What is known of targets and lanes. Ids never change; the rest does when another process writes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    names: HashMap<TargetId, i64>,
    ids: HashMap<i64, HashMap<CustomerId, i64>>,
    flows: HashMap<InstallationId, HashMap<Arc<str>, i64>>,
    targets: HashMap<i64, Target>,
    lanes: HashMap<i64, Lane>,
    changed: Vec<i64>,
    moved: Vec<i64>,
}

#[derive(Debug)]
struct Target {
    vtime: i64,
    active: usize,
    moved: bool,
}

#[derive(Debug)]
struct Lane {
    target: i64,
    pass: i64,
    active: bool,
    /// Whether it is active in the file.
    written_active: bool,
    changed: bool,
}

impl Lane {
    /// A lane that has slept before the group and sleeps again is not worth a page: when it wakes it begins at its pass or
    /// at virtual time, whichever is later, so what gets lost with this process, or when another one writes, is what it is
    /// ahead of virtual time, and that is one turn at most.
    fn need_not_be_written(&self, vtime: Option<i64>) -> bool {
        let turn_ahead = vtime.map(|vtime| vtime.saturating_add(STRIDE));
        !self.active && !self.written_active && turn_ahead.is_some_and(|most| self.pass <= most)
    }
}

/// How single customers are treated in a lease.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// By lane; `None` for those that are passed over.
    costs: HashMap<i64, Option<i64>>,
    skipped: usize,
}

impl Terms {
    /// What a turn of a lane costs; `None` if it is passed over.
    pub(super) fn cost(&self, lane: i64) -> Option<i64> {
        let known = self.costs.get(&lane.saturating_abs());
        known.copied().unwrap_or(Some(STRIDE))
    }
}

impl Lanes {
    fn is_changed(&self, lane: i64) -> bool {
        self.lanes.get(&lane).is_some_and(|lane| lane.changed)
    }

    /// Forgets what another process may have changed.
    pub(super) fn doubt(&mut self) {
        self.targets.clear();
        self.lanes.clear();
        self.changed.clear();
        self.moved.clear();
    }
}

impl Ledger {
    /// The number of a target, if it was ever used.
    pub(super) fn find_target(&mut self, name: &TargetId) -> Result<Option<i64>, Fail> {
        if let Some(id) = self.lanes.names.get(name) {
            return Ok(Some(*id));
        }
        let mut statement = self.db.prepare_cached(sql::TARGET_BY_NAME)?;
        let found: Option<i64> = statement.query_row([name.as_str()], |row| row.get(0)).optional()?;
        if let Some(id) = found {
            self.lanes.names.insert(name.clone(), id);
        }
        Ok(found)
    }

    /// The lane of a customer's calls to a target; made if it is the first.
    pub(super) fn lane_of(&mut self, target: &TargetId, customer: &CustomerId) -> Result<i64, Fail> {
        let target = match self.find_target(target)? {
            Some(id) => id,
            None => {
                self.db.prepare_cached(sql::TARGET_ADD)?.execute([target.as_str()])?;
                let id = self.db.last_insert_rowid();
                self.lanes.names.insert(target.clone(), id);
                id
            }
        };
        let ids = self.lanes.ids.entry(target).or_default();
        if let Some(id) = ids.get(customer) {
            return Ok(*id);
        }
        let key = (target, customer.as_str());
        let mut statement = self.db.prepare_cached(sql::LANE_BY_NAME)?;
        let found: Option<i64> = statement.query_row(key, |row| row.get(0)).optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                self.db.prepare_cached(sql::LANE_ADD)?.execute(key)?;
                self.db.last_insert_rowid()
            }
        };
        ids.insert(customer.clone(), id);
        Ok(id)
    }

    /// What a lease says of single customers; those without a lane have nothing that waits.
    pub(super) fn terms(&mut self, target: i64, customers: &[CustomerTerms]) -> Result<Terms, Fail> {
        let mut terms = Terms::default();
        for customer in customers {
            let ids = self.lanes.ids.entry(target).or_default();
            let lane = match ids.get(&customer.customer) {
                Some(lane) => Some(*lane),
                None => {
                    let mut statement = self.db.prepare_cached(sql::LANE_BY_NAME)?;
                    let found = statement.query_row((target, customer.customer.as_str()), |row| row.get(0));
                    found.optional()?
                }
            };
            if let Some(lane) = lane {
                let cost = STRIDE.saturating_mul(i64::from(customer.charge.max(1)));
                terms.costs.insert(lane, (!customer.skip).then_some(cost));
            }
        }
        terms.skipped = terms.costs.values().filter(|cost| cost.is_none()).count();
        Ok(terms)
    }

    /// The number of an installation's flow; made if it is new.
    pub(super) fn flow_of(
        &mut self,
        installation: InstallationId,
        name: &Arc<str>,
        customer: &CustomerId,
    ) -> Result<i64, Fail> {
        let flows = self.lanes.flows.entry(installation).or_default();
        if let Some(id) = flows.get(name) {
            return Ok(*id);
        }
        let mut statement = self.db.prepare_cached(sql::FLOW_BY_NAME)?;
        let found: Option<i64> = statement
            .query_row((installation.as_bytes(), &**name), |row| row.get(0))
            .optional()?;
        let id = match found {
            Some(id) => id,
            None => {
                let new = (installation.as_bytes(), &**name, customer.as_str());
                self.db.prepare_cached(sql::FLOW_ADD)?.execute(new)?;
                self.db.last_insert_rowid()
            }
        };
        flows.insert(Arc::clone(name), id);
        Ok(id)
    }

    fn target(&mut self, id: i64) -> Result<&mut Target, Fail> {
        if !self.lanes.targets.contains_key(&id) {
            // Lanes that were changed in this transaction count as well.
            self.flush_lanes()?;
            let (time, active) = if id < 0 {
                (sql::HELD_TIME, sql::HELD_ACTIVE)
            } else {
                (sql::TARGET_TIME, sql::LANES_ACTIVE)
            };
            let key = [id.saturating_abs()];
            let vtime = self.db.prepare_cached(time)?.query_row(key, |row| row.get(0))?;
            let active: i64 = self.db.prepare_cached(active)?.query_row(key, |row| row.get(0))?;
            let target = Target {
                vtime,
                active: usize::try_from(active).unwrap_or(0),
                moved: false,
            };
            self.lanes.targets.insert(id, target);
        }
        self.lanes.targets.get_mut(&id).ok_or_else(lost)
    }

    fn lane(&mut self, id: i64) -> Result<&mut Lane, Fail> {
        if !self.lanes.lanes.contains_key(&id) {
            let text = if id < 0 { sql::HELD_BY_ID } else { sql::LANE_BY_ID };
            let lane = self.db.prepare_cached(text)?.query_row([id.saturating_abs()], |row| {
                Ok(Lane {
                    target: row.get::<_, i64>(0)? * id.signum(),
                    pass: row.get(1)?,
                    active: row.get(2)?,
                    written_active: row.get(2)?,
                    changed: false,
                })
            })?;
            self.lanes.lanes.insert(id, lane);
        }
        self.lanes.lanes.get_mut(&id).ok_or_else(lost)
    }

    fn set_lane(&mut self, id: i64, pass: i64, active: bool) -> Result<(), Fail> {
        let lane = self.lane(id)?;
        if (lane.pass, lane.active) == (pass, active) {
            return Ok(());
        }
        (lane.pass, lane.active) = (pass, active);
        if !lane.changed {
            lane.changed = true;
            self.lanes.changed.push(id);
        }
        Ok(())
    }

    fn set_vtime(&mut self, id: i64, vtime: i64) -> Result<(), Fail> {
        let target = self.target(id)?;
        if target.vtime < vtime {
            target.vtime = vtime;
            if !target.moved {
                target.moved = true;
                self.lanes.moved.push(id);
            }
        }
        Ok(())
    }

    /// A row of this lane has become ready: it is in the queue by now.
    pub(super) fn activate(&mut self, lane: i64) -> Result<(), Fail> {
        let (target, pass, active) = self.lane_state(lane)?;
        let known = self.target(target)?;
        let vtime = known.vtime;
        if !active {
            known.active += 1;
            return self.set_lane(lane, pass.max(vtime), true);
        }
        // Only a lane that is passed over falls behind. If it has emptied meanwhile, no lease has noticed.
        let alone = || Ok::<_, Fail>(!self.db.prepare_cached(sql::LANE_SECOND)?.exists([lane])?);
        if pass < vtime && self.fresh.of(lane) < 2 && alone()? {
            self.set_lane(lane, vtime, true)?;
        }
        Ok(())
    }

    fn deactivate(&mut self, lane: i64) -> Result<(), Fail> {
        let (target, pass, active) = self.lane_state(lane)?;
        if active {
            let known = self.target(target)?;
            known.active = known.active.saturating_sub(1);
            self.set_lane(lane, pass, false)?;
        }
        Ok(())
    }

    fn lane_state(&mut self, lane: i64) -> Result<(i64, i64, bool), Fail> {
        let lane = self.lane(lane)?;
        Ok((lane.target, lane.pass, lane.active))
    }

    pub(super) fn lane_is_active(&mut self, lane: i64) -> Result<bool, Fail> {
        Ok(self.lane_state(lane)?.2)
    }

    /// Whether rows of this lane wait for a worker.
    pub(super) fn lane_waits(&mut self, lane: i64) -> Result<bool, Fail> {
        if !self.lane_is_active(lane)? {
            return Ok(false);
        }
        let ready = self.fresh.of(lane) > 0 || self.db.prepare_cached(sql::LANE_READY)?.exists([lane])?;
        if !ready {
            self.deactivate(lane)?;
        }
        Ok(ready)
    }

    /// Whether anything of the same customer goes before a new call of this line.
    pub(super) fn stands_before(&mut self, lane: i64) -> Result<bool, Fail> {
        Ok(self.lane_waits(-lane.saturating_abs())? || (lane > 0 && self.lane_waits(lane)?))
    }

    /// A call of this lane is leased as it is stored: it is charged like all others. Virtual time follows only while
    /// nobody waits, or those who come later would have to wait for it.
    pub(super) fn charge_start(&mut self, lane: i64) -> Result<(), Fail> {
        let (target, pass, active) = self.lane_state(lane)?;
        let known = self.target(target)?;
        let (pass, idle) = (pass.max(known.vtime), known.active == 0);
        if idle {
            self.set_vtime(target, pass)?;
        }
        self.set_lane(lane, pass.saturating_add(STRIDE), active)
    }

    /// A row of this lane is leased from the queue, and costs so much.
    pub(super) fn charge_turn(&mut self, lane: i64, cost: i64) -> Result<(), Fail> {
        let (target, pass, active) = self.lane_state(lane)?;
        self.set_vtime(target, pass)?;
        self.set_lane(lane, pass.saturating_add(cost), active)
    }

    /// Whether anybody may be waiting for this target.
    pub(super) fn has_active(&mut self, target: i64) -> Result<bool, Fail> {
        Ok(self.target(target)?.active > 0)
    }

    /// Whose turns the next `n` are, by lane.
    pub(super) fn turns(&mut self, target: i64, n: usize, terms: &Terms) -> Result<Vec<i64>, Fail> {
        let all = self.target(target)?.active;
        // What this transaction has changed is not written yet.
        let changed = self.lanes.changed.iter();
        let changed = changed.filter_map(|id| Some((*id, self.lanes.lanes.get(id)?)));
        let awake = changed.filter(|(_, lane)| lane.active && lane.target == target);
        let mut heap: BinaryHeap<Reverse<(i64, i64)>> = awake
            .map(|(id, lane)| Reverse((lane.pass, id.saturating_abs())))
            .collect();
        if heap.len() < all {
            let n_read = n.saturating_add(terms.skipped).saturating_add(self.lanes.changed.len());
            let limit = i64::try_from(n_read).unwrap_or(i64::MAX);
            let text = if target < 0 { sql::HELD_NEXT } else { sql::LANES_NEXT };
            let mut statement = self.db.prepare_cached(text)?;
            let found = statement.query_map((target.saturating_abs(), limit), |row| Ok((row.get(1)?, row.get(0)?)))?;
            for lane in found {
                let (pass, lane): (i64, i64) = lane?;
                if !self.lanes.is_changed(lane * target.signum()) {
                    heap.push(Reverse((pass, lane)));
                }
            }
        }
        if terms.skipped > 0 {
            heap.retain(|Reverse((_, lane))| terms.cost(*lane).is_some());
        }
        let mut turns = Vec::with_capacity(n.min(1024));
        while turns.len() < n {
            let Some(Reverse((pass, lane))) = heap.pop() else {
                break;
            };
            turns.push(lane * target.signum());
            let cost = terms.cost(lane).unwrap_or(STRIDE);
            heap.push(Reverse((pass.saturating_add(cost), lane)));
        }
        Ok(turns)
    }

    /// The lane gave fewer rows than it was asked for.
    pub(super) fn ran_dry(&mut self, lane: i64) -> Result<(), Fail> {
        self.deactivate(lane)
    }

    /// Writes what has changed, once per lane and group.
    pub(crate) fn flush_lanes(&mut self) -> Result<(), Fail> {
        for id in std::mem::take(&mut self.lanes.changed) {
            if let Some(lane) = self.lanes.lanes.get_mut(&id) {
                lane.changed = false;
                let time = self.lanes.targets.get(&lane.target).map(|target| target.vtime);
                if lane.need_not_be_written(time) {
                    continue;
                }
                lane.written_active = lane.active;
                let row = (id.saturating_abs(), lane.pass, lane.active);
                let text = if id < 0 { sql::HELD_SET } else { sql::LANE_SET };
                self.db.prepare_cached(text)?.execute(row)?;
            }
        }
        for id in std::mem::take(&mut self.lanes.moved) {
            if let Some(target) = self.lanes.targets.get_mut(&id) {
                target.moved = false;
                let row = (id.saturating_abs(), target.vtime);
                let text = if id < 0 { sql::HELD_TIME_SET } else { sql::TARGET_SET };
                self.db.prepare_cached(text)?.execute(row)?;
            }
        }
        Ok(())
    }
}

fn lost() -> Fail {
    Fail::Group(crate::fail::damaged("lane"))
}
