//! What starts a flow.

use crate::{Data, Timestamp};
use std::{borrow::Cow, marker::PhantomData};

/// Something that happens in the host and that flows can react to.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    note = "implement `Event` with a name such as `order.created`"
)]
pub trait Event: Data {
    /// Its name, such as `order.created`.
    const NAME: &'static str;
}

/// The input of a flow that runs on a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct Tick {
    /// The time for which it was scheduled (not the time it ran).
    pub scheduled: Timestamp,
}

impl Tick {
    /// The tick for a time.
    #[must_use]
    pub const fn new(scheduled: Timestamp) -> Self {
        Self { scheduled }
    }
}

/// What happens to ticks that nobody could fire in time, because no scheduler was running.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Missed {
    /// One execution for all of them.
    #[default]
    FireOnce,
    /// None.
    Skip,
}

/// What happens to a tick while an execution of the same flow has not ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Overlap {
    /// At most one waits behind the one that runs.
    #[default]
    CoalesceOne,
    /// It is dropped.
    Skip,
    /// It starts all the same.
    Allow,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ScheduleSpec {
    /// A cron expression of five fields, or of six with seconds first.
    pub cron: String,
    /// IANA time zone; UTC unless given.
    #[serde(default = "utc")]
    pub timezone: String,
    /// Ticks are delayed by a stable amount below this, different for each installation, in milliseconds.
    #[serde(default)]
    pub jitter_ms: u64,
    /// Ticks that nobody could fire in time.
    #[serde(default)]
    pub missed: Missed,
    /// Ticks while an execution has not ended.
    #[serde(default)]
    pub overlap: Overlap,
}

fn utc() -> String {
    "UTC".to_owned()
}

impl ScheduleSpec {
    /// A cron expression in UTC.
    #[must_use]
    pub fn cron(expression: impl Into<String>) -> Self {
        Self {
            cron: expression.into(),
            timezone: utc(),
            jitter_ms: 0,
            missed: Missed::default(),
            overlap: Overlap::default(),
        }
    }
    /// In this IANA time zone.
    #[must_use]
    pub fn timezone(mut self, zone: impl Into<String>) -> Self {
        self.timezone = zone.into();
        self
    }
    /// What happens to ticks while an execution has not ended.
    #[must_use]
    pub const fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }
    /// What happens to ticks that nobody could fire in time.
    #[must_use]
    pub const fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }
}

impl From<&str> for ScheduleSpec {
    fn from(expression: &str) -> Self {
        Self::cron(expression)
    }
}

/// What starts a flow, as the registry holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// An event of the host, by name.
    Event(Cow<'static, str>),
    /// A schedule.
    Schedule(ScheduleSpec),
    /// Somebody calls it: through the API, or by hand in the marketplace.
    Call,
}

/// What starts a flow; `I` is the input that it brings.
///
/// ```
/// use crosspoint_core::{ScheduleSpec, Trigger};
/// let nightly = Trigger::schedule("0 3 * * *");
/// let in_berlin = Trigger::schedule(ScheduleSpec::cron("0 3 * * *").timezone("Europe/Berlin"));
/// let by_hand = Trigger::call::<String>();
/// ```
#[derive(Debug, Clone)]
pub struct Trigger<I = ()> {
    source: Source,
    input: PhantomData<fn() -> I>,
}

impl Trigger {
    /// Runs whenever the host emits `E`.
    #[must_use]
    pub fn event<E: Event>() -> Trigger<E> {
        Trigger::of(Source::Event(Cow::Borrowed(E::NAME)))
    }

    /// Runs on a schedule.
    #[must_use]
    pub fn schedule(spec: impl Into<ScheduleSpec>) -> Trigger<Tick> {
        Trigger::of(Source::Schedule(spec.into()))
    }

    /// Runs when somebody calls it.
    #[must_use]
    pub fn call<I: Data>() -> Trigger<I> {
        Trigger::of(Source::Call)
    }
}

impl<I> Trigger<I> {
    const fn of(source: Source) -> Self {
        Self {
            source,
            input: PhantomData,
        }
    }

    pub(crate) fn into_source(self) -> Source {
        self.source
    }
}
