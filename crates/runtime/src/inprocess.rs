//! Rust flows, as tasks of the host's own process.

use crate::redact::Redactor;
use async_trait::async_trait;
use crosspoint_core::{
    Audience, Clock, Code, Error, FlowContext, Isolation, IsolationReport, Journal, Level, LogEntry, Result, RunEnd,
    RunHandle, RunOutcome, RunSpec, Runner, StopReason, Work,
};
use serde_json::Value;
use std::{any::Any, sync::Arc, time::Duration};
use tokio::{
    task::{JoinError, JoinHandle},
    time::Instant,
};

/// Runs flows that are compiled into the host, at [`Isolation::Trusted`].
///
/// Each attempt is a tokio task of its own. A panic in it becomes [`Code::FlowPanicked`]; at the deadline, and when it is
/// told to stop, the task is dropped at its next `await`. Code that blocks its thread or never awaits cannot be stopped:
/// use `tokio::task::spawn_blocking` for that.
///
/// ```
/// use crosspoint_core::{SystemClock, Isolation, Runner};
/// use crosspoint_runtime::InProcess;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let runner = InProcess::new(std::sync::Arc::new(SystemClock::new()));
/// assert_eq!(runner.probe().await.level, Isolation::Trusted);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct InProcess {
    clock: Arc<dyn Clock>,
}

impl InProcess {
    /// A runner that stamps its logs with this clock.
    #[must_use]
    pub const fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }

    fn check(work: &Work, require: Isolation) -> Result<()> {
        if !matches!(work, Work::Flow(_)) {
            return Err(Error::new(
                Code::SetupInvalid,
                "this runner runs Rust flows, not scripts",
            ));
        }
        if require > Isolation::Trusted {
            return Err(crate::isolation_unavailable(
                require,
                Isolation::Trusted,
                "a Rust flow shares the host's process; write it as a script to keep it apart",
            ));
        }
        Ok(())
    }
}

#[async_trait]
impl Runner for InProcess {
    fn name(&self) -> &'static str {
        "in-process"
    }

    async fn probe(&self) -> IsolationReport {
        IsolationReport::new(
            Isolation::Trusted,
            vec!["tokio-task".to_owned(), "panic-caught".to_owned()],
            vec!["a process of its own: write the flow as a script".to_owned()],
        )
    }

    async fn prepare(&self, work: &Work, require: Isolation) -> Result<()> {
        Self::check(work, require)
    }

    async fn start(&self, spec: RunSpec) -> Result<Box<dyn RunHandle>> {
        Self::check(&spec.work, spec.require)?;
        let Work::Flow(flow) = &spec.work else {
            return Err(Error::new(
                Code::Internal,
                "the kind of work changed after it was checked",
            ));
        };
        let flow = Arc::clone(flow);
        let journal = Journal::default();
        let now = self.clock.now();
        let started = Instant::now();
        let (input, redactor, deadline) = (
            spec.input.clone(),
            Redactor::new(&spec.secrets),
            spec.deadline.since(now),
        );
        let stateful = spec.stateful;
        let context = FlowContext::new(spec, stateful, journal.clone(), Arc::clone(&self.clock));
        let task = tokio::spawn(async move { flow.run_value(context, input).await });
        Ok(Box::new(Running {
            task: Some(task),
            journal,
            redactor,
            clock: Arc::clone(&self.clock),
            started,
            deadline: started + deadline.min(crate::FAR),
            stopped: None,
        }))
    }
}

struct Running {
    task: Option<JoinHandle<Result<Value>>>,
    journal: Journal,
    redactor: Redactor,
    clock: Arc<dyn Clock>,
    started: Instant,
    deadline: Instant,
    stopped: Option<StopReason>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

impl Running {
    fn abort(&mut self, why: StopReason) {
        if let Some(task) = &self.task {
            self.stopped.get_or_insert(why);
            task.abort();
        }
    }

    async fn ended(&mut self) -> std::result::Result<Result<Value>, JoinError> {
        let Some(task) = self.task.as_mut() else {
            return std::future::pending().await;
        };
        let ended = tokio::select! {
            biased;
            ended = &mut *task => ended,
            () = tokio::time::sleep_until(self.deadline), if self.stopped.is_none() => {
                self.stopped = Some(StopReason::Deadline);
                task.abort();
                task.await
            }
        };
        self.task = None;
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[async_trait]
impl RunHandle for Running {
    async fn wait(&mut self) -> RunOutcome {
        let ended = self.ended().await;
        let (mut log, dropped) = self.journal.take_log();
        let end = match ended {
            Ok(Ok(value)) => RunEnd::Succeeded(value),
            Ok(Err(error)) => RunEnd::Failed(error),
            Err(error) if error.is_panic() => {
                let mut said = panic_message(&*error.into_panic());
                self.redactor.text(&mut said);
                let line = format!("the flow panicked: {said}");
                log.push(LogEntry::new(self.clock.now(), Level::Error, Audience::Developer, line));
                RunEnd::Failed(Error::new(
                    Code::FlowPanicked,
                    "the flow panicked; its log for developers says where",
                ))
            }
            Err(_) => RunEnd::Stopped(self.stopped.unwrap_or(StopReason::Draining)),
        };
        if dropped > 0 {
            let line = format!("{dropped} further lines of log were dropped");
            log.push(LogEntry::new(self.clock.now(), Level::Warn, Audience::Developer, line));
        }
        let mut outcome = RunOutcome::new(end, Isolation::Trusted);
        outcome.log = log;
        outcome.state = self.journal.take_state();
        outcome.follow_ups = self.journal.take_follow_ups();
        outcome.run = self.started.elapsed();
        outcome
    }

    async fn cancel(&mut self, why: StopReason, _: Duration) {
        self.abort(why);
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "with a value that is not a text".to_owned())
}
