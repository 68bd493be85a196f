//! A policy that counts for itself.

use super::{RetryPolicy, mix};
use std::time::Duration;
use tokio::time::Instant;

/// The waits of one loop, from [`RetryPolicy::delays`].
///
/// It keeps count of the attempts and watches the total time on `tokio`'s clock. The first series gives the delays of
/// [`RetryPolicy::delay`] with the same seed; after a reset the jitter is drawn anew, still from that seed.
///
/// ```
/// use crosspoint_core::{Jitter, RetryPolicy};
/// use std::time::Duration;
///
/// let policy = RetryPolicy::default().with_max_attempts(3).with_jitter(Jitter::None);
/// let mut delays = policy.delays(7);
/// assert_eq!(delays.next_delay(), Some(Duration::from_secs(1)));
/// assert_eq!(delays.next_delay(), Some(Duration::from_secs(2)));
/// assert_eq!(delays.next_delay(), None);
///
/// delays.reset(); // an attempt succeeded
/// assert_eq!(delays.next_delay(), Some(Duration::from_secs(1)));
/// ```
#[derive(Debug, Clone)]
pub struct RetryDelays {
    policy: RetryPolicy,
    seed: u64,
    /// Attempts of this series that have failed.
    failed: u32,
    /// When the first attempt of this series was begun.
    first: Instant,
    /// When the attempt in hand was begun.
    begun: Instant,
}

impl RetryDelays {
    pub(super) fn new(policy: RetryPolicy, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            policy,
            seed,
            failed: 0,
            first: now,
            begun: now,
        }
    }

    /// Notes that the attempt in hand has failed: how long to wait before the next one, or `None` if there is none.
    ///
    /// The caller waits that long and begins the attempt. If an attempt then runs as long as
    /// [`RetryPolicy::reset_after_ms`] asks before it fails, the series starts again by itself, and its total time is
    /// counted from that failure.
    pub fn next_delay(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.policy.starts_again(now.saturating_duration_since(self.begun)) {
            self.restart(now);
        }
        let attempt = self.failed.saturating_add(1);
        let delay = self.policy.delay(self.seed, attempt)?;
        let since_first = now.saturating_duration_since(self.first).saturating_add(delay);
        if !self.policy.allows_after(since_first) {
            return None;
        }
        self.failed = attempt;
        self.begun = now.checked_add(delay).unwrap_or(now);
        Some(delay)
    }

    /// Starts again, because an attempt succeeded: the next failure is the first.
    pub fn reset(&mut self) {
        self.restart(Instant::now());
    }

    fn restart(&mut self, now: Instant) {
        if self.failed > 0 {
            self.seed = mix(self.seed);
        }
        self.failed = 0;
        self.first = now;
        self.begun = now;
    }
}

impl Iterator for RetryDelays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.next_delay()
    }
}
