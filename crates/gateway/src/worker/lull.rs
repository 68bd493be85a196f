//! The drain's own rest, where the gate orders none.
//!
//! A cool-off that leaves the queue's way open ([`Sticky`](crate::Sticky)) is that of a target in good order. If the target
//! is gone all the same, nothing closes the gate until the cool-off is over: the drain notices by itself, and asks again
//! after longer and longer pauses.

use super::attempt::refusal_pause;
use crate::wait::after;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// The longest pause: as long the drain may take to notice that the target is back.
const LONGEST: Duration = Duration::from_secs(5);

/// When a target's queues are drained again.
#[derive(Debug, Default)]
pub(crate) struct Lull(Mutex<Rest>);

#[derive(Debug, Default, Clone, Copy)]
struct Rest {
    refused: u32,
    until: Option<Instant>,
}

impl Lull {
    /// A call was not begun: begins a lull, longer than the last. Those that were under way with it change nothing.
    pub(super) fn refused(&self) {
        let now = Instant::now();
        let mut rest = self.lock();
        if rest.until.is_none_or(|until| until <= now) {
            rest.until = Some(after(now, refusal_pause(rest.refused).min(LONGEST)));
            rest.refused = rest.refused.saturating_add(1);
        }
    }

    /// A call was begun, so calls can be.
    pub(super) fn end(&self) {
        *self.lock() = Rest::default();
    }

    /// Resolves when queued work may be asked for; at once unless there is a lull.
    pub(super) async fn over(&self) {
        while let Some(until) = self.until() {
            sleep_until(until).await;
        }
    }

    /// The end of the present lull.
    fn until(&self) -> Option<Instant> {
        self.lock().until.filter(|until| *until > Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_lull_is_longer_than_the_last_up_to_a_limit() {
        let lull = Lull::default();
        let mut last = Duration::ZERO;
        for _ in 0..30 {
            let began = Instant::now();
            lull.refused();
            lull.refused();
            lull.over().await;
            let took = began.elapsed();
            assert!(took > last || took == LONGEST, "{took:?} after {last:?}");
            last = took;
        }
        assert_eq!(last, LONGEST);
        lull.end();
        let began = Instant::now();
        lull.over().await;
        assert_eq!(began.elapsed(), Duration::ZERO);
        lull.refused();
        lull.over().await;
        assert_eq!(began.elapsed(), refusal_pause(0), "it begins anew");
    }
}
