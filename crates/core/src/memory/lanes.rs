//! Whose turn it is: per target two queues, the held one and the sideline, and in each a lane per customer.
//!
//! Customers take turns by stride scheduling. Both queues keep their active lanes ordered by what they have had, so that
//! finding the next one costs the same however many calls and customers wait.

use crate::{CustomerId, CustomerTerms, TargetId, TargetStats, Timestamp};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tokio::sync::Notify;

/// What a turn costs; all weights are equal.
const STRIDE: u64 = 1 << 20;

/// One of a target's two queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Somebody waits for the answer.
    Held,
    /// Nobody is kept waiting.
    Sideline,
}

/// Where a call waits in a lane: its priority, and its number in the order of storing.
pub(super) type Entry = (Reverse<i16>, u64);

/// What waits for one target.
pub(super) struct Target {
    lanes: Vec<Lane>,
    numbers: HashMap<CustomerId, usize>,
    held: Turns,
    sideline: Turns,
    /// Who is ready, by since when.
    pub(super) ages: BTreeSet<(Timestamp, u64)>,
    /// Without the age, which is read off.
    pub(super) stats: TargetStats,
    /// How many calls are kept, ended ones included.
    pub(super) calls: u64,
    pub(super) changed: Arc<Notify>,
}

#[derive(Default)]
struct Lane {
    held: Waiting,
    sideline: Waiting,
}

#[derive(Default)]
struct Waiting {
    pass: u64,
    calls: BTreeSet<Entry>,
}

#[derive(Default)]
struct Turns {
    /// The highest pass that has been served.
    virtual_time: u64,
    /// The lanes in which something waits: who has had least goes first.
    active: BTreeSet<(u64, usize)>,
}

impl Lane {
    const fn waiting(&self, side: Side) -> &Waiting {
        match side {
            Side::Held => &self.held,
            Side::Sideline => &self.sideline,
        }
    }

    const fn waiting_mut(&mut self, side: Side) -> &mut Waiting {
        match side {
            Side::Held => &mut self.held,
            Side::Sideline => &mut self.sideline,
        }
    }
}

impl Target {
    pub(super) fn new(id: TargetId) -> Self {
        Self {
            lanes: Vec::new(),
            numbers: HashMap::new(),
            held: Turns::default(),
            sideline: Turns::default(),
            ages: BTreeSet::new(),
            stats: TargetStats::new(id),
            calls: 0,
            changed: Arc::default(),
        }
    }

    /// The number of a customer's lanes.
    pub(super) fn lane(&mut self, customer: &CustomerId) -> usize {
        if let Some(lane) = self.numbers.get(customer) {
            return *lane;
        }
        let lane = self.lanes.len();
        self.lanes.push(Lane::default());
        self.numbers.insert(customer.clone(), lane);
        lane
    }

    fn parts(&mut self, side: Side, lane: usize) -> Option<(&mut Turns, &mut Waiting)> {
        let turns = match side {
            Side::Held => &mut self.held,
            Side::Sideline => &mut self.sideline,
        };
        Some((turns, self.lanes.get_mut(lane)?.waiting_mut(side)))
    }

    /// Adds a call to a lane. An idle lane re-enters at the present virtual time, so that it can save nothing up.
    pub(super) fn enter(&mut self, side: Side, lane: usize, entry: Entry) {
        let Some((turns, waiting)) = self.parts(side, lane) else {
            return;
        };
        if waiting.calls.is_empty() {
            waiting.pass = waiting.pass.max(turns.virtual_time);
            turns.active.insert((waiting.pass, lane));
        }
        waiting.calls.insert(entry);
    }

    /// Takes a call out of its lane.
    pub(super) fn leave(&mut self, side: Side, lane: usize, entry: Entry) {
        let Some((turns, waiting)) = self.parts(side, lane) else {
            return;
        };
        waiting.calls.remove(&entry);
        if waiting.calls.is_empty() {
            turns.active.remove(&(waiting.pass, lane));
        }
    }

    /// Makes a lane pay for one call.
    pub(super) fn charge(&mut self, side: Side, lane: usize, turns_each: u32) {
        let Some((turns, waiting)) = self.parts(side, lane) else {
            return;
        };
        turns.virtual_time = turns.virtual_time.max(waiting.pass);
        let active = turns.active.remove(&(waiting.pass, lane));
        let cost = STRIDE.saturating_mul(u64::from(turns_each.max(1)));
        waiting.pass = waiting.pass.saturating_add(cost);
        if active {
            turns.active.insert((waiting.pass, lane));
        }
    }

    /// Makes a lane pay for a call that is leased as it is stored. Virtual time follows only while nobody waits, or those
    /// who come later would have to wait for it.
    pub(super) fn charge_start(&mut self, side: Side, lane: usize) {
        let Some((turns, waiting)) = self.parts(side, lane) else {
            return;
        };
        let active = turns.active.remove(&(waiting.pass, lane));
        waiting.pass = waiting.pass.max(turns.virtual_time);
        if turns.active.is_empty() && !active {
            turns.virtual_time = waiting.pass;
        }
        waiting.pass = waiting.pass.saturating_add(STRIDE);
        if active {
            turns.active.insert((waiting.pass, lane));
        }
    }

    /// The lane whose turn it is.
    pub(super) fn turn(&self, side: Side, terms: &Terms) -> Option<usize> {
        let turns = match side {
            Side::Held => &self.held,
            Side::Sideline => &self.sideline,
        };
        let mut lanes = turns.active.iter().map(|(_, lane)| *lane);
        lanes.find(|lane| !terms.skips(*lane))
    }

    /// The first call of a lane, or, of those with the highest priority, the last.
    pub(super) fn first(&self, side: Side, lane: usize, newest: bool) -> Option<u64> {
        let calls = &self.lanes.get(lane)?.waiting(side).calls;
        let (priority, oldest) = calls.first().copied()?;
        if !newest {
            return Some(oldest);
        }
        let last = calls.range((priority, 0)..=(priority, u64::MAX)).next_back();
        last.map(|(_, seq)| *seq)
    }

    /// Whether anything of the lane stands before a new call of its customer on this side.
    pub(super) fn waits(&self, side: Side, lane: usize) -> bool {
        let waiting = |side| self.lanes.get(lane).is_some_and(|l| !l.waiting(side).calls.is_empty());
        waiting(Side::Held) || (side == Side::Sideline && waiting(Side::Sideline))
    }

    /// The numbers of a customer's calls that wait, on both sides.
    pub(super) fn waiting_of(&self, customer: &CustomerId) -> impl Iterator<Item = u64> + '_ {
        let lane = self.numbers.get(customer).and_then(|lane| self.lanes.get(*lane));
        let sides = lane.into_iter().flat_map(|lane| [&lane.held, &lane.sideline]);
        sides.flat_map(|waiting| waiting.calls.iter().map(|(_, seq)| *seq))
    }

    /// What a lease says of single customers.
    pub(super) fn terms(&self, customers: &[CustomerTerms]) -> Terms {
        let known = customers.iter().filter_map(|terms| {
            let lane = self.numbers.get(&terms.customer)?;
            Some((*lane, (terms.skip, terms.charge)))
        });
        Terms(known.collect())
    }
}

/// How single customers are treated in a lease, by lane.
pub(super) struct Terms(HashMap<usize, (bool, u32)>);

impl Terms {
    fn skips(&self, lane: usize) -> bool {
        self.0.get(&lane).is_some_and(|(skip, _)| *skip)
    }

    pub(super) fn charge(&self, lane: usize) -> u32 {
        self.0.get(&lane).map_or(1, |(_, charge)| *charge)
    }
}
