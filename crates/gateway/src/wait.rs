//! Waits that somebody else has chosen: any length is allowed, and none may overflow the clock.

use std::time::Duration;
use tokio::time::Instant;

/// Nothing here waits longer. A process lives less long, and the clock can count so far.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The moment `wait` after `start`, a year after it at most.
pub(crate) fn after(start: Instant, wait: Duration) -> Instant {
    start + wait.min(LONGEST)
}

/// The moment `wait` from now, in a year at most.
pub(crate) fn from_now(wait: Duration) -> Instant {
    after(Instant::now(), wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_kept_and_one_without_an_end_is_a_year() {
        let now = Instant::now();
        assert_eq!(from_now(Duration::from_secs(10)) - now, Duration::from_secs(10));
        assert_eq!(from_now(Duration::MAX) - now, LONGEST);
    }
}
