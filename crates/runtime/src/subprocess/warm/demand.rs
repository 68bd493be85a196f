//! How many interpreters one script needs: as many as it was started within a second lately.

use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// The runs of this time are counted together.
const SPAN: Duration = Duration::from_secs(1);

/// The highest count is forgotten after one to two of these.
const TURN: Duration = Duration::from_secs(30);

/// When a script was used.
#[derive(Debug)]
pub(super) struct Demand {
    /// The uses of the last span, the oldest first; no more than anybody cares for.
    recent: VecDeque<Instant>,
    last: Instant,
    /// It was used twice in a short time, and since then often enough.
    warm: bool,
    /// The most uses in a span, since the last turn and in the turn before.
    peaks: [usize; 2],
    turned: Instant,
}

impl Demand {
    /// Of a script that is used for the first time.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            recent: VecDeque::from([now]),
            last: now,
            warm: false,
            peaks: [1, 0],
            turned: now,
        }
    }

    /// It is used once more. Counts up to `most`.
    pub(super) fn used(&mut self, now: Instant, idle: Duration, most: usize) {
        self.warm = now.saturating_duration_since(self.last) < idle;
        self.last = now;
        self.turn(now);
        while self
            .recent
            .front()
            .is_some_and(|at| now.saturating_duration_since(*at) >= SPAN)
        {
            self.recent.pop_front();
        }
        if self.recent.len() >= most.max(1) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.peaks[0] = self.peaks[0].max(self.recent.len());
    }

    fn turn(&mut self, now: Instant) {
        let turns = now.saturating_duration_since(self.turned).as_secs() / TURN.as_secs();
        if turns > 0 {
            self.peaks = [0, if turns == 1 { self.peaks[0] } else { 0 }];
            self.turned = now;
        }
    }

    /// How many interpreters should wait.
    pub(super) fn wanted(&mut self, now: Instant, idle: Duration, most: usize) -> usize {
        if !self.warm || now.saturating_duration_since(self.last) >= idle {
            self.warm = false;
            return 0;
        }
        self.turn(now);
        self.peaks[0].max(self.peaks[1]).max(1).min(most)
    }

    /// Gets none until it is used again.
    pub(super) const fn forget(&mut self) {
        self.warm = false;
    }

    pub(super) const fn last(&self) -> Instant {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn the_second_use_in_a_short_time_makes_it_warm() {
        let mut demand = Demand::new(Instant::now());
        let wanted = |demand: &mut Demand| demand.wanted(Instant::now(), IDLE, 8);
        assert_eq!(wanted(&mut demand), 0);
        advance(IDLE).await;
        demand.used(Instant::now(), IDLE, 8);
        assert_eq!(wanted(&mut demand), 0, "too long ago");
        advance(IDLE - Duration::from_secs(1)).await;
        demand.used(Instant::now(), IDLE, 8);
        assert_eq!(wanted(&mut demand), 1);
        advance(IDLE).await;
        assert_eq!(wanted(&mut demand), 0, "idle");
    }

    #[tokio::test(start_paused = true)]
    async fn it_gets_as_many_as_were_started_within_a_second() {
        let mut demand = Demand::new(Instant::now());
        for _ in 0..100 {
            advance(Duration::from_millis(200)).await;
            demand.used(Instant::now(), IDLE, 8);
        }
        assert_eq!(demand.wanted(Instant::now(), IDLE, 8), 5);
        for _ in 0..100 {
            demand.used(Instant::now(), IDLE, 8);
        }
        assert_eq!(demand.wanted(Instant::now(), IDLE, 8), 8, "never more than the most");
        assert!(demand.recent.len() <= 8);
        advance(TURN).await;
        demand.used(Instant::now(), IDLE, 8);
        assert_eq!(
            demand.wanted(Instant::now(), IDLE, 8),
            8,
            "the peak is not forgotten at once"
        );
        advance(TURN).await;
        demand.used(Instant::now(), IDLE, 8);
        assert_eq!(demand.wanted(Instant::now(), IDLE, 8), 1);
        assert_eq!(demand.wanted(Instant::now(), IDLE, 0), 0);
    }
}
