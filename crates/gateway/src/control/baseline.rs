//! How long calls of each route class take while the target is not loaded, learnt from live traffic.
//!
//! No call is ever held back to measure this. A baseline follows the window means slowly (30 s; quickly while it is
//! young) in windows in which less than half of the limit was in use and nothing was held back. At other times it only
//! goes down, and slowly: a loaded target that is quicker than the baseline proves the baseline too high.

use std::collections::BTreeMap;

/// How slowly a baseline follows, in seconds.
const TAU: f64 = 30.0;
/// The same for the first seconds of its life.
const YOUNG_TAU: f64 = 2.0;
/// How long it counts as young, in seconds.
const YOUNG: f64 = 5.0;
/// Until so many samples were seen it is their plain mean.
const SEED_SAMPLES: f64 = 30.0;
/// Downwards while permits run out: this much faster, but by steps of at most this share.
const SATURATED_SPEED: f64 = 3.0;
const SATURATED_STEP: f64 = 0.1;
/// Over how many seconds completions count for the mix of classes.
const MIX_TAU: f64 = 5.0;

/// How much of the gate was in use in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// Less than half, and nothing was held back.
    Idle,
    /// More, but nothing was held back.
    Used,
    /// Permits ran out, or the gate is not in good order.
    Saturated,
}

#[derive(Debug, Clone, Copy)]
struct Class {
    /// Seconds.
    latency: f64,
    samples: f64,
    age: f64,
    /// Completions of late, decaying.
    mix: f64,
}

/// The baselines of a target, by the index of the route class.
#[derive(Debug, Default)]
pub(super) struct Baselines(BTreeMap<u8, Class>);

/// What a tick saw of one class.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) class: u8,
    pub(super) count: f64,
    /// Mean latency in seconds.
    pub(super) mean: f64,
}

impl Baselines {
    /// The baseline of a class in seconds.
    pub(super) fn get(&self, class: u8) -> Option<f64> {
        self.0.get(&class).map(|class| class.latency)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u8, f64)> {
        self.0.iter().map(|(id, class)| (*id, class.latency))
    }

    /// Starts a class from what another process has learnt.
    pub(super) fn recall(&mut self, class: u8, latency: f64) {
        let known = Class {
            latency,
            samples: SEED_SAMPLES,
            age: YOUNG,
            mix: 0.0,
        };
        self.0.entry(class).or_insert(known);
    }

    /// Learns from a tick. `slowness` is the ratio that the other classes show: what is seen of a class for the first
    /// time under load is that much too slow.
    pub(super) fn learn(&mut self, seen: &[Seen], seconds: f64, load: Load, slowness: f64) {
        for class in self.0.values_mut() {
            class.age += seconds;
            class.mix *= (-seconds / MIX_TAU).exp();
        }
        for seen in seen.iter().filter(|seen| seen.count > 0.0 && seen.mean > 0.0) {
            let first = Class {
                latency: seen.mean / slowness.max(1.0),
                samples: 0.0,
                age: 0.0,
                mix: 0.0,
            };
            let class = self.0.entry(seen.class).or_insert(first);
            class.learn(*seen, seconds, load);
        }
    }

    /// Lowers every baseline by a factor at once: that is what fewer calls in flight have shown.
    pub(super) fn lower(&mut self, factor: f64) {
        for class in self.0.values_mut() {
            class.latency *= factor.clamp(1e-3, 1.0);
        }
    }

    /// The service time of the present mix of classes in seconds; 0 while nothing is known.
    pub(super) fn service(&self) -> f64 {
        let (mut sum, mut weight) = (0.0, 0.0);
        for class in self.0.values() {
            // A little for classes without traffic of late, so that an idle target keeps its figure.
            let share = class.mix + 1e-6;
            sum += share * class.latency;
            weight += share;
        }
        if weight > 0.0 { sum / weight } else { 0.0 }
    }
}

impl Class {
    fn learn(&mut self, seen: Seen, seconds: f64, load: Load) {
        self.mix += seen.count;
        let young = self.age < YOUNG;
        let follow = 1.0 - (-seconds / if young { YOUNG_TAU } else { TAU }).exp();
        let change = seen.mean - self.latency;
        match load {
            Load::Idle => self.follow(seen, follow),
            Load::Used if young || change < 0.0 => self.follow(seen, follow),
            Load::Saturated if change < 0.0 => {
                let speed = if young { 1.0 } else { SATURATED_SPEED };
                self.latency += (speed * follow).min(1.0) * change.max(-SATURATED_STEP * self.latency);
            }
            Load::Used | Load::Saturated => {}
        }
        self.samples += seen.count;
    }

    fn follow(&mut self, seen: Seen, follow: f64) {
        let plain_mean = if self.samples < SEED_SAMPLES {
            seen.count / (self.samples + seen.count)
        } else {
            0.0
        };
        self.latency += follow.max(plain_mean) * (seen.mean - self.latency);
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small positive numbers of a test"
)]
mod tests {
    use super::*;

    fn seen(class: u8, mean: f64) -> [Seen; 1] {
        [Seen {
            class,
            count: 10.0,
            mean,
        }]
    }

    /// The baseline after `seconds` at `mean`, from 50 ms known for a minute.
    fn after(mean: f64, seconds: f64, load: Load) -> f64 {
        let mut baselines = Baselines::default();
        for _ in 0..600 {
            baselines.learn(&seen(0, 0.05), 0.1, Load::Idle, 1.0);
        }
        for _ in 0..(seconds * 10.0) as u32 {
            baselines.learn(&seen(0, mean), 0.1, load, 1.0);
        }
        baselines.get(0).unwrap() * 1000.0
    }

    #[test]
    fn only_an_idle_target_moves_a_baseline_up() {
        let cases = [
            (0.1, 30.0, Load::Idle, 81.6),
            (0.1, 30.0, Load::Used, 50.0),
            (0.1, 30.0, Load::Saturated, 50.0),
            (0.02, 30.0, Load::Idle, 31.0),
            (0.02, 30.0, Load::Used, 31.0),
        ];
        for (mean, seconds, load, wanted) in cases {
            let now = after(mean, seconds, load);
            assert!((now - wanted).abs() < 0.5, "{mean} {load:?}: {now}");
        }
        let now = after(0.02, 10.0, Load::Saturated);
        assert!((20.0..49.0).contains(&now), "down, but slowly: {now}");
    }

    #[test]
    fn a_slow_first_call_is_averaged_away() {
        let mut baselines = Baselines::default();
        let first = Seen {
            class: 0,
            count: 1.0,
            mean: 1.0,
        };
        baselines.learn(&[first], 0.1, Load::Used, 1.0);
        for _ in 0..30 {
            baselines.learn(&seen(0, 0.05), 0.1, Load::Used, 1.0);
        }
        assert!(baselines.get(0).unwrap() < 0.08);
    }

    #[test]
    fn a_class_that_is_new_under_load_is_not_believed() {
        let mut baselines = Baselines::default();
        baselines.learn(&seen(1, 0.6), 0.1, Load::Saturated, 3.0);
        assert!((baselines.get(1).unwrap() - 0.2).abs() < 1e-9);
    }

    #[test]
    fn the_service_time_follows_the_mix() {
        let mut baselines = Baselines::default();
        let mix = |slow: f64| {
            [
                Seen {
                    class: 0,
                    count: 10.0 - slow,
                    mean: 0.01,
                },
                Seen {
                    class: 1,
                    count: slow,
                    mean: 0.4,
                },
            ]
        };
        assert!(baselines.service() < f64::EPSILON);
        for _ in 0..100 {
            baselines.learn(&mix(1.0), 0.1, Load::Idle, 1.0);
        }
        assert!((baselines.service() - 0.049).abs() < 1e-3, "{}", baselines.service());
        for _ in 0..200 {
            baselines.learn(&mix(5.0), 0.1, Load::Idle, 1.0);
        }
        assert!((baselines.service() - 0.205).abs() < 5e-3, "{}", baselines.service());
        for _ in 0..3000 {
            baselines.learn(&[], 0.1, Load::Idle, 1.0);
        }
        assert!(baselines.service() > 0.01, "an idle target keeps a figure");
    }
}
