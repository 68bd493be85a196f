//! What starts a flow.

use crate::{Data, Timestamp};
use std::{borrow::Cow, marker::PhantomData, time::Duration};

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
///
/// A schedule that is paused, by itself or with its installation, misses nothing: it has no ticks meanwhile.
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
    /// One execution for each, in order; of more than `max` the newest.
    FireAll {
        /// How many at most.
        max: u16,
    },
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
    /// It starts all the same unless `max` executions have not ended; then it is dropped.
    AtMost {
        /// How many at once.
        max: u16,
    },
    /// It waits its turn: executions run one after the other. When `max` wait already, it is dropped.
    Queue {
        /// How many may wait.
        max: u16,
    },
    /// Those that have not ended are cancelled, then it starts.
    Replace,
}

/// When a schedule ticks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ticks {
    /// By a cron expression of five fields, or of six with seconds first.
    Cron {
        /// The expression.
        expression: String,
        /// An IANA time zone.
        timezone: String,
    },
    /// Whenever this much time has passed, counted from 1970-01-01T00:00:00Z: every 15 minutes means on the quarter hour,
    /// in every process and after every restart. At least a second.
    Every(Duration),
}

/// A schedule.
///
/// ```
/// use crosspoint_core::{Missed, Overlap, ScheduleSpec};
/// use std::time::Duration;
/// let nightly = ScheduleSpec::cron("0 3 * * *").timezone("Europe/Berlin").missed(Missed::Skip);
/// let often = ScheduleSpec::every(Duration::from_secs(300)).jitter(Duration::from_secs(60)).overlap(Overlap::Skip);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(try_from = "Written", into = "Written")]
#[schemars(with = "Written", rename = "ScheduleSpec")]
#[non_exhaustive]
pub struct ScheduleSpec {
    /// When it ticks.
    pub ticks: Ticks,
    /// Ticks are delayed by a stable amount below this, different for each installation, in milliseconds.
    pub jitter_ms: u64,
    /// Ticks that nobody could fire in time.
    pub missed: Missed,
    /// Ticks while an execution has not ended.
    pub overlap: Overlap,
}

/// A schedule: either `cron` (with `timezone`) or `every_ms`.
#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// A cron expression of five fields, or of six with seconds first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    /// IANA time zone of the cron expression; UTC unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timezone: Option<String>,
    /// Milliseconds from tick to tick, counted from 1970-01-01T00:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    /// Ticks are delayed by a stable amount below this, different for each installation, in milliseconds.
    #[serde(default)]
    jitter_ms: u64,
    /// Ticks that nobody could fire in time.
    #[serde(default)]
    missed: Missed,
    /// Ticks while an execution has not ended.
    #[serde(default)]
    overlap: Overlap,
}

impl TryFrom<Written> for ScheduleSpec {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let ticks = match (written.cron, written.every_ms) {
            (Some(expression), None) => Ticks::Cron {
                expression,
                timezone: written.timezone.unwrap_or_else(utc),
            },
            (None, Some(millis)) if written.timezone.is_none() => Ticks::Every(Duration::from_millis(millis)),
            _ => return Err("a schedule has either `cron`, with or without `timezone`, or `every_ms`"),
        };
        Ok(Self {
            ticks,
            jitter_ms: written.jitter_ms,
            missed: written.missed,
            overlap: written.overlap,
        })
    }
}

impl From<ScheduleSpec> for Written {
    fn from(spec: ScheduleSpec) -> Self {
        let (cron, timezone, every_ms) = match spec.ticks {
            Ticks::Cron { expression, timezone } => (Some(expression), Some(timezone), None),
            Ticks::Every(time) => (None, None, Some(millis(time))),
        };
        Self {
            cron,
            timezone,
            every_ms,
            jitter_ms: spec.jitter_ms,
            missed: spec.missed,
            overlap: spec.overlap,
        }
    }
}

fn utc() -> String {
    "UTC".to_owned()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl ScheduleSpec {
    /// A cron expression in UTC.
    #[must_use]
    pub fn cron(expression: impl Into<String>) -> Self {
        Self::of(Ticks::Cron {
            expression: expression.into(),
            timezone: utc(),
        })
    }
    /// Again and again after this time; see [`Ticks::Every`].
    #[must_use]
    pub fn every(time: Duration) -> Self {
        Self::of(Ticks::Every(time))
    }
    fn of(ticks: Ticks) -> Self {
        Self {
            ticks,
            jitter_ms: 0,
            missed: Missed::default(),
            overlap: Overlap::default(),
        }
    }
    /// In this IANA time zone. Without effect on [`Ticks::Every`].
    #[must_use]
    pub fn timezone(mut self, zone: impl Into<String>) -> Self {
        if let Ticks::Cron { timezone, .. } = &mut self.ticks {
            *timezone = zone.into();
        }
        self
    }
    /// Delays ticks by a stable amount below this, different for each installation, so that not all of them start at once.
    #[must_use]
    pub fn jitter(mut self, below: Duration) -> Self {
        self.jitter_ms = millis(below);
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

impl From<Duration> for ScheduleSpec {
    fn from(time: Duration) -> Self {
        Self::every(time)
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
    /// A [`Poll`](crate::Poll) of the integration has found something: an execution for each item, and nobody starts one by
    /// hand.
    Poll,
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schedule_is_written_and_read_back() {
        for (spec, written) in [
            (
                ScheduleSpec::cron("0 3 * * *").timezone("Europe/Berlin"),
                json!({ "cron": "0 3 * * *", "timezone": "Europe/Berlin", "jitter_ms": 0, "missed": "fire-once",
                        "overlap": "coalesce-one" }),
            ),
            (
                ScheduleSpec::every(Duration::from_secs(60))
                    .jitter(Duration::from_secs(5))
                    .missed(Missed::FireAll { max: 10 })
                    .overlap(Overlap::Queue { max: 3 }),
                json!({ "every_ms": 60_000, "jitter_ms": 5000, "missed": { "fire-all": { "max": 10 } },
                        "overlap": { "queue": { "max": 3 } } }),
            ),
        ] {
            assert_eq!(serde_json::to_value(&spec).unwrap(), written);
            assert_eq!(serde_json::from_value::<ScheduleSpec>(written).unwrap(), spec);
        }
        let short = serde_json::from_value(json!({ "cron": "* * * * *" }));
        assert_eq!(short.ok(), Some(ScheduleSpec::cron("* * * * *")));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for written in [
            json!({}),
            json!({ "cron": "* * * * *", "every_ms": 1000 }),
            json!({ "every_ms": 1000, "timezone": "UTC" }),
            json!({ "cron": "* * * * *", "when": "now" }),
        ] {
            assert!(
                serde_json::from_value::<ScheduleSpec>(written.clone()).is_err(),
                "{written}"
            );
        }
    }
}
