//! When schedules tick.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use crosspoint_core::{Code, Error, Result, ScheduleSpec, Ticks, Timestamp, Timetable};
use std::time::Duration;

/// Reads cron expressions of five fields, or of six with seconds first, in IANA time zones; and intervals.
///
/// Where the clock goes forward, what would have run in the gap runs right after it. Where it goes back, a fixed time
/// runs once and an interval in both of the equal hours.
///
/// ```
/// use crosspoint_core::{ScheduleSpec, Timetable};
/// use crosspoint_runtime::CronTimetable;
/// let nightly = ScheduleSpec::cron("30 2 * * *").timezone("Europe/Berlin");
/// let next = CronTimetable::new().next(&nightly, "2026-03-28T12:00:00Z".parse()?)?;
/// assert_eq!(next, Some("2026-03-29T03:00:00+02:00".parse()?), "02:30 does not exist on that day");
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct CronTimetable;

impl CronTimetable {
    /// A timetable.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The last tick at or before a time; `None` if there is none.
    ///
    /// # Errors
    /// [`Code::ScheduleInvalid`] with what is wrong.
    pub fn last(&self, spec: &ScheduleSpec, until: Timestamp) -> Result<Option<Timestamp>> {
        match &spec.ticks {
            Ticks::Cron { expression, timezone } => {
                let (cron, at) = read(expression, timezone, until)?;
                found(cron.find_previous_occurrence(&at, true))
            }
            Ticks::Every(time) => {
                let step = step(*time)?;
                Ok(Some(Timestamp::from_millis(until.as_millis().div_euclid(step) * step)))
            }
            _ => Err(unknown()),
        }
    }
}

impl Timetable for CronTimetable {
    fn next(&self, spec: &ScheduleSpec, after: Timestamp) -> Result<Option<Timestamp>> {
        match &spec.ticks {
            Ticks::Cron { expression, timezone } => {
                let (cron, at) = read(expression, timezone, after)?;
                found(cron.find_next_occurrence(&at, false))
            }
            Ticks::Every(time) => {
                let step = step(*time)?;
                let next = (after.as_millis().div_euclid(step))
                    .checked_add(1)
                    .and_then(|n| n.checked_mul(step));
                Ok(next.map(Timestamp::from_millis))
            }
            _ => Err(unknown()),
        }
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::ScheduleInvalid, message)
}

fn unknown() -> Error {
    invalid("this release does not know this kind of schedule")
}

/// Milliseconds from tick to tick.
fn step(time: Duration) -> Result<i64> {
    let bad = || {
        invalid("the time between two ticks is at least a second and at most a year").with("time", format!("{time:?}"))
    };
    let step = i64::try_from(time.as_millis()).map_err(|_| bad())?;
    if (1000..=i64::try_from(crate::FAR.as_millis()).unwrap_or(i64::MAX)).contains(&step) {
        Ok(step)
    } else {
        Err(bad())
    }
}

fn read(expression: &str, timezone: &str, at: Timestamp) -> Result<(Cron, DateTime<Tz>)> {
    // Case is not folded: in the IANA database it matters.
    let zone: Tz = timezone.parse().map_err(|_| {
        invalid("the time zone is not a name of the IANA database, such as `Europe/Berlin`").with("zone", timezone)
    })?;
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .build();
    let cron = parser
        .parse(expression)
        .map_err(|e| invalid(format!("the cron expression is not valid: {e}")).with("cron", expression))?;
    let at = DateTime::<Utc>::from_timestamp_millis(at.as_millis())
        .ok_or_else(|| invalid("the time is out of range").with("time", at))?;
    Ok((cron, at.with_timezone(&zone)))
}

fn found(tick: std::result::Result<DateTime<Tz>, CronError>) -> Result<Option<Timestamp>> {
    match tick {
        Ok(tick) => Ok(Some(Timestamp::from_millis(tick.timestamp_millis()))),
        Err(CronError::TimeSearchLimitExceeded) => Ok(None),
        Err(error) => Err(invalid(format!("the cron expression has no ticks: {error}"))),
    }
}
