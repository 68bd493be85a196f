//! One run from its start to its end: watched, stopped, reaped, and what it left behind read.

use super::{
    exit::{self, Exit},
    framed::{Fault, Said, Talk},
    harvest::Harvest,
    launch::{Cause, Ended, KillOnDrop, Launched},
    output::{LINE, Output},
};
use crate::egress::Server;
use async_trait::async_trait;
use crosspoint_core::{Code, Error, Isolation, Level, Limits, Retry, RunEnd, RunHandle, RunOutcome, StopReason};
use std::{io, time::Duration};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};

/// How long the outputs may stay open after the run is dead, because a process that left it still holds them.
const LINGER: Duration = Duration::from_secs(1);

/// Something that has been started.
pub(super) struct Running {
    pub(super) launched: Launched,
    pub(super) guard: KillOnDrop,
    pub(super) output: Output,
    pub(super) talk: Option<Talk>,
    /// The way out.
    pub(super) egress: Option<Server>,
    pub(super) limits: Limits,
    /// When it is killed.
    pub(super) deadline: Instant,
    pub(super) setup: Duration,
    pub(super) harvest: Harvest,
}

impl Running {
    pub(super) async fn supervise(mut self, stops: watch::Receiver<Option<Stop>>) -> RunOutcome {
        let started = Instant::now();
        let mut outputs = JoinSet::new();
        let remember = if self.harvest.pandium {
            usize::try_from(self.limits.state_bytes).unwrap_or(LINE)
        } else {
            0
        };
        outputs.spawn(self.output.clone().drain(self.launched.stdout.take(), remember));
        outputs.spawn(self.output.clone().drain(self.launched.stderr.take(), 0));
        let stop = self.watch(stops).await;
        let ended = self.launched.tree.reap().await;
        let run = started.elapsed();
        let mut said = self.hear(stop, outputs).await;
        let mut usage = ended.as_ref().map(|ended| ended.usage).unwrap_or_default();
        let mut egress_log = Vec::new();
        if let Some(egress) = self.egress.take() {
            let (moved, log) = egress.finish().await;
            (usage.sent, usage.received) = (moved.sent, moved.received);
            egress_log = log;
        }
        let exit = self.judge(ended, stop, said.as_mut());
        let (setup, isolation) = (self.setup, self.launched.isolation);
        let Self {
            launched,
            output,
            harvest,
            ..
        } = self;
        let mut outcome = if launched.files.are_quick() {
            let outcome = harvest.conclude(exit, said, &launched, output.take());
            // Its network first, for the next run. To free the memory of its files may take long.
            drop(launched.tree);
            let files = launched.files;
            spawn_blocking(move || drop(files));
            outcome
        } else {
            let concluded = spawn_blocking(move || harvest.conclude(exit, said, &launched, output.take()));
            concluded.await.unwrap_or_else(lost)
        };
        outcome.log.append(&mut egress_log);
        (outcome.setup, outcome.run, outcome.isolation, outcome.usage) = (setup, run, isolation, usage);
        outcome
    }

    /// Reads what is still in the pipes. Something that left the run may hold them open for ever.
    async fn hear(&mut self, stop: Option<StopReason>, mut outputs: JoinSet<()>) -> Option<Said> {
        drop(self.launched.messages_kept.take());
        let mut talk = self.talk.take();
        let drained = async {
            while outputs.join_next().await.is_some() {}
            if let Some(talk) = &mut talk {
                talk.read_to_the_end().await;
            }
        };
        if timeout(LINGER, drained).await.is_err() {
            let line = "a process that left the script's process group still holds its output; it was not killed";
            self.output.note(Level::Warn, line);
        }
        let keep = !matches!(stop, Some(StopReason::Cancelled | StopReason::LeaseLost));
        match talk {
            Some(talk) => Some(talk.finish(keep).await),
            None => None,
        }
    }

    /// What the end means, from the strongest word to the weakest: a lost lease, a cancel, the host's own reason for the
    /// kill, what the script said, its exit code.
    fn judge(&self, ended: io::Result<Ended>, stop: Option<StopReason>, mut said: Option<&mut Said>) -> Exit {
        if let Some(why @ (StopReason::Cancelled | StopReason::LeaseLost)) = stop {
            return Exit::Stopped(why);
        }
        match said.as_mut().and_then(|said| said.fault.take()) {
            Some(Fault::LeaseLost) => return Exit::Stopped(StopReason::LeaseLost),
            Some(Fault::Failed(error)) => return Exit::Failed(error),
            None => {}
        }
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let message = "the host lost sight of the script, which is dead";
                let lost = Error::new(Code::ScriptCrashed, message).with_retry(Retry::Backoff);
                return Exit::Failed(lost.caused_by(error));
            }
        };
        match ended.cause {
            Cause::OutOfMemory => return Exit::Failed(exit::out_of_memory(self.limits.memory)),
            Cause::OutOfTime => return Exit::Failed(exit::out_of_time(self.limits.cpu_ms)),
            Cause::Forbidden => return Exit::Failed(exit::forbidden()),
            Cause::Own => {}
        }
        if let Some(error) = said.and_then(|said| said.error.take()) {
            return Exit::Failed(error);
        }
        exit::interpret(ended.status, stop)
    }

    /// Waits for the end of the run, and stops it when it is time. Answers why it was told to stop.
    async fn watch(&mut self, mut stops: watch::Receiver<Option<Stop>>) -> Option<StopReason> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let soft = self.deadline - self.limits.grace().min(left / 2);
        let (mut kill, mut stop, mut owned, mut killed) = (self.deadline, None, true, false);
        let (signals, talk) = (&self.guard.0, self.talk.as_ref());
        let ask = |why: StopReason, until: Instant| {
            if let Some(talk) = talk {
                talk.cancel(why, until.saturating_duration_since(Instant::now()));
            }
            signals.ask();
        };
        loop {
            tokio::select! {
                biased;
                () = self.launched.tree.ended() => return stop,
                () = faulty(talk), if !killed => {
                    killed = true;
                    signals.kill();
                }
                changed = stops.changed(), if owned => {
                    if changed.is_err() {
                        owned = false;
                        stop.get_or_insert(StopReason::Draining);
                        signals.kill();
                    } else if let Some(wish) = *stops.borrow_and_update() {
                        kill = kill.min(wish.kill);
                        ask(*stop.get_or_insert(wish.why), kill);
                    }
                }
                () = sleep_until(soft), if stop.is_none() => {
                    stop = Some(StopReason::Deadline);
                    ask(StopReason::Deadline, kill);
                }
                () = sleep_until(kill), if !killed => {
                    killed = true;
                    stop.get_or_insert(StopReason::Deadline);
                    signals.kill();
                }
            }
        }
    }
}

async fn faulty(talk: Option<&Talk>) {
    match talk {
        Some(talk) => talk.faulty().await,
        None => std::future::pending().await,
    }
}

fn lost(error: tokio::task::JoinError) -> RunOutcome {
    let error = Error::new(Code::Internal, "the supervisor of a script was lost").caused_by(error);
    RunOutcome::new(RunEnd::Failed(error), Isolation::Process)
}

/// What the owner of a run wants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    why: StopReason,
    kill: Instant,
}

/// A script that runs.
#[derive(Debug)]
pub(super) struct Handle {
    stop: watch::Sender<Option<Stop>>,
    task: JoinHandle<RunOutcome>,
    /// Held for its `Drop`.
    #[expect(dead_code, reason = "it kills the run when the handle is dropped")]
    guard: KillOnDrop,
}

impl Handle {
    pub(super) const fn new(
        stop: watch::Sender<Option<Stop>>,
        task: JoinHandle<RunOutcome>,
        guard: KillOnDrop,
    ) -> Self {
        Self { stop, task, guard }
    }
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
