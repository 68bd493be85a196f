//! Which runner takes which work.

use crate::InProcess;
use async_trait::async_trait;
use crosspoint_core::{Clock, Isolation, IsolationReport, Result, RunHandle, RunSpec, Runner, Work};
use std::sync::Arc;

/// The runners of a platform: one for Rust flows and any number for scripts.
///
/// A script goes to the first of its runners that proves the isolation that the script asks for; where none does, it is
/// refused with `isolation-unavailable`, never run at less.
///
/// ```
/// use crosspoint_core::{Isolation, Runner, SystemClock};
/// use crosspoint_runtime::Runners;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let runners = Runners::standard(std::sync::Arc::new(SystemClock::new()));
/// println!("scripts run at `{}`", runners.probe().await.level);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Runners {
    flows: Arc<dyn Runner>,
    scripts: Vec<Arc<dyn Runner>>,
}

impl Runners {
    /// Rust flows in process, and no scripts.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            flows: Arc::new(InProcess::new(clock)),
            scripts: Vec::new(),
        }
    }

    /// Rust flows in process, scripts as subprocesses where the system has them.
    #[must_use]
    pub fn standard(clock: Arc<dyn Clock>) -> Self {
        let runners = Self::new(Arc::clone(&clock));
        #[cfg(unix)]
        let runners = runners.with_scripts(Arc::new(crate::Subprocess::new(clock)));
        runners
    }

    /// Replaces the runner of Rust flows.
    #[must_use]
    pub fn with_flows(mut self, runner: Arc<dyn Runner>) -> Self {
        self.flows = runner;
        self
    }

    /// Adds a runner of scripts behind those that are there.
    #[must_use]
    pub fn with_scripts(mut self, runner: Arc<dyn Runner>) -> Self {
        self.scripts.push(runner);
        self
    }

    async fn choose(&self, work: &Work, require: Isolation) -> Result<&Arc<dyn Runner>> {
        let scripts = match work {
            Work::Script(_) => &self.scripts,
            _ => return Ok(&self.flows),
        };
        let mut best = IsolationReport::new(Isolation::Trusted, Vec::new(), vec!["a runner for scripts".to_owned()]);
        for runner in scripts {
            let report = runner.probe().await;
            if report.level >= require {
                return Ok(runner);
            }
            if report.level >= best.level {
                best = report;
            }
        }
        Err(crate::isolation_unavailable(
            require,
            best.level,
            &best.missing.join("; "),
        ))
    }

    fn required(work: &Work, require: Isolation) -> Isolation {
        match work {
            Work::Script(script) => require.max(script.required_isolation()).max(Isolation::Process),
            _ => require,
        }
    }
}

#[async_trait]
impl Runner for Runners {
    fn name(&self) -> &'static str {
        "runners"
    }

    /// The strongest isolation that scripts can have.
    async fn probe(&self) -> IsolationReport {
        let mut best = self.flows.probe().await;
        for runner in &self.scripts {
            let report = runner.probe().await;
            if report.level > best.level {
                best = report;
            }
        }
        best
    }

    async fn prepare(&self, work: &Work, require: Isolation) -> Result<()> {
        let require = Self::required(work, require);
        self.choose(work, require).await?.prepare(work, require).await
    }

    async fn start(&self, mut spec: RunSpec) -> Result<Box<dyn RunHandle>> {
        spec.require = Self::required(&spec.work, spec.require);
        let runner = self.choose(&spec.work, spec.require).await?;
        runner.start(spec).await
    }
}
