//! Watches a run's memory and processor time where no control group does.
//!
//! A look reads `statm` of each process (4 us); only when that is past half the limit are shared pages told from private
//! ones, which takes 40 times as long. The tmpfs counts as memory, since it is.

use super::{
    confined::{self, Marked},
    sys,
};
use crosspoint_core::Limits;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Dir, Mode, OFlags, fstatfs, openat},
    process::{Signal, pidfd_send_signal},
};
use std::{
    fs::File,
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::AbortHandle;

/// Short runs are looked at early, long ones seldom, those near their limit often.
const FIRST: Duration = Duration::from_millis(10);
const SELDOM: Duration = Duration::from_millis(200);
const OFTEN: Duration = Duration::from_millis(50);

/// Ends a run and all that it started.
#[derive(Debug, Clone)]
pub(super) struct Killer {
    pub(super) pidfd: Arc<OwnedFd>,
    pub(super) mark: Option<u64>,
}

impl Killer {
    pub(super) fn kill(&self) {
        pidfd_send_signal(&*self.pidfd, Signal::KILL).ok();
        if let Some(mark) = self.mark {
            confined::kill(Marked::Run(mark));
        }
    }
}

/// Why the guard killed a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Memory,
    Processor,
}

/// What the guard saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    peak: AtomicU64,
    verdict: AtomicU8,
}

impl Seen {
    pub(super) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self.verdict.load(Ordering::Acquire) {
            1 => Verdict::Memory,
            2 => Verdict::Processor,
            _ => Verdict::Fine,
        }
    }

    fn decide(&self, verdict: Verdict) {
        let number = match verdict {
            Verdict::Fine => 0,
            Verdict::Memory => 1,
            Verdict::Processor => 2,
        };
        self.verdict.store(number, Ordering::Release);
    }
}

/// Where a run's processes and files are seen.
#[derive(Debug)]
pub(super) struct View {
    /// A /proc.
    pub(super) processes: OwnedFd,
    /// The tmpfs.
    pub(super) files: Option<OwnedFd>,
    /// Which of its processes, if not all.
    pub(super) mark: Option<u64>,
}

/// The watch over a run. Ends when this is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) seen: Arc<Seen>,
    task: AbortHandle,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Guard {
    pub(super) fn start(view: View, limits: Limits, killer: Killer) -> Self {
        let seen = Arc::new(Seen::default());
        let task = tokio::spawn(watch(view, limits, killer, Arc::clone(&seen))).abort_handle();
        Self { seen, task }
    }
}

async fn watch(view: View, limits: Limits, killer: Killer, seen: Arc<Seen>) {
    let mut pause = FIRST;
    let mut since_processor = Duration::ZERO;
    loop {
        tokio::time::sleep(pause).await;
        since_processor += pause;
        let used = view.memory(limits.memory / 2);
        seen.peak.fetch_max(used, Ordering::Relaxed);
        if used > limits.memory {
            seen.decide(Verdict::Memory);
            return killer.kill();
        }
        if since_processor >= Duration::from_secs(1) {
            since_processor = Duration::ZERO;
            if view.processor() > Duration::from_millis(limits.cpu_ms) {
                seen.decide(Verdict::Processor);
                return killer.kill();
            }
        }
        pause = if used > limits.memory / 2 {
            OFTEN
        } else {
            (pause * 2).min(SELDOM)
        };
    }
}

impl View {
    /// Calls `each` with a reader of files of each process.
    fn for_each(&self, mut each: impl FnMut(&dyn Fn(&str) -> Option<String>)) {
        let processes = self.processes.as_fd();
        let mut visit = |pid: &str| each(&|name| read(processes, &format!("{pid}/{name}")));
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

    /// Memory in use, in bytes; exact only if it is more than `enough`.
    fn memory(&self, enough: u64) -> u64 {
        let files = self.files.as_ref().and_then(|files| fstatfs(files).ok());
        let files = files.map_or(0, |found| {
            let block = u64::try_from(found.f_bsize).unwrap_or(0);
            found.f_blocks.saturating_sub(found.f_bfree) * block
        });
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let mut resident = 0;
        self.for_each(|file| {
            let pages = file("statm").and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
            resident += pages.unwrap_or(0) * page;
        });
        if resident + files <= enough {
            return resident + files;
        }
        let mut own = 0;
        self.for_each(|file| {
            let Some(text) = file("smaps_rollup") else { return };
            for line in text.lines() {
                let part = line
                    .strip_prefix("Pss_Anon:")
                    .or_else(|| line.strip_prefix("Pss_Shmem:"));
                let kib = part.and_then(|part| part.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
                own += kib.unwrap_or(0) * 1024;
            }
        });
        own + files
    }

    /// Processor time of all processes that live, and of those that they waited for.
    fn processor(&self) -> Duration {
        let mut ticks = 0;
        self.for_each(|file| {
            let Some(text) = file("stat") else { return };
            let Some((_, rest)) = text.rsplit_once(") ") else {
                return;
            };
            ticks += rest
                .split(' ')
                .skip(11)
                .take(4)
                .filter_map(|n| n.parse::<u64>().ok())
                .sum::<u64>();
        });
        Duration::from_secs(ticks) / sys::ticks_per_second()
    }
}

fn read(folder: BorrowedFd<'_>, name: &str) -> Option<String> {
    let file = openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).ok()?;
    Some(text)
}
