//! A shared limit on retries, so that they cannot multiply the load on a target that is already failing.

use super::accept;
use crate::Result;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Credit is counted in thousandths of a retry.
const RETRY: u32 = 1000;
/// Credit fades once per this part of the time to live.
const STEPS: u32 = 16;
/// After so many steps not a thousandth of the largest credit is left.
const FADED: u32 = 400;

/// How many retries a [`RetryBudget`] allows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BudgetConfig {
    /// Retries allowed for every hundred ordinary calls; 0 to allow only `min_per_sec`.
    #[schemars(range(max = 1000))]
    pub percent: u32,
    /// Retries per second that are allowed besides, so that a process with few calls can retry at all.
    pub min_per_sec: u32,
    /// How long unused credit lasts, in milliseconds. It fades: after one such time about a third of it is left, after
    /// three a twentieth.
    #[schemars(range(min = 1000, max = 600_000))]
    pub ttl_ms: u64,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            percent: 20,
            min_per_sec: 10,
            ttl_ms: 10_000,
        }
    }
}

impl BudgetConfig {
    /// Sets the retries allowed for every hundred ordinary calls.
    #[must_use]
    pub const fn with_percent(mut self, percent: u32) -> Self {
        self.percent = percent;
        self
    }

    /// Sets the retries per second that are allowed besides.
    #[must_use]
    pub const fn with_min_per_sec(mut self, retries: u32) -> Self {
        self.min_per_sec = retries;
        self
    }

    /// Sets how long unused credit lasts.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl_ms = super::millis(ttl);
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`](crate::Code::SetupInvalid) with every problem.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            (
                self.percent <= 1000,
                "/percent",
                "is at most 1000: ten retries for every call",
            ),
            (
                (1000..=600_000).contains(&self.ttl_ms),
                "/ttl_ms",
                "is between 1000 (1 s) and 600000 (10 min)",
            ),
        ];
        accept("the retry budget is not usable", &checks)
    }
}

/// A budget for retries, shared by everything that calls one target: ordinary calls pay in, retries draw out.
///
/// Without it, five attempts turn an outage into five times the load. With it, retries are at most `percent` of the
/// calls and `min_per_sec` besides. A clone is the same budget.
///
/// # Invariant
/// The credit is never negative, however many threads draw at once. Therefore, over any stretch of time (rounded up to
/// sixteenths of `ttl`), `retries ≤ credit at its beginning + percent/100 × calls + min_per_sec × seconds`. A budget
/// begins with the credit of `min_per_sec × ttl`, so that at any moment of its life, without rounding,
/// `retries ≤ percent/100 × calls + min_per_sec × (ttl + seconds)`.
/// In quiet times the credit settles at what `ttl` seconds of the present traffic pay in; it is capped at about four
/// million retries.
///
/// ```
/// use crosspoint_core::{RetryBudget, retry::BudgetConfig};
///
/// let budget = RetryBudget::new(&BudgetConfig::default().with_percent(50).with_min_per_sec(0))?;
/// budget.deposit();
/// assert!(!budget.withdraw(), "half a retry is none");
/// budget.deposit();
/// assert!(budget.withdraw());
/// assert!(!budget.withdraw());
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Clone)]
pub struct RetryBudget(Arc<Bucket>);

struct Bucket {
    config: BudgetConfig,
    /// Credit of one ordinary call.
    call: u32,
    /// Credit that every step brings.
    step_credit: u32,
    /// Length of a step.
    step_ms: u64,
    origin: Instant,
    /// Step of the last change (upper half) and the credit then (lower half): one word, so that ageing and drawing are
    /// one atomic change. No other memory hangs on it, hence `Relaxed`.
    word: AtomicU64,
}

impl RetryBudget {
    /// A new budget that begins with the credit of `min_per_sec` for one time to live.
    ///
    /// # Errors
    /// What [`BudgetConfig::validate`] finds.
    pub fn new(config: &BudgetConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self(Arc::new(Bucket::new(config.clone()))))
    }

    /// Pays in for one ordinary call: a first attempt, whatever becomes of it.
    pub fn deposit(&self) {
        self.0.change(|credit| Some(credit.saturating_add(self.0.call)));
    }

    /// Draws one retry; `false` means that it must not be made now.
    #[must_use = "`false` means that the retry must not be made"]
    pub fn withdraw(&self) -> bool {
        self.0.change(|credit| credit.checked_sub(RETRY))
    }

    /// How many retries could be drawn at this moment.
    #[must_use]
    pub fn balance(&self) -> u32 {
        self.0.credit(self.0.word.load(Ordering::Relaxed), self.0.step()) / RETRY
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self(Arc::new(Bucket::new(BudgetConfig::default())))
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget")
            .field("config", &self.0.config)
            .field("balance", &self.balance())
            .finish()
    }
}

impl Bucket {
    fn new(config: BudgetConfig) -> Self {
        let step_ms = (config.ttl_ms / u64::from(STEPS)).max(1);
        // A retry per second is a thousandth of a retry, our unit, per millisecond.
        let step_credit = u32::try_from(step_ms.saturating_mul(u64::from(config.min_per_sec))).unwrap_or(u32::MAX);
        Self {
            call: config.percent.saturating_mul(RETRY / 100),
            step_credit,
            step_ms,
            origin: Instant::now(),
            word: AtomicU64::new(pack(0, step_credit.saturating_mul(STEPS))),
            config,
        }
    }

    /// The number of the present step. It wraps round, after eight years at the soonest.
    fn step(&self) -> u32 {
        let steps = self.origin.elapsed().as_millis() / u128::from(self.step_ms);
        u32::try_from(steps % (1 << 32)).unwrap_or(0)
    }

    /// Ages the credit to now and changes it, unless `by` refuses.
    fn change(&self, by: impl Fn(u32) -> Option<u32>) -> bool {
        let now = self.step();
        let change = |word| Some(pack(later(unpack(word).0, now), by(self.credit(word, now))?));
        self.word
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
            .is_ok()
    }

    /// What is left of a credit at step `now`: each step takes a sixteenth of it and brings `step_credit`, so that an
    /// unused one settles at `STEPS * step_credit`.
    fn credit(&self, word: u64, now: u32) -> u32 {
        let (step, mut credit) = unpack(word);
        let passed = later(step, now).wrapping_sub(step);
        if passed >= FADED {
            return self.step_credit.saturating_mul(STEPS);
        }
        for _ in 0..passed {
            credit = (credit - credit / STEPS).saturating_add(self.step_credit);
        }
        credit
    }
}

/// The later of two step numbers that may have wrapped: a thread that read the clock before another one changed the word
/// must not turn its time back.
const fn later(step: u32, now: u32) -> u32 {
    if now.wrapping_sub(step) <= u32::MAX / 2 {
        now
    } else {
        step
    }
}

const fn pack(step: u32, credit: u32) -> u64 {
    ((step as u64) << 32) | credit as u64
}

const fn unpack(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}
