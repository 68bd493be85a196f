//! One interpreter that waits for its one run.

use super::{
    super::{
        launch::{Launched, Place, Plan, Reader, Stdin},
        setting::Setting,
    },
    farewell::Farewell,
    python,
};
use crosspoint_core::{Code, Error, ErrorExt, Isolation, Result};
use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

/// How long the imports may take.
const IMPORTS: Duration = Duration::from_secs(30);

/// Processor time that they may take beyond the limit of the run.
const HEAD_START: Duration = Duration::from_secs(2);

/// How long the hand-over may take; then the run is started in another way.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Said when it is ready, and when the run begins.
const READY: &[u8] = b"ready ";
const BEGUN: u8 = b'!';

/// An interpreter that has imported its modules. Dropping it kills it.
#[derive(Debug)]
pub(in super::super) struct Worker {
    launched: Launched,
    place: Place,
    /// What is in its folder already.
    there: Vec<String>,
    /// Bytes of memory that it holds.
    pub(super) held: u64,
}

impl Worker {
    /// Starts one and waits until it is ready.
    pub(super) async fn ready(setting: &Setting) -> Result<Self> {
        let planner = |setting: &Setting, place| {
            let (mut plan, rest) = python::plan(setting, place)?;
            let head_start = u64::try_from(HEAD_START.as_millis()).unwrap_or(u64::MAX);
            plan.limits.cpu_ms = plan.limits.cpu_ms.saturating_add(head_start);
            Ok((plan, rest))
        };
        let (mut launched, (place, there)) = setting.launch(planner).await?;
        launched.tree.step_back();
        let said = timeout(IMPORTS, listen(&mut launched)).await;
        let missing = said.or_fail(Code::ScriptNotStarted, "the imports took too long")??;
        if !missing.is_empty() {
            tracing::warn!(%missing, "modules that a script wants to have imported ahead cannot be imported");
        }
        launched.tree.begin(HEAD_START);
        let held = launched.tree.held();
        Ok(Self {
            launched,
            place,
            there,
            held,
        })
    }

    /// Where the run will be.
    pub(in super::super) fn place(&self) -> Place {
        self.place.clone()
    }

    pub(super) fn lives(&mut self) -> bool {
        let ended = pin!(self.launched.tree.ended());
        ended.poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending
    }

    /// Hands a run over. `None` if the interpreter ended before anything of the run was done.
    pub(in super::super) async fn hand_over(self, plan: &Plan) -> Option<Launched> {
        let message = python::hand_over(plan, &self.place.root, &self.there)?;
        let mut launched = self.launched;
        launched.tree.come_forward();
        let begun = match timeout(HAND_OVER, tell(&mut launched, &message)).await {
            Ok(begun) => begun,
            Err(_) => {
                launched.tree.signals().kill();
                launched.tree.ended().await;
                false
            }
        };
        if !begun && !began_after_all(&mut launched).await {
            return None;
        }
        if plan.stdin == Stdin::Null {
            launched.stdin = None;
        }
        if !plan.messages {
            launched.messages_kept = None;
            let messages = launched.messages.take();
            // Only there, no process of the run can be anything but a descendant of the first.
            if let Some(messages) = messages.filter(|_| launched.isolation == Isolation::Sandboxed) {
                launched.tree = Box::new(Farewell::new(launched.tree, messages));
            }
        }
        Some(launched)
    }
}

/// Waits for the word that it is ready; answers which modules could not be imported.
async fn listen(launched: &mut Launched) -> Result<String> {
    let early = || Error::new(Code::ScriptNotStarted, "the interpreter ended before it was ready");
    let messages = launched.messages.as_mut().ok_or_else(early)?;
    let mut line = Vec::new();
    let heard = async {
        // Byte by byte, as nothing behind the line may be taken; it is short, and nobody waits.
        while line.last() != Some(&b'\n') && line.len() < 16 * 1024 {
            line.push(messages.read_u8().await.ok()?);
        }
        let missing = line.strip_prefix(READY)?.strip_suffix(b"\n")?;
        Some(String::from_utf8_lossy(missing).into_owned())
    };
    let heard = tokio::select! {
        heard = heard => heard,
        () = launched.tree.ended() => None,
    };
    match heard {
        Some(missing) => Ok(missing),
        None => Err(early().with("output", printed(launched.stderr.take()).await)),
    }
}

/// The end of what it printed, as far as it is there.
async fn printed(pipe: Option<Reader>) -> String {
    let mut text = Vec::new();
    if let Some(pipe) = pipe {
        timeout(Duration::from_millis(100), pipe.take(4096).read_to_end(&mut text))
            .await
            .ok();
    }
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// Tells it about its run; answers whether it said that the run begins.
async fn tell(launched: &mut Launched, message: &[u8]) -> bool {
    let (Some(stdin), Some(messages)) = (launched.stdin.as_mut(), launched.messages.as_mut()) else {
        return false;
    };
    let told = async {
        stdin.write_all(message).await.ok()?;
        stdin.flush().await.ok()?;
        messages.read_u8().await.ok()
    };
    tokio::select! {
        biased;
        word = told => word == Some(BEGUN),
        () = launched.tree.ended() => false,
    }
}

/// Whether the word stands in the pipe of one that has ended, or is about to.
async fn began_after_all(launched: &mut Launched) -> bool {
    launched.tree.signals().kill();
    launched.messages_kept = None;
    let Some(messages) = launched.messages.as_mut() else {
        return false;
    };
    matches!(timeout(HAND_OVER, messages.read_u8()).await, Ok(Ok(BEGUN)))
}
