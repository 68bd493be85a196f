//! The limit of TCP Vegas.

use super::{LimitAlgorithm, Window, check_bounds, mend_bounds};
use crate::control::checks::Checks;

/// Estimates how many calls wait inside the target, `L × (1 - best / now)`, and keeps that between one and three times
/// the decimal logarithm of the limit.
///
/// As published (Netflix concurrency-limits), except that it is fed the ratio to the route class's baseline instead of
/// raw latency. It reached 93 % of the optimum in our simulation's spike but diverted a fifth of a healthy mix: here for
/// comparison and for those who know it.
///
/// ```
/// use crosspoint_gateway::{Limit, Vegas};
/// let limit = Limit::Vegas(Vegas::default().probe_every(60));
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Vegas {
    /// Calls at once before anything is known. Default 28.
    #[schemars(range(min = 1))]
    pub initial: u32,
    /// Never fewer. Default 2.
    #[schemars(range(min = 1))]
    pub floor: u32,
    /// Never more. Default 1,000.
    #[schemars(range(min = 1))]
    pub ceiling: u32,
    /// After how many samples, in multiples of the limit, the best ratio is measured anew. Default 30.
    #[schemars(range(min = 1))]
    pub probe_every: u32,
}

impl Default for Vegas {
    fn default() -> Self {
        Self {
            initial: super::INITIAL,
            floor: super::FLOOR,
            ceiling: super::CEILING,
            probe_every: 30,
        }
    }
}

super::set_bounds!(Vegas);

impl Vegas {
    /// Sets after how many samples, in multiples of the limit, the best ratio is measured anew.
    #[must_use]
    pub const fn probe_every(mut self, limits: u32) -> Self {
        self.probe_every = limits;
        self
    }

    pub(super) fn mend(&mut self) {
        mend_bounds(&mut self.initial, &mut self.floor, &mut self.ceiling);
        self.probe_every = self.probe_every.max(1);
    }

    pub(super) fn check(&self, checks: &mut Checks, at: &str) {
        check_bounds(checks, at, self.initial, self.floor, self.ceiling);
        checks.check(self.probe_every >= 1, format!("{at}/probe_every"), "is at least 1");
    }
}

#[derive(Debug)]
pub(super) struct Learner {
    vegas: Vegas,
    best: Option<f64>,
    /// Samples since the best ratio was taken.
    samples: u64,
}

impl Learner {
    pub(super) const fn new(vegas: Vegas) -> Self {
        Self {
            vegas,
            best: None,
            samples: 0,
        }
    }
}

impl LimitAlgorithm for Learner {
    fn update(&mut self, window: &Window) -> f64 {
        let limit = window.limit;
        let now = window.ratio.max(1e-3);
        self.samples += window.samples;
        let due = self.samples as f64 > f64::from(self.vegas.probe_every) * limit;
        let best = match self.best {
            Some(best) if best <= now && !due => best,
            _ => {
                self.best = Some(now);
                self.samples = 0;
                return limit;
            }
        };
        let step = limit.log10().max(1.0);
        if window.refused {
            return limit - step;
        }
        if window.in_flight * 2.0 < limit {
            return limit;
        }
        let waiting = (limit * (1.0 - best / now)).ceil();
        match waiting {
            few if few <= step => limit + 6.0 * step,
            some if some < 3.0 * step => limit + step,
            many if many > 6.0 * step => limit - step,
            _ => limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimated_queue_decides() {
        let step = |now: f64, in_flight: f64, refused: bool| {
            let mut learner = Learner::new(Vegas::default());
            let window = |ratio| Window {
                ratio,
                in_flight,
                refused,
                samples: 10,
                ..Window::new(100.0)
            };
            learner.update(&window(1.0));
            learner.update(&window(now)) - 100.0
        };
        assert_eq!(step(1.0, 100.0, false), 12.0, "no queue");
        assert_eq!(step(1.03, 100.0, false), 2.0, "a short one");
        assert_eq!(step(1.1, 100.0, false), 0.0, "as it should be");
        assert_eq!(step(1.3, 100.0, false), -2.0, "too long");
        assert_eq!(step(1.3, 20.0, false), 0.0, "not in use");
        assert_eq!(step(1.0, 100.0, true), -2.0, "refused");
    }
}
