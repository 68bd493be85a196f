//! The filter as a program for the kernel.
//!
//! It is a binary search, because the kernel tries it out for each number when it is loaded: a chain of
//! comparisons costs three times as much per start. It is made once, and short, since the kernel also translates all of it at
//! each start: what refuses is there once for all that come to it, and numbers that stand alone are one comparison each.

use super::{Kind, NEWEST, Verdict, verdicts};
use crate::spawn::step::{Step, Trouble};
use libc::sock_filter;

pub(super) const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
pub(super) const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
pub(super) const IF_ANY_OF: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
pub(super) const RETURN: u16 = 0x06; // BPF_RET | BPF_K

pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
/// The lower half of an argument; both systems that are known here are little-endian.
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

#[cfg(target_arch = "x86_64")]
pub(super) const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
pub(super) const AUDIT_ARCH: u32 = 0xC000_00B7;

/// Numbers of the x32 interface have this bit.
pub(super) const X32: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0x4000_0000)
} else {
    None
};

/// Ranges by their first number, none beside one of the same verdict.
fn ranges(kind: Kind) -> Vec<(u32, Verdict)> {
    let mut ranges: Vec<(u32, Verdict)> = vec![(0, Verdict::Allow)];
    let mut push = |from: u32, verdict: Verdict| match ranges.last_mut() {
        Some(last) if last.0 == from => last.1 = verdict,
        Some(last) if last.1 == verdict => {}
        _ => ranges.push((from, verdict)),
    };
    for (number, verdict) in verdicts(kind) {
        push(number, verdict);
        push(number + 1, Verdict::Allow);
    }
    let newest = u32::try_from(NEWEST).unwrap_or(0);
    push(newest + 1, Verdict::Refuse(libc::ENOSYS));
    // A replaced verdict may now equal the one before it.
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);
    ranges
}

/// A program while it is written, from its end: all jumps lead forward, so that what they lead to is there already. Places are
/// counted from the end.
struct Writer {
    reversed: Vec<sock_filter>,
    /// Where each verdict is, which all that come to it share.
    verdicts: Vec<(Verdict, usize)>,
    /// Jumps on conditions reach over 255 others.
    too_far: bool,
}

/// So many single numbers are tried one after the other rather than halved.
const CHAIN: usize = 4;

impl Writer {
    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> usize {
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.reversed.len() - 1
    }

    fn branch(&mut self, code: u16, k: u32, yes: usize, no: usize) -> usize {
        let here = self.reversed.len();
        let mut over = |place: usize| {
            let over = u8::try_from(here - place - 1);
            self.too_far |= over.is_err();
            over.unwrap_or_default()
        };
        let (yes, no) = (over(yes), over(no));
        self.push(code, k, yes, no)
    }

    /// Goes to `yes` if the value is one of these.
    fn one_of(&mut self, values: &[u32], yes: usize, no: usize) -> usize {
        debug_assert!(
            !values.is_empty(),
            "what loads the value goes on with the first comparison"
        );
        let tried = values.iter().rev();
        tried.fold(no, |no, value| self.branch(IF_EQUAL, *value, yes, no))
    }

    fn refuse(&mut self, errno: i32) -> usize {
        self.verdict(Verdict::Refuse(errno))
    }

    /// Where it is; written when it is first asked for.
    fn verdict(&mut self, verdict: Verdict) -> usize {
        if let Some((_, place)) = self.verdicts.iter().find(|(known, _)| *known == verdict) {
            return *place;
        }
        let place = match verdict {
            Verdict::Allow => self.push(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
            Verdict::Refuse(errno) => {
                let answer = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap_or(1);
                self.push(RETURN, answer, 0, 0)
            }
            Verdict::Kill => self.push(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
            Verdict::RefuseBits { argument: index, bits } => {
                let (no, yes) = (self.refuse(libc::EPERM), self.verdict(Verdict::Allow));
                self.branch(IF_ANY_OF, bits, no, yes);
                self.push(LOAD, argument(index), 0, 0)
            }
            Verdict::RefuseValues {
                argument: index,
                values,
            } => {
                let (no, yes) = (self.refuse(libc::EPERM), self.verdict(Verdict::Allow));
                self.one_of(values, no, yes);
                self.push(LOAD, argument(index), 0, 0)
            }
            Verdict::OnlyValues {
                argument: index,
                values,
                errno,
            } => {
                let (no, yes) = (self.refuse(errno), self.verdict(Verdict::Allow));
                self.one_of(values, yes, no);
                self.push(LOAD, argument(index), 0, 0)
            }
            Verdict::OnlyZero { arguments, unless } => {
                let (no, mut next) = (self.refuse(libc::EPERM), self.verdict(Verdict::Allow));
                if let Some((index, value)) = unless {
                    self.branch(IF_EQUAL, value, no, next);
                    next = self.push(LOAD, argument(index), 0, 0);
                }
                for index in arguments.iter().rev() {
                    self.branch(IF_EQUAL, 0, next, no);
                    next = self.push(LOAD, argument(*index), 0, 0);
                }
                next
            }
        };
        self.verdicts.push((verdict, place));
        place
    }

    /// A search in these ranges, the last of which ends before `end`.
    fn search(&mut self, ranges: &[(u32, Verdict)], end: Option<u32>) -> usize {
        let ends = ranges.iter().skip(1).map(|(first, _)| Some(*first)).chain([end]);
        let alone = |first: u32, end: Option<u32>| end == Some(first + 1);
        let mut wide = ranges
            .iter()
            .zip(ends.clone())
            .filter(|((first, _), end)| !alone(*first, *end));
        let common = wide.next().map(|((_, verdict), _)| *verdict);
        let Some(common) = common.or_else(|| ranges.last().map(|(_, verdict)| *verdict)) else {
            return self.verdict(Verdict::Kill);
        };
        let simple = wide.all(|((_, verdict), _)| *verdict == common);
        let singles = ranges.iter().filter(|(_, verdict)| *verdict != common);
        if simple && singles.clone().count() <= CHAIN {
            let otherwise = self.verdict(common);
            return singles.rev().fold(otherwise, |no, (number, verdict)| {
                let yes = self.verdict(*verdict);
                self.branch(IF_EQUAL, *number, yes, no)
            });
        }
        let (left, right) = ranges.split_at(ranges.len() / 2);
        let middle = right.first().map(|(first, _)| *first);
        let above = self.search(right, end);
        let below = self.search(left, middle);
        self.branch(IF_AT_LEAST, middle.unwrap_or_default(), above, below)
    }
}

/// The program for the kernel.
pub(in crate::spawn) fn program(kind: Kind) -> Result<Vec<sock_filter>, Trouble> {
    let mut writer = Writer {
        reversed: Vec::new(),
        verdicts: Vec::new(),
        too_far: false,
    };
    let ranges = ranges(kind);
    let kill = writer.verdict(Verdict::Kill);
    for (_, verdict) in &ranges {
        writer.verdict(*verdict);
    }
    let search = writer.search(&ranges, None);
    if let Some(x32) = X32 {
        writer.branch(IF_AT_LEAST, x32, kill, search);
    }
    debug_assert!(
        ranges.len() > CHAIN,
        "the search begins with a comparison, to which the load below goes on"
    );
    let number = writer.push(LOAD, NUMBER, 0, 0);
    writer.branch(IF_EQUAL, AUDIT_ARCH, number, kill);
    writer.push(LOAD, ARCH, 0, 0);
    if writer.too_far {
        return Err(Trouble {
            step: Step::Seccomp,
            errno: rustix::io::Errno::TOOBIG,
        });
    }
    writer.reversed.reverse();
    Ok(writer.reversed)
}
