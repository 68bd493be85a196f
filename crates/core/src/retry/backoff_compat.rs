//! To and from the crate `backoff`, for hosts that still use it (feature `backoff`, off by default).
//!
//! Nothing of Crosspoint runs on that crate: it is unmaintained
//! ([RUSTSEC-2025-0012](https://rustsec.org/advisories/RUSTSEC-2025-0012)), and so is its dependency `instant`
//! ([RUSTSEC-2024-0384](https://rustsec.org/advisories/RUSTSEC-2024-0384)), by which it reads a clock that no test can
//! pause. This module makes both directions of a move: a host's `backoff::retry` can run on our policy, and its tuned
//! settings become one.

use super::{Jitter, RetryDelays, RetryPolicy, millis};
use backoff::{backoff::Backoff, exponential::ExponentialBackoff};
use std::time::Duration;

/// A [`RetryPolicy`] as a `backoff::backoff::Backoff`, from [`RetryPolicy::into_backoff`].
///
/// ```
/// use backoff::backoff::Backoff;
/// use crosspoint_core::{Jitter, RetryPolicy};
/// use std::time::Duration;
///
/// let mut waits = RetryPolicy::default().with_max_attempts(2).with_jitter(Jitter::None).into_backoff(7);
/// assert_eq!(waits.next_backoff(), Some(Duration::from_secs(1)));
/// assert_eq!(waits.next_backoff(), None);
/// ```
#[derive(Debug, Clone)]
pub struct PolicyBackoff(RetryDelays);

impl RetryPolicy {
    /// The policy in the terms of the crate `backoff`; jitter is drawn from `seed`.
    #[must_use]
    pub fn into_backoff(self, seed: u64) -> PolicyBackoff {
        PolicyBackoff(RetryDelays::new(self, seed))
    }
}

impl Backoff for PolicyBackoff {
    fn reset(&mut self) {
        self.0.reset();
    }

    fn next_backoff(&mut self) -> Option<Duration> {
        self.0.next_delay()
    }
}

/// Takes over initial and longest interval, multiplier and total time.
///
/// `backoff` does not count attempts, so the number stays open. Any randomisation becomes [`Jitter::Full`], which waits
/// half as long on average as one around the interval does. What lies outside of what [`RetryPolicy::validate`] accepts
/// becomes the nearest value that it does accept, and fractions of a millisecond are dropped.
///
/// ```
/// use crosspoint_core::RetryPolicy;
///
/// let policy = RetryPolicy::from(backoff::ExponentialBackoff::default());
/// assert_eq!((policy.initial_ms, policy.cap_ms, policy.total_ms), (500, 60_000, Some(900_000)));
/// assert!(policy.validate().is_ok());
/// ```
impl<C> From<ExponentialBackoff<C>> for RetryPolicy {
    fn from(settings: ExponentialBackoff<C>) -> Self {
        let initial_ms = millis(settings.initial_interval).max(1);
        let multiplier = if settings.multiplier.is_nan() {
            1.0
        } else {
            settings.multiplier
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "between 1 and 100; the last digits of a factor mean nothing"
        )]
        let factor = multiplier.clamp(1.0, 100.0) as f32;
        Self {
            max_attempts: u32::MAX,
            initial_ms,
            cap_ms: millis(settings.max_interval).max(initial_ms),
            factor,
            total_ms: settings.max_elapsed_time.map(|total| millis(total).max(1)),
            jitter: if settings.randomization_factor > 0.0 {
                Jitter::Full
            } else {
                Jitter::None
            },
            reset_after_ms: None,
        }
    }
}
