//! The conversation of the framed and the http binding: the guest's messages are read and judged, states are kept,
//! acknowledgements sent.
//!
//! Three tasks that never wait for each other: one reads ([`lines`], [`message`], [`heard`]), one keeps states, one
//! writes to the guest. What they share is [`Heard`], under a lock that is never held over an await. A guest that does not
//! read its input, or sends faster than its states can be kept, slows down nobody: only the newest state is kept, and its
//! acknowledgement covers those before it.

mod desk;
mod heard;
mod lines;
mod message;
mod to_guest;

use super::{
    launch::{Reader, Writer},
    output::Output,
    pace::Pace,
};
use crosspoint_core::{Checkpoint, Code, Error, Kind, Level, Result, RunSpec, StopReason};
pub(super) use desk::Desk;
use heard::Heard;
use lines::{Line, Lines};
use serde_json::Value;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout},
};

/// How long the last states may take after the end of the script.
const FLUSH: Duration = Duration::from_secs(10);

/// Between two tries to keep a state in a store that does not answer, at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// From the end of one write of a state to the next, at least: a run must not keep the store busy for the others. As long
/// as a script waits for its acknowledgements it does not notice.
const PACE: Duration = Duration::from_millis(10);

/// Bytes of state that are written in a second, at most.
const VOLUME: u64 = 4 << 20;

/// Why a run is ended that could go on.
#[derive(Debug)]
pub(super) enum Fault {
    LeaseLost,
    Failed(Error),
}

/// All that the guest said.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) result: Option<Value>,
    /// The last state that is not kept yet.
    pub(super) state: Option<Value>,
    pub(super) error: Option<Error>,
    pub(super) fault: Option<Fault>,
    /// The last state, and the last result, could not be used.
    refused_state: Option<Error>,
    refused_result: Option<Error>,
}

impl Said {
    /// The result and the state of a run that ended well.
    pub(super) fn output(self) -> Result<(Value, Option<Value>)> {
        match self.refused_state.or(self.refused_result) {
            Some(error) => Err(error),
            None => Ok((self.result.unwrap_or(Value::Null), self.state)),
        }
    }
}

#[derive(Debug)]
struct Shared {
    heard: Mutex<Heard>,
    /// There is something to say to the guest.
    to_say: Notify,
    /// There is a state to keep, or no more of them will come.
    to_keep: Notify,
    fault: Notify,
    /// The guest has ended.
    ended: Notify,
}

impl Shared {
    fn new(spec: &RunSpec, output: Output) -> Arc<Self> {
        Arc::new(Self {
            heard: Mutex::new(Heard::new(spec, output)),
            to_say: Notify::new(),
            to_keep: Notify::new(),
            fault: Notify::new(),
            ended: Notify::new(),
        })
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, fault: Fault) {
        self.heard().said.fault.get_or_insert(fault);
        self.fault.notify_one();
    }
}

/// The conversation with one guest.
#[derive(Debug)]
pub(super) struct Talk {
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    keeper: JoinHandle<()>,
    output: Output,
}

impl Talk {
    /// Begins with the message `start`, in tasks of the current runtime.
    pub(super) fn over_pipes(hello: Vec<u8>, stdin: Writer, messages: Reader, output: Output, spec: &RunSpec) -> Self {
        let shared = Shared::new(spec, output.clone());
        Self {
            reader: tokio::spawn(read(Arc::clone(&shared), messages, longest(spec))),
            writer: tokio::spawn(write(Arc::clone(&shared), stdin, hello)),
            keeper: tokio::spawn(keep(Arc::clone(&shared), spec.checkpoint.clone())),
            shared,
            output,
        }
    }

    /// The same where the guest fetches and posts its messages.
    pub(super) fn over_http(hello: Vec<u8>, desk: Desk, output: Output, spec: &RunSpec) -> Result<Self> {
        let shared = Shared::new(spec, output.clone());
        let serving = desk.serve(Arc::clone(&shared), hello, longest(spec))?;
        Ok(Self {
            reader: tokio::spawn(serving),
            writer: tokio::spawn(std::future::ready(())),
            keeper: tokio::spawn(keep(Arc::clone(&shared), spec.checkpoint.clone())),
            shared,
            output,
        })
    }

    /// Tells the guest to come to an end.
    pub(super) fn cancel(&self, why: StopReason, grace: Duration) {
        self.shared.heard().to_guest.cancel(why, grace);
        self.shared.to_say.notify_one();
    }

    /// Completes when the run has to be killed for what was said.
    pub(super) async fn faulty(&self) {
        self.shared.fault.notified().await;
    }

    /// Waits until the guest's messages end.
    pub(super) async fn read_to_the_end(&mut self) {
        self.shared.ended.notify_one();
        // It panics only as a whole process does, and was aborted by nobody else.
        drop((&mut self.reader).await);
    }

    /// Ends the conversation. With `keep`, states that were sent and not kept yet are kept now.
    pub(super) async fn finish(mut self, keep: bool) -> Said {
        self.reader.abort();
        self.writer.abort();
        self.shared.heard().over = true;
        self.shared.to_keep.notify_one();
        if !keep || timeout(FLUSH, &mut self.keeper).await.is_err() {
            self.keeper.abort();
        }
        let (said, notes) = self.shared.heard().take();
        for note in notes {
            self.output.note(Level::Info, note);
        }
        said
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
        self.keeper.abort();
    }
}

/// Bytes of the longest message.
fn longest(spec: &RunSpec) -> usize {
    let value = spec.limits.result_bytes.max(spec.limits.state_bytes);
    usize::try_from(value)
        .unwrap_or(usize::MAX)
        .saturating_add(lines::ENVELOPE)
}

/// What hearing a message costs besides its length, as bytes to read.
const MESSAGE: usize = 512;

/// Reads messages until they end.
async fn read(shared: Arc<Shared>, mut messages: Reader, longest: usize) {
    let mut lines = Lines::new(longest);
    let mut chunk = vec![0; 64 * 1024];
    let mut pace = Pace::new();
    loop {
        let n = match messages.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let mut bytes = chunk.get(..n).unwrap_or_default();
        while let Some(line) = lines.next(&mut bytes) {
            hear(&shared, &line);
            pace.took(MESSAGE).await;
        }
        pace.took(n).await;
    }
    if let Some(line) = lines.last() {
        hear(&shared, &line);
    }
}

fn hear(shared: &Shared, line: &Line<'_>) {
    let mut heard = shared.heard();
    match line {
        Line::Whole(line) => heard.hear(line, Instant::now()),
        Line::TooLong(bytes) => heard.too_long(*bytes),
    }
    let (say, keep, fault) = (
        heard.to_guest.waiting(),
        heard.pending.is_some(),
        heard.said.fault.is_some(),
    );
    drop(heard);
    for (wanted, task) in [(say, &shared.to_say), (keep, &shared.to_keep), (fault, &shared.fault)] {
        if wanted {
            task.notify_one();
        }
    }
}

/// Writes to the guest whatever there is to say, until it does not listen any more.
async fn write(shared: Arc<Shared>, mut stdin: Writer, hello: Vec<u8>) {
    let mut next = hello;
    loop {
        if stdin.write_all(&next).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
        next = loop {
            let lines = shared.heard().to_guest.take();
            if !lines.is_empty() {
                break lines;
            }
            shared.to_say.notified().await;
        };
    }
}

/// Keeps the newest state, again and again.
async fn keep(shared: Arc<Shared>, checkpoint: Option<Arc<dyn Checkpoint>>) {
    let Some(checkpoint) = checkpoint else { return };
    let mut pause = Duration::from_millis(50);
    let mut free = Instant::now();
    loop {
        sleep_until(free).await;
        let (pending, over) = {
            let mut heard = shared.heard();
            (heard.pending.take(), heard.over)
        };
        let Some(pending) = pending else {
            if over {
                return;
            }
            shared.to_keep.notified().await;
            continue;
        };
        let saved = checkpoint.save(pending.value.clone()).await;
        free = Instant::now() + pending.pace();
        match saved {
            Ok(version) => {
                pause = Duration::from_millis(50);
                if let Some(seq) = pending.seq {
                    shared.heard().to_guest.ack(seq, version);
                    shared.to_say.notify_one();
                }
            }
            Err(error) if error.code() == Code::LeaseStale => return shared.fail(Fault::LeaseLost),
            Err(error) if error.kind() == Kind::Storage && error.code() != Code::StoreCorrupt => {
                tracing::warn!(?error, "a state could not be kept yet");
                shared.heard().put_back(pending);
                sleep(pause).await;
                pause = (pause * 2).min(PATIENCE);
            }
            Err(error) => return shared.fail(Fault::Failed(error)),
        }
    }
}
