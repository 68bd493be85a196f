//! The end of an attempt: what it means, and the one transaction that writes it down.

use super::{
    Task,
    attempt::{Context, Ran},
    millis, stale,
};
use crate::{attention, problem};
use crosspoint_core::{
    Audience, Begun, CloseReason, Code, Envelope, Error, ExecutionStatus, Failure, Finish, Finished, Health, Kind,
    Level, LogEntry, Outcome, Reply, Result, Retry, RetryPolicy, RunEnd, RunOutcome, Settle, StateSnapshot, StopReason,
    Timestamp, Timings, retry::Next,
};
use serde_json::Value;
use std::time::Duration;

/// How often a finish is tried again while the store does not answer. What the attempt did would be done again.
const TRIES: u32 = 5;

/// What customers read of a replay with [`ReplayState::Discard`](crosspoint_core::ReplayState::Discard).
const DISCARDED: &str = "Nothing that this run would remember was saved, as asked for.";

/// What becomes of the execution, and what its caller hears of it.
enum Verdict {
    Ended(Reply),
    /// Not yet over: the error says why.
    Later(Error),
}

/// The answer of the store to a finish.
pub(super) enum Written {
    Applied,
    /// It had ended already, with this reply.
    Ended(Reply),
    StateConflict,
    Stale,
}

/// A finish with its closing line not yet written.
struct Draft {
    outcome: Outcome,
    verdict: Verdict,
    closing: (Level, String),
    state: Option<Value>,
    starts: Vec<Envelope>,
    /// The installation waits for a person, for this reason.
    attention: Option<Failure>,
}

impl Task<'_> {
    /// Writes down how an attempt went.
    pub(super) async fn conclude(&self, ran: Ran, context: &Context) -> Result<Reply> {
        let Ran {
            mut outcome,
            unstarted,
            loading,
        } = ran;
        if self.delivery.stop.reason() == Some(StopReason::LeaseLost) {
            return Err(stale());
        }
        let mut log = std::mem::take(&mut outcome.log);
        context.redactor.log(&mut log);
        if let Some(discard) = &context.discard {
            log.extend(self.discarded(discard.taken(), outcome.state.is_some()));
        }
        let timings = Self::timings(self.queue_ms, loading + outcome.setup, outcome.run);
        let isolation = (!unstarted).then_some(outcome.isolation);
        let end = std::mem::replace(&mut outcome.end, RunEnd::Stopped(StopReason::LeaseLost));
        let draft = match end {
            RunEnd::Succeeded(output) => self.succeeded(output, &outcome, context, &mut log),
            RunEnd::Failed(error) => self.failed(&error, context, &mut log),
            RunEnd::Stopped(StopReason::Cancelled) => cancelled(),
            RunEnd::Stopped(StopReason::Deadline) => {
                let message = format!("it was stopped at its time limit, after {}", seconds(outcome.run));
                self.failed(&Error::new(Code::DeadlineExceeded, message), context, &mut log)
            }
            RunEnd::Stopped(StopReason::Draining) => released(),
            RunEnd::Stopped(StopReason::LeaseLost) => return Err(stale()),
            other => {
                let message = format!("the runner ended the attempt in a way that is not known here: {other:?}");
                self.failed(&Error::new(Code::Internal, message), context, &mut log)
            }
        };
        let mut finish = Finish::new(self.delivery.lease, draft.outcome);
        finish.timings = timings;
        finish.isolation = isolation;
        finish.usage = outcome.usage;
        finish.revision = context.installation.as_ref().map(|used| used.revision);
        finish.log = log;
        finish.log.push(self.customer_line(draft.closing));
        finish.starts = draft.starts;
        if let (Some(value), Some(keeper)) = (draft.state, &context.keeper) {
            finish.state = Some(StateSnapshot::new(keeper.version().await, value));
        }
        match self.write(&finish).await? {
            Written::Applied => {
                if let Some(why) = &draft.attention {
                    self.park(why, context, unstarted).await;
                }
                draft.verdict.into()
            }
            Written::Ended(reply) => Ok(reply),
            Written::StateConflict => self.conflicted(finish, context).await,
            Written::Stale => Err(stale()),
        }
    }

    /// The state was changed under the attempt: it is made again with the state as it is now.
    async fn conflicted(&self, mut finish: Finish, context: &Context) -> Result<Reply> {
        let error = Error::new(Code::StateConflict, "the flow's state was changed while it ran");
        // That it has finished is not so.
        finish.log.pop();
        let draft = self.failed(&error, context, &mut finish.log);
        finish.outcome = draft.outcome;
        finish.state = None;
        finish.starts = Vec::new();
        finish.log.push(self.customer_line(draft.closing));
        match self.write(&finish).await? {
            Written::Applied => draft.verdict.into(),
            Written::Ended(reply) => Ok(reply),
            Written::StateConflict | Written::Stale => Err(stale()),
        }
    }

    /// Writes down the end of an execution that was delivered to be closed.
    pub(super) async fn end_closed(&self, why: CloseReason, error: Error) -> Result<Reply> {
        let (status, level) = match why {
            CloseReason::Expired => (ExecutionStatus::Expired, Level::Warn),
            CloseReason::Cancelled => (ExecutionStatus::Cancelled, Level::Info),
            _ => (ExecutionStatus::Failed, Level::Error),
        };
        let failure = Failure::from(&error);
        let reply = problem::failure(&failure);
        let closing = sentence(status, error.message());
        let outcome = Outcome::Ended {
            status,
            reply: reply.clone(),
            failure: Some(failure),
        };
        let mut finish = Finish::new(self.delivery.lease, outcome);
        finish.timings.queue_ms = self.queue_ms;
        finish.log.push(self.customer_line((level, closing)));
        match self.write(&finish).await? {
            Written::Applied => Ok(reply),
            Written::Ended(kept) => Ok(kept),
            Written::StateConflict | Written::Stale => Err(stale()),
        }
    }

    fn succeeded(&self, mut output: Value, outcome: &RunOutcome, context: &Context, log: &mut Vec<LogEntry>) -> Draft {
        context.redactor.value(&mut output);
        let mut follow_ups = outcome.follow_ups.clone();
        for follow_up in &mut follow_ups {
            context.redactor.value(&mut follow_up.input);
        }
        let starts = context.installation.as_ref().map_or(Ok(Vec::new()), |installation| {
            self.inner.starter.follow_ups(self.meta.id, installation, &follow_ups)
        });
        let starts = match starts {
            Ok(starts) => starts,
            Err(error) => {
                let message = format!("the flow did its work and then asked for a start that cannot be: {error}");
                return self.failed(&Error::new(Code::SetupInvalid, message), context, log);
            }
        };
        let reply = problem::success(&output);
        Draft {
            outcome: Outcome::Ended {
                status: ExecutionStatus::Succeeded,
                reply: reply.clone(),
                failure: None,
            },
            verdict: Verdict::Ended(reply),
            closing: (Level::Info, format!("Finished in {}.", seconds(outcome.run))),
            state: outcome.state.clone().filter(|_| context.keeper.is_some()),
            starts,
            attention: None,
        }
    }

    fn failed(&self, error: &Error, context: &Context, log: &mut Vec<LogEntry>) -> Draft {
        let now = self.inner.clock.now();
        let failure = context.redactor.failure(error);
        let details = context.redactor.details(error);
        log.push(LogEntry::new(now, Level::Error, Audience::Developer, details));
        let next = self.next(&context.retry, error.retry());
        let attention = (error.retry() == Retry::Reauthorize).then(|| failure.clone());
        if let Next::At(at) = next {
            let closing = format!("Failed: {}. Next try at {at}.", failure.message.trim_end_matches('.'));
            return Draft {
                verdict: Verdict::Later(again(&failure, at)),
                outcome: Outcome::Retry { at, failure },
                closing: (Level::Warn, closing),
                state: None,
                starts: Vec::new(),
                attention,
            };
        }
        let reply = problem::failure(&failure);
        let mut closing = sentence(ExecutionStatus::Failed, &failure.message);
        if next == Next::Exhausted {
            closing.push_str(" All attempts are used up.");
        }
        Draft {
            outcome: Outcome::Ended {
                status: ExecutionStatus::Failed,
                reply: reply.clone(),
                failure: Some(failure),
            },
            verdict: Verdict::Ended(reply),
            closing: (Level::Error, closing),
            state: None,
            starts: Vec::new(),
            attention,
        }
    }

    fn next(&self, policy: &RetryPolicy, verdict: Retry) -> Next {
        let seed = self.meta.id.as_uuid().as_u64_pair().1;
        // Nobody keeps when the first attempt was begun. For later ones the acceptance stands in for it, but a long wait
        // in the queue must not use up the time of all retries before the first attempt.
        let first = if self.meta.attempt <= 1 {
            self.began
        } else {
            self.created
        };
        policy.next(self.inner.clock.now(), first, self.meta.attempt, verdict, seed)
    }

    /// What a run says whose state is not saved.
    fn discarded(&self, checkpoints: u64, last: bool) -> [LogEntry; 2] {
        let now = self.inner.clock.now();
        let last = if last { "a final state" } else { "no final state" };
        let details = format!("Discarded {checkpoints} checkpoints and {last}.");
        [
            LogEntry::new(now, Level::Info, Audience::Developer, details),
            self.customer_line((Level::Info, DISCARDED.to_owned())),
        ]
    }

    fn customer_line(&self, (level, message): (Level, String)) -> LogEntry {
        LogEntry::new(self.inner.clock.now(), level, Audience::Customer, message)
    }

    pub(super) fn timings(queue_ms: u64, setup: Duration, run: Duration) -> Timings {
        let mut timings = Timings::default();
        timings.queue_ms = queue_ms;
        timings.setup_ms = millis(setup);
        timings.run_ms = millis(run);
        timings
    }

    /// Whatever comes of it, the execution itself is finished.
    async fn park(&self, why: &Failure, context: &Context, unstarted: bool) {
        let parked = async {
            if self.is_present(context).await? && (unstarted || self.still_holds(why, context).await?) {
                let installations = &*self.inner.store.installations;
                attention::park(installations, (&self.scope).into(), self.flow.installation, why).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = parked.await {
            tracing::warn!(installation = %self.flow.installation, ?error, "an installation could not be parked");
        }
    }

    /// Whether the attempt used the connections that the installation has now, and not those that it once had.
    async fn is_present(&self, context: &Context) -> Result<bool> {
        let Some(used) = context.installation.as_ref().filter(|_| self.flow.revision.is_some()) else {
            return Ok(true);
        };
        let installations = &self.inner.store.installations;
        let installed = installations.get((&self.scope).into(), used.id).await?;
        Ok(installed.is_some_and(|installed| installed.connections == used.connections))
    }

    /// Whether a person is needed even now. Somebody may have authorised the connection again while the attempt ran, and a
    /// refusal that no connection has met is the flow's own word. A script is believed, as nobody else sees its calls.
    async fn still_holds(&self, why: &Failure, context: &Context) -> Result<bool> {
        if why.code != Code::CredentialsRefused {
            return Ok(true);
        }
        let Some(used) = &context.installation else {
            return Ok(false);
        };
        let installed = self
            .inner
            .store
            .installations
            .get((&self.scope).into(), used.id)
            .await?;
        if installed.is_none_or(|installed| installed.connections != used.connections) {
            return Ok(false);
        }
        let mut replaced = false;
        for id in used.connections.values() {
            let connection = self.inner.store.connections.get((&self.scope).into(), *id).await?;
            let Some(connection) = connection else { continue };
            if connection.health == Health::NeedsReconnect {
                return Ok(true);
            }
            replaced |= connection.updated >= self.began;
        }
        Ok(context.script && !replaced)
    }

    /// Finishes, and settles where queue and records do not share the commit. A store that does not answer is asked again,
    /// for as long as the lease is ours.
    pub(super) async fn write(&self, finish: &Finish) -> Result<Written> {
        let fleet = crate::scope::fleet();
        let mut tries = 0;
        let finished = loop {
            match self.inner.store.executions.finish(&fleet, finish.clone()).await {
                Ok(finished) => break finished,
                Err(error) => {
                    tries += 1;
                    let hopeless = error.kind() != Kind::Storage || error.retry() != Retry::Backoff;
                    if hopeless || tries >= TRIES || self.delivery.stop.reason() == Some(StopReason::LeaseLost) {
                        return Err(error);
                    }
                    tracing::warn!(execution = %self.meta.id, ?error, "the outcome could not be written yet");
                    tokio::time::sleep(Duration::from_millis(100 << tries)).await;
                }
            }
        };
        match finished {
            Finished::Applied { settled } => {
                if !settled {
                    self.settle(finish).await?;
                }
                Ok(Written::Applied)
            }
            Finished::StateConflict => Ok(Written::StateConflict),
            // The try that got no answer may have been the one that ended it.
            Finished::Stale if tries > 0 => match self.inner.store.executions.begin(&fleet, finish.lease).await? {
                Begun::Finished(reply) => Ok(Written::Ended(reply)),
                _ => Ok(Written::Stale),
            },
            Finished::Stale => Ok(Written::Stale),
            other => Err(Error::new(
                Code::Internal,
                format!("the store answered a finish with {other:?}"),
            )),
        }
    }

    async fn settle(&self, finish: &Finish) -> Result<()> {
        let lease = finish.lease;
        let settle = match &finish.outcome {
            Outcome::Ended { reply, .. } => Settle::Complete {
                lease,
                reply: reply.clone(),
            },
            Outcome::Retry { at, failure } => Settle::Retry {
                lease,
                at: *at,
                failure: failure.clone(),
            },
            _ => Settle::Release { lease },
        };
        self.inner.store.dispatch.settle(vec![settle]).await?;
        Ok(())
    }
}

/// What the gateway hears of a failure whose next attempt is stored: nothing that could hold a secret, and no code by which
/// it would take the attempt for one that was not begun.
fn again(failure: &Failure, at: Timestamp) -> Error {
    let code = match failure.code {
        Code::ShuttingDown | Code::TargetSaturated | Code::TargetUnavailable => Code::FlowFailed,
        code => code,
    };
    Error::new(code, failure.message.clone()).with_retry(Retry::At(at))
}

fn cancelled() -> Draft {
    let failure = Failure::new(Code::Cancelled, "it was cancelled while it ran");
    let reply = problem::failure(&failure);
    Draft {
        outcome: Outcome::Ended {
            status: ExecutionStatus::Cancelled,
            reply: reply.clone(),
            failure: Some(failure),
        },
        verdict: Verdict::Ended(reply),
        closing: (Level::Info, "Cancelled.".to_owned()),
        state: None,
        starts: Vec::new(),
        attention: None,
    }
}

fn released() -> Draft {
    Draft {
        outcome: Outcome::Released,
        verdict: Verdict::Later(Error::new(
            Code::ShuttingDown,
            "the process stops; the work goes back to the queue",
        )),
        closing: (Level::Info, "Interrupted by a restart; it begins again.".to_owned()),
        state: None,
        starts: Vec::new(),
        attention: None,
    }
}

impl From<Verdict> for Result<Reply> {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ended(reply) => Ok(reply),
            Verdict::Later(error) => Err(error),
        }
    }
}

fn sentence(status: ExecutionStatus, message: &str) -> String {
    let word = match status {
        ExecutionStatus::Cancelled => "Cancelled",
        ExecutionStatus::Expired => "Expired",
        _ => "Failed",
    };
    format!("{word}: {}.", message.trim_end_matches('.'))
}

fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{} ms", duration.as_millis());
    }
    format!("{:.1} s", duration.as_secs_f64())
}
