//! Which customers are treated apart from the others, and when it is worth looking.

use crate::gate::{CustomerReading, Flags};
use std::{collections::BTreeMap, time::Duration};

/// Beyond this multiple of the median customer's ratio a customer's calls say nothing about the target.
const EXCLUDED: f64 = 3.0;
/// Beyond this multiple it is slow, and also when its oldest call takes longer than this multiple of the baseline: the
/// first slow call ends too late to warn of the others.
const SLOW: f64 = 5.0;
const STALLED: f64 = 10.0;
/// Already beyond this multiple it gets no further calls for the time being.
const OVERDUE: f64 = 4.0;
/// A flag is kept until the figure is below this share of what set it.
const KEEP: f64 = 0.8;
/// More than this share of the calls in flight, or of recent processing time, is noisy.
const NOISY: f64 = 0.1;
/// But not with fewer calls in flight than this share of the limit, or this many, whichever is less.
const NOISY_SHARE: f64 = 0.3;
const NOISY_CALLS: f64 = 30.0;
/// Over how many seconds processing time counts as recent.
const BUSY_TAU: f64 = 5.0;
/// From which utilisation customers are watched, and for how many seconds after the last reason.
pub(super) const WATCH_AT: f64 = 0.5;
const WATCH_FOR: f64 = 2.0;

/// Follows the customers of one target.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Recent processing time in seconds by cell.
    busy: BTreeMap<u16, f64>,
    left: f64,
}

/// What the figures of customers are compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub(super) seconds: f64,
    pub(super) limit: f64,
    /// The longest baseline of a route class in seconds; 0 while nothing is known.
    pub(super) slowest_class: f64,
}

/// How customers are to be treated.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Judgement {
    /// The cells whose flags change.
    pub(super) flags: Vec<(u16, Flags)>,
    /// How long a customer's calls may be silent before it gets no more; zero: for ever.
    pub(super) overdue: Duration,
}

impl Watch {
    /// Whether customers are to be watched after `seconds` more, for a reason or for a while after the last one.
    pub(super) fn on(&mut self, reason: bool, seconds: f64) -> bool {
        self.left = if reason { WATCH_FOR } else { self.left - seconds };
        if self.left <= 0.0 {
            self.busy.clear();
        }
        self.left > 0.0
    }

    pub(super) fn judge(&mut self, readings: &[CustomerReading], scale: Scale) -> Judgement {
        self.busy.retain(|_, busy| {
            *busy *= (-scale.seconds / BUSY_TAU).exp();
            *busy > 1e-6
        });
        for reading in readings.iter().filter(|reading| !reading.busy.is_zero()) {
            *self.busy.entry(reading.cell).or_default() += reading.busy.as_secs_f64();
        }
        let all = Totals {
            median: median(readings),
            in_flight: readings.iter().map(|reading| f64::from(reading.in_flight)).sum(),
            busy: self.busy.values().sum(),
            customers: self.busy.len().max(readings.len()),
        };
        let changed = readings.iter().filter_map(|reading| {
            let flags = self.flags(reading, &all, scale);
            (flags != reading.flags).then_some((reading.cell, flags))
        });
        Judgement {
            flags: changed.collect(),
            overdue: Duration::try_from_secs_f64(OVERDUE * all.ordinary(scale)).unwrap_or_default(),
        }
    }

    fn flags(&self, reading: &CustomerReading, all: &Totals, scale: Scale) -> Flags {
        let keep = |flag: bool| if flag { KEEP } else { 1.0 };
        let above = |factor: f64, flag: bool| all.median > 0.0 && reading.ratio > factor * all.median * keep(flag);
        let oldest = STALLED * all.ordinary(scale);
        let stalled = oldest > 0.0 && reading.in_flight > 0 && reading.stalled.as_secs_f64() > oldest;
        let own = f64::from(reading.in_flight);
        let crowd = own > NOISY * all.in_flight && own >= NOISY_CALLS.min(NOISY_SHARE * scale.limit).max(2.0);
        let busy = self.busy.get(&reading.cell).copied().unwrap_or_default();
        // A share of the time is only large compared with an equal one: three customers have a third each.
        let fair = (2.0 / all.customers.max(1) as f64).max(NOISY);
        let hog = busy > fair * all.busy * keep(reading.flags.noisy);
        Flags {
            slow: above(SLOW, reading.flags.slow) || stalled,
            excluded: above(EXCLUDED, reading.flags.excluded) || stalled,
            noisy: all.customers > 1 && (crowd || hog),
        }
    }
}

struct Totals {
    median: f64,
    in_flight: f64,
    busy: f64,
    customers: usize,
}

impl Totals {
    /// How long calls of the slowest class take now, in seconds; 0 while nothing is known.
    fn ordinary(&self, scale: Scale) -> f64 {
        scale.slowest_class * self.median.max(1.0)
    }
}

/// The median customer's ratio; of two the smaller, so that one slow customer beside one other is found.
fn median(readings: &[CustomerReading]) -> f64 {
    let ratios = readings
        .iter()
        .map(|reading| reading.ratio)
        .filter(|ratio| *ratio > 0.0);
    let mut ratios: Vec<_> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.len().saturating_sub(1) / 2;
    ratios.get(middle).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(cell: u16, in_flight: u32, ratio: f64) -> CustomerReading {
        CustomerReading {
            cell,
            in_flight,
            ratio,
            stalled: Duration::ZERO,
            busy: Duration::from_secs_f64(0.005 * ratio),
            flags: Flags::default(),
        }
    }

    const SCALE: Scale = Scale {
        seconds: 0.1,
        limit: 40.0,
        slowest_class: 0.05,
    };

    /// The flags of cell 0 beside 19 ordinary customers with a call each.
    fn beside(first: CustomerReading) -> Flags {
        let mut readings: Vec<_> = (0..20).map(|cell| reading(cell, 1, 1.0)).collect();
        readings[0] = first;
        let changes = Watch::default().judge(&readings, SCALE).flags;
        assert!(changes.iter().all(|(cell, _)| *cell == 0), "{changes:?}");
        changes.first().map_or(first.flags, |(_, flags)| *flags)
    }

    #[expect(clippy::fn_params_excessive_bools, reason = "the flags as they stand in the type")]
    fn flags(slow: bool, excluded: bool, noisy: bool) -> Flags {
        Flags { slow, excluded, noisy }
    }

    #[test]
    fn who_is_treated_apart() {
        let silent = |stalled: u64, in_flight: u32| CustomerReading {
            stalled: Duration::from_millis(stalled),
            ratio: 0.0,
            busy: Duration::ZERO,
            ..reading(0, in_flight, 0.0)
        };
        let before = |ratio: f64| CustomerReading {
            flags: flags(true, true, false),
            busy: Duration::ZERO,
            ..reading(0, 1, ratio)
        };
        let cases = [
            ("ordinary", reading(0, 1, 1.0), Flags::default()),
            ("a little slower", reading(0, 1, 2.9), flags(false, false, true)),
            (
                "much slower",
                CustomerReading {
                    busy: Duration::ZERO,
                    ..reading(0, 1, 3.1)
                },
                flags(false, true, false),
            ),
            (
                "far slower",
                CustomerReading {
                    busy: Duration::ZERO,
                    ..reading(0, 1, 5.1)
                },
                flags(true, true, false),
            ),
            ("silent", silent(501, 1), flags(true, true, false)),
            ("not silent for long", silent(499, 1), Flags::default()),
            ("silent without calls", silent(10_000, 0), Flags::default()),
            ("a crowd", reading(0, 12, 1.0), flags(false, false, true)),
            ("many, but few of the limit", reading(0, 11, 1.0), Flags::default()),
            ("was slow, and nearly is", before(4.1), flags(true, true, false)),
            ("was slow", before(2.0), Flags::default()),
        ];
        for (name, first, wanted) in cases {
            assert_eq!(beside(first), wanted, "{name}");
        }
    }

    #[test]
    fn of_two_customers_the_slow_one_is_slow_and_one_alone_is_not() {
        let two = [reading(1, 3, 1.0), reading(2, 3, 9.0)];
        let changes = Watch::default().judge(&two, SCALE).flags;
        assert_eq!(changes.len(), 1);
        assert!(changes[0].0 == 2 && changes[0].1.slow && changes[0].1.excluded);
        let alone = [reading(1, 39, 9.0)];
        assert_eq!(Watch::default().judge(&alone, SCALE).flags, []);
    }

    #[test]
    fn watching_ends_a_while_after_the_last_reason() {
        let mut watch = Watch::default();
        assert!(!watch.on(false, 0.1));
        assert!(watch.on(true, 0.1));
        let quiet = (0..30).take_while(|_| watch.on(false, 0.1)).count();
        assert!((19..=21).contains(&quiet), "{quiet}");
    }
}
