//! The second gradient of Netflix's limiter.

use super::{LimitAlgorithm, Window, check_bounds, mend_bounds};
use crate::control::checks::{Checks, near};

/// Compares latency with its own long average.
///
/// `L' = L × clamp(tolerance × long / now, 0.5, 1) + queue`, smoothed. As published (Netflix concurrency-limits), except
/// that it is fed the ratio to the route class's baseline instead of raw latency: on raw latency it diverted more than
/// half of a healthy mix in our simulation. Even so it reached 77 % where [`Knee`](super::Knee) reached 96 %: here for
/// comparison and for those who know it.
///
/// ```
/// use crosspoint_gateway::{Gradient2, Limit};
/// let limit = Limit::Gradient2(Gradient2::default().ceiling(200));
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Gradient2 {
    /// Calls at once before anything is known. Default 28.
    #[schemars(range(min = 1))]
    pub initial: u32,
    /// Never fewer. Default 2.
    #[schemars(range(min = 1))]
    pub floor: u32,
    /// Never more. Default 1,000.
    #[schemars(range(min = 1))]
    pub ceiling: u32,
    /// By how much longer calls may take than on the long average, as a factor. Default 1.5.
    #[schemars(range(min = 1.0, max = 5.0))]
    pub tolerance: f64,
    /// How many calls may wait inside the target. Default 4.
    pub queue: u32,
    /// How much of a change is taken at once, as a share. Default 0.2.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub smoothing: f64,
    /// Over how many windows the long average reaches. Default 600.
    #[schemars(range(min = 1))]
    pub long: u32,
}

impl Default for Gradient2 {
    fn default() -> Self {
        Self {
            initial: super::INITIAL,
            floor: super::FLOOR,
            ceiling: super::CEILING,
            tolerance: 1.5,
            queue: 4,
            smoothing: 0.2,
            long: 600,
        }
    }
}

super::set_bounds!(Gradient2);

impl Gradient2 {
    /// Sets by how much longer calls may take.
    #[must_use]
    pub const fn tolerance(mut self, factor: f64) -> Self {
        self.tolerance = factor;
        self
    }

    /// Sets how many calls may wait inside the target.
    #[must_use]
    pub const fn queue(mut self, calls: u32) -> Self {
        self.queue = calls;
        self
    }

    /// Sets how much of a change is taken at once.
    #[must_use]
    pub const fn smoothing(mut self, share: f64) -> Self {
        self.smoothing = share;
        self
    }

    /// Sets over how many windows the long average reaches.
    #[must_use]
    pub const fn long(mut self, windows: u32) -> Self {
        self.long = windows;
        self
    }

    pub(super) fn mend(&mut self) {
        mend_bounds(&mut self.initial, &mut self.floor, &mut self.ceiling);
        let usual = Self::default();
        self.tolerance = near(self.tolerance, 1.0, 5.0, usual.tolerance);
        self.smoothing = near(self.smoothing, 0.01, 1.0, usual.smoothing);
        self.long = self.long.max(1);
    }

    pub(super) fn check(&self, checks: &mut Checks, at: &str) {
        check_bounds(checks, at, self.initial, self.floor, self.ceiling);
        checks.check(
            (1.0..=5.0).contains(&self.tolerance),
            format!("{at}/tolerance"),
            "is between 1 and 5",
        );
        checks.check(
            (0.01..=1.0).contains(&self.smoothing),
            format!("{at}/smoothing"),
            "is between 0.01 and 1",
        );
        checks.check(self.long >= 1, format!("{at}/long"), "is at least 1");
    }
}

#[derive(Debug)]
pub(super) struct Learner {
    gradient: Gradient2,
    /// The long average of the ratio.
    long: Option<f64>,
}

impl Learner {
    pub(super) const fn new(gradient: Gradient2) -> Self {
        Self { gradient, long: None }
    }
}

impl LimitAlgorithm for Learner {
    fn update(&mut self, window: &Window) -> f64 {
        let now = window.ratio.max(1e-3);
        let mut long = self.long.unwrap_or(now);
        long += (now - long) * 2.0 / (f64::from(self.gradient.long) + 1.0);
        if long > 2.0 * now {
            // After a long overload: come back sooner than the average would.
            long *= 0.95;
        }
        self.long = Some(long);
        let limit = window.limit;
        if window.in_flight < limit / 2.0 {
            return limit;
        }
        let gradient = (self.gradient.tolerance * long / now).clamp(0.5, 1.0);
        let wanted = limit * gradient + f64::from(self.gradient.queue);
        limit + self.gradient.smoothing * (wanted - limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_against_the_long_average() {
        let step = |now: f64, in_flight: f64| {
            let mut learner = Learner::new(Gradient2::default());
            let window = |ratio| Window {
                ratio,
                in_flight,
                ..Window::new(40.0)
            };
            learner.update(&window(1.0));
            learner.update(&window(now))
        };
        assert!((step(1.0, 40.0) - 40.8).abs() < 1e-9, "a fifth of the queue");
        assert!((step(1.0, 10.0) - 40.0).abs() < 1e-9, "not in use");
        assert!(step(4.0, 40.0) < 38.0, "much slower: down");
        assert!(
            step(40.0, 40.0) >= 40.0 - 0.2 * 16.0 - 1e-9,
            "never below half, smoothed"
        );
    }
}
