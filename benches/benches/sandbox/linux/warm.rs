//! Python with `ssl`, `urllib.request` and `json`: kept warm, and started cold, through the runner of the platform.

use super::tables::{paced_by, row};
use crosspoint_core::{
    Clock, CustomerId, InstallationId, InvocationId, RunEnd, RunSpec, Runner, Script, SystemClock, Work,
};
use crosspoint_runtime::{Subprocess, WarmOptions};
use std::{sync::Arc, time::Duration};

/// Runs start this far apart: 20 a second.
const PACE: Duration = Duration::from_millis(50);

const CODE: &str = "import json, os, ssl, urllib.request\n\
                    with open(os.environ['XP_RESULT_FILE'], 'w') as file:\n    json.dump({'ok': True}, file)\n";

/// A runner and a script.
pub(super) struct Python {
    runtime: tokio::runtime::Runtime,
    runner: Subprocess,
    clock: Arc<SystemClock>,
    script: Arc<Script>,
}

impl Python {
    fn new(script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let clock = Arc::new(SystemClock::new());
        Self {
            runtime,
            runner: Subprocess::new(clock.clone()).warm(WarmOptions::new().per_script(16)),
            clock,
            script: Arc::new(script),
        }
    }

    pub(super) fn warm() -> Self {
        let script = Script::inline("/usr/bin/python3", CODE).warm(["ssl", "urllib.request", "json"]);
        Self::new(script)
    }

    pub(super) fn cold() -> Self {
        Self::new(Script::inline("/usr/bin/python3", CODE))
    }

    /// From the start asked for to the outcome: the run has ended and its result is read.
    pub(super) fn once(&self) {
        self.runtime.block_on(self.run());
    }

    async fn run(&self) {
        let customer = CustomerId::new("acme").unwrap();
        let (execution, installation) = (InvocationId::mint(&*self.clock), InstallationId::mint(&*self.clock));
        let deadline = self.clock.now().plus(Duration::from_secs(60));
        let work = Work::Script(Arc::clone(&self.script));
        let spec = RunSpec::new(execution, customer, installation, "go", work, deadline);
        let outcome = self.runner.start(spec).await.unwrap().wait().await;
        assert!(matches!(outcome.end, RunEnd::Succeeded(_)), "{outcome:?}");
    }

    /// Waits until an interpreter is ready.
    pub(super) fn ready(&self) {
        self.runtime.block_on(self.runner.warm_until(|stats| stats.ready > 0));
    }
}

/// Sustained runs, with their tails.
pub(super) fn print(measured: bool) {
    let runs = if measured { 600 } else { 2 };
    println!("\nPython with ssl, urllib.request and json, 20 a second: us p50, p90, p99 of {runs}");
    let cold = Python::cold();
    row("cold_python", &paced_by(PACE, runs.min(200), || cold.once()));
    let warm = Python::warm();
    row("warm_python", &paced_by(PACE, runs, || warm.once()));
    let stats = warm.runner.warm_stats();
    println!(
        "{} of {} were ready; {} MiB each",
        stats.hits,
        stats.hits + stats.misses,
        (stats.memory / u64::try_from(stats.ready).unwrap().max(1)) >> 20
    );
}
