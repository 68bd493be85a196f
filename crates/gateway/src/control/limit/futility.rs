//! Whether cutting the limit does any good.
//!
//! Cutting the limit of a target that is overloaded by us makes it quicker and leaves its throughput. If it is slow for
//! a reason of its own, cutting leaves it as slow and costs throughput: then the limit is given back and the slowness
//! accepted as what is normal now. Both conditions are needed; with the latency alone a limit can run away.

use super::Window;
use std::collections::VecDeque;

/// A run of cuts is put to the test when it has taken 28 % off.
const TEST_AT: f64 = 0.72;
/// The least time that a cut is left to show its effect, in seconds; two current latencies if those are longer.
const LEAST_TEST: f64 = 0.5;
/// How far back the throughput before the first cut is averaged, in seconds.
const LOOK_BACK: f64 = 0.5;
/// Accepted slowness never exceeds this factor over the baseline.
const MOST_ACCEPTED: f64 = 8.0;
/// How fast accepted slowness is taken back, per window, once the target is quicker again.
const FORGIVE: f64 = 0.98;

/// What became of a wish to lower the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// The last cut has not had time to show its effect.
    Wait,
    /// Go down.
    Lower,
    /// Cutting was futile: back to this limit.
    GiveBack(f64),
}

#[derive(Debug, Clone, Copy)]
struct Episode {
    limit: f64,
    ratio: f64,
    throughput: f64,
}

/// Follows consecutive cuts.
#[derive(Debug)]
pub(super) struct Futility {
    /// The slowness that is accepted as not ours; 1 is none.
    accepted: f64,
    episode: Option<Episode>,
    /// Seconds until the next step down.
    frozen: f64,
    testing: bool,
    /// Since the last cut: calls answered, and seconds.
    answered: f64,
    seconds: f64,
    recent: VecDeque<(f64, f64)>,
}

impl Futility {
    pub(super) const fn new() -> Self {
        Self {
            accepted: 1.0,
            episode: None,
            frozen: 0.0,
            testing: false,
            answered: 0.0,
            seconds: 0.0,
            recent: VecDeque::new(),
        }
    }

    /// Notes the throughput of a window; once for each.
    pub(super) fn observe(&mut self, window: &Window) {
        let seconds = window.elapsed.as_secs_f64();
        self.recent.push_back((window.throughput * seconds, seconds));
        while self.recent.iter().skip(1).map(|(_, s)| s).sum::<f64>() >= LOOK_BACK {
            self.recent.pop_front();
        }
    }

    /// How slow the target is beyond what was accepted.
    pub(super) fn excess(&mut self, ratio: f64) -> f64 {
        if ratio < self.accepted {
            self.accepted = (self.accepted * FORGIVE).max(ratio).max(1.0);
        }
        ratio / self.accepted
    }

    pub(super) const fn accepted(&self) -> f64 {
        self.accepted
    }

    /// The run of cuts is over: the limit grew, or calls were refused.
    pub(super) const fn end(&mut self) {
        self.episode = None;
        self.frozen = 0.0;
        self.testing = false;
    }

    /// Whether the limit may go from the window's down to `lowered` now. `excess` is what [`Futility::excess`] said.
    pub(super) fn lower(&mut self, window: &Window, lowered: f64, excess: f64) -> Verdict {
        if self.frozen > 0.0 {
            let seconds = window.elapsed.as_secs_f64();
            self.frozen -= seconds;
            self.answered += window.throughput * seconds;
            self.seconds += seconds;
            if self.frozen > 1e-9 {
                return Verdict::Wait;
            }
            if self.testing {
                return self.judge(window, excess);
            }
        }
        let begin = Episode {
            limit: window.limit,
            ratio: excess,
            throughput: mean(&self.recent),
        };
        let episode = *self.episode.get_or_insert(begin);
        (self.answered, self.seconds) = (0.0, 0.0);
        let latency = window.latency.as_secs_f64();
        self.testing = lowered <= TEST_AT * episode.limit;
        self.frozen = if self.testing {
            LEAST_TEST.max(2.0 * latency)
        } else {
            latency
        };
        Verdict::Lower
    }

    fn judge(&mut self, window: &Window, excess: f64) -> Verdict {
        let throughput = self.answered / self.seconds.max(1e-9);
        self.testing = false;
        let Some(before) = self.episode.take() else {
            return Verdict::Lower;
        };
        // Half of the way from nothing to the cut itself.
        let halfway = 0.5 * (1.0 + window.limit / before.limit);
        let still_slow = excess > halfway * before.ratio;
        let poorer = throughput < halfway * before.throughput;
        if still_slow && poorer && self.accepted < MOST_ACCEPTED {
            self.accepted = (self.accepted * excess).min(MOST_ACCEPTED);
            return Verdict::GiveBack(before.limit);
        }
        Verdict::Lower
    }
}

fn mean(recent: &VecDeque<(f64, f64)>) -> f64 {
    let (answered, seconds) = recent
        .iter()
        .fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    if seconds > 0.0 { answered / seconds } else { 0.0 }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small positive numbers of a test"
)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Cuts by a tenth whenever it may; answers the limits, given how ratio and throughput follow from the limit.
    fn cut(windows: usize, seconds: f64, of: fn(f64) -> (f64, f64)) -> Vec<f64> {
        let mut futility = Futility::new();
        let mut limit = 100.0;
        let mut limits = Vec::new();
        for _ in 0..windows {
            let (ratio, throughput) = of(limit);
            let window = Window {
                elapsed: Duration::from_secs_f64(seconds),
                latency: Duration::from_millis(50),
                throughput,
                ..Window::new(limit)
            };
            futility.observe(&window);
            let excess = futility.excess(ratio);
            if excess > 1.2 {
                match futility.lower(&window, limit * 0.9, excess) {
                    Verdict::Wait => {}
                    Verdict::Lower => limit *= 0.9,
                    Verdict::GiveBack(to) => limit = to,
                }
            }
            limits.push(limit);
        }
        limits
    }

    #[test]
    fn slowness_of_its_own_gives_the_limit_back() {
        let limits = cut(20, 0.1, |limit| (2.0, limit * 5.0));
        assert_eq!(limits.last(), Some(&100.0), "{limits:?}");
        assert!(limits.iter().all(|limit| *limit > 70.0 * 0.9), "{limits:?}");
    }

    #[test]
    fn overload_goes_on_being_cut() {
        let limits = cut(60, 0.1, |limit| (limit / 20.0, 400.0));
        assert!(limits.last().is_some_and(|limit| *limit < 26.0), "{limits:?}");
        assert!(limits.windows(2).all(|pair| pair[1] <= pair[0]), "{limits:?}");
    }

    /// Latency stays, but throughput does too: no reason to give back what is not needed.
    #[test]
    fn both_conditions_are_needed() {
        let limits = cut(60, 0.1, |_| (2.0, 400.0));
        assert!(limits.windows(2).all(|pair| pair[1] <= pair[0]), "{limits:?}");
    }

    #[test]
    fn the_test_lasts_in_time_and_not_in_windows() {
        let held = |seconds: f64| {
            let limits = cut((4.0 / seconds) as usize, seconds, |limit| (limit / 10.0, 400.0));
            let at = limits.windows(4).position(|w| w[0] < 73.0 && w[0] == w[1]).unwrap();
            let same = limits[at..].iter().take_while(|limit| **limit == limits[at]).count();
            same as f64 * seconds
        };
        for seconds in [0.05, 0.1] {
            assert!((0.4..=0.65).contains(&held(seconds)), "{seconds}: {}", held(seconds));
        }
    }
}
