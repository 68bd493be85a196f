//! Flows: units of work, typed for their authors and erased for the registry.

use super::{Config, FlowContext};
use crate::{Data, Limits, Result, RetryPolicy};
use async_trait::async_trait;
use serde_json::Value;

/// One unit of work of an integration, compiled into the host.
///
/// It may run more than once for the same trigger: effects happen at least once, and the keys that actions hand to
/// providers stay the same over attempts. See [`Integration`](super::Integration) for an example.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a flow of this integration",
    note = "implement `Flow` with `Config` set to the integration's configuration type"
)]
pub trait Flow: Send + Sync + 'static {
    /// Whether it remembers something between executions ([`FlowContext::state`]). Then its executions run one at a
    /// time for each installation.
    const STATEFUL: bool = false;
    /// The integration's configuration.
    type Config: Config;
    /// What its trigger brings.
    type Input: Data;
    /// What it answers.
    type Output: Data;

    /// Does the work.
    async fn run(&self, cx: &FlowContext<Self::Config>, input: Self::Input) -> Result<Self::Output>;
}

/// The erased twin of [`Flow`].
#[async_trait]
pub trait DynFlow: Send + Sync {
    /// Does the work over JSON.
    async fn run_value(&self, cx: FlowContext<Value>, input: Value) -> Result<Value>;
}

#[async_trait]
impl<F: Flow> DynFlow for F {
    async fn run_value(&self, cx: FlowContext<Value>, input: Value) -> Result<Value> {
        let cx = cx.typed::<F::Config>()?;
        let input = crate::connector::from_value(input, "the input of the flow")?;
        crate::connector::to_value(&self.run(&cx, input).await?)
    }
}

/// Retries and limits of a flow.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct FlowOptions {
    /// When failed attempts are repeated.
    pub retry: RetryPolicy,
    /// Time and size limits of an attempt.
    pub limits: Limits,
}

impl FlowOptions {
    /// With this retry policy.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }
    /// With these limits.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}
