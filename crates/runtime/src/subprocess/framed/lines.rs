//! Cuts a stream of messages into lines. What is too long is counted and never held.

/// What a message may need around its value.
pub(super) const ENVELOPE: usize = 64 * 1024;

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    /// So many bytes, which were not kept.
    TooLong(u64),
}

/// Lines of at most so many bytes.
#[derive(Debug)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    longest: usize,
    /// Bytes of a line that is too long; none are kept.
    lost: u64,
    /// The buffer was handed out.
    used: bool,
}

impl Lines {
    pub(super) const fn new(longest: usize) -> Self {
        Self {
            buffer: Vec::new(),
            longest,
            lost: 0,
            used: false,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.used {
            self.buffer.clear();
            self.used = false;
        }
        if self.lost == 0 && self.buffer.len() + bytes.len() <= self.longest {
            self.buffer.extend_from_slice(bytes);
        } else {
            let more = self.buffer.len() + bytes.len();
            self.lost = self.lost.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
            self.buffer = Vec::new();
        }
    }

    fn line(&mut self) -> Line<'_> {
        self.used = true;
        match std::mem::take(&mut self.lost) {
            0 => Line::Whole(&self.buffer),
            lost => Line::TooLong(lost),
        }
    }

    /// The next line that ends in `bytes`, which are cut by what was read.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Line<'_>> {
        let all = *bytes;
        match all.iter().position(|b| *b == b'\n') {
            Some(at) => {
                let (line, rest) = all.split_at(at);
                *bytes = rest.get(1..).unwrap_or_default();
                self.keep(line);
                Some(self.line())
            }
            None => {
                *bytes = &[];
                self.keep(all);
                None
            }
        }
    }

    /// What stands behind the last end of a line.
    pub(super) fn last(&mut self) -> Option<Line<'_>> {
        self.keep(&[]);
        (self.lost > 0 || !self.buffer.is_empty()).then(|| self.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(input: &[u8], chunk: usize, longest: usize) -> Vec<String> {
        let mut lines = Lines::new(longest);
        let mut found = Vec::new();
        let text = |line: &Line<'_>| match line {
            Line::Whole(line) => String::from_utf8(line.to_vec()).unwrap(),
            Line::TooLong(n) => format!("<{n}>"),
        };
        for piece in input.chunks(chunk) {
            let mut bytes = piece;
            while let Some(line) = lines.next(&mut bytes) {
                found.push(text(&line));
            }
        }
        found.extend(lines.last().map(|line| text(&line)));
        found
    }

    #[test]
    fn lines_come_out_however_they_come_in() {
        for chunk in 1..12 {
            assert_eq!(
                cut(b"one\n\ntwo\nlast", chunk, 5),
                ["one", "", "two", "last"],
                "{chunk}"
            );
            assert_eq!(
                cut(b"1234567890\n12345\n123456", chunk, 5),
                ["<10>", "12345", "<6>"],
                "{chunk}"
            );
        }
        assert_eq!(cut(b"", 1, 5), [""; 0]);
    }

    #[test]
    fn an_endless_line_is_not_held() {
        let mut lines = Lines::new(1000);
        for _ in 0..1000 {
            assert!(lines.next(&mut &[b'x'; 1000][..]).is_none());
            assert!(lines.buffer.capacity() <= 2000);
        }
        assert_eq!(lines.last(), Some(Line::TooLong(1_000_000)));
    }
}
