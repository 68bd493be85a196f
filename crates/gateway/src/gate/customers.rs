//! The customers of a gate: who has how much in flight, and whose calls are slow.
//!
//! Memory is bounded: 4,096 cells, chosen by a hash that differs from process to process unless it is seeded, made when
//! customers are first watched. Two customers that share a cell share its caps; with a hundred active customers about one
//! pair does. Nothing here is on the way of a call while nobody is watched.

use super::{recorder::nanos, word::Reading};
use crosspoint_core::{CustomerId, CustomerTerms};
use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

const CELLS: usize = 4096;
/// No cell: there was nobody, or more than one.
const SEVERAL: u16 = u16::MAX;
/// After so many scans without anybody else, two seconds in all, a customer is taken to be alone.
const ALONE_FOR: u32 = 20;
/// How much of a ratio is the latest call's.
const LATEST: f32 = 0.2;
/// The most that one call counts for, in baselines, unless its customer is known to be slow: a quick call that met a pause
/// says little.
const OUTLIER: f32 = 10.0;
/// The most turns that one call of a slow customer costs.
const MOST_TURNS: f32 = 32.0;

const SLOW: u8 = 1;
const EXCLUDED: u8 = 2;
const NOISY: u8 = 4;
/// Its customer is in the table of names.
const NAMED: u8 = 128;

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

#[derive(Default)]
struct Cell {
    in_flight: AtomicU32,
    /// Bits of an `f32`.
    ratio: AtomicU32,
    /// Nanoseconds after the origin: the last end of a call, or the begin of the only one.
    mark: AtomicU64,
    busy: AtomicU64,
    flags: AtomicU8,
}

impl Cell {
    fn flags(&self) -> Flags {
        Flags::of(self.flags.load(Ordering::Relaxed))
    }

    fn ratio(&self) -> f32 {
        f32::from_bits(self.ratio.load(Ordering::Relaxed))
    }
}

struct Table {
    cells: Box<[Cell]>,
    origin: Instant,
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
    /// How many scans in a row saw nobody else. Calls that were admitted before customers were watched have no cell, so
    /// one look proves nothing.
    alone_for: AtomicU32,
}

/// The right to lease calls of slow customers: one lease at a time has it, so that none of them takes the last place of
/// such a customer a second time.
#[derive(Debug)]
pub(crate) struct Scout<'a>(&'a Customers);

impl Drop for Scout<'_> {
    fn drop(&mut self) {
        self.0.scouting.store(false, Ordering::Release);
    }
}

/// What a lease is told.
#[derive(Debug)]
pub(crate) struct ForLease<'a> {
    pub(crate) customers: Arc<[CustomerTerms]>,
    /// The lease is to be for one call, and this to be kept until that call is counted: a slow customer's may come.
    pub(crate) scout: Option<Scout<'a>>,
}

/// What one customer has of a busy target.
fn share(flags: Flags, gate: Reading) -> u32 {
    if flags.slow {
        return (gate.limit() / 20).max(1);
    }
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
        }
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
        let now = nanos(table.origin.elapsed());
        let cells = (0_u16..).zip(&table.cells);
        let readings = cells.map(|(id, cell)| {
            let in_flight = cell.in_flight.load(Ordering::Relaxed);
            let since = if in_flight > 0 {
                now.saturating_sub(cell.mark.load(Ordering::Relaxed))
            } else {
                0
            };
            let busy = if cell.busy.load(Ordering::Relaxed) > 0 {
                cell.busy.swap(0, Ordering::Relaxed)
            } else {
                0
            };
            CustomerReading {
                cell: id,
                in_flight,
                ratio: f64::from(cell.ratio()),
                stalled: Duration::from_nanos(since),
                busy: Duration::from_nanos(busy),
                flags: cell.flags(),
            }
        });
        let in_use = |reading: &CustomerReading| {
            reading.in_flight > 0 || !reading.busy.is_zero() || reading.flags != Flags::default()
        };
        let readings: Vec<_> = readings.filter(in_use).collect();
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

    /// How many calls a customer may have in flight. A slow one never has more than 5 % of the limit. Others have 30 % once
    /// 70 % of the limit are in use, but only beside calls of somebody else: alone, a customer may have everything.
    fn cap(&self, id: u16, flags: Flags, own: u32, gate: Reading) -> u32 {
        if flags.slow || self.contended(id, own, gate) {
            return share(flags, gate);
        }
        u32::MAX
    }

    /// How many calls a customer may have in flight while permits are scarce.
    pub(super) fn share(&self, customer: &CustomerId, gate: Reading) -> u32 {
        let cell = self.place(customer).and_then(|id| self.at(id));
        share(cell.map(Cell::flags).unwrap_or_default(), gate)
    }

    /// Sets how the customers of a cell are treated.
    pub(crate) fn flag(&self, cell: u16, flags: Flags) {
        if let Some(cell) = self.at(cell) {
            let set = |bits: u8| Some((bits & NAMED) | flags.bits());
            cell.flags.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set).ok();
        }
    }

    /// Begins or ends watching. When it ends the names are forgotten.
    pub(super) fn watch(&self, on: bool) {
        if on {
            self.table.get_or_init(|| Table {
                cells: std::iter::repeat_with(Cell::default).take(CELLS).collect(),
                origin: Instant::now(),
            });
            return;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for (cell, _) in std::mem::take(&mut *names) {
            if let Some(cell) = self.at(cell) {
                cell.flags.fetch_and(!NAMED, Ordering::Relaxed);
            }
        }
    }

    fn at(&self, cell: u16) -> Option<&Cell> {
        self.table.get()?.cells.get(usize::from(cell))
    }

    fn place(&self, customer: &CustomerId) -> Option<u16> {
        let key = self.key.get_or_init(|| RandomState::new().hash_one(0_u8));
        let mut hasher = DefaultHasher::new();
        (key, customer).hash(&mut hasher);
        u16::try_from(hasher.finish() % (CELLS as u64)).ok()
    }

    /// Whether a customer may begin one more call.
    pub(super) fn may_begin(&self, customer: &CustomerId, gate: Reading) -> bool {
        let cell = self.place(customer).and_then(|id| Some((id, self.at(id)?)));
        cell.is_none_or(|(id, cell)| {
            let own = cell.in_flight.load(Ordering::Relaxed);
            own < self.cap(id, cell.flags(), own, gate)
        })
    }

    /// The cell of a customer, whose name is noted.
    pub(super) fn cell(&self, customer: &CustomerId) -> Option<u16> {
        let id = self.place(customer)?;
        let cell = self.at(id)?;
        if cell.flags.load(Ordering::Relaxed) & NAMED == 0 {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.entry(id).or_insert_with(|| customer.clone());
            cell.flags.fetch_or(NAMED, Ordering::Relaxed);
        }
        Some(id)
    }

    /// Counts a call in, unless its customer has its share. A noisy one's direct calls would overtake what others have in
    /// the queue: whoever finds a free permit first has it, and that is mostly who calls most often.
    pub(super) fn enter(&self, id: u16, gate: Option<Reading>) -> bool {
        let (Some(table), Some(cell)) = (self.table.get(), self.at(id)) else {
            return true;
        };
        let flags = cell.flags();
        let may = |own: u32| {
            let turn = |gate| flags.noisy && self.contended(id, own, gate);
            let free = gate.is_none_or(|gate| own < self.cap(id, flags, own, gate) && !turn(gate));
            free.then(|| own.saturating_add(1))
        };
        let entered = cell.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may);
        if entered == Ok(0) {
            cell.mark.store(nanos(table.origin.elapsed()), Ordering::Relaxed);
        }
        entered.is_ok()
    }

    /// Counts a call out. `latency` is that of a call that says something about its customer.
    pub(super) fn leave(&self, cell: u16, took: Duration, latency: Option<(Duration, Duration)>) {
        let (Some(table), Some(cell)) = (self.table.get(), self.at(cell)) else {
            return;
        };
        cell.mark.store(nanos(table.origin.elapsed()), Ordering::Relaxed);
        cell.busy.fetch_add(nanos(took), Ordering::Relaxed);
        if let Some((latency, baseline)) = latency {
            let most = if cell.flags().slow { f32::MAX } else { OUTLIER };
            let latest = (latency.as_secs_f32() / baseline.as_secs_f32().max(1e-6)).min(most);
            let blend = |bits: u32| {
                let old = f32::from_bits(bits);
                let new = if old > 0.0 {
                    old + LATEST * (latest - old)
                } else {
                    latest
                };
                Some(new.to_bits())
            };
            cell.ratio
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, blend)
                .ok();
        }
        cell.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes back an [`Customers::enter`] whose call was not admitted after all.
    pub(super) fn undo(&self, cell: u16) {
        if let Some(cell) = self.at(cell) {
            cell.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn is_excluded(&self, cell: u16) -> bool {
        self.at(cell).is_some_and(|cell| cell.flags().excluded)
    }

    /// What a lease has to know: who has its share already, and whose calls are charged for more than one turn.
    ///
    /// A lease may bring several calls of one customer, as one that was passed over for long is the next several times.
    /// So slow customers, whose few places that would exceed, are only leased by a scout.
    pub(super) fn terms(&self, gate: Reading, may_scout: bool) -> ForLease<'_> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let place = may_scout
            && names
                .keys()
                .filter_map(|id| Some((*id, self.at(*id)?)))
                .any(|(id, cell)| {
                    let (own, flags) = (cell.in_flight.load(Ordering::Relaxed), cell.flags());
                    flags.slow && own < self.cap(id, flags, own, gate)
                });
        let scout = place.then(|| self.scout()).flatten();
        let terms = names.iter().filter_map(|(id, customer)| {
            let cell = self.at(*id)?;
            let (own, flags) = (cell.in_flight.load(Ordering::Relaxed), cell.flags());
            let skip = own >= self.cap(*id, flags, own, gate) || (flags.slow && scout.is_none());
            let turns = turns(cell.ratio());
            if !skip && turns == 1 {
                return None;
            }
            let terms = CustomerTerms::new(customer.clone()).charged(turns);
            Some(if skip { terms.skipped() } else { terms })
        });
        let customers = terms.collect();
        ForLease { customers, scout }
    }

    fn scout(&self) -> Option<Scout<'_>> {
        (!self.scouting.swap(true, Ordering::Acquire)).then_some(Scout(self))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 1..=32"
)]
fn turns(ratio: f32) -> u32 {
    ratio.round().clamp(1.0, MOST_TURNS) as u32
}

impl fmt::Debug for Customers {
    /// Without the names, which are nobody's business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.names.lock().unwrap_or_else(PoisonError::into_inner).len();
        write!(f, "Customers({named} named)")
    }
}
