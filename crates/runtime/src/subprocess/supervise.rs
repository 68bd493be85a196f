//! One run from start to end: spawned, limited, watched, stopped, reaped, and its folder read and removed.

use super::{
    binding::{self, Binding},
    exit::{self, Exit},
    folder::{Folder, RESULT, STATE_OUT},
    group::{Group, KillOnDrop},
    output::{LINE, Output},
    system::{ExitWatch, limit},
};
use crate::redact::Redactor;
use async_trait::async_trait;
use crosspoint_core::{
    Audience, Clock, Code, Error, ErrorExt, Isolation, Level, Limits, LogEntry, Result, RunEnd, RunHandle, RunOutcome,
    RunSpec, Script, ScriptSource, StopReason,
};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, process::Stdio, sync::Arc, time::Duration};
use tokio::{
    process::{Child, Command},
    sync::watch,
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};

/// Characters of a summary that are shown to the customer.
const SUMMARY: usize = 2000;

/// How long the outputs may stay open after the group is dead, because a process that left it still holds them.
const LINGER: Duration = Duration::from_secs(1);

/// Everything that a start needs.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) spec: RunSpec,
    pub(super) script: Arc<Script>,
    pub(super) program: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) base: Arc<BTreeMap<OsString, OsString>>,
    pub(super) folders: PathBuf,
}

/// A process that has been started.
struct Spawned {
    child: Child,
    guard: KillOnDrop,
    exit: ExitWatch,
    folder: Folder,
    clock: Arc<dyn Clock>,
    output: Output,
    limits: Limits,
    pandium: bool,
    state: Value,
    /// When it is killed.
    deadline: Instant,
    setup: Duration,
}

impl Start {
    pub(super) async fn run(self) -> Result<Handle> {
        let began = Instant::now();
        let spawned = spawn_blocking(move || self.spawn(began));
        let spawned = spawned
            .await
            .or_fail(Code::Internal, "the start of a script was lost")??;
        let group = spawned.guard.0.clone();
        let (stop, stops) = watch::channel(None);
        Ok(Handle {
            stop,
            task: tokio::spawn(spawned.supervise(stops)),
            group: KillOnDrop(group),
        })
    }

    /// Runs on a thread that may block.
    fn spawn(self, began: Instant) -> Result<Spawned> {
        let now = self.clock.now();
        let folder = Folder::make(&self.folders)?;
        let spawned = binding::prepare(&self.spec, &self.script, &self.base, &folder, now)
            .and_then(|binding| self.launch(&folder, binding));
        let (child, group, exit) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                folder.remove();
                return Err(error);
            }
        };
        let left = self.spec.deadline.since(now).min(crate::FAR);
        let redactor = Redactor::new(&self.spec.secrets);
        Ok(Spawned {
            child,
            guard: KillOnDrop(group),
            exit,
            folder,
            output: Output::new(redactor, Arc::clone(&self.clock), self.spec.limits.log_bytes),
            clock: self.clock,
            limits: self.spec.limits,
            pandium: binding::is_pandium(&self.script),
            state: self.spec.state.value,
            deadline: began + left,
            setup: began.elapsed(),
        })
    }

    fn launch(&self, folder: &Folder, binding: Binding) -> Result<(Child, Group, ExitWatch)> {
        let mut command = Command::new(&self.program);
        let mut dir = binding.work;
        match self.script.source() {
            ScriptSource::Inline { text, .. } => {
                command.arg(folder.write("script", text.as_bytes(), 0o600)?);
            }
            ScriptSource::Command { args, dir: own, .. } => {
                command.args(args);
                dir = own.clone().unwrap_or(dir);
            }
            _ => {
                return Err(Error::new(
                    Code::SetupInvalid,
                    "this runner does not know this kind of script",
                ));
            }
        }
        command
            .env_clear()
            .envs(binding.env)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|e| {
            let message = "the script or its interpreter could not be started";
            Error::new(Code::ScriptNotStarted, message)
                .with_retry(exit::unstarted(&e))
                .with("program", self.program.display())
                .caused_by(e)
        })?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::new(Code::Internal, "a process without a number was started"))?;
        let group = Group::new(pid);
        if let Err(error) = limit(pid, &self.spec.limits) {
            group.signal(Signal::KILL);
            return Err(error);
        }
        Ok((child, group, ExitWatch::of(pid)))
    }
}

impl Spawned {
    async fn supervise(mut self, stops: watch::Receiver<Option<Stop>>) -> RunOutcome {
        let started = Instant::now();
        let remember = if self.pandium {
            usize::try_from(self.limits.state_bytes).unwrap_or(LINE)
        } else {
            0
        };
        let mut outputs = JoinSet::new();
        outputs.spawn(self.output.clone().drain(self.child.stdout.take(), remember));
        outputs.spawn(self.output.clone().drain(self.child.stderr.take(), 0));
        let stop = self.watch(stops).await;
        self.guard.0.finish();
        let status = self.child.wait().await;
        let run = started.elapsed();
        let drained = async { while outputs.join_next().await.is_some() {} };
        if timeout(LINGER, drained).await.is_err() {
            let line = "a process that left the script's process group still holds its output; it was not killed";
            self.output.note(Level::Warn, line);
        }
        drop(outputs);
        let exit = match status {
            Ok(status) => exit::interpret(status, stop),
            Err(error) => {
                Exit::Failed(Error::new(Code::Internal, "nobody knows how the script ended").caused_by(error))
            }
        };
        let setup = self.setup;
        match spawn_blocking(move || self.conclude(exit)).await {
            Ok(mut outcome) => {
                outcome.setup = setup;
                outcome.run = run;
                outcome
            }
            Err(error) => lost(error),
        }
    }

    /// Waits for the end of the leader, and stops it when it is time. Answers why it was told to stop.
    async fn watch(&mut self, mut stops: watch::Receiver<Option<Stop>>) -> Option<StopReason> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let soft = self.deadline - self.limits.grace().min(left / 2);
        let (mut kill, mut stop, mut owned, mut killed) = (self.deadline, None, true, false);
        let group = &self.guard.0;
        loop {
            tokio::select! {
                biased;
                () = self.exit.exited(&mut self.child) => return stop,
                changed = stops.changed(), if owned => {
                    if changed.is_err() {
                        owned = false;
                        stop.get_or_insert(StopReason::Draining);
                        group.signal(Signal::KILL);
                    } else if let Some(wish) = *stops.borrow_and_update() {
                        kill = kill.min(wish.kill);
                        stop.get_or_insert(wish.why);
                        ask(group);
                    }
                }
                () = sleep_until(soft), if stop.is_none() => {
                    stop = Some(StopReason::Deadline);
                    ask(group);
                }
                () = sleep_until(kill), if !killed => {
                    killed = true;
                    stop.get_or_insert(StopReason::Deadline);
                    group.signal(Signal::KILL);
                }
            }
        }
    }

    /// Reads what was left behind, and removes the folder. Runs on a thread that may block.
    fn conclude(self, exit: Exit) -> RunOutcome {
        let kept = self.output.take();
        let (end, state) = match exit {
            Exit::Done => match self.harvest(kept.last.as_deref()) {
                Ok((result, state)) => (RunEnd::Succeeded(result), state),
                Err(error) => (RunEnd::Failed(error), None),
            },
            Exit::Failed(error) => (RunEnd::Failed(error), None),
            Exit::Stopped(why) => (RunEnd::Stopped(why), None),
        };
        let mut outcome = RunOutcome::new(end, Isolation::Process);
        outcome.state = state;
        outcome.log = kept.log;
        outcome.log_dropped = kept.dropped;
        let now = self.clock.now();
        if kept.dropped > 0 {
            let line = format!("{} further bytes of output were dropped", kept.dropped);
            outcome
                .log
                .push(LogEntry::new(now, Level::Warn, Audience::Developer, line));
        }
        if let RunEnd::Succeeded(result) = &outcome.end
            && let Some(summary) = result.get("summary").and_then(Value::as_str)
        {
            let summary: String = summary.chars().take(SUMMARY).collect();
            outcome
                .log
                .push(LogEntry::new(now, Level::Info, Audience::Customer, summary));
        }
        self.folder.remove();
        outcome
    }

    fn harvest(&self, last: Option<&[u8]>) -> Result<(Value, Option<Value>)> {
        let result = self.folder.read(RESULT, self.limits.result_bytes)?;
        let result = parse(result.as_deref(), "result")?.unwrap_or(Value::Null);
        let state = self.folder.read(STATE_OUT, self.limits.state_bytes)?;
        let mut state = parse(state.as_deref(), "state")?;
        if self.pandium && state.is_none() {
            state = self.merged(last)?;
        }
        Ok((result, state))
    }

    /// Pandium's way: the last line of standard output, merged over the old state field by field.
    fn merged(&self, last: Option<&[u8]>) -> Result<Option<Value>> {
        let Some(last) = last else { return Ok(None) };
        let Ok(Value::Object(patch)) = serde_json::from_slice(last) else {
            let message = "the last line that the script wrote to standard output is not a JSON object";
            return Err(Error::new(Code::ScriptOutputInvalid, message));
        };
        let mut state = self.state.as_object().cloned().unwrap_or_default();
        state.extend(patch);
        let state = Value::Object(state);
        let size = u64::try_from(state.to_string().len()).unwrap_or(u64::MAX);
        if size > self.limits.state_bytes {
            let message = "the merged state is larger than the limit";
            return Err(Error::new(Code::ScriptOutputInvalid, message).with("limit_bytes", self.limits.state_bytes));
        }
        Ok(Some(state))
    }
}

/// Blank means that nothing was written.
fn parse(content: Option<&[u8]>, what: &str) -> Result<Option<Value>> {
    let Some(content) = content.filter(|content| !content.trim_ascii().is_empty()) else {
        return Ok(None);
    };
    let value = serde_json::from_slice(content);
    value.map(Some).map_err(|e| {
        Error::new(
            Code::ScriptOutputInvalid,
            format!("the script's {what} is not valid JSON"),
        )
        .caused_by(e)
    })
}

/// Asks every process of the group to end, those that are stopped too.
fn ask(group: &Group) {
    group.signal(Signal::TERM);
    group.signal(Signal::CONT);
}

fn lost(error: tokio::task::JoinError) -> RunOutcome {
    let error = Error::new(Code::Internal, "the supervisor of a script was lost").caused_by(error);
    RunOutcome::new(RunEnd::Failed(error), Isolation::Process)
}

/// What the owner of a run wants.
#[derive(Debug, Clone, Copy)]
struct Stop {
    why: StopReason,
    kill: Instant,
}

/// A script that runs.
#[derive(Debug)]
pub(super) struct Handle {
    stop: watch::Sender<Option<Stop>>,
    task: JoinHandle<RunOutcome>,
    /// Held for its `Drop`.
    #[expect(dead_code, reason = "it kills the group when the handle is dropped")]
    group: KillOnDrop,
}

#[async_trait]
impl RunHandle for Handle {
    async fn wait(&mut self) -> RunOutcome {
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) => lost(error),
        }
    }

    async fn cancel(&mut self, why: StopReason, grace: Duration) {
        let kill = Instant::now() + grace.min(crate::FAR);
        self.stop.send_modify(|stop| {
            *stop = Some(match *stop {
                Some(earlier) => Stop {
                    why: earlier.why,
                    kill: earlier.kill.min(kill),
                },
                None => Stop { why, kill },
            });
        });
    }
}
