//! Interpreters that wait for their one run. Every run here is a real one, on the machine's own time; what is waited for is
//! what the pool tells, or the end of a process.

mod apart;
mod ends;
mod same;

use crate::{
    machine::{self, PYTHON, has},
    processes::Process,
};
use crosspoint_core::{
    Clock, CustomerId, InstallationId, InvocationId, Isolation, RunHandle, RunOutcome, RunSpec, Runner, Script,
    SystemClock, Timestamp, Work,
};
use crosspoint_runtime::{Subprocess, WarmOptions, WarmStats};
use std::{sync::Arc, time::Duration};

/// The levels that can be tested here, `process` too; none without Python.
async fn grounds() -> Vec<Isolation> {
    if !has(PYTHON) {
        return Vec::new();
    }
    let mut all = vec![Isolation::Process];
    all.extend(machine::levels(Isolation::Confined).await);
    all
}

fn python(level: Isolation, text: &str) -> Script {
    Script::inline(PYTHON, text).isolation(level)
}

/// What waits does not go on a machine that is busy with other things.
const KEEP: WarmOptions = WarmOptions::new().idle(Duration::from_secs(3600));

/// A runner, and what is the same in all of its runs.
struct Bed {
    runner: Subprocess,
    clock: Arc<SystemClock>,
    execution: InvocationId,
    installation: InstallationId,
    deadline: Timestamp,
}

impl Bed {
    fn new(options: WarmOptions) -> Self {
        let clock = Arc::new(SystemClock::new());
        Self {
            runner: machine::runner(clock.clone()).warm(options),
            execution: InvocationId::mint(&*clock),
            installation: InstallationId::mint(&*clock),
            deadline: clock.now().plus(Duration::from_secs(600)),
            clock,
        }
    }

    fn spec(&self, customer: &str, script: &Arc<Script>) -> RunSpec {
        let (customer, work) = (CustomerId::new(customer).unwrap(), Work::Script(Arc::clone(script)));
        RunSpec::new(self.execution, customer, self.installation, "go", work, self.deadline)
    }

    async fn start(
        &self,
        customer: &str,
        script: &Arc<Script>,
        change: impl FnOnce(&mut RunSpec) + Send,
    ) -> Box<dyn RunHandle> {
        let mut spec = self.spec(customer, script);
        change(&mut spec);
        self.runner.start(spec).await.unwrap()
    }

    async fn run(&self, customer: &str, script: &Arc<Script>, change: impl FnOnce(&mut RunSpec) + Send) -> RunOutcome {
        self.start(customer, script, change).await.wait().await
    }

    async fn until(&self, wished: impl FnMut(&WarmStats) -> bool + Send) {
        let waited = tokio::time::timeout(Duration::from_secs(120), self.runner.warm_until(wished));
        assert!(waited.await.is_ok(), "{:?}", self.runner.warm_stats());
    }

    /// Uses a script until an interpreter is ready for it; it must be the only one. Answers a cold outcome.
    async fn warm_up(
        &self,
        customer: &str,
        script: &Arc<Script>,
        change: impl Fn(&mut RunSpec) + Send + Sync,
    ) -> RunOutcome {
        let cold = self.run(customer, script, &change).await;
        assert_eq!(self.runner.warm_stats().hits, 0);
        self.run(customer, script, &change).await;
        self.until(|stats| stats.ready > 0).await;
        cold
    }

    /// Runs it by an interpreter that waits.
    async fn warmly(
        &self,
        customer: &str,
        script: &Arc<Script>,
        change: impl FnOnce(&mut RunSpec) + Send,
    ) -> RunOutcome {
        let before = self.runner.warm_stats().hits;
        let outcome = self.run(customer, script, change).await;
        assert_eq!(self.runner.warm_stats().hits, before + 1, "{outcome:?}");
        outcome
    }
}

/// The processes of this machine that have this in their environment.
fn marked(mark: &str) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let carries = |pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let dead = Process::of(*pid).is_none_or(|process| matches!(process.state, 'Z' | 'X'));
        !dead
            && environment
                .split(|b| *b == 0)
                .any(|variable| variable == mark.as_bytes())
    };
    numbers.filter(carries).collect()
}

/// Waits until processes have ended.
async fn gone(pids: Vec<i32>) {
    for pid in pids {
        let waited = tokio::task::spawn_blocking(move || {
            use rustix::{event, process};
            let pid = process::Pid::from_raw(pid).unwrap();
            let Ok(pidfd) = process::pidfd_open(pid, process::PidfdFlags::empty()) else {
                return true;
            };
            let mut polled = [event::PollFd::new(&pidfd, event::PollFlags::IN)];
            let most = event::Timespec { tv_sec: 60, tv_nsec: 0 };
            rustix::io::retry_on_intr(|| event::poll(&mut polled, Some(&most))).unwrap() == 1
        });
        assert!(waited.await.unwrap(), "{pid} lives on");
    }
}
