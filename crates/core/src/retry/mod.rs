//! When work is tried again, and how much of that a process may do.
//!
//! An [`Error`] says *whether* another attempt can help ([`Retry`]). A [`RetryPolicy`] turns that verdict into a time
//! ([`Next`]) from nothing but its arguments, so that a worker that takes over a stored execution comes to the same
//! answer as the one that died. [`RetryDelays`] is the same policy for a loop that waits in place. A [`RetryBudget`] is
//! shared by everything that calls one target and keeps retries from multiplying an outage.
//!
//! The crate [`backon`] makes the exponential delays and stays out of the signatures. Its jitter adds up to one delay
//! on top; ours is drawn between nothing and the whole delay ("full jitter"), which spreads a herd wider.

#[cfg(feature = "backoff")]
mod backoff_compat;
mod budget;
mod delays;
#[cfg(test)]
mod tests;

#[cfg(feature = "backoff")]
pub use backoff_compat::PolicyBackoff;
pub use budget::{BudgetConfig, RetryBudget};
pub use delays::RetryDelays;

use crate::{Code, Error, Problem, Result, Retry, Timestamp};
use backon::BackoffBuilder;
use std::time::Duration;

/// Where an exponential series that has not reached its cap stops growing, so that no attempt number is slow to look up.
const GROWING_STEPS: u32 = 4096;

/// How often, and at which distances, failed work is tried again.
///
/// As JSON every duration is a whole number of milliseconds. Fields that are left out have their defaults: five
/// attempts, 1 s, 2 s, 4 s, … at most 5 min apart, full jitter, and none begun later than 24 h after the first.
///
/// ```
/// use crosspoint_core::{Jitter, RetryPolicy};
/// use std::time::Duration;
///
/// let policy: RetryPolicy = serde_json::from_str(r#"{ "max_attempts": 3, "jitter": "none" }"#).unwrap();
/// assert_eq!(policy, RetryPolicy::default().with_max_attempts(3).with_jitter(Jitter::None));
///
/// assert_eq!(policy.delay(0, 1), Some(Duration::from_secs(1)));
/// assert_eq!(policy.delay(0, 2), Some(Duration::from_secs(2)));
/// assert_eq!(policy.delay(0, 3), None, "the third attempt was the last");
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// How many attempts there are in all, the first one included; 1 means no retry.
    #[schemars(range(min = 1))]
    pub max_attempts: u32,
    /// Milliseconds to wait after the first failure, before jitter.
    #[schemars(range(min = 1))]
    pub initial_ms: u64,
    /// The longest wait between two attempts, in milliseconds. A provider's own `Retry-After` may be longer.
    #[schemars(range(min = 1))]
    pub cap_ms: u64,
    /// By what each wait is longer than the one before it.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub factor: f32,
    /// No attempt is begun later than this many milliseconds after the first; `null` for no such limit.
    #[schemars(range(min = 1))]
    pub total_ms: Option<u64>,
    /// How a wait is spread, so that work that failed together does not come back together.
    pub jitter: Jitter,
    /// An attempt that ran for this many milliseconds before it failed begins a new series: the count, the waits and the
    /// total time start again. For loops that keep something alive; `null` to never start again.
    #[schemars(range(min = 1))]
    pub reset_after_ms: Option<u64>,
}

/// How a delay is spread.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Jitter {
    /// Evenly between nothing and the whole delay.
    #[default]
    Full,
    /// Not at all.
    None,
}

/// What happens to work whose attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Next {
    /// Nothing: the same attempt would fail in the same way.
    Never,
    /// Nothing by itself: only a person can make another attempt worth it, by authorising the connection again. A service
    /// and a flow both end the work as failed; whoever reconnects runs it again.
    Reauthorize,
    /// Another attempt at this time.
    At(Timestamp),
    /// Nothing: another attempt might help, but the policy allows no more.
    Exhausted,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            initial_ms: 1000,
            cap_ms: 5 * 60 * 1000,
            factor: 2.0,
            total_ms: Some(24 * 60 * 60 * 1000),
            jitter: Jitter::Full,
            reset_after_ms: None,
        }
    }
}

impl RetryPolicy {
    /// One attempt and no more.
    #[must_use]
    pub fn never() -> Self {
        Self::default().with_max_attempts(1)
    }

    /// Sets how many attempts there are in all, the first one included.
    #[must_use]
    pub const fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets the wait after the first failure; fractions of a millisecond are dropped.
    #[must_use]
    pub fn with_initial(mut self, delay: Duration) -> Self {
        self.initial_ms = millis(delay);
        self
    }

    /// Sets the longest wait.
    #[must_use]
    pub fn with_cap(mut self, delay: Duration) -> Self {
        self.cap_ms = millis(delay);
        self
    }

    /// Sets by what each wait is longer than the one before it.
    #[must_use]
    pub const fn with_factor(mut self, factor: f32) -> Self {
        self.factor = factor;
        self
    }

    /// Sets how long after the first attempt a new one may still be begun; `None` for no such limit.
    #[must_use]
    pub fn with_total(mut self, total: Option<Duration>) -> Self {
        self.total_ms = total.map(millis);
        self
    }

    /// Sets how a wait is spread.
    #[must_use]
    pub const fn with_jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Sets how long an attempt must have run for its failure to begin a new series; `None` to never start again.
    #[must_use]
    pub fn with_reset_after(mut self, after: Option<Duration>) -> Self {
        self.reset_after_ms = after.map(millis);
        self
    }

    /// Checks that the settings make sense together. Nothing panics with those that do not, but the waits may surprise.
    ///
    /// ```
    /// use crosspoint_core::RetryPolicy;
    ///
    /// let error = RetryPolicy::default().with_max_attempts(0).with_factor(0.5).validate().unwrap_err();
    /// let pointers: Vec<_> = error.problems().iter().map(|problem| problem.pointer.as_str()).collect();
    /// assert_eq!(pointers, ["/max_attempts", "/factor"]);
    /// ```
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] with every problem, each with a JSON pointer to its field.
    pub fn validate(&self) -> Result<()> {
        let cap_too_low = format!("is at least initial_ms, which is {}", self.initial_ms);
        let checks = [
            (
                self.max_attempts >= 1,
                "/max_attempts",
                "is at least 1: the first attempt counts",
            ),
            (
                self.initial_ms >= 1,
                "/initial_ms",
                "is at least 1: without a wait a failing target is hammered",
            ),
            (self.cap_ms >= self.initial_ms.max(1), "/cap_ms", cap_too_low.as_str()),
            ((1.0..=100.0).contains(&self.factor), "/factor", "is between 1 and 100"),
            (
                self.total_ms != Some(0),
                "/total_ms",
                "is at least 1; for no retry set max_attempts to 1",
            ),
            (
                self.reset_after_ms != Some(0),
                "/reset_after_ms",
                "is at least 1: at 0 the attempts would never be used up",
            ),
        ];
        accept("the retry policy is not usable", &checks)
    }

    /// How long to wait after attempt number `attempt` (from 1) has failed; `None` if it was the last one.
    ///
    /// A pure function: the same policy, seed and attempt give the same delay in every process. A good seed for stored
    /// work is the random half of its id, `id.as_uuid().as_u64_pair().1`. The total time is not looked at here.
    ///
    /// ```
    /// use crosspoint_core::RetryPolicy;
    /// use std::time::Duration;
    ///
    /// let policy = RetryPolicy::default();
    /// let delay = policy.delay(7, 3).unwrap();
    /// assert!(delay <= Duration::from_secs(4));
    /// assert_eq!(policy.delay(7, 3), Some(delay));
    /// ```
    #[must_use]
    pub fn delay(&self, seed: u64, attempt: u32) -> Option<Duration> {
        if attempt >= self.max_attempts {
            return None;
        }
        let whole = millis(self.unspread(attempt));
        Some(Duration::from_millis(match self.jitter {
            Jitter::Full => spread(whole, mix(mix(seed) ^ u64::from(attempt))),
            Jitter::None => whole,
        }))
    }

    /// What happens after attempt number `attempt` (from 1) has failed with `verdict`; `first` is when the first attempt
    /// was begun.
    ///
    /// A time that lies ahead in [`Retry::At`] (a provider's `Retry-After`) replaces the computed delay, whether it is
    /// shorter or longer. The number of attempts and the total time hold for it as for any other.
    /// [`Next::Reauthorize`] comes back even after the last attempt: it is for a person and not for a timer.
    ///
    /// Who does not keep when the first attempt was begun passes the begin of this one for attempt 1, and the time of
    /// acceptance for later ones, so that a long wait in a queue never uses up the first retry.
    ///
    /// ```
    /// use crosspoint_core::{Retry, RetryPolicy, Timestamp, retry::Next};
    /// use std::time::Duration;
    ///
    /// let policy = RetryPolicy::default();
    /// let now: Timestamp = "2026-11-21T09:30:00Z".parse()?;
    ///
    /// let told = now.plus(Duration::from_secs(90));
    /// assert_eq!(policy.next(now, now, 1, Retry::At(told), 7), Next::At(told));
    /// assert_eq!(policy.next(now, now, 5, Retry::Backoff, 7), Next::Exhausted);
    /// assert_eq!(policy.next(now, now, 1, Retry::Never, 7), Next::Never);
    /// # Ok::<(), crosspoint_core::Error>(())
    /// ```
    #[must_use]
    pub fn next(&self, now: Timestamp, first: Timestamp, attempt: u32, verdict: Retry, seed: u64) -> Next {
        let told = match verdict {
            Retry::Never => return Next::Never,
            Retry::Reauthorize => return Next::Reauthorize,
            Retry::At(time) => Some(time).filter(|time| *time > now),
            Retry::Backoff => None,
        };
        let Some(delay) = self.delay(seed, attempt) else {
            return Next::Exhausted;
        };
        let at = told.unwrap_or_else(|| now.plus(delay));
        if self.allows_after(at.since(first)) {
            Next::At(at)
        } else {
            Next::Exhausted
        }
    }

    /// The same policy as a series for a loop that waits in place. The first attempt counts as begun now.
    #[must_use]
    pub fn delays(&self, seed: u64) -> RetryDelays {
        RetryDelays::new(self.clone(), seed)
    }

    /// Whether an attempt that ran for `ran` before it failed begins a new series ([`RetryPolicy::reset_after_ms`]).
    ///
    /// [`RetryDelays`] asks this by itself; whoever counts attempts elsewhere asks it before [`RetryPolicy::next`].
    #[must_use]
    pub fn starts_again(&self, ran: Duration) -> bool {
        self.reset_after_ms
            .is_some_and(|after| ran >= Duration::from_millis(after))
    }

    /// Whether an attempt may begin so long after the first one.
    fn allows_after(&self, since_first: Duration) -> bool {
        self.total_ms
            .is_none_or(|total| since_first <= Duration::from_millis(total))
    }

    /// The delay before jitter.
    fn unspread(&self, attempt: u32) -> Duration {
        let cap = Duration::from_millis(self.cap_ms);
        let mut series = backon::ExponentialBuilder::new()
            .with_factor(self.factor)
            .with_min_delay(Duration::from_millis(self.initial_ms).min(cap))
            .with_max_delay(cap)
            .without_max_times()
            .build();
        let mut longest = Duration::ZERO;
        for _ in 0..attempt.clamp(1, GROWING_STEPS) {
            match series.next() {
                Some(delay) if delay > longest => longest = delay,
                _ => break,
            }
        }
        longest
    }
}

/// An error that carries the message of every check that failed.
fn accept(what: &str, checks: &[(bool, &str, &str)]) -> Result<()> {
    let failed = checks.iter().filter(|(holds, ..)| !holds);
    let problems: Vec<_> = failed
        .map(|(_, pointer, message)| Problem::new(*pointer, *message))
        .collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::new(Code::SetupInvalid, what).with_problems(problems))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A number from 0 to `whole`, both included, chosen evenly by `random`.
fn spread(whole: u64, random: u64) -> u64 {
    u64::try_from((u128::from(random) * (u128::from(whole) + 1)) >> 64).unwrap_or(whole)
}

/// The output function of `SplitMix64`: neighbouring inputs give unrelated outputs.
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
