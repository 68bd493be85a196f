//! Random numbers that are the same everywhere for the same seed.

/// A small generator (SplitMix64). Streams that must not disturb each other are made with different keys.
///
/// ```
/// use crosspoint_simulator::Random;
/// let (mut one, mut two) = (Random::keyed(7, 1), Random::keyed(7, 1));
/// assert_eq!(one.unit(), two.unit());
/// ```
#[derive(Debug, Clone)]
pub struct Random(u64);

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Random {
    /// The stream `key` of a seed.
    #[must_use]
    pub fn keyed(seed: u64, key: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(GOLDEN) ^ key.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        for _ in 0..4 {
            random.bits();
        }
        random
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Evenly between 0 and 1, neither of them.
    pub fn unit(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// The time to the next of events that come at `rate` a second.
    pub fn gap(&mut self, rate: f64) -> f64 {
        -self.unit().ln() / rate
    }

    /// Lognormal with this mean; `sigma` is that of the logarithm.
    pub fn lognormal(&mut self, mean: f64, sigma: f64) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        (mean.ln() - sigma * sigma / 2.0 + sigma * normal).exp()
    }

    /// A whole number below `n`, which is at least 1.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_what_was_asked_for() {
        let mut random = Random::keyed(3, 0);
        let n = 200_000;
        let gaps: f64 = (0..n).map(|_| random.gap(20.0)).sum();
        assert!((gaps / f64::from(n) - 0.05).abs() < 0.001, "{gaps}");
        let times: f64 = (0..n).map(|_| random.lognormal(0.05, 0.5)).sum();
        assert!((times / f64::from(n) - 0.05).abs() < 0.001, "{times}");
    }

    #[test]
    fn streams_differ() {
        let (mut one, mut two) = (Random::keyed(1, 1), Random::keyed(1, 2));
        assert!((one.unit() - two.unit()).abs() > f64::EPSILON);
    }
}
