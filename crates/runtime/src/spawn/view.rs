//! Where a run is seen from outside: its processes, and its files in memory.

use super::{
    confined::{self, Marked},
    ledger::Used,
    tmpfs::{Lying, Tmpfs},
};
use crate::stat::Stat;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Dir, Mode, OFlags, openat},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    sync::Arc,
    time::Duration,
};

/// Where a run's processes and files are seen.
#[derive(Debug)]
pub(super) struct View {
    /// A /proc.
    pub(super) processes: Arc<OwnedFd>,
    /// The tmpfs.
    pub(super) files: Option<Arc<Tmpfs>>,
    /// Which of its processes, if not all.
    pub(super) mark: Option<u64>,
}

/// What one look at all processes of a run has found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Census {
    /// Resident memory in bytes, shared pages counted for each process that has them.
    pub(super) resident: u64,
    /// Bytes of their address spaces.
    pub(super) mapped: u64,
    /// Processor time of all that live, and of those that they waited for, in ticks of the clock.
    pub(super) ticks: u64,
    /// Processes.
    pub(super) processes: u32,
    /// Threads that run or want to.
    pub(super) runnable: u32,
    /// Threads that are not the first ones of their processes, which `runnable` does not know of.
    pub(super) further: u32,
    /// The nice value of the one that is least nice.
    pub(super) nice: Option<i32>,
}

impl Census {
    /// Adds a process.
    fn add(&mut self, pid: &str, stat: &Stat, page: u64) -> Option<Used> {
        let used = Used {
            pid: pid.parse().ok()?,
            start: stat.start,
            own: stat.own,
            waited: stat.waited,
            runs: stat.runs(),
            forgets: stat.ignored >> (libc::SIGCHLD - 1) & 1 == 1,
        };
        self.ticks += used.own + used.waited;
        self.processes += 1;
        self.add_memory(stat, page);
        // The first thread of a process may have ended long before the others.
        if !stat.has_ended() || stat.threads > 1 {
            self.runnable += u32::from(used.runs);
            self.further += stat.threads.saturating_sub(1);
            self.nice = Some(self.nice.map_or(stat.nice, |least| least.min(stat.nice)));
        }
        Some(used)
    }

    fn add_memory(&mut self, stat: &Stat, page: u64) {
        self.resident = self.resident.saturating_add(stat.pages * page);
        self.mapped = self.mapped.saturating_add(stat.mapped);
    }
}

impl View {
    /// Calls `each` with the number of each process, as this view has it, and a reader of its files.
    fn for_each(&self, mut each: impl FnMut(&str, &dyn Fn(&str) -> Option<String>)) {
        let processes = self.processes.as_fd();
        let mut visit = |pid: &str| each(pid, &|name| read(processes, &format!("{pid}/{name}")));
        if let Some(mark) = self.mark {
            confined::for_each(Marked::Run(mark), |pid| visit(&pid.as_raw_nonzero().to_string())).ok();
            return;
        }
        let Ok(entries) = Dir::read_from(&self.processes) else {
            return;
        };
        for entry in entries.flatten() {
            if let Ok(name) = entry.file_name().to_str()
                && name.bytes().all(|b| b.is_ascii_digit())
            {
                visit(name);
            }
        }
    }

    /// Looks at all processes: 10 us for each. Calls `crowd` as soon as it has found so many that want to run.
    pub(super) fn census(&self, most: u32, mut crowd: impl FnMut()) -> (Census, Vec<Used>) {
        let page = page_size();
        let (mut census, mut all) = (Census::default(), Vec::new());
        self.for_each(|pid, file| {
            let Some(stat) = file("stat").and_then(|text| Stat::parse(&text)) else {
                return;
            };
            let before = census.runnable;
            all.extend(census.add(pid, &stat, page));
            // The kernel shows the memory of threads that live.
            if let Some((_, thread)) = self.survivor(pid, &stat) {
                census.add_memory(&thread, page);
            }
            if before < most && census.runnable >= most {
                crowd();
            }
        });
        (census, all)
    }

    /// How long the first thread of a process has run, and how long it has waited for a processor.
    pub(super) fn share(&self, pid: i32) -> Option<(Duration, Duration)> {
        let text = read(self.processes.as_fd(), &format!("{pid}/schedstat"))?;
        let mut numbers = text.split(' ').map_while(|number| number.parse().ok());
        Some((
            Duration::from_nanos(numbers.next()?),
            Duration::from_nanos(numbers.next()?),
        ))
    }

    /// Threads that run or want to, those of each process included: 10 us for each.
    pub(super) fn runnable(&self) -> u32 {
        let mut runnable = 0;
        self.for_each(|pid, _| {
            self.find_thread(pid, |thread| {
                runnable += u32::from(thread.runs());
                false
            });
        });
        runnable
    }

    /// The first thread of a process that `meant` is true of.
    fn find_thread(&self, pid: &str, mut meant: impl FnMut(&Stat) -> bool) -> Option<(String, Stat)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let threads = openat(&self.processes, format!("{pid}/task"), flags, Mode::empty()).ok()?;
        Dir::read_from(&threads).ok()?.flatten().find_map(|entry| {
            let name = entry.file_name().to_str().ok()?;
            let stat = Stat::parse(&read(threads.as_fd(), &format!("{name}/stat"))?)?;
            meant(&stat).then(|| (name.to_owned(), stat))
        })
    }

    /// A thread that lives on of a process whose first one has ended.
    fn survivor(&self, pid: &str, first: &Stat) -> Option<(String, Stat)> {
        if !first.has_ended() || first.threads < 2 {
            return None;
        }
        self.find_thread(pid, |thread| !thread.has_ended())
    }

    /// Processor time of the first threads of all processes that live; finer than the ticks of a census.
    pub(super) fn on_processor(&self) -> Duration {
        let mut nanos = 0_u64;
        self.for_each(|_, file| {
            let spent = file("schedstat").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
            nanos = nanos.saturating_add(spent.unwrap_or(0));
        });
        Duration::from_nanos(nanos)
    }

    /// What lies in the tmpfs.
    pub(super) fn files(&self) -> Lying {
        self.files.as_ref().map(|files| files.lying()).unwrap_or_default()
    }

    /// Memory that its processes have of their own, in bytes, shared pages counted once: 200 us and more for each. Page tables
    /// count, and all of a shared mapping without a file, of which pages may be held that no process has. The answer may be a
    /// long time in coming: the kernel waits for processes that change their mappings.
    pub(super) fn own_memory(&self) -> u64 {
        let (mut own, mut shared, mut mappings) = (0, 0, Mappings::default());
        self.for_each(|pid, file| {
            let place = self.place(pid, file("stat"));
            let part = |name: &str| file(&format!("{place}{name}")).unwrap_or_default();
            let (status, sums) = (part("status"), part("smaps_rollup"));
            if sums.is_empty() {
                // One that does not want to be looked at.
                own += resident(&status);
            } else {
                own += kilobytes(&sums, "Pss_Anon:") + kilobytes(&status, "VmPTE:");
                shared += kilobytes(&sums, "Pss_Shmem:");
            }
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            if let Ok(maps) = openat(&self.processes, format!("{pid}/{place}maps"), flags, Mode::empty()) {
                mappings.read(BufReader::new(File::from(maps))).ok();
            }
        });
        own + shared.max(mappings.bytes())
    }

    /// Memory that its processes have of their own, in bytes, shared pages counted for each that has them. Waits for nobody.
    pub(super) fn about(&self) -> u64 {
        let mut own = 0;
        self.for_each(|pid, file| {
            let place = self.place(pid, file("stat"));
            own += resident(&file(&format!("{place}status")).unwrap_or_default());
        });
        own
    }

    /// Below a process's folder, where its memory is shown.
    fn place(&self, pid: &str, stat: Option<String>) -> String {
        let first = stat.and_then(|text| Stat::parse(&text));
        let thread = first.and_then(|first| self.survivor(pid, &first));
        thread.map_or_else(String::new, |(name, _)| format!("task/{name}/"))
    }
}

/// Shared mappings without a file.
#[derive(Debug, Default)]
struct Mappings {
    /// By what they map, number and offset, the longest: processes that were forked share them.
    known: HashMap<(u64, u64), u64>,
    /// Bytes of those that are too many to be told apart.
    more: u64,
}

impl Mappings {
    const MOST: usize = 4096;

    /// Reads the mappings of a process. Of a line, which may end in a name of any length, only the beginning is kept.
    fn read(&mut self, mut maps: impl BufRead) -> std::io::Result<()> {
        let mut line = Vec::with_capacity(128);
        loop {
            line.clear();
            (&mut maps).take(128).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                maps.skip_until(b'\n')?;
            }
            if let Some((what, bytes)) = without_file(&String::from_utf8_lossy(&line)) {
                if self.known.len() < Self::MOST || self.known.contains_key(&what) {
                    let longest = self.known.entry(what).or_default();
                    *longest = bytes.max(*longest);
                } else {
                    self.more = self.more.saturating_add(bytes);
                }
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.known
            .values()
            .fold(self.more, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// A shared mapping without a file: what it maps, and its bytes.
fn without_file(line: &str) -> Option<((u64, u64), u64)> {
    let mut words = line.split_whitespace();
    let (range, rights, offset, _, number) = (
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
        words.next()?,
    );
    if !rights.ends_with('s') || words.next() != Some("/dev/zero") {
        return None;
    }
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (from, to) = range.split_once('-')?;
    Some((
        (number.parse().ok()?, hex(offset)?),
        hex(to)?.saturating_sub(hex(from)?),
    ))
}

/// What a process has in memory of its own, by its `status`: pages that are no file's, and the tables of its pages.
fn resident(status: &str) -> u64 {
    ["RssAnon:", "RssShmem:", "VmPTE:"]
        .iter()
        .map(|name| kilobytes(status, name))
        .sum()
}

/// What a line of this name says, in bytes.
fn kilobytes(text: &str, name: &str) -> u64 {
    let number = text.lines().find_map(|line| line.strip_prefix(name));
    let number = number.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

fn page_size() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

fn read(folder: BorrowedFd<'_>, name: &str) -> Option<String> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = Vec::new();
    File::from(file).read_to_end(&mut text).ok()?;
    // A process may have any bytes for its name.
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mappings_without_a_file_count_once_and_whole() {
        let long = "x".repeat(500);
        let maps = format!(
            "7f00-9f00 rw-s 00000000 00:01 77    /dev/zero (deleted)\n7f00-8f00 rw-s 00000000 00:01 77   /dev/zero (deleted)\n\
             1000-2000 rw-s 00001000 00:01 77    /dev/zero (deleted)\n1000-2000 rw-p 00000000 00:01 78  /dev/zero\n\
             1000-2000 rw-s 00000000 00:01 79    /{long}\n1000-3000 rw-s 00000000 00:01 80    /dev/zero (deleted)"
        );
        let mut mappings = Mappings::default();
        mappings.read(maps.as_bytes()).unwrap();
        assert_eq!(mappings.bytes(), 0x2000 + 0x1000 + 0x2000);
        for number in 0..5000 {
            let one = format!(
                "1000-2000 rw-s 00000000 00:01 {}    /dev/zero (deleted)\n",
                100 + number
            );
            mappings.read(one.as_bytes()).unwrap();
        }
        assert_eq!(mappings.bytes(), 0x5000 + 5000 * 0x1000);
    }

    #[test]
    fn a_census_counts_what_the_kernel_writes() {
        let mut census = Census::default();
        let first = "12 (a ) R) R 1 12 12 0 -1 4194560 1 2 3 4 50 7 2 1 20 0 3 0 900 1000 25 18446744073709551615 1 2 3 4 5 0 0 65537 2";
        let second = "13 (b) S 12 12 12 0 -1 4194560 1 2 3 4 10 0 0 0 25 5 1 0 901 1000 5 18446744073709551615 1 2 3 4 5 0 65536 4096 0";
        let dead = "14 (c) Z 12 12 12 0 -1 4194560 1 2 3 4 1 0 0 0 -20 -20 1 0 900 0 0 18446744073709551615 1";
        let all = [("12", first), ("13", second), ("14", dead), ("15", "nonsense")];
        let all: Vec<_> = all
            .iter()
            .filter_map(|(pid, stat)| census.add(pid, &Stat::parse(stat)?, 4096))
            .collect();
        let expected = Census {
            resident: 30 * 4096,
            mapped: 2000,
            ticks: 71,
            processes: 3,
            runnable: 1,
            further: 2,
            nice: Some(0),
        };
        assert_eq!(census, expected);
        let used = |pid, start, own, waited| Used {
            pid,
            start,
            own,
            waited,
            runs: pid == 12,
            forgets: pid == 12,
        };
        assert_eq!(all, [used(12, 900, 57, 3), used(13, 901, 10, 0), used(14, 900, 1, 0)]);
    }
}
