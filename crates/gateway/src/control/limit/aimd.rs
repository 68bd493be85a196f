//! Small steps up, larger ones down.

use super::{
    LimitAlgorithm, Window, check_bounds,
    filter::RatioFilter,
    futility::{Futility, Verdict},
    mend_bounds,
};
use crate::control::checks::{Checks, near};

/// How fast the usual deviation of the ratio is followed, and between which values it stays.
const DEVIATION: (f64, f64, f64) = (0.05, 0.05, 0.4);
/// The deviation before any was seen.
const FIRST_DEVIATION: f64 = 0.1;
/// What a cut takes at most, and where it aims.
const DEEPEST: f64 = 0.5;
const AIM: f64 = 1.2;

/// Additive increase, multiplicative decrease.
///
/// Up by `up × √L` when permits ran out and calls are quick; down to `L × clamp(1.2 / ratio, 0.5, down)` when they are
/// slower than a threshold that widens with their usual deviation. Vector's adaptive concurrency is the model; unlike
/// there, the ratio is that of the route class's baseline, so that a shift of the mix is not read as overload.
///
/// ```
/// use crosspoint_gateway::{Aimd, Limit};
/// let limit = Limit::Aimd(Aimd::default().initial(10).up(1.0));
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Aimd {
    /// Calls at once before anything is known. Default 28.
    #[schemars(range(min = 1))]
    pub initial: u32,
    /// Never fewer. Default 2.
    #[schemars(range(min = 1))]
    pub floor: u32,
    /// Never more. Default 1,000.
    #[schemars(range(min = 1))]
    pub ceiling: u32,
    /// How fast the limit grows, in multiples of its square root per window. Default 0.5.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub up: f64,
    /// What is left of the limit after the smallest cut. Default 0.95.
    #[schemars(range(min = 0.5, max = 1.0))]
    pub down: f64,
    /// By how much longer calls may take at least before the limit is cut, as a share. Default 0.15.
    #[schemars(range(min = 0.0, max = 3.0))]
    pub tolerance: f64,
    /// The same in multiples of the usual deviation; the larger of the two counts. Default 2.5.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub deviations: f64,
}

impl Default for Aimd {
    fn default() -> Self {
        Self {
            initial: super::INITIAL,
            floor: super::FLOOR,
            ceiling: super::CEILING,
            up: 0.5,
            down: 0.95,
            tolerance: 0.15,
            deviations: 2.5,
        }
    }
}

super::set_bounds!(Aimd);

impl Aimd {
    /// Sets how fast the limit grows.
    #[must_use]
    pub const fn up(mut self, roots: f64) -> Self {
        self.up = roots;
        self
    }

    /// Sets what is left of the limit after the smallest cut.
    #[must_use]
    pub const fn down(mut self, share: f64) -> Self {
        self.down = share;
        self
    }

    /// Sets by how much longer calls may take at least.
    #[must_use]
    pub const fn tolerance(mut self, share: f64) -> Self {
        self.tolerance = share;
        self
    }

    /// Sets by how many deviations longer calls may take.
    #[must_use]
    pub const fn deviations(mut self, deviations: f64) -> Self {
        self.deviations = deviations;
        self
    }

    pub(super) fn mend(&mut self) {
        mend_bounds(&mut self.initial, &mut self.floor, &mut self.ceiling);
        let usual = Self::default();
        self.up = near(self.up, 0.0, 10.0, usual.up);
        self.down = near(self.down, DEEPEST, 1.0, usual.down);
        self.tolerance = near(self.tolerance, 0.0, 3.0, usual.tolerance);
        self.deviations = near(self.deviations, 0.0, 10.0, usual.deviations);
    }

    pub(super) fn check(&self, checks: &mut Checks, at: &str) {
        check_bounds(checks, at, self.initial, self.floor, self.ceiling);
        let ranges = [
            (self.up, 0.0, 10.0, "up", "is between 0 and 10"),
            (self.down, DEEPEST, 1.0, "down", "is between 0.5 and 1"),
            (self.tolerance, 0.0, 3.0, "tolerance", "is between 0 and 3"),
            (self.deviations, 0.0, 10.0, "deviations", "is between 0 and 10"),
        ];
        for (value, least, most, name, message) in ranges {
            checks.check((least..=most).contains(&value), format!("{at}/{name}"), message);
        }
    }
}

#[derive(Debug)]
pub(super) struct Learner {
    aimd: Aimd,
    filter: RatioFilter,
    futility: Futility,
    deviation: f64,
}

impl Learner {
    pub(super) fn new(aimd: Aimd) -> Self {
        Self {
            aimd,
            filter: RatioFilter::new(),
            futility: Futility::new(),
            deviation: FIRST_DEVIATION,
        }
    }
}

impl LimitAlgorithm for Learner {
    fn update(&mut self, window: &Window) -> f64 {
        let limit = window.limit;
        if window.fresh {
            self.filter = RatioFilter::around(self.futility.accepted());
            self.futility.end();
        }
        self.futility.observe(window);
        let excess = self.futility.excess(self.filter.push(window.ratio));
        if !window.saturated {
            let (follow, least, most) = DEVIATION;
            self.deviation += follow * ((window.ratio - 1.0).abs() - self.deviation);
            self.deviation = self.deviation.clamp(least, most);
        }
        let threshold = 1.0 + (self.aimd.deviations * self.deviation).max(self.aimd.tolerance);
        if window.refused {
            self.futility.end();
            return limit * self.aimd.down;
        }
        if excess > threshold && window.is_used() {
            let lowered = limit * (AIM / excess).clamp(DEEPEST, self.aimd.down);
            return match self.futility.lower(window, lowered, excess) {
                Verdict::Wait => limit,
                Verdict::Lower => lowered,
                Verdict::GiveBack(to) => {
                    self.filter = RatioFilter::around(self.futility.accepted());
                    to
                }
            };
        }
        if window.saturated && window.ratio <= threshold * self.futility.accepted() {
            self.futility.end();
            return limit + self.aimd.up * limit.sqrt();
        }
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_limit_comes_to_rest_near_the_capacity() {
        for capacity in [8.0, 40.0] {
            let mut learner = Learner::new(Aimd::default());
            let mut limit: f64 = 20.0;
            let mut lowest = f64::MAX;
            for round in 0..600 {
                let ratio = (limit / capacity).max(1.0);
                let window = Window {
                    latency: Duration::from_secs_f64(0.05 * ratio),
                    ratio,
                    in_flight: limit,
                    throughput: 20.0 * limit.min(capacity),
                    saturated: true,
                    ..Window::new(limit)
                };
                limit = learner.update(&window).clamp(2.0, 1000.0);
                if round > 200 {
                    lowest = lowest.min(limit);
                }
            }
            assert!((0.9 * capacity..1.8 * capacity).contains(&limit), "{capacity}: {limit}");
            assert!(lowest > 0.8 * capacity, "{capacity}: {lowest}");
        }
    }

    #[test]
    fn what_a_single_window_does() {
        let step = |ratio: f64, saturated: bool, refused: bool| {
            let mut learner = Learner::new(Aimd::default());
            let window = Window {
                ratio,
                saturated,
                refused,
                in_flight: 60.0,
                ..Window::new(64.0)
            };
            learner.update(&window);
            learner.update(&window);
            learner.update(&window)
        };
        assert_eq!(step(1.0, true, false), 68.0);
        assert_eq!(step(1.0, false, false), 64.0);
        assert!(step(1.8, true, false) < 64.0);
        assert_eq!(step(1.0, true, true), 64.0 * 0.95);
    }
}
