//! What a script prints: read to the end whatever it is, kept up to a limit, with the secrets taken out.

use super::pace::Pace;
use crate::redact::Redactor;
use crosspoint_core::{Audience, Clock, Level, LogEntry};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longer lines are split.
pub(super) const LINE: usize = 256 * 1024;

/// Lines that are kept, so that a flood of empty ones costs no more than a flood of long ones.
const LINES: usize = 10_000;

/// What is read at once, and by whom so much is there each time.
const CHUNK: usize = 16 * 1024;
const LARGE_CHUNK: usize = 64 * 1024;

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

    /// Answers whether the line was kept.
    fn line(&self, line: &[u8], split: bool) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if !self.admits(line.len()) {
            return false;
        }
        let mut message = String::from_utf8_lossy(line).into_owned();
        self.redact(&mut message);
        self.push(Level::Info, Audience::Developer, message, split);
        true
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

    /// Whether no line, however short, would be kept any more.
    fn is_full(&self) -> bool {
        let kept = self.kept();
        kept.bytes >= self.limit || kept.log.len() >= LINES
    }

    fn count_dropped(&self, bytes: usize) {
        let mut kept = self.kept();
        kept.dropped = kept.dropped.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
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
        let mut chunk = vec![0; CHUNK];
        let mut pace = Pace::new();
        loop {
            let read = match pipe.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            lines.push(chunk.get(..read).unwrap_or_default());
            if read == chunk.len() {
                chunk.resize(LARGE_CHUNK, 0);
            }
            pace.took(read).await;
        }
        lines.end();
    }
}

/// Where the first line ends. Long pieces without an end are passed over many bytes at a time.
fn newline(bytes: &[u8]) -> Option<usize> {
    const STRIDE: usize = 256;
    let mut strides = bytes.chunks(STRIDE);
    let stride = strides.position(|stride| stride.contains(&b'\n'))? * STRIDE;
    let within = bytes.get(stride..)?.iter().position(|b| *b == b'\n')?;
    Some(stride + within)
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
    /// A piece of the line was dropped, and all that follows of it is.
    rest_dropped: bool,
    /// Nothing more is kept but the last line.
    full: bool,
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
            rest_dropped: false,
            full: false,
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        if self.full || self.output.is_full() {
            self.full = true;
            return self.skip(bytes);
        }
        while let Some(at) = newline(bytes) {
            let (line, rest) = bytes.split_at(at);
            self.extend(line);
            self.end_line();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.extend(bytes);
    }

    /// Counts, and looks for the last line alone: backwards, so that a flood costs little.
    fn skip(&mut self, bytes: &[u8]) {
        let begun = std::mem::take(&mut self.buffer);
        self.output.count_dropped(begun.len() + bytes.len());
        if self.remember == 0 {
            return;
        }
        let is_newline = |b: &u8| *b == b'\n';
        let end = newline(bytes).and_then(|_| bytes.iter().rposition(is_newline));
        let Some(end) = end else {
            return self.hold(bytes);
        };
        let (lines, rest) = bytes.split_at(end);
        let last = lines.iter().rposition(|b| !b.is_ascii_whitespace());
        let (before, after) = lines.split_at(last.unwrap_or(0));
        let start = last.and_then(|_| before.iter().rposition(is_newline));
        let to = before.len() + newline(after).unwrap_or(after.len());
        if let Some(start) = start {
            // The line so far has ended, and is not the last one.
            self.whole.clear();
            self.too_long = false;
            self.hold(lines.get(start + 1..to).unwrap_or_default());
        } else {
            self.hold(lines.get(..to).unwrap_or_default());
        }
        self.end_whole();
        self.hold(rest.get(1..).unwrap_or_default());
    }

    /// Keeps what may be the last line.
    fn hold(&mut self, bytes: &[u8]) {
        if self.remember > 0 && !self.too_long {
            self.whole.extend_from_slice(bytes);
            if self.whole.len() > self.remember {
                self.too_long = true;
                self.whole = Vec::new();
            }
        }
    }

    fn end_whole(&mut self) {
        let whole = std::mem::take(&mut self.whole);
        let too_long = std::mem::take(&mut self.too_long);
        if too_long || !whole.trim_ascii().is_empty() {
            self.output.kept().last = (!too_long).then_some(whole);
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.hold(bytes);
        if self.rest_dropped {
            return self.output.count_dropped(bytes.len());
        }
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() > self.cap + self.output.redactor.longest() {
            let cut = self.output.redactor.cut(&self.buffer, self.cap);
            let rest = self.buffer.split_off(cut);
            let piece = std::mem::replace(&mut self.buffer, rest);
            if !self.output.line(&piece, true) {
                // Nor is there room for what follows of the line, whatever it is.
                let rest = std::mem::take(&mut self.buffer);
                self.output.count_dropped(rest.len());
                self.rest_dropped = true;
            }
        }
    }

    fn end_line(&mut self) {
        if std::mem::take(&mut self.rest_dropped) {
            self.output.count_dropped(1);
        } else {
            self.output.line(&self.buffer, false);
            self.buffer.clear();
        }
        self.end_whole();
    }

    fn end(&mut self) {
        if self.full {
            self.end_whole();
        } else if self.rest_dropped || !self.buffer.is_empty() || !self.whole.is_empty() || self.too_long {
            self.end_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::pace::{SHARE, TICK},
        *,
    };
    use crosspoint_core::{SecretString, SystemClock};
    use std::time::Duration;
    use tokio::time::Instant;

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
    fn the_last_line_is_known_however_much_came_before() {
        let flood = "x\n".repeat(LINES);
        let cases = [
            ("first\nlast", Some("last")),
            ("the line\n \r\n\n  ", Some("the line")),
            ("", Some("x")),
            ("\n\n\n", Some("x")),
            ("a line of more than one read\n \n a\nb \n", Some("b ")),
        ];
        for (end, last) in cases {
            let kept = read(format!("{flood}{end}").as_bytes(), &[], u64::MAX);
            assert_eq!(kept.last.as_deref(), last.map(str::as_bytes), "{end:?}");
            assert_eq!(kept.log.len(), LINES);
            assert!(kept.dropped >= end.len() as u64, "{end:?}: {}", kept.dropped);
        }
        let long = format!("{flood}{}\n", "y".repeat(1001));
        assert_eq!(
            read(long.as_bytes(), &[], u64::MAX).last,
            None,
            "too long to be remembered"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_a_share_at_a_time_and_to_the_end() {
        let output = Output::new(Redactor::default(), Arc::new(SystemClock::new()), 100);
        let flood = vec![b'\n'; 10 * SHARE];
        let began = Instant::now();
        output.clone().drain(Some(flood.as_slice()), 0).await;
        // Reads are not cut where a share ends; the clock of tests goes by whole milliseconds.
        assert!(
            (TICK * 9..=TICK * 11).contains(&began.elapsed()),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(output.take().dropped, 10 * SHARE as u64 - 100);
        let (began, usual) = (Instant::now(), vec![b'x'; SHARE - 1]);
        output.drain(Some(usual.as_slice()), 0).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "who writes little does not wait");
    }

    #[test]
    fn a_line_without_end_is_dropped_from_where_there_is_no_room() {
        let mut input = vec![b'x'; 3 * LINE];
        input.extend_from_slice(b"\nshort\n");
        let kept = read(&input, &[], LINE as u64 + 100);
        assert_eq!(kept.log.len(), 2, "a piece, and what fits after the line");
        assert_eq!(kept.log[1].message, "short");
        assert!(
            (2 * LINE as u64..2 * LINE as u64 + 10).contains(&kept.dropped),
            "{}",
            kept.dropped
        );
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
