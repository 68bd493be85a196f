//! What was seen of the calls of a gate: latencies by route class and how calls ended, in shards by thread.
//!
//! Successes have no counter: they are what was admitted and has ended in no other way, and the word counts admissions.

use super::histogram::{BUCKETS, Histogram, middle};
use crate::outcome::Outcome;
use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

const SHARDS: usize = 8;
pub(super) const CLASSES: usize = 32;

/// A route class of one gate: the calls that are compared with one another. The first 31 names of a gate have one each;
/// all later names share the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct RouteClass(pub(super) u8);

impl RouteClass {
    /// Its number within the gate.
    pub(crate) const fn index(self) -> u8 {
        self.0
    }

    /// The class of a number.
    pub(crate) const fn at(index: u8) -> Self {
        Self(index)
    }
}

/// What was seen since the last reading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readings {
    /// Latencies by route class; classes without a sample are left out.
    pub(crate) classes: Vec<ClassReading>,
    /// Of these latencies, those of calls that came from the queue, in the same buckets.
    pub(crate) drained_latencies: Vec<(f64, u32)>,
    /// Calls that ended, by outcome, results of earlier generations left out.
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
    pub(crate) not_started: u64,
    pub(crate) overloaded: u64,
    /// Direct calls that came, whether they were admitted or not.
    pub(crate) arrived: u64,
    /// Of these, those that were not admitted.
    pub(crate) diverted: u64,
    /// Whether permits ran out.
    pub(crate) saturated: bool,
    pub(crate) in_flight: u32,
    pub(crate) waiting_held: u32,
}

/// The latencies of one route class.
#[derive(Debug, Clone)]
pub(crate) struct ClassReading {
    pub(crate) class: RouteClass,
    /// Seconds in the middle of each bucket that is not empty, in rising order, with its samples.
    pub(crate) buckets: Vec<(f64, u32)>,
    pub(crate) count: u64,
    /// Seconds, from the middles of the buckets.
    pub(crate) sum: f64,
}

/// The counted ways for a call to end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    Failed,
    Unknown,
    NotStarted,
    Overloaded,
    Cancelled,
    /// Under a permit of an earlier generation, however it ended.
    Stale,
}

const ENDED: usize = 6;

impl Ended {
    /// `None`: with success.
    pub(super) const fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Success => None,
            Outcome::Failed => Some(Self::Failed),
            Outcome::Unknown => Some(Self::Unknown),
            Outcome::NotStarted => Some(Self::NotStarted),
            Outcome::Overloaded { .. } => Some(Self::Overloaded),
            Outcome::Cancelled => Some(Self::Cancelled),
        }
    }
}

#[repr(align(128))]
struct Shard {
    ended: [AtomicU64; ENDED],
}

struct Class {
    shards: [Histogram; SHARDS],
}

pub(super) struct Recorder {
    shards: [Shard; SHARDS],
    names: Mutex<Vec<Arc<str>>>,
    classes: [OnceLock<Box<Class>>; CLASSES],
    /// What the classes hold of calls from the queue, again, so that metrics can tell the direct way apart. Few enough for
    /// one shard.
    drained_latencies: Box<Histogram>,
    /// Nanoseconds; 0: not known yet.
    baselines: [AtomicU64; CLASSES],
    last: Mutex<Totals>,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) completed: u64,
    pub(super) arrived: u64,
    pub(super) diverted: u64,
    pub(super) ended: [u64; ENDED],
    pub(super) succeeded: u64,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard {
                ended: Default::default(),
            }),
            // The class of calls whose route has no name.
            names: Mutex::new(vec![Arc::from("")]),
            classes: [const { OnceLock::new() }; CLASSES],
            drained_latencies: Box::new(Histogram::new()),
            baselines: [const { AtomicU64::new(0) }; CLASSES],
            last: Mutex::default(),
        }
    }

    /// The class of a name, made if it is new.
    pub(super) fn class(&self, name: &str) -> RouteClass {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let at = names.iter().position(|known| **known == *name).unwrap_or_else(|| {
            if names.len() < CLASSES - 1 {
                names.push(name.into());
                names.len() - 1
            } else {
                CLASSES - 1
            }
        });
        RouteClass(u8::try_from(at).unwrap_or(0))
    }

    /// The names of the classes by their numbers; the shared last class has none.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts the end of a call; must come before its permit is given back, or it is taken for a success for a while.
    pub(super) fn count(&self, ended: Option<Ended>) {
        let Some(shard) = self.shards.get(slot()) else { return };
        if let Some(counter) = ended.and_then(|ended| shard.ended.get(ended as usize)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records the latency of `weight` calls like this one.
    #[inline]
    pub(super) fn sample(&self, class: RouteClass, latency: Duration, weight: u32) {
        let Some(cell) = self.classes.get(usize::from(class.0)) else {
            return;
        };
        let class = cell.get_or_init(|| {
            Box::new(Class {
                shards: [const { Histogram::new() }; SHARDS],
            })
        });
        if let Some(shard) = class.shards.get(slot()) {
            shard.add(nanos(latency), weight);
        }
    }

    /// Notes that a latency which was recorded was that of calls from the queue.
    pub(super) fn sample_drained(&self, latency: Duration, weight: u32) {
        self.drained_latencies.add(nanos(latency), weight);
    }

    pub(super) fn set_baseline(&self, class: RouteClass, latency: Duration) {
        if let Some(baseline) = self.baselines.get(usize::from(class.0)) {
            baseline.store(nanos(latency), Ordering::Relaxed);
        }
    }

    pub(super) fn baseline(&self, class: RouteClass) -> Option<Duration> {
        let nanos = self.baselines.get(usize::from(class.0))?.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// What was seen since the last time. `now` holds the totals that others count.
    pub(super) fn take(&self, mut now: Totals) -> Readings {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        for shard in &self.shards {
            for (sum, counter) in now.ended.iter_mut().zip(&shard.ended) {
                *sum += counter.load(Ordering::Relaxed);
            }
        }
        // Calls that end right now may have been counted here and not yet in `completed`: they catch up next time.
        let others: u64 = now.ended.iter().sum();
        now.succeeded = now.completed.saturating_sub(others).max(last.succeeded);
        let ended = |ended: Ended| {
            let at = ended as usize;
            let both = now.ended.get(at).zip(last.ended.get(at));
            both.map_or(0, |(now, last)| now - last)
        };
        let readings = Readings {
            drained_latencies: self.take_drained(),
            classes: self.take_classes(),
            succeeded: now.succeeded - last.succeeded,
            failed: ended(Ended::Failed),
            unknown: ended(Ended::Unknown),
            not_started: ended(Ended::NotStarted),
            overloaded: ended(Ended::Overloaded),
            arrived: now.arrived.saturating_sub(last.arrived),
            diverted: now.diverted - last.diverted,
            ..Readings::default()
        };
        now.arrived = now.arrived.max(last.arrived);
        *last = now;
        readings
    }

    /// Taken before the classes: what is in here has been in those for longer.
    fn take_drained(&self) -> Vec<(f64, u32)> {
        let mut counts = [0; BUCKETS];
        self.drained_latencies.take(&mut counts);
        filled(&counts)
    }

    fn take_classes(&self) -> Vec<ClassReading> {
        let mut all = Vec::new();
        for (id, class) in (0_u8..).zip(&self.classes) {
            let Some(class) = class.get() else { continue };
            let mut counts = [0; BUCKETS];
            for shard in &class.shards {
                shard.take(&mut counts);
            }
            let buckets = filled(&counts);
            if !buckets.is_empty() {
                all.push(ClassReading {
                    class: RouteClass(id),
                    count: buckets.iter().map(|(_, count)| u64::from(*count)).sum(),
                    sum: buckets.iter().map(|(middle, count)| middle * f64::from(*count)).sum(),
                    buckets,
                });
            }
        }
        all
    }
}

/// The buckets that are not empty, by the seconds in their middles.
fn filled(counts: &[u32; BUCKETS]) -> Vec<(f64, u32)> {
    let filled = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    filled.map(|(at, count)| (middle(at), *count)).collect()
}

pub(super) fn nanos(latency: Duration) -> u64 {
    u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX)
}

/// The shard of this thread.
#[inline]
fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SLOT.with(|slot| {
        if slot.get() == usize::MAX {
            slot.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        slot.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_classes_until_they_run_out() {
        let recorder = Recorder::new();
        assert_eq!(recorder.class(""), RouteClass(0));
        for id in 1..31 {
            assert_eq!(recorder.class(&format!("/{id}")), RouteClass(id));
        }
        assert_eq!(recorder.class("/31"), RouteClass(31));
        assert_eq!(recorder.class("/32"), RouteClass(31), "shared");
        assert_eq!(recorder.class("/7"), RouteClass(7));
    }

    #[test]
    fn samples_of_all_threads_are_read_once() {
        let recorder = Recorder::new();
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| recorder.sample(RouteClass(3), Duration::from_millis(40), 2));
            }
        });
        let readings = recorder.take(Totals::default());
        let [class] = readings.classes.as_slice() else {
            panic!("{readings:?}")
        };
        assert_eq!((class.class, class.count, class.buckets.len()), (RouteClass(3), 20, 1));
        assert!((class.sum / 20.0 - 0.04).abs() < 0.003, "{}", class.sum);
        assert!(recorder.take(Totals::default()).classes.is_empty());
    }

    #[test]
    fn successes_are_what_ended_in_no_other_way() {
        let recorder = Recorder::new();
        recorder.count(Some(Ended::Failed));
        recorder.count(Some(Ended::Stale));
        let completed = |completed| Totals {
            completed,
            ..Totals::default()
        };
        let readings = recorder.take(completed(10));
        assert_eq!((readings.succeeded, readings.failed), (8, 1));
        // Counted, but its permit is not back yet.
        recorder.count(Some(Ended::Unknown));
        let readings = recorder.take(completed(10));
        assert_eq!((readings.succeeded, readings.unknown), (0, 1));
        let readings = recorder.take(completed(12));
        assert_eq!((readings.succeeded, readings.unknown), (1, 0));
    }
}
