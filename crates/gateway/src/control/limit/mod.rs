//! How many calls may run at once: the algorithms, and what can be set about them.
//!
//! An algorithm is given one [`Window`] after another and answers with the limit. What it is fed matters more than the
//! formula: the window's ratio is the *median* of latency over the baseline of the call's own route class, so that
//! neither a shift towards slow routes nor one cold replica reads as overload.

/// The setters that all learnt limits have in common; [`check_bounds`] is their check.
macro_rules! set_bounds {
    ($limit:ty) => {
        impl $limit {
            /// Sets how many calls run at once before anything is known.
            #[must_use]
            pub const fn initial(mut self, calls: u32) -> Self {
                self.initial = calls;
                self
            }

            /// Sets the smallest limit.
            #[must_use]
            pub const fn floor(mut self, calls: u32) -> Self {
                self.floor = calls;
                self
            }

            /// Sets the largest limit.
            #[must_use]
            pub const fn ceiling(mut self, calls: u32) -> Self {
                self.ceiling = calls;
                self
            }
        }
    };
}
use set_bounds;

mod aimd;
mod custom;
mod filter;
mod fixed;
mod futility;
mod gradient2;
mod knee;
mod vegas;
mod window;

pub use aimd::Aimd;
pub use custom::Custom;
pub use gradient2::Gradient2;
pub use knee::Knee;
pub use vegas::Vegas;
pub use window::Window;

use super::checks::Checks;
use crate::gate::MAX_LIMIT as MOST;
use std::fmt::Debug;

/// Where limits begin that are learnt, and what they do not leave. Beginning at 20, a quiet target whose calls turned slow
/// was diverted from before that was found to be too low; from 200, one slow customer holds up the others.
const INITIAL: u32 = 28;
const FLOOR: u32 = 2;
const CEILING: u32 = 1000;

/// Decides how many calls may run at once.
///
/// ```
/// use crosspoint_gateway::{Limit, LimitAlgorithm, Window};
///
/// /// One more while it is quick, half of it once it is not.
/// #[derive(Debug)]
/// struct Halving;
///
/// impl LimitAlgorithm for Halving {
///     fn update(&mut self, window: &Window) -> f64 {
///         match window.ratio {
///             slow if slow > 2.0 => window.limit / 2.0,
///             _ if window.saturated => window.limit + 1.0,
///             _ => window.limit,
///         }
///     }
/// }
///
/// let limit = Limit::custom(10, || Box::new(Halving));
/// ```
///
/// An algorithm that panics is not asked again: the limit stays where it was, and the log says so.
#[diagnostic::on_unimplemented(message = "`{Self}` does not decide a concurrency limit")]
pub trait LimitAlgorithm: Send + Debug {
    /// The limit from now on. It may have a fraction; what counts is its whole part, and never less than 1. The fraction
    /// comes back as [`Window::limit`], so that small steps add up.
    fn update(&mut self, window: &Window) -> f64;
}

/// How the number of concurrent calls to a target is chosen.
///
/// As JSON: `{"knee": {}}`, `{"aimd": {"initial": 30}}`, `{"fixed": 16}`. Default: [`Knee`].
///
/// ```
/// use crosspoint_gateway::{Knee, Limit};
/// let learnt = Limit::Knee(Knee::default().initial(32).ceiling(400));
/// let known: Limit = serde_json::from_str(r#"{ "fixed": 16 }"#).unwrap();
/// assert_eq!(known, Limit::Fixed(16));
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Limit {
    /// Learnt from latency, with a test whether cutting helps. The default.
    Knee(Knee),
    /// Learnt from latency: small steps up, larger ones down.
    Aimd(Aimd),
    /// Always this many calls at once, however slow they are. At least 1.
    Fixed(u32),
    /// Learnt by Netflix's second gradient, on class ratios.
    Gradient2(Gradient2),
    /// Learnt as TCP Vegas does, on class ratios.
    Vegas(Vegas),
    /// Your own.
    #[serde(skip)]
    Custom(Custom),
}

impl Default for Limit {
    fn default() -> Self {
        Self::Knee(Knee::default())
    }
}

impl Limit {
    /// A limit that starts at `initial` and follows an algorithm of your own; a new one is made for each target.
    pub fn custom(initial: u32, make: impl Fn() -> Box<dyn LimitAlgorithm> + Send + Sync + 'static) -> Self {
        Self::Custom(Custom::new(initial, make))
    }

    /// The limit before anything is known.
    #[must_use]
    pub const fn initial(&self) -> u32 {
        let initial = match self {
            Self::Knee(knee) => knee.initial,
            Self::Aimd(aimd) => aimd.initial,
            Self::Fixed(limit) => *limit,
            Self::Gradient2(gradient) => gradient.initial,
            Self::Vegas(vegas) => vegas.initial,
            Self::Custom(custom) => custom.initial,
        };
        if initial == 0 { 1 } else { initial }
    }

    /// Between which values the limit stays, whatever the algorithm says.
    pub(crate) fn bounds(&self) -> (f64, f64) {
        let (floor, ceiling) = match self {
            Self::Knee(knee) => (knee.floor, knee.ceiling),
            Self::Aimd(aimd) => (aimd.floor, aimd.ceiling),
            Self::Fixed(limit) => (*limit, *limit),
            Self::Gradient2(gradient) => (gradient.floor, gradient.ceiling),
            Self::Vegas(vegas) => (vegas.floor, vegas.ceiling),
            Self::Custom(_) => (1, MOST),
        };
        let floor = floor.clamp(1, MOST);
        (f64::from(floor), f64::from(ceiling.clamp(floor, MOST)))
    }

    /// Whether the limit is learnt at all.
    pub(crate) const fn is_learnt(&self) -> bool {
        !matches!(self, Self::Fixed(_))
    }

    pub(crate) fn algorithm(&self) -> Box<dyn LimitAlgorithm> {
        match self {
            Self::Knee(knee) => Box::new(knee::Learner::new(knee.clone())),
            Self::Aimd(aimd) => Box::new(aimd::Learner::new(aimd.clone())),
            Self::Fixed(limit) => Box::new(fixed::Constant(f64::from(*limit))),
            Self::Gradient2(gradient) => Box::new(gradient2::Learner::new(gradient.clone())),
            Self::Vegas(vegas) => Box::new(vegas::Learner::new(vegas.clone())),
            Self::Custom(custom) => Box::new(custom::Guarded::new(custom)),
        }
    }

    /// Takes the nearest settings that make sense.
    pub(crate) fn mend(&mut self) {
        match self {
            Self::Knee(knee) => knee.mend(),
            Self::Aimd(aimd) => aimd.mend(),
            Self::Fixed(limit) => *limit = (*limit).clamp(1, MOST),
            Self::Gradient2(gradient) => gradient.mend(),
            Self::Vegas(vegas) => vegas.mend(),
            Self::Custom(custom) => custom.initial = custom.initial.clamp(1, MOST),
        }
    }

    pub(crate) fn check(&self, checks: &mut Checks, at: &str) {
        match self {
            Self::Knee(knee) => knee.check(checks, &format!("{at}/knee")),
            Self::Aimd(aimd) => aimd.check(checks, &format!("{at}/aimd")),
            Self::Fixed(limit) => checks.check(
                (1..=MOST).contains(limit),
                format!("{at}/fixed"),
                "is between 1 and 262143",
            ),
            Self::Gradient2(gradient) => gradient.check(checks, &format!("{at}/gradient2")),
            Self::Vegas(vegas) => vegas.check(checks, &format!("{at}/vegas")),
            Self::Custom(custom) => checks.check(
                (1..=MOST).contains(&custom.initial),
                at.to_owned(),
                "a custom limit starts between 1 and 262143",
            ),
        }
    }
}

/// The nearest bounds that make sense.
fn mend_bounds(initial: &mut u32, floor: &mut u32, ceiling: &mut u32) {
    *floor = (*floor).clamp(1, MOST);
    *ceiling = (*ceiling).clamp(*floor, MOST);
    *initial = (*initial).clamp(*floor, *ceiling);
}

/// What all learnt limits have in common.
fn check_bounds(checks: &mut Checks, at: &str, initial: u32, floor: u32, ceiling: u32) {
    checks.check(floor >= 1, format!("{at}/floor"), "is at least 1");
    checks.check(
        ceiling >= floor && ceiling <= MOST,
        format!("{at}/ceiling"),
        "is at least floor and at most 262143",
    );
    checks.check(
        initial >= floor && initial <= ceiling,
        format!("{at}/initial"),
        "is between floor and ceiling",
    );
}
