//! What the kernel tells of a process or a thread in its `stat` file (`proc_pid_stat(5)`).

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: u8,
    /// Its processor time, and that of the children it has waited for, in ticks of the clock.
    pub(crate) own: u64,
    pub(crate) waited: u64,
    pub(crate) nice: i32,
    pub(crate) threads: u32,
    /// When it began, in ticks since the machine did.
    pub(crate) start: u64,
    /// Bytes of the address space.
    pub(crate) mapped: u64,
    /// Pages in memory.
    pub(crate) pages: u64,
    /// Signals that it ignores, a bit each.
    pub(crate) ignored: u64,
}

impl Stat {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // The name stands in parentheses and may hold anything, more of them too.
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let mut numbers = fields.map(|field| field.parse::<i64>().unwrap_or(0));
        let mut after = |skipped: usize| numbers.nth(skipped).unwrap_or(0);
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        Some(Self {
            state,
            own: count(after(10)) + count(after(0)),
            waited: count(after(0)) + count(after(0)),
            nice: i32::try_from(after(1)).unwrap_or(0),
            threads: u32::try_from(after(0)).unwrap_or(0),
            start: count(after(1)),
            mapped: count(after(0)),
            pages: count(after(0)),
            ignored: count(after(8)),
        })
    }
}

#[cfg_attr(
    not(any(test, target_arch = "x86_64", target_arch = "aarch64")),
    expect(dead_code, reason = "it is the spawn core that asks")
)]
impl Stat {
    /// Whether it has ended. Of a process whose first thread has ended others may live.
    pub(crate) const fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    pub(crate) const fn runs(&self) -> bool {
        self.state == b'R'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let text = "12 (a ) R) S 1 12 12 0 -1 4194560 1 2 3 4 50 7 2 1 20 -5 3 0 900 1000 25 18446744073709551615 1 2 3 4 5 0 0 65537 2";
        let expected = Stat {
            state: b'S',
            own: 57,
            waited: 3,
            nice: -5,
            threads: 3,
            start: 900,
            mapped: 1000,
            pages: 25,
            ignored: 65537,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert!(!expected.has_ended() && !expected.runs());
        assert!(Stat::parse("12 (a) Z 1").is_some_and(|stat| stat.has_ended()));
        assert_eq!(Stat::parse("nonsense"), None);
    }

    #[test]
    fn the_kernel_writes_it_so() {
        let own = Stat::parse(&std::fs::read_to_string("/proc/thread-self/stat").unwrap()).unwrap();
        assert!(own.runs() && own.threads >= 1 && own.mapped > 1 << 20 && own.pages > 10 && own.start > 0);
    }
}
