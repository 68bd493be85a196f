//! What an algorithm sees.

use std::time::Duration;

/// What happened at a target since the last window: enough completions to say something (at least 10), or one second.
///
/// Calls of an earlier state of the gate, failed and cancelled calls, and calls of customers that are far slower than
/// the others are no samples.
///
/// ```
/// use crosspoint_gateway::Window;
/// let mut window = Window::new(20.0);
/// window.ratio = 1.4;
/// window.saturated = true;
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Window {
    /// How long the window lasted.
    pub elapsed: Duration,
    /// How many calls were measured.
    pub samples: u64,
    /// The limit now, as the last update left it, after floor and ceiling.
    pub limit: f64,
    /// Mean latency of the samples.
    pub latency: Duration,
    /// Median over all route classes of latency / baseline of the class, divided by what that median is while the target
    /// is not loaded: 1 means as quick as ever, 2 twice as slow.
    pub ratio: f64,
    /// Calls in flight on average.
    pub in_flight: f64,
    /// The most calls that were seen in flight.
    pub peak: u32,
    /// Calls that were answered, per second.
    pub throughput: f64,
    /// Whether permits ran out: the limit held somebody back. Only then is there reason to raise it.
    pub saturated: bool,
    /// Whether the target itself refused calls again and again.
    pub refused: bool,
    /// Whether this is the first window after a start or a cool-off: what was remembered of earlier ones is stale.
    pub fresh: bool,
}

impl Window {
    /// A quiet window of 100 ms without calls, under a limit. For tests of algorithms.
    #[must_use]
    pub const fn new(limit: f64) -> Self {
        Self {
            elapsed: Duration::from_millis(100),
            samples: 0,
            limit,
            latency: Duration::ZERO,
            ratio: 1.0,
            in_flight: 0.0,
            peak: 0,
            throughput: 0.0,
            saturated: false,
            refused: false,
            fresh: false,
        }
    }

    /// Whether enough of the limit is used for the ratio to say something about it.
    pub(super) fn is_used(&self) -> bool {
        self.saturated || self.in_flight >= self.limit / 2.0
    }
}
