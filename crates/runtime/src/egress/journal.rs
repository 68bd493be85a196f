//! What the author of the integration reads about attempts that were refused.

use crosspoint_core::{Audience, Clock, Level, LogEntry, Timestamp};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How many different lines are kept.
const MOST: usize = 50;

/// How many characters of a line are kept.
const LONGEST: usize = 300;

/// Lines for the log, each kept once.
#[derive(Debug)]
pub(super) struct Notes {
    clock: Arc<dyn Clock>,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// When it was written first, and how often.
    kept: BTreeMap<String, (Timestamp, u64)>,
    others: u64,
}

impl Notes {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            lines: Mutex::default(),
        }
    }

    pub(super) fn write(&self, line: &str) {
        let line: String = line
            .chars()
            .take(LONGEST)
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        tracing::debug!(line, "egress");
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let room = lines.kept.len() < MOST;
        match lines.kept.get_mut(&line) {
            Some((_, times)) => *times += 1,
            None if room => {
                let now = self.clock.now();
                lines.kept.insert(line, (now, 1));
            }
            None => lines.others += 1,
        }
    }

    /// Takes the lines, in the order in which they were written first.
    pub(super) fn take(&self) -> Vec<LogEntry> {
        let lines = std::mem::take(&mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner));
        let entry = |at, line| LogEntry::new(at, Level::Warn, Audience::Developer, line);
        let mut log: Vec<_> = lines
            .kept
            .into_iter()
            .map(|(mut line, (at, times))| {
                if times > 1 {
                    line = format!("{line} ({times} times)");
                }
                entry(at, line)
            })
            .collect();
        log.sort_by_key(|entry| entry.at);
        if lines.others > 0 {
            let line = format!("network: {} further requests were refused or failed", lines.others);
            log.push(entry(self.clock.now(), line));
        }
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosspoint_core::SystemClock;

    #[test]
    fn lines_are_counted_and_capped() {
        let notes = Notes::new(Arc::new(SystemClock::new()));
        for n in 0..1000 {
            notes.write(&format!("line {}\n", n % 100));
        }
        notes.write(&"x".repeat(10_000));
        let log = notes.take();
        assert_eq!(log.len(), MOST + 1);
        assert_eq!(log[0].message, "line 0\u{fffd} (10 times)");
        assert_eq!(
            log[MOST].message,
            "network: 501 further requests were refused or failed"
        );
        assert!(notes.take().is_empty());
        notes.write(&"x".repeat(10_000));
        assert_eq!(notes.take()[0].message.len(), LONGEST);
    }
}
