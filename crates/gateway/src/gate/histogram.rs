//! A log-linear histogram of latencies: eight buckets to each doubling, so that the middle of a bucket is never more than
//! 7 % off. From a quarter of a microsecond to four and a half minutes; what lies beyond falls into the outermost ones.

use std::sync::atomic::{AtomicU32, Ordering};

/// Nanoseconds are counted in units of this many bits: 256 ns.
const UNIT: u32 = 8;
/// Buckets to a doubling, as a power of two.
const STEPS: u32 = 3;
pub(super) const BUCKETS: usize = 224;

/// One thread's share of a histogram; nothing but counts, since sums follow from the middles.
pub(super) struct Histogram([AtomicU32; BUCKETS]);

impl Histogram {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; BUCKETS])
    }

    #[inline]
    pub(super) fn add(&self, nanos: u64, weight: u32) {
        if let Some(bucket) = self.0.get(index(nanos)) {
            bucket.fetch_add(weight, Ordering::Relaxed);
        }
    }

    /// Moves the counts into `into`.
    pub(super) fn take(&self, into: &mut [u32; BUCKETS]) {
        for (bucket, sum) in self.0.iter().zip(into) {
            if bucket.load(Ordering::Relaxed) != 0 {
                *sum = sum.saturating_add(bucket.swap(0, Ordering::Relaxed));
            }
        }
    }
}

/// The bucket of a latency.
#[inline]
pub(super) fn index(nanos: u64) -> usize {
    let units = nanos >> UNIT;
    let doubling = u64::BITS - 1 - (units | (1 << STEPS)).leading_zeros() - STEPS;
    // Below 2^STEPS every unit has a bucket of its own; above, the leading STEPS + 1 bits choose it.
    let index = (units >> doubling) + (u64::from(doubling) << STEPS);
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The middle of a bucket in seconds.
#[expect(clippy::cast_precision_loss, reason = "at most 2^39, and a middle")]
pub(super) fn middle(index: usize) -> f64 {
    let index = index as u64;
    let doubling = (index >> STEPS).saturating_sub(1);
    let units = index - (doubling << STEPS);
    let (from, width) = ((units << doubling) << UNIT, (1_u64 << doubling) << UNIT);
    (from as f64 + width as f64 / 2.0) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_and_their_middles_are_near() {
        let mut last = 0;
        let mut nanos = 0_u64;
        while nanos < 270_000_000_000 {
            let at = index(nanos);
            assert!(at == last || at == last + 1, "{nanos} ns: {last} -> {at}");
            last = at;
            let seconds = nanos as f64 / 1e9;
            let error = (middle(at) - seconds).abs();
            assert!(error <= (seconds * 0.07).max(130e-9), "{nanos} ns in {at}: {error}");
            nanos += (nanos / 100).max(64);
        }
        assert_eq!(last, BUCKETS - 1);
        assert_eq!(index(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn counts_are_taken_once() {
        let histogram = Histogram::new();
        histogram.add(50_000_000, 16);
        histogram.add(50_000_000, 1);
        let mut counts = [0; BUCKETS];
        histogram.take(&mut counts);
        histogram.take(&mut counts);
        assert_eq!(counts[index(50_000_000)], 17);
        assert_eq!(counts.iter().sum::<u32>(), 17);
    }
}
