//! A limit does not float far above what was ever used.
//!
//! A limit that is too high protects nothing when the overload comes, and an initial value is a guess: a start at 200
//! cost six points of what a spike could have been answered before this.

/// How far above the most that was in flight, and what needs no proof.
const FACTOR: f64 = 2.0;
const UNPROVEN: f64 = 32.0;
/// How slowly the proof is forgotten, and how fast the limit comes down, in seconds.
const FORGET_TAU: f64 = 60.0;
const FALL_TAU: f64 = 2.0;
/// Not in the first seconds, while traffic only begins.
const GRACE: f64 = 10.0;

/// Follows the most that was in flight.
#[derive(Debug, Default)]
pub(super) struct Ceiling {
    peak: f64,
    age: f64,
}

impl Ceiling {
    /// The limit after `seconds` more, in which `in_flight` was the most that was seen.
    pub(super) fn apply(&mut self, limit: f64, in_flight: f64, seconds: f64) -> f64 {
        self.age += seconds;
        self.peak = (self.peak * (-seconds / FORGET_TAU).exp()).max(in_flight);
        let most = UNPROVEN.max(FACTOR * self.peak);
        if self.age <= GRACE || limit <= most {
            return limit;
        }
        limit - (limit - most) * (1.0 - (-seconds / FALL_TAU).exp())
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

    fn after(limit: f64, in_flight: f64, seconds: f64) -> f64 {
        let mut ceiling = Ceiling::default();
        (0..(seconds * 10.0) as u32).fold(limit, |limit, _| ceiling.apply(limit, in_flight, 0.1))
    }

    #[test]
    fn what_was_used_bounds_the_limit() {
        let cases = [
            (200.0, 8.0, 5.0, 200.0),
            (200.0, 8.0, 60.0, 32.0),
            (200.0, 60.0, 60.0, 120.0),
            (200.0, 150.0, 60.0, 200.0),
            (20.0, 0.0, 600.0, 20.0),
        ];
        for (limit, used, seconds, wanted) in cases {
            let now = after(limit, used, seconds);
            assert!((now - wanted).abs() < 0.5, "{limit} {used} {seconds}: {now}");
        }
    }
}
