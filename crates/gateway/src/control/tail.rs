//! How much longer than usual the slow ones among the calls take now.
//!
//! A call whose hold is nearly over is begun only if it will probably still make it: in a long overload every call is
//! begun shortly before its hold ends, and each that is late has taken the place of one that would not have been.

/// The share of calls that take longer than the tail.
const BEYOND: f64 = 0.02;
/// How fast it follows, by sample. Upwards by nearly this much for a call beyond it.
const STEP: f64 = 0.05;
/// Never less and never more, in service times.
const BOUNDS: (f64, f64) = (2.0, 8.0);

/// Follows a high quantile of latency over baseline, sample by sample, without keeping any.
#[derive(Debug)]
pub(super) struct Tail(f64);

impl Default for Tail {
    fn default() -> Self {
        Self(BOUNDS.0)
    }
}

impl Tail {
    /// The tail after samples (ratio and weight) of one tick.
    pub(super) fn update(&mut self, ratios: &[(f64, f64)]) -> f64 {
        let all: f64 = ratios.iter().map(|(_, weight)| weight).sum();
        let beyond = ratios.iter().filter(|(ratio, _)| *ratio > self.0);
        let beyond: f64 = beyond.map(|(_, weight)| weight).sum();
        // One tick changes it by a factor of 1.65 at most: the samples beyond it are counted against where it was.
        let change = (STEP * (beyond - BEYOND * all)).clamp(-0.5, 0.5);
        self.0 = (self.0 * change.exp()).clamp(BOUNDS.0, BOUNDS.1);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_calls_of_a_hundred_are_beyond_it() {
        let mut tail = Tail::default();
        // Evenly from 0 to 5: 98 % are below 4.9.
        let ratios: Vec<_> = (0..50).map(|n| (f64::from(n) / 10.0, 1.0)).collect();
        let last = (0..500).fold(0.0, |_, _| tail.update(&ratios));
        assert!((4.6..=5.0).contains(&last), "{last}");
        let quick = [(0.9, 20.0)];
        let last = (0..500).fold(0.0, |_, _| tail.update(&quick));
        assert_eq!(last, 2.0);
    }

    #[test]
    fn a_target_that_gets_slow_is_believed_soon_and_never_without_end() {
        let mut tail = Tail::default();
        assert!(tail.update(&[(5.0, 16.0)]) > 3.0, "after one tick");
        let last = (0..20).fold(0.0, |_, _| tail.update(&[(100.0, 16.0)]));
        assert_eq!(last, 8.0);
        assert_eq!(tail.update(&[]), 8.0, "nothing seen, nothing learnt");
    }
}
