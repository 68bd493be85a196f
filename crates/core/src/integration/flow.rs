//! Flows: units of work, typed for their authors and erased for the registry.

use super::{Config, FlowContext};
use crate::{Data, Limits, Result, RetryPolicy};
use async_trait::async_trait;
use serde_json::Value;
use std::{num::NonZeroU32, time::Duration};

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
///
/// ```
/// use crosspoint_core::FlowOptions;
/// use std::time::Duration;
/// let options = FlowOptions::default().max_in_flight(5).rate(100, Duration::from_secs(60)).ordered_by("/order/number");
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct FlowOptions {
    /// When failed attempts are repeated.
    pub retry: RetryPolicy,
    /// Time and size limits of an attempt.
    pub limits: Limits,
    /// How many executions of the flow run at once for one installation; no maximum unless set. Further ones wait.
    pub max_in_flight: Option<NonZeroU32>,
    /// How many executions of the flow start in a time for one installation; no rate unless set. Further ones are delayed.
    pub rate: Option<(NonZeroU32, Duration)>,
    /// A JSON pointer into the input: executions of one installation with the same value there run one after the other, in
    /// the order in which they were accepted. Those without a value there are in nobody's order. Flows with a state run one
    /// after the other in any case.
    pub ordered_by: Option<String>,
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
    /// With at most so many executions at once for one installation; zero counts as one. Further ones wait, and nobody else
    /// for them.
    #[must_use]
    pub const fn max_in_flight(mut self, max: u32) -> Self {
        self.max_in_flight = Some(at_least_one(max));
        self
    }
    /// With at most `count` starts in every `time` for one installation; zero counts as one. Further ones are delayed until
    /// their turn.
    #[must_use]
    pub const fn rate(mut self, count: u32, time: Duration) -> Self {
        self.rate = Some((at_least_one(count), time));
        self
    }
    /// With executions that have the same value at this JSON pointer of their input running one after the other:
    /// `"/order/number"`.
    #[must_use]
    pub fn ordered_by(mut self, pointer: impl Into<String>) -> Self {
        self.ordered_by = Some(pointer.into());
        self
    }
}

const fn at_least_one(n: u32) -> NonZeroU32 {
    match NonZeroU32::new(n) {
        Some(n) => n,
        None => NonZeroU32::MIN,
    }
}
