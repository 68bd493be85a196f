//! Starting in the middle of an overload.
//!
//! A baseline is the latency of a target that is not loaded. A process that starts while its target is overloaded (by
//! itself, within milliseconds, or by others) never sees that: the first calls are slow already, their latency passes for
//! normal, and the limit would come to rest far above what the target can do. What a process remembered from its last
//! run ends the question; without that, this does:
//!
//! 1. As soon as a window shows the target idle (less than half of the limit in use, nobody held back), the baseline is
//!    honest and nothing here happens any more. A start on a target with capacity to spare never notices this module.
//! 2. While it has never been idle, the algorithm works as always. Too low an initial limit is found by growing, since
//!    latency stays as it is. Only when growth has *stalled* while calls are being diverted, because they are slower
//!    than the doubtful baseline says, a limit that is 30 % lower is tried, for as long as it takes to count 60 answers
//!    (at least half a second and two latencies, at most 5 s).
//! 3. If the throughput falls by less than half as much as the limit, the target was beyond its knee: the lower limit
//!    stays, the lower latency becomes the baseline at once, and the next step follows.
//! 4. If the throughput falls with the limit, the target was not: the limit from before is restored, and what was
//!    measured below it still counts as a baseline if it was lower. After the second such answer the question is closed.
//!
//! So healthy traffic is held back by nothing but rule 2, which needs a saturated gate and slow calls, and then at most
//! twice for a moment. Throughput is the judge because it needs no baseline.

use super::limit::Window;

/// What is left of the limit in a trial.
const STEP: f64 = 0.7;
/// The limit has stalled while it stays within this share of where it was.
const STALLED: f64 = 0.1;
/// Only calls that are slower than this ratio stall a limit.
const SLOW: f64 = 1.1;
/// How long a throughput is measured.
const LEAST_ANSWERS: f64 = 60.0;
const LEAST_SECONDS: f64 = 0.5;
const MOST_SECONDS: f64 = 5.0;
/// So many trials that took throughput away close the question.
const ENOUGH: u8 = 2;

/// What is to happen with the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Advice {
    /// The algorithm decides.
    Algorithm,
    /// This limit, and the algorithm is not asked.
    Limit(f64),
    /// This limit; baselines are multiplied by `baseline`, which is at most 1.
    Adopt { limit: f64, baseline: f64 },
}

/// A throughput being measured.
#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    answers: f64,
    seconds: f64,
    ratios: f64,
    latency: f64,
}

impl Measure {
    fn add(&mut self, window: &Window) {
        let seconds = window.elapsed.as_secs_f64();
        self.answers += window.throughput * seconds;
        self.ratios += window.ratio * seconds;
        self.seconds += seconds;
        self.latency = window.latency.as_secs_f64();
    }

    fn is_done(&self) -> bool {
        let long_enough = self.seconds >= LEAST_SECONDS.max(2.0 * self.latency);
        long_enough && self.answers >= LEAST_ANSWERS || self.seconds >= MOST_SECONDS.max(2.0 * self.latency)
    }

    fn throughput(&self) -> f64 {
        self.answers / self.seconds.max(1e-9)
    }

    fn ratio(&self) -> f64 {
        self.ratios / self.seconds.max(1e-9)
    }
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Watching {
        limit: f64,
        measure: Measure,
    },
    Trial {
        before: f64,
        throughput: f64,
        /// Seconds until calls that were admitted under the old limit have ended.
        settling: f64,
        measure: Measure,
    },
    Closed,
}

/// Doubts the baseline until the target has been seen idle.
#[derive(Debug)]
pub(super) struct Startup {
    phase: Phase,
    refusals: u8,
}

impl Startup {
    pub(super) fn new() -> Self {
        Self {
            phase: watching(0.0),
            refusals: 0,
        }
    }

    /// The baseline is honest.
    pub(super) const fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// What was being measured has been interrupted. Answers with the limit to return to, if one was tried.
    pub(super) fn interrupt(&mut self) -> Option<f64> {
        let before = match self.phase {
            Phase::Closed => return None,
            Phase::Trial { before, .. } => Some(before),
            Phase::Watching { .. } => None,
        };
        self.phase = watching(0.0);
        before
    }

    pub(super) fn look(&mut self, window: &Window, floor: f64) -> Advice {
        match self.phase {
            Phase::Closed => Advice::Algorithm,
            Phase::Watching { limit, measure } => self.watch(window, limit, measure, floor),
            Phase::Trial {
                before,
                throughput,
                settling,
                measure,
            } => {
                if !window.saturated {
                    // There is room: what is asked for decides the throughput now, not the limit.
                    self.phase = watching(before);
                    return Advice::Limit(before);
                }
                let settling = settling - window.elapsed.as_secs_f64();
                let mut measure = measure;
                if settling <= 0.0 {
                    measure.add(window);
                }
                if measure.is_done() {
                    return self.judge(window, before, throughput, &measure, floor);
                }
                self.phase = Phase::Trial {
                    before,
                    throughput,
                    settling,
                    measure,
                };
                Advice::Limit(window.limit)
            }
        }
    }

    fn watch(&mut self, window: &Window, limit: f64, mut measure: Measure, floor: f64) -> Advice {
        let stalled = (window.limit - limit).abs() <= STALLED * limit;
        if !(window.saturated && stalled && window.ratio > SLOW) {
            self.phase = watching(window.limit);
            return Advice::Algorithm;
        }
        measure.add(window);
        if !measure.is_done() || window.limit <= floor {
            self.phase = Phase::Watching { limit, measure };
            return Advice::Algorithm;
        }
        self.attempt(window, measure.throughput(), floor)
    }

    fn attempt(&mut self, window: &Window, throughput: f64, floor: f64) -> Advice {
        self.phase = Phase::Trial {
            before: window.limit,
            throughput,
            settling: window.latency.as_secs_f64(),
            measure: Measure::default(),
        };
        Advice::Limit((STEP * window.limit).max(floor))
    }

    fn judge(&mut self, window: &Window, before: f64, throughput: f64, measure: &Measure, floor: f64) -> Advice {
        let baseline = measure.ratio().min(1.0);
        let halfway = 0.5 * (1.0 + window.limit / before);
        if measure.throughput() < halfway * throughput {
            self.refusals += 1;
            self.phase = if self.refusals >= ENOUGH {
                Phase::Closed
            } else {
                watching(before)
            };
            return Advice::Adopt {
                limit: before,
                baseline,
            };
        }
        if window.limit <= floor {
            self.phase = Phase::Closed;
            return Advice::Adopt {
                limit: window.limit,
                baseline,
            };
        }
        match self.attempt(window, measure.throughput(), floor) {
            Advice::Limit(limit) => Advice::Adopt { limit, baseline },
            other => other,
        }
    }
}

fn watching(limit: f64) -> Phase {
    Phase::Watching {
        limit,
        measure: Measure::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::limit::{Knee, Limit},
        *,
    };
    use std::time::Duration;

    struct Run {
        limit: f64,
        /// The share of what the target could have answered over the last 20 s.
        share: f64,
        /// The lowest limit after the first second.
        lowest: f64,
    }

    /// 60 s of full demand against a target of `capacity` whose calls take 50 ms alone, from the first call on, with a
    /// knee whose baseline is what the first window showed. Beyond the capacity calls wait, and `waste` slows each.
    fn start(initial: u32, capacity: f64, waste: f64, external: f64) -> Run {
        let settings = Limit::Knee(Knee::default().initial(initial));
        let (floor, ceiling) = settings.bounds();
        let mut algorithm = settings.algorithm();
        let mut startup = Startup::new();
        let mut limit = f64::from(initial);
        let mut baseline = None;
        let mut answered = 0.0;
        let mut lowest = f64::MAX;
        for tick in 0..600 {
            let ours = limit.floor();
            let all = ours + external;
            let over = ((all - capacity) / capacity).clamp(0.0, 4.0);
            let rate = 20.0 * all.min(capacity) / (1.0 + waste * over) * ours / all;
            let latency = ours / rate;
            let known = *baseline.get_or_insert(latency);
            let mut window = Window::new(limit);
            window.samples = 20;
            window.latency = Duration::from_secs_f64(latency);
            window.ratio = latency / known;
            window.in_flight = ours;
            window.throughput = rate;
            window.saturated = true;
            match startup.look(&window, floor) {
                Advice::Algorithm => limit = algorithm.update(&window),
                Advice::Limit(to) => limit = to,
                Advice::Adopt {
                    limit: to,
                    baseline: factor,
                } => {
                    limit = to;
                    baseline = Some(known * factor);
                }
            }
            limit = limit.clamp(floor, ceiling);
            if tick > 10 {
                lowest = lowest.min(limit);
            }
            if tick >= 400 {
                answered += rate / 10.0;
            }
        }
        let share = answered / (20.0 * 20.0 * capacity * limit / (limit + external));
        Run { limit, share, lowest }
    }

    #[test]
    fn an_overload_from_the_first_call_on_is_found_out() {
        for (initial, capacity, waste) in [
            (20, 8.0, 0.5),
            (20, 2.0, 0.5),
            (20, 3.0, 0.0),
            (200, 16.0, 0.5),
            (200, 16.0, 0.0),
        ] {
            let run = start(initial, capacity, waste, 0.0);
            assert!(
                run.limit < 1.7 * capacity.max(2.0),
                "{initial} for {capacity}: {}",
                run.limit
            );
            assert!(run.share > 0.8, "{initial} for {capacity}: {}", run.share);
        }
    }

    #[test]
    fn a_low_start_on_a_healthy_target_only_grows() {
        let run = start(4, 64.0, 0.5, 0.0);
        assert!(run.lowest > 4.0, "{}", run.lowest);
        assert!(run.limit > 64.0 && run.limit < 110.0, "{}", run.limit);
    }

    /// Others keep the target slow: going down only gives them our share.
    #[test]
    fn an_overload_by_others_is_no_reason_to_give_way() {
        let run = start(20, 50.0, 0.0, 200.0);
        assert!(run.limit > 18.0, "{}", run.limit);
    }

    #[test]
    fn an_idle_target_closes_the_question() {
        let mut startup = Startup::new();
        startup.close();
        let mut window = Window::new(20.0);
        window.saturated = true;
        window.ratio = 4.0;
        window.throughput = 100.0;
        for _ in 0..100 {
            assert_eq!(startup.look(&window, 2.0), Advice::Algorithm);
        }
    }

    #[test]
    fn a_trial_ends_when_demand_does() {
        let mut startup = Startup::new();
        let mut window = Window::new(20.0);
        window.saturated = true;
        window.ratio = 1.3;
        window.throughput = 400.0;
        let tried = (0..20).find_map(|_| match startup.look(&window, 2.0) {
            Advice::Limit(limit) => Some(limit),
            _ => None,
        });
        assert_eq!(tried, Some(14.0));
        window.limit = 14.0;
        window.saturated = false;
        assert_eq!(startup.look(&window, 2.0), Advice::Limit(20.0));
    }
}
