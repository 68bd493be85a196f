//! The customers of a gate: who has how much in flight, and whose calls are slow.
//!
//! Memory is bounded: 4,096 cells, chosen by a hash that differs from process to process unless it is seeded, made when
//! customers are first watched, and given back by those that have not called for a while. Only when thousands call at once
//! do some share a cell, and its caps with it. Nothing here is on the way of a call while nobody is watched.

mod cell;
mod lease;

use super::{recorder::nanos, word::Reading};
use cell::Cell;
use crosspoint_core::CustomerId;
pub(crate) use lease::ForLease;
use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

const CELLS: u16 = 4096;
/// How many cells from its own on a customer may have instead.
const NEAR: u16 = 8;
/// How long a customer without calls keeps its cell.
const KEEP: Duration = Duration::from_secs(5);
/// No cell: there was nobody, or more than one.
const SEVERAL: u16 = u16::MAX;
/// After so many scans without anybody else, two seconds in all, a customer is taken to be alone.
const ALONE_FOR: u32 = 20;
/// How slowly the ratio of a customer without calls goes back to the ordinary, in seconds.
const FADE_TAU: f32 = 10.0;

const SLOW: u8 = 1;
const EXCLUDED: u8 = 2;
const NOISY: u8 = 4;

/// How a customer is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    /// Its calls take far longer than those of others: it gets 5 % of the limit at most.
    pub(crate) slow: bool,
    /// Its calls say nothing about the target: they reach no histogram.
    pub(crate) excluded: bool,
    /// It takes more than its share: while the target is busy, its calls take their turn in the queue.
    pub(crate) noisy: bool,
}

impl Flags {
    const fn of(bits: u8) -> Self {
        Self {
            slow: bits & SLOW != 0,
            excluded: bits & EXCLUDED != 0,
            noisy: bits & NOISY != 0,
        }
    }

    const fn bits(self) -> u8 {
        let slow = if self.slow { SLOW } else { 0 };
        let excluded = if self.excluded { EXCLUDED } else { 0 };
        let noisy = if self.noisy { NOISY } else { 0 };
        slow | excluded | noisy
    }
}

/// A call that was counted in at a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) cell: u16,
    epoch: u32,
}

/// One cell: a customer, or several whose ids fall together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CustomerReading {
    pub(crate) cell: u16,
    pub(crate) in_flight: u32,
    /// EWMA (0.2) of latency by baseline; 0 before the first sample.
    pub(crate) ratio: f64,
    /// How long calls have been in flight without one of them ending: the oldest in flight is at least this old.
    pub(crate) stalled: Duration,
    /// Time that its calls took since the last scan.
    pub(crate) busy: Duration,
    pub(crate) flags: Flags,
}

struct Table {
    cells: Box<[Cell]>,
    origin: Instant,
    /// When it was last scanned, in nanoseconds after the origin.
    scanned: AtomicU64,
}

impl Table {
    fn now(&self) -> u64 {
        nanos(self.origin.elapsed())
    }
}

/// The customers of one gate.
pub(crate) struct Customers {
    table: OnceLock<Table>,
    /// Hashed before every id: nobody can choose ids that fall together.
    key: OnceLock<u64>,
    /// Of customers that called while they were watched: the first of each cell.
    names: Mutex<BTreeMap<u16, CustomerId>>,
    /// Whether a lease is under way that may bring a slow customer's call.
    scouting: AtomicBool,
    /// The cell of the only customer that the last scan saw, or [`SEVERAL`].
    alone: AtomicU16,
    /// How many nanoseconds the calls of a customer may be silent before it gets no more of them; 0 while that is not known.
    overdue: AtomicU64,
    /// How many scans in a row saw nobody else. Calls that were admitted before customers were watched have no cell, so
    /// one look proves nothing.
    alone_for: AtomicU32,
    /// Rises whenever the calls in flight are left over from then on.
    epoch: AtomicU32,
}

/// What a slow customer has of a target.
fn few(gate: Reading) -> u32 {
    (gate.limit() / 20).max(1)
}

/// What one customer has of a busy target.
fn fair(gate: Reading) -> u32 {
    (gate.limit().saturating_mul(3) / 10).max(2)
}

impl Customers {
    /// Cells are chosen at random unless there is a seed.
    pub(super) fn new() -> Self {
        Self {
            table: OnceLock::new(),
            key: OnceLock::new(),
            names: Mutex::default(),
            scouting: AtomicBool::new(false),
            alone: AtomicU16::new(SEVERAL),
            alone_for: AtomicU32::new(0),
            overdue: AtomicU64::new(0),
            epoch: AtomicU32::new(0),
        }
    }

    /// Counts no call any more that is in flight now. Those that hang from before a cool-off would leave their customers no
    /// share of what a target that comes back can take.
    pub(super) fn leave_over(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed)
    }

    fn in_flight(&self, cell: &Cell) -> u32 {
        cell.in_flight(self.epoch())
    }

    /// Has customers told apart by a seed, unless they are already.
    pub(super) fn seed(&self, seed: u64) {
        self.key.get_or_init(|| seed);
    }

    /// The cells that are in use, were since the last scan, or are flagged.
    pub(crate) fn scan(&self) -> Vec<CustomerReading> {
        let Some(table) = self.table.get() else {
            return Vec::new();
        };
        let now = table.now();
        let since = Duration::from_nanos(now.saturating_sub(table.scanned.swap(now, Ordering::Relaxed)));
        let left = (-since.as_secs_f32() / FADE_TAU).exp();
        let overdue = self.overdue.load(Ordering::Relaxed);
        let epoch = self.epoch();
        let mut given_back = Vec::new();
        let cells = (0_u16..).zip(&table.cells);
        let readings = cells.map(|(id, cell)| {
            let (in_flight, stalled, busy) = (cell.in_flight(epoch), cell.silent(epoch, now), cell.take_busy());
            if in_flight == 0 && busy == 0 {
                cell.fade(left);
                if cell.give_back(epoch, now.saturating_sub(nanos(KEEP))) {
                    given_back.push(id);
                }
            } else if busy > 0 && stalled <= overdue && !cell.flags().slow {
                cell.allow_more();
            }
            CustomerReading {
                cell: id,
                in_flight,
                ratio: f64::from(cell.ratio()),
                stalled: Duration::from_nanos(stalled),
                busy: Duration::from_nanos(busy),
                flags: cell.flags(),
            }
        });
        let in_use = |reading: &CustomerReading| {
            reading.in_flight > 0 || !reading.busy.is_zero() || reading.flags != Flags::default()
        };
        let readings: Vec<_> = readings.filter(in_use).collect();
        self.forget(&given_back);
        let mut busy = readings
            .iter()
            .filter(|reading| reading.in_flight > 0 || !reading.busy.is_zero());
        let alone = match (busy.next(), busy.next()) {
            (Some(only), None) => only.cell,
            _ => SEVERAL,
        };
        let before = self.alone.swap(alone, Ordering::Relaxed);
        let scans = if alone == before && alone != SEVERAL {
            self.alone_for.load(Ordering::Relaxed).saturating_add(1)
        } else {
            0
        };
        self.alone_for.store(scans, Ordering::Relaxed);
        readings
    }

    /// Whether permits are scarce, and somebody else wants them too. Permits that the drain has in hand are nobody's yet, so
    /// the gate's own count does not tell.
    fn contended(&self, cell: u16, own: u32, gate: Reading) -> bool {
        let alone = self.alone.load(Ordering::Relaxed) == cell && self.alone_for.load(Ordering::Relaxed) >= ALONE_FOR;
        !alone && gate.in_flight() > own && gate.in_flight().saturating_mul(10) >= gate.limit().saturating_mul(7)
    }

    /// How many calls a customer may have in flight. A slow one, and one that may prove to be, never has more than 5 % of the
    /// limit; one that was has more from second to second. Others have 30 % once 70 % of the limit are in use, but only
    /// beside calls of somebody else: alone, a customer may have everything.
    fn cap(&self, id: u16, cell: &Cell, own: u32, gate: Reading, now: u64) -> u32 {
        let few = few(gate);
        if cell.flags().slow || self.is_overdue(cell, gate, now) {
            return few;
        }
        let most = if self.contended(id, own, gate) {
            fair(gate)
        } else {
            u32::MAX
        };
        cell.allowed().map_or(most, |allowed| most.min(allowed.max(few)))
    }

    /// How many calls a customer may have in flight while permits are scarce.
    pub(super) fn share(&self, customer: &CustomerId, gate: Reading) -> u32 {
        let cell = self.find(self.owner(customer)).and_then(|id| self.at(id));
        if cell.is_some_and(|cell| cell.flags().slow) {
            few(gate)
        } else {
            fair(gate)
        }
    }

    /// Whether none of a customer's calls has ended for so long, beside others, that it may be a slow one. Until that is
    /// known it gets no further calls: by the time that the first slow call has ended, many more would be under way.
    fn is_overdue(&self, cell: &Cell, gate: Reading, now: u64) -> bool {
        let overdue = self.overdue.load(Ordering::Relaxed);
        overdue > 0 && gate.in_flight() > self.in_flight(cell) && cell.silent(self.epoch(), now) > overdue
    }

    /// Sets how long a customer's calls may be silent; zero: for ever.
    pub(crate) fn set_overdue(&self, after: Duration) {
        self.overdue.store(nanos(after), Ordering::Relaxed);
    }

    /// Sets how the customers of a cell are treated.
    pub(crate) fn flag(&self, cell: u16, flags: Flags) {
        if let Some(cell) = self.at(cell) {
            cell.set_flags(flags);
        }
    }

    /// Begins or ends watching. When it ends the names are forgotten.
    pub(super) fn watch(&self, on: bool) {
        if on {
            self.table.get_or_init(|| Table {
                cells: std::iter::repeat_with(Cell::default).take(usize::from(CELLS)).collect(),
                origin: Instant::now(),
                scanned: AtomicU64::new(0),
            });
            return;
        }
        let named: Vec<_> = self.names().keys().copied().collect();
        self.forget(&named);
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<u16, CustomerId>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, cells: &[u16]) {
        if cells.is_empty() {
            return;
        }
        let mut names = self.names();
        for id in cells {
            names.remove(id);
            if let Some(cell) = self.at(*id) {
                cell.set_named(false);
            }
        }
    }

    fn at(&self, cell: u16) -> Option<&Cell> {
        self.table.get()?.cells.get(usize::from(cell))
    }

    /// The number that stands for a customer, never 0.
    fn owner(&self, customer: &CustomerId) -> u64 {
        let key = self.key.get_or_init(|| RandomState::new().hash_one(0_u8));
        let mut hasher = DefaultHasher::new();
        (key, customer).hash(&mut hasher);
        hasher.finish() | 1
    }

    /// The cells that a customer may have, the one that it shares if all are taken first.
    fn near(owner: u64) -> impl Iterator<Item = u16> {
        let home = u16::try_from((owner >> 1) % u64::from(CELLS)).unwrap_or(0);
        (0..NEAR).map(move |step| (home + step) % CELLS)
    }

    /// The cell that a customer has.
    fn find(&self, owner: u64) -> Option<u16> {
        let own = |id: &u16| self.at(*id).is_some_and(|cell| cell.is_owned_by(owner));
        Self::near(owner).find(own)
    }

    /// Whether a customer may begin one more call.
    pub(super) fn may_begin(&self, customer: &CustomerId, gate: Reading) -> bool {
        let Some(table) = self.table.get() else { return true };
        let cell = self.find(self.owner(customer)).and_then(|id| Some((id, self.at(id)?)));
        cell.is_none_or(|(id, cell)| {
            let own = self.in_flight(cell);
            own < self.cap(id, cell, own, gate, table.now())
        })
    }

    /// The cell of a customer, whose name is noted.
    pub(super) fn cell(&self, customer: &CustomerId) -> Option<u16> {
        let owner = self.owner(customer);
        let free = |id: &u16| self.at(*id).is_some_and(|cell| cell.claim(owner));
        let found = self.find(owner).or_else(|| Self::near(owner).find(free));
        let id = found.or_else(|| Self::near(owner).next())?;
        let cell = self.at(id)?;
        if !cell.is_named() {
            self.names().entry(id).or_insert_with(|| customer.clone());
            cell.set_named(true);
        }
        Some(id)
    }

    /// Counts a call in, unless its customer has its share. A noisy one's direct calls would overtake what others have in
    /// the queue: whoever finds a free permit first has it, and that is mostly who calls most often.
    ///
    /// A customer that is silent and not known to be slow has one call beyond its share now and then: it shows whether the
    /// silence is that of a single replica.
    pub(super) fn enter(&self, id: u16, gate: Option<Reading>) -> Option<Entry> {
        let (table, cell) = (self.table.get()?, self.at(id)?);
        let (now, epoch) = (table.now(), self.epoch());
        let entry = |epoch: u32| Entry { cell: id, epoch };
        let Some(gate) = gate else {
            return cell.enter(epoch, now, |_| true).map(entry);
        };
        let noisy = cell.flags().noisy;
        let may = |own: u32| {
            let turn = noisy && self.contended(id, own, gate);
            !turn && own < self.cap(id, cell, own, gate, now)
        };
        let trial = || {
            let due = self.is_overdue(cell, gate, now);
            due.then(|| cell.try_out(epoch, now, self.overdue.load(Ordering::Relaxed)))?
        };
        cell.enter(epoch, now, may).or_else(trial).map(entry)
    }

    /// Counts a call out. `latency` is that of a call that says something about its customer.
    pub(super) fn leave(&self, entry: Entry, took: Duration, latency: Option<(Duration, Duration)>) {
        if let (Some(table), Some(cell)) = (self.table.get(), self.at(entry.cell)) {
            let overdue = self.overdue.load(Ordering::Relaxed);
            cell.leave(entry.epoch, table.now(), took, latency, overdue);
        }
    }

    /// Takes back an [`Customers::enter`] whose call was not admitted after all.
    pub(super) fn undo(&self, entry: Entry) {
        if let Some(cell) = self.at(entry.cell) {
            cell.undo(entry.epoch);
        }
    }

    pub(super) fn is_excluded(&self, cell: u16) -> bool {
        self.at(cell).is_some_and(|cell| cell.flags().excluded)
    }
}

impl fmt::Debug for Customers {
    /// Without the names, which are nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.names().len();
        write!(f, "Customers({named} named)")
    }
}
