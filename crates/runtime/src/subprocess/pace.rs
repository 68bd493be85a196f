//! How fast a run's pipes are read, so that a flood does not take the host's threads.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// So much of a pipe is read in a [`TICK`]; who writes more waits for the rest of it. That is 50 MiB a second.
pub(super) const SHARE: usize = 512 * 1024;
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The pace of one reader.
#[derive(Debug)]
pub(super) struct Pace {
    tick: Instant,
    taken: usize,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            tick: Instant::now(),
            taken: 0,
        }
    }

    /// So many bytes were read, or as much work done as so many make. Waits if that was more than a share.
    pub(super) async fn took(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
        let end = self.tick + TICK;
        if self.taken >= SHARE {
            sleep_until(end).await;
        }
        let now = Instant::now();
        if now >= end {
            (self.tick, self.taken) = (now, 0);
        }
    }
}
