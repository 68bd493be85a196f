//! Which ratio an algorithm may act on.

use std::collections::VecDeque;

/// How fast the smoothed ratio follows.
const SMOOTHING: f64 = 0.4;
/// How many windows have to agree that the target is slow.
const PERSISTENCE: usize = 3;
/// How far above the best of those windows the ratio used may lie.
const ABOVE_BEST: f64 = 1.1;

/// The smaller of the smoothed ratio and a little above the best of the last three windows: a single bad window (a
/// pause of the target) never lowers a limit.
#[derive(Debug, Clone)]
pub(super) struct RatioFilter {
    smooth: f64,
    last: VecDeque<f64>,
}

impl RatioFilter {
    pub(super) fn new() -> Self {
        Self::around(1.0)
    }

    /// Without memory, expecting `ratio`.
    pub(super) fn around(ratio: f64) -> Self {
        Self {
            smooth: ratio,
            last: VecDeque::with_capacity(PERSISTENCE),
        }
    }

    pub(super) fn push(&mut self, ratio: f64) -> f64 {
        self.smooth += SMOOTHING * (ratio - self.smooth);
        if self.last.len() == PERSISTENCE {
            self.last.pop_front();
        }
        self.last.push_back(ratio);
        if self.last.len() < PERSISTENCE {
            return self.smooth.min(1.0);
        }
        let best = self.last.iter().copied().fold(f64::MAX, f64::min);
        self.smooth.min(ABOVE_BEST * best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ratios: &[f64]) -> f64 {
        let mut filter = RatioFilter::new();
        ratios.iter().fold(0.0, |_, ratio| filter.push(*ratio))
    }

    #[test]
    fn one_bad_window_is_no_overload_and_three_are() {
        assert!(after(&[5.0, 5.0]) <= 1.0, "too early to say");
        assert!(after(&[1.0, 1.0, 1.0, 9.0]) <= 1.1);
        assert!(after(&[1.0, 1.0, 9.0, 9.0, 1.0]) <= 1.1);
        assert!(after(&[1.0, 3.0, 3.0, 3.0, 3.0]) > 2.5);
        assert!(after(&[3.0, 3.0, 3.0, 0.9]) < 1.0, "good news counts at once");
    }
}
