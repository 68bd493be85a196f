//! What a run consumes, seen from outside: for levels without a control group of their own.

use super::group::Group;
use crosspoint_core::Usage;
use rustix::process::Pid;
use std::{convert::Infallible, time::Duration};
use tokio::time::sleep;

/// The first look comes soon, as most runs are short; later ones are rarer.
const FIRST: Duration = Duration::from_millis(2);
const LAST: Duration = Duration::from_millis(200);

/// Processes that are looked at. A run with more than that is stopped by other limits.
const PROCESSES: usize = 256;

/// Looks at the processes of a run now and then, and kills them when together they hold more memory than they may.
///
/// The kernel tells it on Linux; elsewhere everything stays at zero and nothing is killed.
#[derive(Debug)]
pub(super) struct Meter {
    leader: Pid,
    group: Group,
    limit: u64,
    pause: Duration,
    peak: u64,
    /// Milliseconds of processor time that are not the run's.
    before: u64,
    /// The run was killed for the memory it held.
    pub(super) exceeded: bool,
}

impl Meter {
    pub(super) const fn new(leader: Pid, group: Group, limit: u64) -> Self {
        Self {
            leader,
            group,
            limit,
            pause: FIRST,
            peak: 0,
            before: 0,
            exceeded: false,
        }
    }

    /// Looks again and again, for as long as anybody waits.
    pub(super) async fn watch(&mut self) -> Infallible {
        loop {
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LAST);
            self.look();
        }
    }

    fn look(&mut self) {
        let tree = proc::tree(self.leader, PROCESSES);
        // Memory that processes share counts for each of them here, so this is an upper bound; the exact figure costs
        // a walk through their page tables and is taken only when it matters.
        let bound: u64 = tree.iter().map(|pid| proc::resident(*pid)).sum();
        let held = if bound > self.limit {
            tree.iter().map(|pid| proc::proportional(*pid)).sum()
        } else {
            bound
        };
        self.peak = self.peak.max(held).max(proc::peak(self.leader));
        if held > self.limit {
            self.exceeded = true;
            self.group.signal(rustix::process::Signal::KILL);
        }
    }

    /// From here on, processor time counts.
    pub(super) fn begin(&mut self) {
        self.before = proc::cpu_ms(self.leader);
    }

    /// Bytes of memory that are held now.
    pub(super) fn held(&self) -> u64 {
        let tree = proc::tree(self.leader, PROCESSES);
        tree.iter().map(|pid| proc::proportional(*pid)).sum()
    }

    /// What was consumed. To be read while the leader is not reaped.
    pub(super) fn read(&self) -> Usage {
        let mut usage = Usage::default();
        usage.cpu_ms = proc::cpu_ms(self.leader).saturating_sub(self.before);
        usage.peak_memory = self.peak;
        usage
    }
}

/// Reads the `proc` file system. Whatever is not there is zero: a process may end at any time.
#[cfg(target_os = "linux")]
mod proc {
    use crate::stat::Stat;
    use rustix::process::Pid;
    use std::fs::read_to_string;

    fn number(text: Option<&str>) -> u64 {
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// A line such as `VmHWM:   1234 kB`, in bytes.
    fn line(file: &str, name: &str) -> u64 {
        let text = read_to_string(file).unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        number(found.and_then(|rest| rest.split_ascii_whitespace().next())).saturating_mul(1024)
    }

    /// A process and its descendants, as far as the kernel lists them.
    pub(super) fn tree(leader: Pid, most: usize) -> Vec<i32> {
        let mut found = vec![leader.as_raw_nonzero().get()];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            next += 1;
            let children = read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let room = most.saturating_sub(found.len());
            found.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|child| child.parse::<i32>().ok())
                    .take(room),
            );
        }
        found
    }

    pub(super) fn resident(pid: i32) -> u64 {
        let text = read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages = number(text.split_ascii_whitespace().nth(1));
        pages.saturating_mul(u64::try_from(rustix::param::page_size()).unwrap_or(4096))
    }

    pub(super) fn proportional(pid: i32) -> u64 {
        line(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
    }

    pub(super) fn peak(leader: Pid) -> u64 {
        line(&format!("/proc/{}/status", leader.as_raw_nonzero()), "VmHWM:")
    }

    /// Of a process and of those of its descendants that were waited for.
    pub(super) fn cpu_ms(leader: Pid) -> u64 {
        let text = std::fs::read(format!("/proc/{}/stat", leader.as_raw_nonzero())).unwrap_or_default();
        let stat = Stat::parse(&String::from_utf8_lossy(&text));
        let ticks = stat.map_or(0, |stat| stat.own + stat.waited);
        ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1)
    }
}

#[cfg(not(target_os = "linux"))]
mod proc {
    use rustix::process::Pid;

    pub(super) fn tree(_: Pid, _: usize) -> Vec<i32> {
        Vec::new()
    }
    pub(super) fn resident(_: i32) -> u64 {
        0
    }
    pub(super) fn proportional(_: i32) -> u64 {
        0
    }
    pub(super) fn peak(_: Pid) -> u64 {
        0
    }
    pub(super) fn cpu_ms(_: Pid) -> u64 {
        0
    }
}
