//! Where an integration's code runs, and how strongly it is kept apart from the rest.

use crate::{
    ConnectionClient, CustomerId, DynFlow, Egress, Error, Fence, InstallationId, InvocationId, LogEntry, Progress,
    Result, RunKey, Script, SecretString, StateSnapshot, StopReason, Timestamp, TriggerKind,
};
use async_trait::async_trait;
use serde_json::Value;
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

/// How strongly running code is kept apart, from weak to strong. A level is enforced or refused, never pretended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Isolation {
    /// A task in the host's process: for code that is compiled into the host.
    Trusted,
    /// A process of its own with a clean environment, closed descriptors and resource limits. It can still read what
    /// the host's user can read and use the network.
    Process,
    /// `Process`, and Landlock and seccomp: no files but its own, no network, no system calls that it does not need.
    Confined,
    /// `Confined`, in namespaces of its own: nothing of the host or of other customers has a name.
    Sandboxed,
    /// Another kernel.
    Machine,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trusted => "trusted",
            Self::Process => "process",
            Self::Confined => "confined",
            Self::Sandboxed => "sandboxed",
            Self::Machine => "machine",
        })
    }
}

/// What a runner has proved that it can enforce on this machine, by trial.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct IsolationReport {
    /// The strongest level.
    pub level: Isolation,
    /// The mechanisms that work, by name.
    pub mechanisms: Vec<String>,
    /// What the next level lacks, and how to get it.
    pub missing: Vec<String>,
}

impl IsolationReport {
    /// A report of what was proved.
    #[must_use]
    pub const fn new(level: Isolation, mechanisms: Vec<String>, missing: Vec<String>) -> Self {
        Self {
            level,
            mechanisms,
            missing,
        }
    }
}

/// Limits of one run. Crossing one ends the run, or drops what is too much and counts it; it never blocks the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// How long a run may take, in milliseconds (15 minutes).
    pub wall_ms: u64,
    /// How long before the end it is asked to stop, in milliseconds (10 seconds).
    pub grace_ms: u64,
    /// Processor time of all its processes, in milliseconds (15 minutes).
    pub cpu_ms: u64,
    /// Memory in bytes (1 GiB): of the whole run where a control group can be had, else of each process and, looked at
    /// several times a second, of all of them together.
    pub memory: u64,
    /// What it may write to files, in bytes (256 MiB); at [`Isolation::Sandboxed`] they are in memory and count there too.
    pub disk: u64,
    /// Processes and threads at once (128). What a neighbour notices of a fork bomb grows faster than this.
    pub processes: u32,
    /// Open files of each process (256).
    pub open_files: u32,
    /// Log output that is kept, in bytes (8 MiB); the rest is read, counted and dropped.
    pub log_bytes: u64,
    /// Size of the result and of the state, in bytes each (4 MiB and 1 MiB).
    pub result_bytes: u64,
    /// See `result_bytes`.
    pub state_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_ms: 15 * 60 * 1000,
            grace_ms: 10_000,
            cpu_ms: 15 * 60 * 1000,
            memory: 1 << 30,
            disk: 256 << 20,
            processes: 128,
            open_files: 256,
            log_bytes: 8 << 20,
            result_bytes: 4 << 20,
            state_bytes: 1 << 20,
        }
    }
}

impl Limits {
    /// How long a run may take.
    #[must_use]
    pub const fn wall(&self) -> Duration {
        Duration::from_millis(self.wall_ms)
    }
    /// Of each the smaller one.
    #[must_use]
    pub fn within(self, most: &Self) -> Self {
        Self {
            wall_ms: self.wall_ms.min(most.wall_ms),
            grace_ms: self.grace_ms.min(most.grace_ms),
            cpu_ms: self.cpu_ms.min(most.cpu_ms),
            memory: self.memory.min(most.memory),
            disk: self.disk.min(most.disk),
            processes: self.processes.min(most.processes),
            open_files: self.open_files.min(most.open_files),
            log_bytes: self.log_bytes.min(most.log_bytes),
            result_bytes: self.result_bytes.min(most.result_bytes),
            state_bytes: self.state_bytes.min(most.state_bytes),
        }
    }
    /// How long before the end it is asked to stop.
    #[must_use]
    pub const fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }
}

/// What to run.
#[derive(Clone)]
#[non_exhaustive]
pub enum Work {
    /// A flow compiled into the host.
    Flow(Arc<dyn DynFlow>),
    /// A program in any language.
    Script(Arc<Script>),
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flow(_) => f.write_str("Flow"),
            Self::Script(script) => f.debug_tuple("Script").field(script).finish(),
        }
    }
}

/// Everything that a run needs to know.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RunSpec {
    /// The execution.
    pub execution: InvocationId,
    /// The key of outside effects: the same for every attempt.
    pub run_key: RunKey,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// The fence of its lease.
    pub fence: Fence,
    /// Whose run it is.
    pub customer: CustomerId,
    /// The installation.
    pub installation: InstallationId,
    /// The integration's name; empty where it does not matter.
    pub integration: Arc<str>,
    /// The flow's name.
    pub flow: Arc<str>,
    /// What started it.
    pub trigger: TriggerKind,
    /// The name of the event that started it.
    pub event: Option<Arc<str>>,
    /// The code.
    pub work: Work,
    /// The trigger's payload.
    pub input: Value,
    /// The installation's configuration, with references in place of secrets.
    pub config: Value,
    /// What the flow remembers.
    pub state: StateSnapshot,
    /// Whether it may remember anything.
    pub stateful: bool,
    /// Clients of the installation's connections, by slot.
    pub connections: BTreeMap<String, ConnectionClient>,
    /// Secrets of the configuration that the code may read, by name.
    pub secrets: Arc<BTreeMap<String, SecretString>>,
    /// Whether to do the work or to answer a question about it.
    pub mode: RunMode,
    /// Where to keep state before the end; none for a flow without state.
    pub checkpoint: Option<Arc<dyn Checkpoint>>,
    /// Hears what the run says about itself while it goes on.
    pub watch: Option<Arc<dyn Watch>>,
    /// Limits.
    pub limits: Limits,
    /// The most that a script may reach over the network, whatever it asks for.
    pub egress: Option<Egress>,
    /// The weakest isolation it may run at.
    pub require: Isolation,
    /// When it is stopped.
    pub deadline: Timestamp,
}

impl RunSpec {
    /// What a script may reach over the network when it runs at this isolation: what it asks for, and no more than it is
    /// granted.
    #[must_use]
    pub fn reachable(&self, script: &Script, isolation: Isolation) -> Egress {
        let asked = script.reachable(isolation);
        match &self.egress {
            Some(most) => asked.within(most),
            None => asked,
        }
    }

    /// A run of `work` for an installation, with defaults for everything else.
    #[must_use]
    pub fn new(
        execution: InvocationId,
        customer: CustomerId,
        installation: InstallationId,
        flow: &str,
        work: Work,
        deadline: Timestamp,
    ) -> Self {
        Self {
            execution,
            run_key: RunKey::from_uuid(*execution.as_uuid()),
            attempt: 1,
            fence: Fence::new(1),
            customer,
            installation,
            integration: Arc::from(""),
            flow: flow.into(),
            trigger: TriggerKind::Call,
            event: None,
            work,
            input: Value::Null,
            config: Value::Object(serde_json::Map::new()),
            state: StateSnapshot::default(),
            stateful: true,
            connections: BTreeMap::new(),
            secrets: Arc::default(),
            mode: RunMode::Normal,
            checkpoint: None,
            watch: None,
            limits: Limits::default(),
            egress: None,
            require: Isolation::Trusted,
            deadline,
        }
    }
}

/// How a run ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunEnd {
    /// With an output.
    Succeeded(Value),
    /// With an error, whose verdict decides about another attempt.
    Failed(Error),
    /// It was told to stop and has stopped.
    Stopped(StopReason),
}

/// An execution to be started when this one has succeeded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FollowUp {
    /// A flow of the same installation.
    pub flow: String,
    /// Its input.
    pub input: Value,
    /// Tells it from all others of that flow: a key that was used before starts nothing, for as long as the execution that
    /// it started is kept. Without one it starts once for each success of the execution that asks for it.
    pub key: Option<String>,
}

impl FollowUp {
    /// Starts `flow` with `input`.
    #[must_use]
    pub fn new(flow: impl Into<String>, input: Value) -> Self {
        Self {
            flow: flow.into(),
            input,
            key: None,
        }
    }

    /// Only if this key was not used before.
    #[must_use]
    pub fn once(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// What a run consumed. Zero where the level it ran at cannot tell.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default)]
#[non_exhaustive]
pub struct Usage {
    /// Processor time of all its processes, in milliseconds.
    pub cpu_ms: u64,
    /// The most memory that was resident at once, in bytes.
    pub peak_memory: u64,
    /// Bytes that it sent to the broker or the proxy, with heads and refused requests, as they were on its side.
    pub sent: u64,
    /// Bytes that the broker or the proxy sent to it.
    pub received: u64,
}

/// Whether a script does its work or answers a question about itself.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RunMode {
    /// It does its work.
    #[default]
    Normal,
    /// Somebody is setting the installation up: it answers with choices for the fields of its configuration, and changes
    /// nothing.
    Init,
}

/// Keeps what a run has got done so far, so that the next attempt can go on from there.
///
/// Written under the fence of the attempt: after the lease was lost it fails with
/// [`Code::LeaseStale`](crate::Code::LeaseStale) and nothing is written.
#[async_trait]
pub trait Checkpoint: Send + Sync + fmt::Debug + 'static {
    /// Replaces the state; it is durable when this answers. The new version.
    async fn save(&self, state: Value) -> Result<u64>;
}

/// What a number of a run means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricKind {
    /// Values are added up.
    Counter,
    /// The last value counts.
    Gauge,
}

/// Hears what a run says about itself while it goes on. Nothing here waits, and nothing is owed an answer.
pub trait Watch: Send + Sync + fmt::Debug + 'static {
    /// It is so far now.
    fn progress(&self, progress: Progress);
    /// A number about it.
    fn metric(&self, name: &str, kind: MetricKind, value: f64);
}

/// What a run leaves behind.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunOutcome {
    /// How it ended.
    pub end: RunEnd,
    /// The new state, if the run wrote one.
    pub state: Option<Value>,
    /// Lines for the logs.
    pub log: Vec<LogEntry>,
    /// Executions to start; ignored unless it succeeded.
    pub follow_ups: Vec<FollowUp>,
    /// The isolation it ran at.
    pub isolation: Isolation,
    /// Time until the code itself started.
    pub setup: Duration,
    /// Time in the code itself.
    pub run: Duration,
    /// Bytes of log output that were dropped for being too much.
    pub log_dropped: u64,
    /// What it consumed.
    pub usage: Usage,
}

impl RunOutcome {
    /// An end at an isolation, with nothing else.
    #[must_use]
    pub const fn new(end: RunEnd, isolation: Isolation) -> Self {
        Self {
            end,
            state: None,
            log: Vec::new(),
            follow_ups: Vec::new(),
            isolation,
            setup: Duration::ZERO,
            run: Duration::ZERO,
            log_dropped: 0,
            usage: Usage {
                cpu_ms: 0,
                peak_memory: 0,
                sent: 0,
                received: 0,
            },
        }
    }
}

/// Runs code at an isolation level.
#[async_trait]
pub trait Runner: Send + Sync + fmt::Debug + 'static {
    /// Its name in records.
    fn name(&self) -> &str;

    /// What it can enforce here, found by trying; cached.
    async fn probe(&self) -> IsolationReport;

    /// Checks, before anything is accepted, that this work could be run: the interpreter exists, the isolation can be
    /// enforced.
    async fn prepare(&self, work: &Work, require: Isolation) -> Result<()>;

    /// Starts a run. Fails with [`Code::IsolationUnavailable`](crate::Code::IsolationUnavailable) rather than run at
    /// less than [`RunSpec::require`].
    async fn start(&self, spec: RunSpec) -> Result<Box<dyn RunHandle>>;
}

/// A run that was started. Dropping it kills the run.
#[async_trait]
pub trait RunHandle: Send + fmt::Debug {
    /// Waits for the end. May be dropped and called again until it has answered.
    async fn wait(&mut self) -> RunOutcome;

    /// Asks the run to stop, and kills all of it after `grace`. `wait` answers when nothing of it is left.
    async fn cancel(&mut self, why: StopReason, grace: Duration);
}
