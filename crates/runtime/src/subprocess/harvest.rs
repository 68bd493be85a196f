//! What a run leaves behind, made into its outcome.

use super::{
    exit::Exit,
    files::{RESULT, STATE_OUT},
    framed::Said,
    launch::Launched,
    output::Kept,
};
use crosspoint_core::{Audience, Clock, Code, Error, Level, Limits, LogEntry, Result, RunEnd, RunMode, RunOutcome};
use serde_json::Value;
use std::sync::Arc;

/// Characters of a summary that are shown to the customer.
const SUMMARY: usize = 2000;

/// What has to be known of a run in order to read what it left.
#[derive(Debug)]
pub(super) struct Harvest {
    pub(super) limits: Limits,
    pub(super) pandium: bool,
    pub(super) mode: RunMode,
    /// Before the run.
    pub(super) state: Value,
    pub(super) clock: Arc<dyn Clock>,
}

impl Harvest {
    /// Reads what was left behind. Blocks, unless that is [quick](super::files::Files::are_quick).
    pub(super) fn conclude(self, exit: Exit, said: Option<Said>, launched: &Launched, kept: Kept) -> RunOutcome {
        let (end, state) = match exit {
            Exit::Done => {
                let read = match said {
                    Some(said) => said.output(),
                    None => self.read(launched, kept.last.as_deref()),
                };
                match read {
                    Ok((result, state)) => (RunEnd::Succeeded(result), state),
                    Err(error) => (RunEnd::Failed(error), None),
                }
            }
            Exit::Failed(error) => (RunEnd::Failed(error), None),
            Exit::Stopped(why) => (RunEnd::Stopped(why), None),
        };
        let mut outcome = RunOutcome::new(end, launched.isolation);
        outcome.state = state.filter(|_| self.mode == RunMode::Normal);
        outcome.log = kept.log;
        outcome.log_dropped = kept.dropped;
        let now = self.clock.now();
        if kept.dropped > 0 {
            let line = format!("{} further bytes of output were dropped", kept.dropped);
            outcome
                .log
                .push(LogEntry::new(now, Level::Warn, Audience::Developer, line));
        }
        if self.mode == RunMode::Normal
            && let RunEnd::Succeeded(result) = &outcome.end
            && let Some(summary) = result.get("summary").and_then(Value::as_str)
        {
            let summary: String = summary.chars().take(SUMMARY).collect();
            outcome
                .log
                .push(LogEntry::new(now, Level::Info, Audience::Customer, summary));
        }
        outcome
    }

    /// Result and state of the plain binding.
    fn read(&self, launched: &Launched, last: Option<&[u8]>) -> Result<(Value, Option<Value>)> {
        let result = launched.files.read(RESULT, self.limits.result_bytes)?;
        let mut result = parse(result.as_deref(), "result")?;
        if self.mode == RunMode::Init {
            if self.pandium && result.is_none() {
                result = parse(last, "result")?;
            }
            return Ok((result.unwrap_or(Value::Null), None));
        }
        let state = launched.files.read(STATE_OUT, self.limits.state_bytes)?;
        let mut state = parse(state.as_deref(), "state")?;
        if self.pandium && state.is_none() {
            state = self.merged(last)?;
        }
        Ok((result.unwrap_or(Value::Null), state))
    }

    /// Pandium's way: the last line of standard output, merged over the old state field by field.
    fn merged(&self, last: Option<&[u8]>) -> Result<Option<Value>> {
        let Some(last) = last else { return Ok(None) };
        let Ok(Value::Object(patch)) = serde_json::from_slice(last) else {
            let message = "the last line that the script wrote to standard output is not a JSON object";
            return Err(Error::new(Code::ScriptOutputInvalid, message));
        };
        let mut state = self.state.as_object().cloned().unwrap_or_default();
        state.extend(patch);
        let state = Value::Object(state);
        let size = u64::try_from(state.to_string().len()).unwrap_or(u64::MAX);
        if size > self.limits.state_bytes {
            let message = "the merged state is larger than the limit";
            return Err(Error::new(Code::ScriptOutputInvalid, message).with("limit_bytes", self.limits.state_bytes));
        }
        Ok(Some(state))
    }
}

/// Blank means that nothing was written.
fn parse(content: Option<&[u8]>, what: &str) -> Result<Option<Value>> {
    let Some(content) = content.filter(|content| !content.trim_ascii().is_empty()) else {
        return Ok(None);
    };
    let value = serde_json::from_slice(content);
    value.map(Some).map_err(|e| {
        let message = format!("the script's {what} is not valid JSON");
        Error::new(Code::ScriptOutputInvalid, message).caused_by(e)
    })
}
