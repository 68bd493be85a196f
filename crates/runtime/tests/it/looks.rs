//! A runner that runs nothing, and remembers what it was asked for.

use async_trait::async_trait;
use crosspoint_core::{
    Isolation, IsolationReport, Result, RunEnd, RunHandle, RunOutcome, RunSpec, Runner, StopReason, Work,
};
use serde_json::Value;
use std::{sync::Mutex, time::Duration};

#[derive(Debug, Default)]
pub(crate) struct Looks(pub(crate) Mutex<Vec<RunSpec>>);

#[derive(Debug)]
struct Done;

#[async_trait]
impl Runner for Looks {
    fn name(&self) -> &'static str {
        "looks"
    }
    async fn probe(&self) -> IsolationReport {
        IsolationReport::new(Isolation::Machine, Vec::new(), Vec::new())
    }
    async fn prepare(&self, _: &Work, _: Isolation) -> Result<()> {
        Ok(())
    }
    async fn start(&self, spec: RunSpec) -> Result<Box<dyn RunHandle>> {
        self.0.lock().unwrap().push(spec);
        Ok(Box::new(Done))
    }
}

#[async_trait]
impl RunHandle for Done {
    async fn wait(&mut self) -> RunOutcome {
        RunOutcome::new(RunEnd::Succeeded(Value::Null), Isolation::Machine)
    }
    async fn cancel(&mut self, _: StopReason, _: Duration) {}
}
