//! What can be set about how a target is protected, with the defaults.

use super::{
    Limit,
    checks::{Checks, near},
};
use crate::millis;
use crosspoint_core::Result;
use std::time::Duration;

/// The bounds of a cool-off: without a pause a dead target is hammered.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(600);
/// Longer waits belong in the queue.
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

/// How a target is protected: how many calls run at once, when it is left alone, and who is kept waiting.
///
/// As JSON every duration is a whole number of milliseconds under a name that ends in `_ms`; what is left out has its
/// default.
///
/// ```
/// use crosspoint_gateway::{CoolOff, HoldOrder, Limit, Policy};
/// use std::time::Duration;
///
/// let policy = Policy::default()
///     .limit(Limit::Fixed(16))
///     .cool_off(CoolOff::default().most(Duration::from_secs(2)))
///     .hold(HoldOrder::Fifo);
/// policy.validate()?;
///
/// let same: Policy = serde_json::from_str(
///     r#"{ "limit": { "fixed": 16 }, "cool_off": { "most_ms": 2000 }, "hold": "fifo" }"#,
/// ).unwrap();
/// assert_eq!(policy, same);
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Policy {
    /// How many calls run at once. Default: learnt, by [`Knee`](super::Knee).
    pub limit: Limit,
    /// For how long a target that cannot be reached is left alone.
    pub cool_off: CoolOff,
    /// Which diverted calls are held, and in which order they are worked off. Default predictive.
    pub hold: HoldOrder,
    /// How long a call waits in memory for a permit before it is diverted to the queue. Default 100 ms; 0 diverts at
    /// once. Calls wait only while the target is in good order, nothing is queued, and no more wait than the limit.
    #[serde(rename = "patience_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub patience: Duration,
    /// Whether a target that is merely very slow (90 % of the calls of three windows beyond 3 times the baseline, more
    /// calls in flight bringing no throughput) is left alone like one that cannot be reached. Default false: the limit
    /// deals with it. The metric `crosspoint_dispatch_degraded` says it in either case.
    pub degraded_trips: bool,
    /// Fixes the jitter of cool-offs, for tests. Default: another one in each process.
    pub seed: Option<u64>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            limit: Limit::default(),
            cool_off: CoolOff::default(),
            hold: HoldOrder::default(),
            patience: Duration::from_millis(100),
            degraded_trips: false,
            seed: None,
        }
    }
}

impl Policy {
    /// For targets whose handler settles by itself (flows): 64 at once, and nobody waits in memory. Their own latency
    /// says nothing about overload.
    #[must_use]
    pub fn flows() -> Self {
        Self::default().limit(Limit::Fixed(64)).patience(Duration::ZERO)
    }

    /// Sets how many calls run at once.
    #[must_use]
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limit = limit;
        self
    }

    /// Sets for how long a target that cannot be reached is left alone.
    #[must_use]
    pub const fn cool_off(mut self, cool_off: CoolOff) -> Self {
        self.cool_off = cool_off;
        self
    }

    /// Sets which diverted calls are held, and in which order they are worked off.
    #[must_use]
    pub const fn hold(mut self, hold: HoldOrder) -> Self {
        self.hold = hold;
        self
    }

    /// Sets how long a call waits in memory before it is diverted.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets whether a target that is merely very slow is left alone.
    #[must_use]
    pub const fn degraded_trips(mut self, trips: bool) -> Self {
        self.degraded_trips = trips;
        self
    }

    /// Fixes the jitter, for tests.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks that the settings make sense together.
    ///
    /// ```
    /// use crosspoint_gateway::{Knee, Limit, Policy};
    /// use std::time::Duration;
    ///
    /// let policy = Policy::default().limit(Limit::Knee(Knee::default().initial(0))).patience(Duration::from_secs(90));
    /// let error = policy.validate().unwrap_err();
    /// let pointers: Vec<_> = error.problems().iter().map(|problem| problem.pointer.as_str()).collect();
    /// assert_eq!(pointers, ["/limit/knee/initial", "/patience_ms"]);
    /// ```
    ///
    /// # Errors
    /// [`Code::SetupInvalid`](crosspoint_core::Code::SetupInvalid) with every problem, each with a JSON pointer.
    pub fn validate(&self) -> Result<()> {
        let mut checks = Checks::default();
        self.limit.check(&mut checks, "/limit");
        self.cool_off.check(&mut checks, "/cool_off");
        checks.check(
            self.patience <= LONGEST_PATIENCE,
            "/patience_ms",
            "is at most 30000: longer waits belong in the queue",
        );
        checks.finish("the dispatch policy is not usable")
    }

    /// The nearest settings that make sense, for where no error can be returned.
    pub(crate) fn mended(mut self) -> Self {
        self.limit.mend();
        self.cool_off.mend();
        self.patience = self.patience.min(LONGEST_PATIENCE);
        self
    }
}

/// For how long a target that cannot be reached is left alone before the queue's drain tries it again.
///
/// The first time is short, each further one twice as long up to the longest; a minute of health forgets them. Source of
/// the figures: a simulation of flapping targets, in which a longest time of 4 s instead of 1 s cost 16 points of what
/// could be answered, and the first time made no difference between 0.1 and 0.5 s.
///
/// ```
/// use crosspoint_gateway::{CoolOff, Sticky};
/// use std::time::Duration;
///
/// // After one call found no permit, the next 100 calls or 2 s go to the queue.
/// let literal = CoolOff::default().sticky(Sticky::default().calls(100).time(Duration::from_secs(2)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CoolOff {
    /// After how many diverted calls it ends even if its time is not over. Default 1,000.
    #[schemars(range(min = 1))]
    pub calls: u32,
    /// How long the first one lasts, in milliseconds. Default 250 ms.
    #[serde(rename = "first_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub first: Duration,
    /// How long one lasts at most, in milliseconds before jitter. Default 1 s.
    #[serde(rename = "most_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub most: Duration,
    /// By which share of itself a time is longer or shorter, at random, so that processes do not try again together.
    /// Default 0.2.
    #[schemars(range(min = 0.0, max = 0.9))]
    pub jitter: f64,
    /// Cool off after a single call that found no permit, too. Default off, because it costs: the simulation lost 13
    /// points of what could be answered in a spike.
    pub sticky: Option<Sticky>,
}

impl Default for CoolOff {
    fn default() -> Self {
        Self {
            calls: 1000,
            first: Duration::from_millis(250),
            most: Duration::from_secs(1),
            jitter: 0.2,
            sticky: None,
        }
    }
}

impl CoolOff {
    /// Sets after how many diverted calls it ends.
    #[must_use]
    pub const fn calls(mut self, calls: u32) -> Self {
        self.calls = calls;
        self
    }

    /// Sets how long the first one lasts.
    #[must_use]
    pub const fn first(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    /// Sets how long one lasts at most.
    #[must_use]
    pub const fn most(mut self, most: Duration) -> Self {
        self.most = most;
        self
    }

    /// Sets by which share of itself a time varies.
    #[must_use]
    pub const fn jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// Cools off after a single saturated call, too.
    #[must_use]
    pub const fn sticky(mut self, sticky: Sticky) -> Self {
        self.sticky = Some(sticky);
        self
    }

    fn mend(&mut self) {
        self.calls = self.calls.max(1);
        self.first = self.first.clamp(SHORTEST, LONGEST);
        self.most = self.most.clamp(self.first, LONGEST);
        self.jitter = near(self.jitter, 0.0, 0.9, Self::default().jitter);
        if let Some(sticky) = &mut self.sticky {
            sticky.calls = sticky.calls.max(1);
            sticky.time = sticky.time.clamp(SHORTEST, LONGEST);
        }
    }

    fn check(&self, checks: &mut Checks, at: &str) {
        checks.check(self.calls >= 1, format!("{at}/calls"), "is at least 1");
        checks.check(
            self.first >= SHORTEST,
            format!("{at}/first_ms"),
            "is at least 1: without a pause a dead target is hammered",
        );
        checks.check(
            self.most >= self.first && self.most <= LONGEST,
            format!("{at}/most_ms"),
            "is at least first_ms and at most 600000",
        );
        checks.check(
            (0.0..=0.9).contains(&self.jitter),
            format!("{at}/jitter"),
            "is between 0 and 0.9",
        );
        if let Some(sticky) = self.sticky {
            checks.check(sticky.calls >= 1, format!("{at}/sticky/calls"), "is at least 1");
            checks.check(
                sticky.time >= SHORTEST && sticky.time <= LONGEST,
                format!("{at}/sticky/time_ms"),
                "is between 1 and 600000",
            );
        }
    }
}

/// The literal policy: after one call that found no permit, the next so many calls, or all calls for so long, go to the
/// queue; then straight back. The queue is drained meanwhile with all permits.
///
/// ```
/// use crosspoint_gateway::Sticky;
/// assert_eq!(Sticky::default().calls, 100);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Sticky {
    /// After how many diverted calls the direct way is open again. Default 100.
    #[schemars(range(min = 1))]
    pub calls: u32,
    /// After which time it is open again at the latest, in milliseconds. Default 1 s.
    #[serde(rename = "time_ms", with = "millis")]
    #[schemars(with = "u64")]
    pub time: Duration,
}

impl Default for Sticky {
    fn default() -> Self {
        Self {
            calls: 100,
            time: Duration::from_secs(1),
        }
    }
}

impl Sticky {
    /// Sets after how many diverted calls the direct way is open again.
    #[must_use]
    pub const fn calls(mut self, calls: u32) -> Self {
        self.calls = calls;
        self
    }

    /// Sets after which time it is open again.
    #[must_use]
    pub const fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }
}

/// Which diverted calls are held, and in which order they are worked off.
///
/// ```
/// use crosspoint_gateway::HoldOrder;
/// assert_eq!(serde_json::to_string(&HoldOrder::Lifo).unwrap(), r#""lifo""#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HoldOrder {
    /// In order, and only calls whose turn will come before their time is over; the others are answered 202 at once.
    #[default]
    Predictive,
    /// All, in order.
    Fifo,
    /// All, the newest first: after a spike fresh calls are quick again at once, older ones get 202.
    Lifo,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Aimd, Gradient2, Knee, LimitAlgorithm, Vegas, Window};

    #[test]
    fn what_makes_no_sense_is_mended_to_something_that_does() {
        let limits = [
            Limit::Fixed(0),
            Limit::Fixed(u32::MAX),
            Limit::Knee(
                Knee::default()
                    .initial(0)
                    .floor(9)
                    .ceiling(3)
                    .headroom(f64::NAN)
                    .growth(-1.0),
            ),
            Limit::Aimd(
                Aimd::default()
                    .up(f64::INFINITY)
                    .down(0.1)
                    .tolerance(f64::NAN)
                    .deviations(-3.0),
            ),
            Limit::Aimd(Aimd::default().down(f64::NAN)),
            Limit::Gradient2(Gradient2::default().tolerance(0.0).smoothing(f64::NAN).long(0)),
            Limit::Vegas(Vegas::default().probe_every(0).ceiling(u32::MAX)),
            Limit::custom(0, || Box::new(Broken)),
        ];
        let cool_offs = [
            CoolOff::default()
                .calls(0)
                .first(Duration::MAX)
                .most(Duration::ZERO)
                .jitter(1e300),
            CoolOff::default()
                .jitter(f64::NAN)
                .sticky(Sticky::default().calls(0).time(Duration::MAX)),
        ];
        for limit in limits {
            for cool_off in cool_offs {
                let policy = Policy::default()
                    .limit(limit.clone())
                    .cool_off(cool_off)
                    .patience(Duration::MAX);
                assert!(policy.validate().is_err(), "{policy:?}");
                let mended = policy.mended();
                assert!(mended.validate().is_ok(), "{mended:?}");
                assert_eq!(mended.clone().mended(), mended);
            }
        }
        let sound = Policy::default();
        assert_eq!(sound.clone().mended(), sound);
        let down = Policy::default().limit(Limit::Aimd(Aimd::default().down(0.1))).mended();
        assert_eq!(down.limit, Limit::Aimd(Aimd::default().down(0.5)), "the nearest");
    }

    #[derive(Debug)]
    struct Broken;

    impl LimitAlgorithm for Broken {
        fn update(&mut self, window: &Window) -> f64 {
            assert!(window.limit < 12.0, "of the host's making");
            window.limit + 1.0
        }
    }

    impl Drop for Broken {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "and this one too");
        }
    }

    #[test]
    fn a_custom_limit_that_panics_stays_where_it_was() {
        let mut algorithm = Limit::custom(10, || Box::new(Broken)).algorithm();
        let limits = [10.0, 11.0, 12.0, 13.0, 4.0].map(|limit| algorithm.update(&Window::new(limit)));
        assert_eq!(limits, [11.0, 12.0, 12.0, 13.0, 4.0]);
        let mut unmade = Limit::custom(10, || panic!("nothing comes of it")).algorithm();
        assert_eq!(unmade.update(&Window::new(10.0)), 10.0);
    }
}
