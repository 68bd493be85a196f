//! Makes windows of ticks: what an algorithm may judge by.

use super::limit::Window;
use std::time::Duration;

/// A window ends with so many samples, or after so many seconds.
const LEAST_SAMPLES: u64 = 10;
const LONGEST: f64 = 1.0 - 1e-9;
/// How slowly the median's own unloaded value follows, in seconds, from where it starts and within which bounds. It is
/// below 1 because service times are skewed: their median lies below their mean, which the baseline is.
const UNLOADED_TAU: f64 = 10.0;
const UNLOADED_START: f64 = 0.9;
const UNLOADED_BOUNDS: (f64, f64) = (0.5, 1.2);
/// The least samples of a tick that say something about the unloaded median.
const UNLOADED_SAMPLES: u64 = 3;

/// What one tick has seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Tick {
    pub(super) seconds: f64,
    /// Latency over baseline, with weights, in any order.
    pub(super) ratios: Vec<(f64, f64)>,
    pub(super) samples: u64,
    /// Sum of latencies in seconds.
    pub(super) latency: f64,
    pub(super) in_flight: f64,
    pub(super) answered: u64,
    pub(super) saturated: bool,
    pub(super) refused: bool,
    /// Whether the target was as good as idle.
    pub(super) idle: bool,
}

/// Collects ticks until they make a window.
#[derive(Debug)]
pub(super) struct Gather {
    ticks: Vec<Tick>,
    unloaded: f64,
    fresh: bool,
}

impl Gather {
    pub(super) const fn new() -> Self {
        Self {
            ticks: Vec::new(),
            unloaded: UNLOADED_START,
            fresh: true,
        }
    }

    /// Forgets what was begun: the gate has changed.
    pub(super) fn restart(&mut self) {
        self.ticks.clear();
        self.fresh = true;
    }

    /// Adds a tick; answers with a window when there is enough. Windows without a sample are dropped.
    pub(super) fn add(&mut self, tick: Tick, limit: f64) -> Option<Window> {
        if tick.idle
            && tick.samples >= UNLOADED_SAMPLES
            && let Some(median) = quantile(&tick.ratios, 0.5)
        {
            let (least, most) = UNLOADED_BOUNDS;
            let follow = 1.0 - (-tick.seconds / UNLOADED_TAU).exp();
            self.unloaded = (self.unloaded + follow * (median - self.unloaded)).clamp(least, most);
        }
        self.ticks.push(tick);
        let seconds: f64 = self.ticks.iter().map(|tick| tick.seconds).sum();
        let samples: u64 = self.ticks.iter().map(|tick| tick.samples).sum();
        let refused = self.ticks.iter().any(|tick| tick.refused);
        if samples < LEAST_SAMPLES && seconds < LONGEST && !refused {
            return None;
        }
        let ticks = std::mem::take(&mut self.ticks);
        if samples == 0 && !refused {
            return None;
        }
        let ratios: Vec<_> = ticks.iter().flat_map(|tick| tick.ratios.iter().copied()).collect();
        let latency = ticks.iter().map(|tick| tick.latency).sum::<f64>() / samples.max(1) as f64;
        let answered: u64 = ticks.iter().map(|tick| tick.answered).sum();
        let peak = ticks.iter().map(|tick| tick.in_flight).fold(0.0, f64::max);
        let mut window = Window::new(limit);
        window.elapsed = Duration::from_secs_f64(seconds);
        window.samples = samples;
        window.latency = Duration::try_from_secs_f64(latency).unwrap_or_default();
        window.ratio = quantile(&ratios, 0.5).map_or(1.0, |median| median / self.unloaded);
        window.in_flight = ticks.iter().map(|tick| tick.in_flight * tick.seconds).sum::<f64>() / seconds.max(1e-9);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of calls"
        )]
        let peak = peak as u32;
        window.peak = peak;
        window.throughput = answered as f64 / seconds.max(1e-9);
        window.saturated = ticks.iter().any(|tick| tick.saturated);
        window.refused = refused;
        window.fresh = std::mem::take(&mut self.fresh);
        Some(window)
    }
}

/// Neighbouring buckets further apart than this are different kinds of calls: nothing lies between them.
const SAME_KIND: f64 = 1.5;

/// A weighted quantile. Samples stand in the middle of their buckets, so that between neighbours it is interpolated:
/// else the width of a bucket would be the resolution of the ratio.
pub(super) fn quantile(ratios: &[(f64, f64)], share: f64) -> Option<f64> {
    let mut sorted: Vec<_> = ratios.iter().copied().filter(|(_, weight)| *weight > 0.0).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: f64 = sorted.iter().map(|(_, weight)| weight).sum();
    let wanted = share * total;
    let mut before = 0.0;
    let mut last: Option<(f64, f64)> = None;
    for (value, weight) in sorted {
        let middle = before + weight / 2.0;
        if middle >= wanted {
            let Some((lower, at)) = last else { return Some(value) };
            if value > SAME_KIND * lower {
                return Some(if before >= wanted { lower } else { value });
            }
            return Some(lower + (value - lower) * (wanted - at) / (middle - at));
        }
        before += weight;
        last = Some((value, middle));
    }
    last.map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(samples: u64, ratio: f64) -> Tick {
        Tick {
            seconds: 0.1,
            ratios: vec![(ratio, samples as f64)],
            samples,
            latency: samples as f64 * 0.05 * ratio,
            in_flight: 8.0,
            answered: samples,
            ..Tick::default()
        }
    }

    #[test]
    fn a_window_has_ten_samples_or_a_second() {
        let mut gather = Gather::new();
        assert_eq!(gather.add(tick(6, 1.0), 20.0), None);
        let window = gather.add(tick(6, 1.0), 20.0).unwrap();
        assert_eq!((window.samples, window.elapsed), (12, Duration::from_millis(200)));
        assert!((window.throughput - 60.0).abs() < 1e-9);
        assert!(window.fresh);
        let slow = (0..10).filter_map(|_| gather.add(tick(0, 1.0), 20.0)).count();
        assert_eq!(slow, 0, "no sample, no window");
        let few: Vec<_> = (0..20).filter_map(|at| gather.add(tick(at % 2, 1.0), 20.0)).collect();
        assert_eq!(few.len(), 2, "a second each: {few:?}");
        assert_eq!((few[0].samples, few[0].fresh), (5, false));
        gather.restart();
        assert!(gather.add(tick(20, 1.0), 20.0).unwrap().fresh);
    }

    #[test]
    fn a_late_tick_counts_with_the_time_that_it_took() {
        let mut late = tick(50, 1.0);
        late.seconds = 0.5;
        let window = Gather::new().add(late, 20.0).unwrap();
        assert!((window.throughput - 100.0).abs() < 1e-9);
    }

    #[test]
    fn the_ratio_is_that_to_the_unloaded_median() {
        let mut gather = Gather::new();
        for _ in 0..600 {
            gather.add(
                Tick {
                    idle: true,
                    ..tick(20, 0.8)
                },
                20.0,
            );
        }
        let window = gather.add(tick(20, 1.6), 20.0).unwrap();
        assert!((window.ratio - 2.0).abs() < 0.01, "{}", window.ratio);
    }

    type Case = (&'static [(f64, f64)], f64, Option<f64>);

    #[test]
    fn quantiles() {
        let cases: [Case; 8] = [
            (&[], 0.5, None),
            (&[(1.0, 3.0)], 0.5, Some(1.0)),
            (&[(2.0, 1.0), (1.0, 1.0)], 0.5, Some(1.0)),
            (&[(1.2, 1.0), (1.0, 1.0)], 0.5, Some(1.1)),
            (&[(1.0, 1.0), (1.2, 3.0)], 0.5, Some(1.15)),
            (&[(1.0, 40.0), (9.0, 60.0)], 0.5, Some(9.0)),
            (&[(1.0, 60.0), (9.0, 40.0)], 0.5, Some(1.0)),
            (&[(1.0, 85.0), (4.0, 15.0)], 0.9, Some(4.0)),
        ];
        for (ratios, share, wanted) in cases {
            let got = quantile(ratios, share);
            let same = match (got, wanted) {
                (Some(got), Some(wanted)) => (got - wanted).abs() < 1e-9,
                (got, wanted) => got == wanted,
            };
            assert!(same, "{ratios:?}: {got:?}");
        }
    }
}
