//! When schedules tick.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use crosspoint_core::{Code, Error, Result, ScheduleSpec, Timestamp, Timetable};

/// Reads cron expressions of five fields, or of six with seconds first, in IANA time zones.
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
        let (cron, at) = read(spec, until)?;
        found(cron.find_previous_occurrence(&at, true))
    }
}

impl Timetable for CronTimetable {
    fn next(&self, spec: &ScheduleSpec, after: Timestamp) -> Result<Option<Timestamp>> {
        let (cron, at) = read(spec, after)?;
        found(cron.find_next_occurrence(&at, false))
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Code::ScheduleInvalid, message)
}

fn read(spec: &ScheduleSpec, at: Timestamp) -> Result<(Cron, DateTime<Tz>)> {
    // Case is not folded: in the IANA database it matters.
    let zone: Tz = spec.timezone.parse().map_err(|_| {
        invalid("the time zone is not a name of the IANA database, such as `Europe/Berlin`")
            .with("zone", &spec.timezone)
    })?;
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .build();
    let cron = parser
        .parse(&spec.cron)
        .map_err(|e| invalid(format!("the cron expression is not valid: {e}")).with("cron", &spec.cron))?;
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
