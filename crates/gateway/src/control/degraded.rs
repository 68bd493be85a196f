//! Whether a target is so slow that something must be wrong with it.

use super::limit::Window;
use std::collections::VecDeque;

/// The 90th percentile of the ratio, and the least latency in seconds.
const RATIO: f64 = 3.0;
const LATENCY: f64 = 0.05;
/// In so many windows one after the other, of so many samples each.
const WINDOWS: u32 = 3;
const SAMPLES: u64 = 20;
/// Over how many windows in flight and throughput are compared.
const COMPARED: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Degraded {
    streak: u32,
    recent: VecDeque<(f64, f64)>,
}

impl Degraded {
    /// Whether the target is degraded after this window, whose ratio's 90th percentile is `slowest`.
    pub(super) fn look(&mut self, window: &Window, slowest: f64) -> bool {
        if self.recent.len() == COMPARED {
            self.recent.pop_front();
        }
        self.recent.push_back((window.in_flight, window.throughput));
        let slow = slowest > RATIO && window.latency.as_secs_f64() > LATENCY && window.samples >= SAMPLES;
        // Where more calls in flight bring more answers, there is only much to do.
        self.streak = if slow && covariance(&self.recent) <= 0.0 {
            self.streak + 1
        } else {
            0
        };
        self.streak >= WINDOWS
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn covariance(pairs: &VecDeque<(f64, f64)>) -> f64 {
    let count = pairs.len().max(1) as f64;
    let (a, b) = pairs
        .iter()
        .fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let (a, b) = (a / count, b / count);
    pairs.iter().map(|pair| (pair.0 - a) * (pair.1 - b)).sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn after(windows: u32, ratio: f64, latency_ms: u64, throughput: fn(f64) -> f64) -> bool {
        let mut degraded = Degraded::default();
        let looks = (0..windows).map(|at| {
            let in_flight = 10.0 + f64::from(at);
            let mut window = Window::new(40.0);
            window.samples = 20;
            window.latency = Duration::from_millis(latency_ms);
            window.in_flight = in_flight;
            window.throughput = throughput(in_flight);
            degraded.look(&window, ratio)
        });
        looks.last() == Some(true)
    }

    type Case = (u32, f64, u64, fn(f64) -> f64, bool);

    #[test]
    fn slow_for_three_windows_without_more_answers() {
        let cases: [Case; 5] = [
            (3, 4.0, 200, |_| 100.0, true),
            (2, 4.0, 200, |_| 100.0, false),
            (9, 2.9, 200, |_| 100.0, false),
            (9, 4.0, 40, |_| 100.0, false),
            (9, 4.0, 200, |in_flight| 10.0 * in_flight, false),
        ];
        for (windows, ratio, latency, throughput, wanted) in cases {
            assert_eq!(
                after(windows, ratio, latency, throughput),
                wanted,
                "{windows} {ratio} {latency}"
            );
        }
    }
}
