//! What bounds the work of one customer, installation or flow: how many run at once, and how often they start.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

/// At most so many at once.
///
/// Envelopes that share a `key` are counted together, over all targets and all processes on the store: what is leased
/// counts. **When it is full**, a call waits without holding up others of its customer, and goes on as soon as one of the
/// same key has ended; nothing is refused. What is only delivered to be closed does not count.
///
/// ```
/// use crosspoint_core::MaxInFlight;
/// let mut envelope = crosspoint_core::Envelope::service(
///     crosspoint_core::Invocation::new(
///         crosspoint_core::Meta::new(
///             crosspoint_core::InvocationId::mint(&crosspoint_core::SystemClock::new()),
///             "acme".parse()?,
///             "mail".parse()?,
///         ),
///         http::Request::new(bytes::Bytes::new()),
///     ),
///     crosspoint_core::Timestamp::from_millis(0),
/// );
/// envelope.bounds.push(MaxInFlight::new("customer:acme", 10));
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct MaxInFlight {
    /// What is counted together.
    pub key: Arc<str>,
    /// How many at once.
    pub max: NonZeroU32,
}

impl MaxInFlight {
    /// At most `max` of `key` at once; zero counts as one.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, max: u32) -> Self {
        Self {
            key: key.into(),
            max: NonZeroU32::new(max).unwrap_or(NonZeroU32::MIN),
        }
    }
}

/// At most so often: one start every `interval` in the long run, `burst` of them at once after a pause (the generic cell
/// rate algorithm of ITU-T I.371).
///
/// Envelopes that share a `key` are counted together, over all processes on the store. **When it is full**, a call gets the
/// next free moment when it is stored and is delayed until then, in the order of storing; nothing is refused. Further
/// attempts of one call are not counted.
///
/// ```
/// use crosspoint_core::Rate;
/// use std::time::Duration;
/// let ten_a_minute = Rate::new("flow:export", 10, Duration::from_secs(60));
/// assert_eq!(ten_a_minute.interval, Duration::from_secs(6));
/// assert_eq!(ten_a_minute.burst.get(), 10);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Rate {
    /// What is counted together.
    pub key: Arc<str>,
    /// From start to start, in the long run; whole milliseconds, at least one.
    pub interval: Duration,
    /// How many may start at once after a pause.
    pub burst: NonZeroU32,
}

impl Rate {
    /// `count` starts in every `time`, all of them at once if they come together. Zero counts as one.
    #[must_use]
    pub fn new(key: impl Into<Arc<str>>, count: u32, time: Duration) -> Self {
        let burst = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            key: key.into(),
            interval: (time / burst.get()).max(Duration::from_millis(1)),
            burst,
        }
    }

    /// With another burst; zero counts as one.
    #[must_use]
    pub const fn burst(mut self, burst: u32) -> Self {
        self.burst = match NonZeroU32::new(burst) {
            Some(burst) => burst,
            None => NonZeroU32::MIN,
        };
        self
    }

    /// For stores: when a call that is stored at `now` may start, and what to keep for the next one. Both are in
    /// milliseconds; `kept` is what the last call left.
    #[must_use]
    pub fn admit(&self, kept: Option<i64>, now: i64) -> (i64, i64) {
        let interval = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let tolerance = interval.saturating_mul(i64::from(self.burst.get()) - 1);
        let due = kept.unwrap_or(now).max(now);
        (due.saturating_sub(tolerance).max(now), due.saturating_add(interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_interval() {
        let rate = Rate::new("k", 3, Duration::from_secs(30));
        let mut kept = None;
        let mut starts = Vec::new();
        for _ in 0..6 {
            let (start, next) = rate.admit(kept, 1000);
            starts.push(start);
            kept = Some(next);
        }
        assert_eq!(starts, [1000, 1000, 1000, 11_000, 21_000, 31_000]);
    }

    #[test]
    fn a_long_pause_saves_up_one_burst_and_no_more() {
        let rate = Rate::new("k", 2, Duration::from_secs(2));
        let (_, kept) = rate.admit(None, 0);
        let late = 1_000_000;
        let (first, kept) = rate.admit(Some(kept), late);
        let (second, kept) = rate.admit(Some(kept), late);
        let (third, _) = rate.admit(Some(kept), late);
        assert_eq!((first, second, third), (late, late, late + 1000));
    }
}
