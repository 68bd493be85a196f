//! Rows of the queue and the words of their columns.

use crosspoint_core::{CallState, CloseReason, Code, ExecutionStatus, Failure, Isolation, Timings, Usage};
use serde::{Deserialize, Serialize};

/// `cp_queue.state`.
pub(crate) mod state {
    pub(crate) const READY: i64 = 0;
    pub(crate) const LEASED: i64 = 1;
    pub(crate) const DELAYED: i64 = 2;
    pub(crate) const BEHIND: i64 = 4;
}

/// A call that has not ended.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) seq: i64,
    /// Negative while it stands in the held line.
    pub(crate) lane: i64,
    pub(crate) flow: Option<i64>,
    pub(crate) state: i64,
    pub(crate) fence: i64,
    pub(crate) attempt: i64,
    pub(crate) max_attempts: i64,
    pub(crate) repeatable: bool,
    pub(crate) begun: bool,
    pub(crate) stop: bool,
    pub(crate) close: i64,
    pub(crate) okey: Option<i64>,
    pub(crate) since: i64,
    pub(crate) started: Option<i64>,
    pub(crate) note: Option<String>,
    /// Until when somebody is kept waiting.
    pub(crate) hold: Option<i64>,
    /// See [`bounds`].
    pub(crate) bounds: i64,
}

/// `cp_queue.bounds`.
pub(crate) mod bounds {
    pub(crate) const NONE: i64 = 0;
    pub(crate) const SOME: i64 = 1;
    pub(crate) const RUNS: i64 = 2;
}

impl Row {
    /// In the order of the columns of `row!` in [`crate::sql`].
    pub(crate) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            lane: row.get(1)?,
            flow: row.get(2)?,
            state: row.get(3)?,
            fence: row.get(4)?,
            attempt: row.get(5)?,
            max_attempts: row.get(6)?,
            repeatable: row.get(7)?,
            begun: row.get(8)?,
            stop: row.get(9)?,
            close: row.get(10)?,
            okey: row.get(11)?,
            since: row.get(12)?,
            started: row.get(13)?,
            note: row.get(14)?,
            hold: row.get(15)?,
            bounds: row.get(16)?,
        })
    }

    /// Whether it is only delivered to be closed.
    pub(crate) const fn closing(&self) -> bool {
        self.close != 0
    }

    pub(crate) const fn used_up(&self) -> bool {
        self.attempt >= self.max_attempts
    }
}

/// `cp_queue.close` for a reason; a reason of a later release is closed as exhausted.
pub(crate) const fn close_number(reason: CloseReason) -> i64 {
    match reason {
        CloseReason::Expired => 2,
        CloseReason::Cancelled => 3,
        _ => 1,
    }
}

/// The reason in `cp_queue.close`.
pub(crate) const fn close_reason(number: i64) -> Option<CloseReason> {
    match number {
        0 => None,
        2 => Some(CloseReason::Expired),
        3 => Some(CloseReason::Cancelled),
        _ => Some(CloseReason::Exhausted),
    }
}

/// `cp_done.state`: for services and for flows the same five ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DoneState {
    Completed,
    Dead,
    Unknown,
    Cancelled,
    Expired,
}

impl DoneState {
    pub(crate) const fn number(self) -> i64 {
        match self {
            Self::Completed => 1,
            Self::Dead => 2,
            Self::Unknown => 3,
            Self::Cancelled => 4,
            Self::Expired => 5,
        }
    }

    pub(crate) const fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            1 => Self::Completed,
            2 => Self::Dead,
            3 => Self::Unknown,
            4 => Self::Cancelled,
            5 => Self::Expired,
            _ => return None,
        })
    }

    pub(crate) const fn of(status: ExecutionStatus) -> Self {
        match status {
            ExecutionStatus::Succeeded => Self::Completed,
            ExecutionStatus::Cancelled => Self::Cancelled,
            ExecutionStatus::Expired => Self::Expired,
            _ => Self::Dead,
        }
    }

    pub(crate) const fn call(self) -> CallState {
        match self {
            Self::Completed => CallState::Completed,
            Self::Dead => CallState::Dead,
            Self::Unknown => CallState::Unknown,
            Self::Cancelled => CallState::Cancelled,
            Self::Expired => CallState::Expired,
        }
    }

    pub(crate) const fn execution(self) -> ExecutionStatus {
        match self {
            Self::Completed => ExecutionStatus::Succeeded,
            Self::Dead | Self::Unknown => ExecutionStatus::Failed,
            Self::Cancelled => ExecutionStatus::Cancelled,
            Self::Expired => ExecutionStatus::Expired,
        }
    }
}

/// What is kept of the last attempt, as JSON with short names.
///
/// Code and isolation are texts, so that an older release can read what a newer one wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Note {
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(rename = "m", skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(rename = "t", skip_serializing_if = "Option::is_none")]
    times: Option<[u64; 3]>,
    #[serde(rename = "i", skip_serializing_if = "Option::is_none")]
    isolation: Option<String>,
    #[serde(rename = "u", skip_serializing_if = "Option::is_none")]
    usage: Option<[u64; 4]>,
    /// How many attempts had begun when their worker was lost.
    #[serde(rename = "l", skip_serializing_if = "is_zero")]
    lost: u32,
    /// The revision of the installation that it ran with.
    #[serde(rename = "r", skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Note {
    /// Reads what a row holds; what cannot be read is as good as nothing.
    pub(crate) fn read(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    pub(crate) fn failed(mut self, failure: Option<&Failure>) -> Self {
        self.code = failure.map(|failure| failure.code.as_str().to_owned());
        self.message = failure.map(|failure| failure.message.clone());
        self
    }

    pub(crate) fn took(mut self, timings: &Timings, isolation: Option<Isolation>) -> Self {
        let times = [timings.queue_ms, timings.setup_ms, timings.run_ms];
        self.times = (times != [0; 3]).then_some(times);
        self.isolation = isolation.map(|isolation| isolation.to_string());
        self
    }

    pub(crate) fn used(mut self, usage: &Usage) -> Self {
        let all = [usage.cpu_ms, usage.peak_memory, usage.sent, usage.received];
        self.usage = (all != [0; 4]).then_some(all);
        self
    }

    pub(crate) const fn lost_once_more(mut self) -> Self {
        self.lost = self.lost.saturating_add(1);
        self
    }

    pub(crate) fn ran(mut self, revision: Option<u64>) -> Self {
        self.revision = revision.or(self.revision);
        self
    }

    pub(crate) const fn revision(&self) -> Option<u64> {
        self.revision
    }

    pub(crate) const fn lost(&self) -> u32 {
        self.lost
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        let (code, message) = (self.code.as_deref()?, self.message.clone().unwrap_or_default());
        Some(Code::parse(code).map_or_else(
            || Failure::new(Code::Internal, format!("{code}: {message}")),
            |known| Failure::new(known, message.clone()),
        ))
    }

    pub(crate) fn timings(&self) -> Timings {
        let [queue_ms, setup_ms, run_ms] = self.times.unwrap_or_default();
        let mut timings = Timings::default();
        (timings.queue_ms, timings.setup_ms, timings.run_ms) = (queue_ms, setup_ms, run_ms);
        timings
    }

    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        [usage.cpu_ms, usage.peak_memory, usage.sent, usage.received] = self.usage.unwrap_or_default();
        usage
    }

    pub(crate) fn isolation(&self) -> Option<Isolation> {
        serde_json::from_value(self.isolation.clone()?.into()).ok()
    }

    /// As it is stored; nothing for nothing.
    pub(crate) fn write(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        serde_json::to_string(self).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_go_round_and_nothing_takes_no_room() {
        assert_eq!(Note::default().write(), None);
        let mut timings = Timings::default();
        timings.run_ms = 12;
        let failure = Failure::new(Code::FlowFailed, "no \"such\" order");
        let note = Note::default()
            .failed(Some(&failure))
            .took(&timings, Some(Isolation::Process));
        let back = Note::read(note.write().as_deref());
        assert_eq!(back.failure(), Some(failure));
        assert_eq!(back.timings(), timings);
        assert_eq!(back.isolation(), Some(Isolation::Process));
    }

    #[test]
    fn words_of_a_newer_release_can_be_read() {
        let note = Note::read(Some(r#"{"c":"brand-new","m":"what","i":"vault","x":1}"#));
        assert_eq!(note.failure(), Some(Failure::new(Code::Internal, "brand-new: what")));
        assert_eq!(note.isolation(), None);
    }
}
