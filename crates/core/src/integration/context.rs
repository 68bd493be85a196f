//! What a flow sees while it runs.

use super::Config;
use crate::{
    Action, Audience, Clock, Code, EffectKeys, Error, FollowUp, Level, LogEntry, Progress, Result, RunKey, RunSpec,
    SecretRef, SecretString, StateSnapshot,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What a running flow has written so far. The runner keeps one end and commits it when the attempt ends.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    log: Vec<LogEntry>,
    dropped: u64,
    state: Option<Value>,
    follow_ups: Vec<FollowUp>,
}

/// Lines of log that one attempt of a Rust flow may keep.
const MAX_LINES: usize = 10_000;

impl Journal {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lines of the log, and how many were dropped for being too many.
    #[must_use]
    pub fn take_log(&self) -> (Vec<LogEntry>, u64) {
        let mut entries = self.entries();
        (std::mem::take(&mut entries.log), entries.dropped)
    }

    /// Takes the new state, if one was set.
    #[must_use]
    pub fn take_state(&self) -> Option<Value> {
        self.entries().state.take()
    }

    /// Takes the executions to start.
    #[must_use]
    pub fn take_follow_ups(&self) -> Vec<FollowUp> {
        std::mem::take(&mut self.entries().follow_ups)
    }

    fn write(&self, entry: LogEntry) {
        let mut entries = self.entries();
        if entries.log.len() < MAX_LINES {
            entries.log.push(entry);
        } else {
            entries.dropped += 1;
        }
    }
}

/// What a flow sees while it runs: its configuration, connections, secrets, memory and log.
pub struct FlowContext<C> {
    config: C,
    spec: Arc<RunSpec>,
    stateful: bool,
    journal: Journal,
    effects: EffectKeys,
    clock: Arc<dyn Clock>,
}

impl FlowContext<Value> {
    /// For runners: the context of a run.
    #[must_use]
    pub fn new(spec: RunSpec, stateful: bool, journal: Journal, clock: Arc<dyn Clock>) -> Self {
        Self {
            config: spec.config.clone(),
            effects: EffectKeys::new(spec.run_key),
            spec: Arc::new(spec),
            stateful,
            journal,
            clock,
        }
    }

    pub(super) fn typed<C: Config>(self) -> Result<FlowContext<C>> {
        let config = serde_json::from_value(self.config).map_err(|e| {
            Error::new(
                Code::ConfigInvalid,
                "the installed configuration does not fit this version",
            )
            .caused_by(e)
        })?;
        Ok(FlowContext {
            config,
            spec: self.spec,
            stateful: self.stateful,
            journal: self.journal,
            effects: self.effects,
            clock: self.clock,
        })
    }
}

impl<C> fmt::Debug for FlowContext<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowContext")
            .field("execution", &self.spec.execution)
            .field("attempt", &self.spec.attempt)
            .finish_non_exhaustive()
    }
}

impl<C> FlowContext<C> {
    /// The installation's configuration.
    #[must_use]
    pub const fn config(&self) -> &C {
        &self.config
    }

    /// Ids, attempt, deadline: what is known about this run.
    #[must_use]
    pub fn run(&self) -> &RunSpec {
        &self.spec
    }

    /// The key of this run's outside effects: the same in every attempt.
    #[must_use]
    pub fn run_key(&self) -> RunKey {
        self.spec.run_key
    }

    /// Calls an action of a connector: `cx.action(PostMessage).on("slack").call(input).await`.
    pub fn action<A: Action>(&self, action: A) -> ActionCall<'_, C, A> {
        ActionCall {
            cx: self,
            action,
            on: None,
        }
    }

    /// A secret of the configuration.
    ///
    /// # Errors
    /// [`Code::SecretUnreadable`] if nothing is sealed under that name.
    pub fn secret(&self, reference: &SecretRef) -> Result<&SecretString> {
        self.spec.secrets.get(reference.name()).ok_or_else(|| {
            Error::new(
                Code::SecretUnreadable,
                "no secret is stored under this name; save the settings again",
            )
            .with("name", reference.name())
        })
    }

    /// Says how far this run is: shown where people look at the execution while it runs, the newest a few times a minute.
    pub fn progress(&self, progress: Progress) {
        if let Some(watch) = &self.spec.watch {
            watch.progress(progress);
        }
    }

    /// What the flow remembers; `None` before anything was set.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] unless the flow declares `STATEFUL`; [`Code::StateConflict`] never comes from here;
    /// [`Code::InputInvalid`] if the stored value has another shape.
    pub fn state<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.check_stateful()?;
        let StateSnapshot { value, .. } = &self.spec.state;
        if value.is_null() {
            return Ok(None);
        }
        crate::connector::from_value(value.clone(), "the stored state").map(Some)
    }

    /// Sets what the flow remembers. It is committed together with the execution's success, or not at all.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] unless the flow declares `STATEFUL`; [`Code::FlowFailed`] if it does not serialise.
    pub fn set_state<T: Serialize>(&self, state: &T) -> Result<()> {
        self.check_stateful()?;
        let value = crate::connector::to_value(state)?;
        self.journal.entries().state = Some(value);
        Ok(())
    }

    /// Keeps what the flow has got done so far. It is durable when this answers, whatever becomes of the attempt, and the
    /// next attempt or execution starts from it. [`state`](Self::state) goes on answering what there was at the start.
    ///
    /// Where the runner was started without a place to keep it, it is committed with the execution's success, as by
    /// [`set_state`](Self::set_state).
    ///
    /// # Errors
    /// As [`set_state`](Self::set_state); [`Code::LeaseStale`] if the execution is not this worker's any more, and
    /// [`Code::StateConflict`] if somebody else has changed the state: pass both on.
    pub fn checkpoint<T: Serialize>(&self, state: &T) -> impl Future<Output = Result<()>> + Send + use<C, T> {
        let value = self.check_stateful().and_then(|()| crate::connector::to_value(state));
        let (checkpoint, journal) = (self.spec.checkpoint.clone(), self.journal.clone());
        async move {
            let later = match checkpoint {
                Some(checkpoint) => checkpoint.save(value?).await.map(|_| None)?,
                None => Some(value?),
            };
            journal.entries().state = later;
            Ok(())
        }
    }

    fn check_stateful(&self) -> Result<()> {
        if self.stateful {
            return Ok(());
        }
        Err(Error::new(
            Code::SetupInvalid,
            "the flow has no state: declare `const STATEFUL: bool = true` in its `Flow` implementation",
        ))
    }

    /// Starts another flow of this installation when this execution has succeeded, in the same transaction.
    ///
    /// # Errors
    /// [`Code::FlowFailed`] if the input does not serialise.
    pub fn start<I: Serialize>(&self, flow: impl Into<String>, input: &I) -> Result<()> {
        let input = crate::connector::to_value(input)?;
        self.journal.entries().follow_ups.push(FollowUp::new(flow, input));
        Ok(())
    }

    /// As [`FlowContext::start`], unless something was started with this key before: for as long as an execution is kept,
    /// its key starts nothing else of the same flow and installation.
    ///
    /// # Errors
    /// [`Code::FlowFailed`] if the input does not serialise.
    pub fn start_once<I: Serialize>(&self, flow: impl Into<String>, key: impl Into<String>, input: &I) -> Result<()> {
        let input = crate::connector::to_value(input)?;
        self.journal
            .entries()
            .follow_ups
            .push(FollowUp::new(flow, input).once(key));
        Ok(())
    }

    /// A line for the customer's people: a sentence with counts, no secrets, no stack traces.
    pub fn log(&self, level: Level, message: impl Into<String>) {
        self.journal
            .write(LogEntry::new(self.clock.now(), level, Audience::Customer, message));
    }

    /// A line for the integration's author.
    pub fn debug(&self, message: impl Into<String>) {
        self.journal.write(LogEntry::new(
            self.clock.now(),
            Level::Debug,
            Audience::Developer,
            message,
        ));
    }
}

/// An action that is about to be called.
#[must_use = "nothing is called before `.call(..)`"]
#[derive(Debug)]
pub struct ActionCall<'a, C, A> {
    cx: &'a FlowContext<C>,
    action: A,
    on: Option<String>,
}

impl<C: Sync, A: Action> ActionCall<'_, C, A> {
    /// On which of the integration's connections.
    pub fn on(mut self, connection: impl Into<String>) -> Self {
        self.on = Some(connection.into());
        self
    }

    /// Calls it.
    ///
    /// # Errors
    /// [`Code::ConnectionMissing`] if the connection is not declared or not set up, and whatever the action meets.
    pub async fn call(self, input: A::Input) -> Result<A::Output> {
        let spec = &self.cx.spec;
        let name = match &self.on {
            Some(name) => name.as_str(),
            None if spec.connections.len() == 1 => spec.connections.keys().next().map_or("", String::as_str),
            None => {
                return Err(Error::new(
                    Code::SetupInvalid,
                    "say on which connection the action is called: `.on(\"name\")`",
                ));
            }
        };
        let client = spec.connections.get(name).ok_or_else(|| {
            Error::new(Code::ConnectionMissing, "this installation has no such connection").with("connection", name)
        })?;
        let key = self.effect_key(name, &input)?;
        let client = client.clone().with_deadline(spec.deadline).with_effect_key(key);
        self.action.call(&client, input).await
    }

    fn effect_key(&self, connection: &str, input: &A::Input) -> Result<RunKey> {
        let input = crate::connector::to_value(input)?.to_string();
        Ok(self.cx.effects.next(connection, A::NAME, input.as_bytes()))
    }
}
