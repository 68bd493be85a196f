//! Executions: what a flow's runs leave behind, and the only way in which their results are written.

use crate::{
    Cancel, CustomerId, Envelope, Failure, FleetScope, InstallationId, InvocationId, Isolation, LeaseRef, Origin, Page,
    Paged, ReplayConfig, ReplayState, Reply, Result, Scope, Timestamp, Usage,
};
use async_trait::async_trait;
use serde_json::Value;
use std::{fmt::Debug, sync::Arc};

/// Which flow an envelope starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct FlowRef {
    /// The installation.
    pub installation: InstallationId,
    /// The integration's name.
    pub integration: Arc<str>,
    /// The integration's version at the start.
    pub version: Arc<str>,
    /// The flow's name.
    pub flow: Arc<str>,
    /// What started it.
    pub trigger: TriggerKind,
    /// The revision of the installation whose configuration it runs with; the present one unless set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What becomes of its state.
    #[serde(default)]
    pub state: ReplayState,
}

impl FlowRef {
    /// Names a flow, to be run with the present configuration and to save its state.
    #[must_use]
    pub fn new(
        installation: InstallationId,
        integration: &str,
        version: &str,
        flow: &str,
        trigger: TriggerKind,
    ) -> Self {
        Self {
            installation,
            integration: integration.into(),
            version: version.into(),
            flow: flow.into(),
            trigger,
            revision: None,
            state: ReplayState::Save,
        }
    }

    /// With which configuration it runs.
    #[must_use]
    pub const fn config(&self) -> ReplayConfig {
        match self.revision {
            Some(_) => ReplayConfig::Original,
            None => ReplayConfig::Current,
        }
    }
}

/// What started an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TriggerKind {
    /// Something happened in the host.
    Event,
    /// Its time had come.
    Schedule,
    /// A provider called.
    Webhook,
    /// Somebody called.
    Call,
    /// Another execution ended.
    FollowUp,
}

/// Where an execution stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExecutionStatus {
    /// Accepted, not begun.
    Queued,
    /// An attempt is running.
    Running,
    /// Waiting for the time of the next attempt.
    Waiting,
    /// Told to stop, not yet stopped.
    Cancelling,
    /// Done.
    Succeeded,
    /// Ended without success; not tried again by itself.
    Failed,
    /// Stopped on request.
    Cancelled,
    /// Not begun in time.
    Expired,
}

impl ExecutionStatus {
    /// Whether it can never change again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

/// Where the time of the last attempt went, in milliseconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default)]
#[non_exhaustive]
pub struct Timings {
    /// Ready, waiting for a worker.
    pub queue_ms: u64,
    /// Loading configuration, state and credentials; starting the runner.
    pub setup_ms: u64,
    /// The integration's own code.
    pub run_ms: u64,
}

/// One run of a flow.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct Execution {
    /// Its id, which is the id of the invocation that started it.
    pub id: InvocationId,
    /// Whose.
    #[serde(skip)]
    pub customer: CustomerId,
    /// Of which installation.
    pub installation: InstallationId,
    /// The integration's name.
    pub integration: String,
    /// The integration's version.
    pub version: String,
    /// The flow's name.
    pub flow: String,
    /// What started it.
    pub trigger: TriggerKind,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// How many attempts were begun.
    pub attempt: u32,
    /// How many are made at most.
    pub max_attempts: u32,
    /// When it was accepted.
    pub created: Timestamp,
    /// When the last attempt was leased.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// When the next attempt is due, while waiting.
    pub next_attempt: Option<Timestamp>,
    /// Where the time of the last attempt went.
    pub timings: Timings,
    /// The isolation that the last attempt ran at.
    pub isolation: Option<Isolation>,
    /// What the last attempt consumed.
    pub usage: Usage,
    /// Why it failed or waits.
    pub failure: Option<Failure>,
    /// What it repeats.
    pub origin: Origin,
    /// The revision of the installation that the last attempt ran with.
    pub revision: Option<u64>,
    /// With which configuration it runs.
    pub config: ReplayConfig,
    /// What becomes of its state.
    pub state: ReplayState,
    /// What it says of how far it is, while an attempt runs.
    pub progress: Option<Progress>,
}

impl Execution {
    /// A run that was accepted and not begun; for implementations of [`Executions`].
    #[must_use]
    pub fn new(id: InvocationId, customer: CustomerId, flow: &FlowRef, created: Timestamp) -> Self {
        Self {
            id,
            customer,
            installation: flow.installation,
            integration: flow.integration.as_ref().to_owned(),
            version: flow.version.as_ref().to_owned(),
            flow: flow.flow.as_ref().to_owned(),
            trigger: flow.trigger,
            status: ExecutionStatus::Queued,
            attempt: 0,
            max_attempts: 1,
            created,
            started: None,
            finished: None,
            next_attempt: None,
            timings: Timings::default(),
            isolation: None,
            usage: Usage::default(),
            failure: None,
            origin: Origin::First,
            revision: flow.revision,
            config: flow.config(),
            state: flow.state,
            progress: None,
        }
    }
}

/// How far a run is, in its own words.
///
/// ```
/// use crosspoint_core::{Progress, Timestamp};
/// let progress = Progress::new(Timestamp::from_millis(0)).done(3.0).total(8.0).text("orders read");
/// assert_eq!((progress.done, progress.total), (Some(3.0), Some(8.0)));
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct Progress {
    /// When it said so.
    pub at: Timestamp,
    /// How much is done, in units of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<f64>,
    /// How much there is to do, in the same units, if it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
    /// In words; redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Progress {
    /// Something was said at this time.
    #[must_use]
    pub const fn new(at: Timestamp) -> Self {
        Self {
            at,
            done: None,
            total: None,
            text: None,
        }
    }

    /// So much is done.
    #[must_use]
    pub const fn done(mut self, done: f64) -> Self {
        self.done = Some(done);
        self
    }

    /// Of so much.
    #[must_use]
    pub const fn total(mut self, total: f64) -> Self {
        self.total = Some(total);
        self
    }

    /// In words.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }
}

/// Who reads a line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Audience {
    /// The customer's people: the business log.
    Customer,
    /// The integration's author.
    Developer,
}

/// How serious a line of a log is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Level {
    /// Detail.
    Debug,
    /// As expected.
    Info,
    /// Worth a look.
    Warn,
    /// Something failed.
    Error,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct LogEntry {
    /// When it was written.
    pub at: Timestamp,
    /// How serious.
    pub level: Level,
    /// For whom.
    pub audience: Audience,
    /// A sentence; redacted.
    pub message: String,
}

impl LogEntry {
    /// A line of a log.
    #[must_use]
    pub fn new(at: Timestamp, level: Level, audience: Audience, message: impl Into<String>) -> Self {
        Self {
            at,
            level,
            audience,
            message: message.into(),
        }
    }
}

/// A flow's memory between executions.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct StateSnapshot {
    /// Rises with every write; 0 before the first.
    pub version: u64,
    /// The value; null before the first write.
    pub value: Value,
}

impl StateSnapshot {
    /// A value at a version.
    #[must_use]
    pub const fn new(version: u64, value: Value) -> Self {
        Self { version, value }
    }
}

impl Default for StateSnapshot {
    fn default() -> Self {
        Self::new(0, Value::Null)
    }
}

/// How an attempt ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// The execution ends in a terminal status with this reply.
    Ended {
        /// `Succeeded`, `Failed`, `Cancelled` or `Expired`.
        status: ExecutionStatus,
        /// Kept for whoever asks.
        reply: Reply,
        /// Why, unless it succeeded.
        failure: Option<Failure>,
    },
    /// The execution waits for another attempt. If attempts are used up, it is delivered once more to be closed.
    Retry {
        /// When to try again.
        at: Timestamp,
        /// Why this one failed.
        failure: Failure,
    },
    /// The attempt does not count (drain, pre-emption): back to the queue at once.
    Released,
    /// It could not be begun here and now, for reasons that say nothing about the work: back to the queue as if this
    /// attempt had not been made, and not delivered before `at`.
    Postponed {
        /// When to deliver it again.
        at: Timestamp,
    },
}

/// Everything that an attempt writes, in one transaction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Finish {
    /// Under which lease.
    pub lease: LeaseRef,
    /// How it ended.
    pub outcome: Outcome,
    /// The flow's new state, and the version it was read at.
    pub state: Option<StateSnapshot>,
    /// Lines for the logs.
    pub log: Vec<LogEntry>,
    /// Executions that start with this commit.
    pub starts: Vec<Envelope>,
    /// Where the time went.
    pub timings: Timings,
    /// The isolation it ran at.
    pub isolation: Option<Isolation>,
    /// What it consumed.
    pub usage: Usage,
    /// The revision of the installation that it ran with, if it got so far; what was known before stays otherwise.
    pub revision: Option<u64>,
}

impl Finish {
    /// An outcome without state, log or follow-ups.
    #[must_use]
    pub fn new(lease: LeaseRef, outcome: Outcome) -> Self {
        Self {
            lease,
            outcome,
            state: None,
            log: Vec::new(),
            starts: Vec::new(),
            timings: Timings::default(),
            isolation: None,
            usage: Usage::default(),
            revision: None,
        }
    }
}

/// The answer to [`Executions::begin`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Begun {
    /// Run it.
    Run,
    /// It ended already; settle without running.
    Finished(Reply),
    /// The lease is not the current one; do nothing.
    Stale,
}

/// The answer to [`Executions::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Finished {
    /// Everything is written. `settled` says whether the envelope was settled in the same commit; if not, the caller
    /// settles it now.
    Applied {
        /// Whether queue and records share the commit.
        settled: bool,
    },
    /// The lease is not the current one; nothing was written.
    Stale,
    /// The state was changed by somebody else since it was read; nothing was written and the lease goes on.
    StateConflict,
}

/// The answer to [`FlowState::checkpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Checkpointed {
    /// It is kept.
    Applied {
        /// Its version: that which the next write replaces.
        version: u64,
    },
    /// The lease is not the current one of a flow; nothing was written.
    Stale,
    /// The state was changed by somebody else since it was read; nothing was written.
    StateConflict,
}

/// Which executions to list.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ExecutionFilter {
    /// Of this installation only.
    pub installation: Option<InstallationId>,
    /// Of this flow only.
    pub flow: Option<String>,
    /// Only those that have not ended.
    pub active: bool,
}

impl ExecutionFilter {
    /// Everything of one installation.
    #[must_use]
    pub fn installation(installation: InstallationId) -> Self {
        Self {
            installation: Some(installation),
            ..Self::default()
        }
    }
}

/// The records of executions. An execution comes into being when the envelope of a flow is stored.
#[async_trait]
pub trait Executions: Send + Sync + Debug + 'static {
    /// Claims the execution for the lease. Not needed when the lease says that it was begun.
    async fn begin(&self, scope: &FleetScope, lease: LeaseRef) -> Result<Begun>;

    /// Writes everything that an attempt leaves behind, or nothing.
    async fn finish(&self, scope: &FleetScope, finish: Finish) -> Result<Finished>;

    /// Asks for an execution to stop.
    async fn cancel(&self, scope: Scope<'_>, id: InvocationId) -> Result<Cancel>;

    /// One execution.
    async fn get(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<Execution>>;

    /// The stored envelope of an execution, for a replay.
    async fn envelope(&self, scope: Scope<'_>, id: InvocationId) -> Result<Option<Envelope>>;

    /// Executions, newest first.
    async fn list(&self, scope: Scope<'_>, filter: &ExecutionFilter, page: Page) -> Result<Paged<Execution>>;

    /// How many executions of an installation's flow have not ended (for overlap policies).
    async fn active(&self, scope: &FleetScope, installation: InstallationId, flow: &str) -> Result<u64>;
}

/// What attempts say: the lines that they leave, and how far they are.
#[async_trait]
pub trait BusinessLog: Send + Sync + Debug + 'static {
    /// Keeps how far the leased execution's attempt is, in place of what it said before, until the attempt ends. Whether
    /// it is kept: under another lease than the current one it is not.
    async fn report(&self, scope: &FleetScope, lease: LeaseRef, progress: Progress) -> Result<bool>;

    /// The lines of one execution for an audience (developers see all), oldest first.
    async fn lines(
        &self,
        scope: Scope<'_>,
        execution: InvocationId,
        audience: Audience,
        page: Page,
    ) -> Result<Paged<LogEntry>>;
}

/// What flows remember. Written by [`Executions::finish`], and on the way there by [`FlowState::checkpoint`].
#[async_trait]
pub trait FlowState: Send + Sync + Debug + 'static {
    /// The state of one flow of an installation.
    async fn state(&self, scope: Scope<'_>, installation: InstallationId, flow: &str) -> Result<StateSnapshot>;

    /// Keeps the state of the leased execution's flow before the execution ends. `state` is the new value and the version
    /// that it replaces. Durable as everything else when this answers; the lease goes on either way.
    async fn checkpoint(&self, scope: &FleetScope, lease: LeaseRef, state: StateSnapshot) -> Result<Checkpointed>;
}
