//! What a script prints: read to the end whatever it is, kept up to a limit, with the secrets taken out.

use crate::redact::Redactor;
use crosspoint_core::{Audience, Clock, Level, LogEntry};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longer lines are split.
pub(super) const LINE: usize = 256 * 1024;

/// Lines that are kept, so that a flood of empty ones costs no more than a flood of long ones.
const LINES: usize = 10_000;

/// Ends a piece of a line that was split.
const SPLIT: &str = " [the line goes on]";

/// The log of a run, which both of the script's outputs write to.
#[derive(Debug, Clone)]
pub(super) struct Output {
    kept: Arc<Mutex<Kept>>,
    redactor: Redactor,
    clock: Arc<dyn Clock>,
    limit: u64,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) log: Vec<LogEntry>,
    pub(super) dropped: u64,
    bytes: u64,
    /// The last line of standard output that is not blank, with its secrets.
    pub(super) last: Option<Vec<u8>>,
}

impl Output {
    pub(super) fn new(redactor: Redactor, clock: Arc<dyn Clock>, limit: u64) -> Self {
        Self {
            kept: Arc::default(),
            redactor,
            clock,
            limit,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> Kept {
        std::mem::take(&mut self.kept())
    }

    /// Adds a line of our own, beyond every limit.
    pub(super) fn note(&self, level: Level, message: impl Into<String>) {
        let entry = LogEntry::new(self.clock.now(), level, Audience::Developer, message);
        self.kept().log.push(entry);
    }

    pub(super) const fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(super) fn redact(&self, text: &mut String) {
        self.redactor.text(text);
    }

    fn line(&self, line: &[u8], split: bool) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !self.admits(line.len()) {
            return;
        }
        let mut message = String::from_utf8_lossy(line).into_owned();
        self.redact(&mut message);
        self.push(Level::Info, Audience::Developer, message, split);
    }

    /// A line that the script has written as a message.
    pub(super) fn entry(&self, level: Level, audience: Audience, mut message: String) {
        if !self.admits(message.len()) {
            return;
        }
        self.redact(&mut message);
        let mut rest = message.as_str();
        while rest.len() > LINE {
            let at = (0..=LINE).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(0);
            let (piece, more) = rest.split_at(at);
            self.push(level, audience, piece.to_owned(), true);
            rest = more;
        }
        self.push(level, audience, rest.to_owned(), false);
    }

    /// Whether there is room for a line; counts it either way.
    fn admits(&self, length: usize) -> bool {
        let size = u64::try_from(length).unwrap_or(u64::MAX).saturating_add(1);
        let mut kept = self.kept();
        if kept.bytes.saturating_add(size) > self.limit || kept.log.len() >= LINES {
            kept.dropped = kept.dropped.saturating_add(size);
            return false;
        }
        kept.bytes += size;
        true
    }

    fn push(&self, level: Level, audience: Audience, mut message: String, split: bool) {
        if message.contains('\0') {
            // Some databases have no text with a NUL in it.
            message = message.replace('\0', "\u{fffd}");
        }
        if split {
            message.push_str(SPLIT);
        }
        let entry = LogEntry::new(self.clock.now(), level, audience, message);
        self.kept().log.push(entry);
    }

    /// Reads a pipe to its end. With `remember`, the last line of up to so many bytes is kept for itself.
    pub(super) async fn drain(self, pipe: Option<impl AsyncRead + Unpin>, remember: usize) {
        let Some(mut pipe) = pipe else { return };
        let mut lines = Lines::new(self, remember);
        let mut chunk = vec![0; 16 * 1024];
        loop {
            match pipe.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(n) => lines.push(chunk.get(..n).unwrap_or_default()),
            }
        }
        lines.end();
    }
}

/// Cuts a stream into lines, never through a secret.
struct Lines {
    output: Output,
    buffer: Vec<u8>,
    cap: usize,
    /// The line so far, whole, while it may still become the last one.
    whole: Vec<u8>,
    remember: usize,
    too_long: bool,
}

impl Lines {
    fn new(output: Output, remember: usize) -> Self {
        Self {
            output,
            buffer: Vec::new(),
            cap: LINE,
            whole: Vec::new(),
            remember,
            too_long: false,
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            let (line, rest) = bytes.split_at(at);
            self.extend(line);
            self.end_line();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.remember > 0 && !self.too_long {
            self.whole.extend_from_slice(bytes);
            if self.whole.len() > self.remember {
                self.too_long = true;
                self.whole = Vec::new();
            }
        }
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() > self.cap + self.output.redactor.longest() {
            let cut = self.output.redactor.cut(&self.buffer, self.cap);
            let rest = self.buffer.split_off(cut);
            let piece = std::mem::replace(&mut self.buffer, rest);
            self.output.line(&piece, true);
        }
    }

    fn end_line(&mut self) {
        self.output.line(&self.buffer, false);
        self.buffer.clear();
        let whole = std::mem::take(&mut self.whole);
        let too_long = std::mem::take(&mut self.too_long);
        if too_long || !whole.trim_ascii().is_empty() {
            self.output.kept().last = (!too_long).then_some(whole);
        }
    }

    fn end(&mut self) {
        if !self.buffer.is_empty() || !self.whole.is_empty() || self.too_long {
            self.end_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosspoint_core::{SecretString, SystemClock};

    fn read(input: &[u8], secrets: &[&str], limit: u64) -> Kept {
        let named = secrets.iter().map(|s| ((*s).to_owned(), SecretString::from(*s)));
        let output = Output::new(Redactor::new(&named.collect()), Arc::new(SystemClock::new()), limit);
        let mut lines = Lines::new(output.clone(), 1000);
        for piece in input.chunks(7) {
            lines.push(piece);
        }
        lines.end();
        output.take()
    }

    fn texts(kept: &Kept) -> Vec<&str> {
        kept.log.iter().map(|line| line.message.as_str()).collect()
    }

    #[test]
    fn lines_come_out_whole_and_readable() {
        let kept = read(b"one\r\ntwo \xff\n\nlast", &[], 1000);
        assert_eq!(texts(&kept), ["one", "two \u{fffd}", "", "last"]);
        assert_eq!(kept.last.as_deref(), Some(&b"last"[..]));
        assert_eq!(kept.dropped, 0);
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let kept = read(b"12345\n123\n1\n", &[], 8);
        assert_eq!(texts(&kept), ["12345", "1"]);
        assert_eq!(kept.dropped, 4);
        assert_eq!(read(&vec![b'\n'; LINES + 5], &[], u64::MAX).dropped, 5);
    }

    #[test]
    fn a_long_line_is_split_but_never_inside_a_secret() {
        let mut input = vec![b'a'; LINE - 3];
        input.extend_from_slice(b"canary-77");
        input.extend(vec![b'b'; LINE]);
        let kept = read(&input, &["canary-77"], u64::MAX);
        let all = texts(&kept).concat();
        assert_eq!(kept.log.len(), 2);
        assert!(all.contains("[secret]") && all.contains(SPLIT) && !all.contains("can") && !all.contains("-77"));
        assert_eq!(kept.last, None, "too long to be remembered");
    }
}
