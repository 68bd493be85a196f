//! The end of a run, told by the interpreter itself: an interpreter with many modules takes a millisecond to be taken apart,
//! and nobody has to wait for that, nor for the processor on which it happens. So it is killed when the run's outcome has had
//! its moment to get through.
//!
//! A script can say the word, too, as it can end with any exit code. It is killed for it, and its network and its user are
//! given to nobody else before it is reaped; so all that it gains is to run for another [`MOMENT`].

use super::super::launch::{Cause, Ended, Reader, Signals, Tree};
use async_trait::async_trait;
use crosspoint_core::Usage;
use std::{
    fmt, io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{io::AsyncReadExt, time::sleep};

/// How long a run that has told its end is left alone: it waits, and its outcome is read meanwhile.
const MOMENT: Duration = Duration::from_millis(2);

/// A run that may tell its end before the system does.
pub(super) struct Farewell {
    /// There until it is reaped.
    tree: Option<Box<dyn Tree>>,
    reach: Arc<Reach>,
    /// Where the exit code comes, if it does.
    pipe: Option<Reader>,
    code: Option<u8>,
}

impl fmt::Debug for Farewell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Farewell")
            .field("tree", &self.tree)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

impl Farewell {
    pub(super) fn new(tree: Box<dyn Tree>, pipe: Reader) -> Self {
        Self {
            reach: Arc::new(Reach {
                inner: tree.signals(),
                reaped: AtomicBool::new(false),
            }),
            tree: Some(tree),
            pipe: Some(pipe),
            code: None,
        }
    }
}

#[async_trait]
impl Tree for Farewell {
    async fn ended(&mut self) {
        let Some(tree) = &mut self.tree else { return };
        if self.code.is_some() {
            return;
        }
        if let Some(pipe) = &mut self.pipe {
            let word = tokio::select! {
                biased;
                () = tree.ended() => return,
                word = pipe.read_u8() => word,
            };
            self.code = word.ok();
            self.pipe = None;
            if self.code.is_some() {
                return;
            }
        }
        tree.ended().await;
    }

    async fn reap(&mut self) -> io::Result<Ended> {
        let Some(mut tree) = self.tree.take() else {
            return Err(io::Error::other("a run is reaped once"));
        };
        let Some(code) = self.code else {
            return tree.reap().await;
        };
        self.reach.reaped.store(true, Ordering::Release);
        let usage = tree.used();
        tokio::spawn(async move {
            sleep(MOMENT).await;
            tree.step_back();
            tree.signals().kill();
            tree.ended().await;
            if let Err(error) = tree.reap().await {
                tracing::warn!(%error, "nobody knows how a run ended that had told its end");
            }
        });
        Ok(Ended {
            status: ExitStatus::from_raw(i32::from(code) << 8),
            usage,
            cause: Cause::Own,
        })
    }

    fn begin(&mut self, head_start: Duration) {
        if let Some(tree) = &mut self.tree {
            tree.begin(head_start);
        }
    }

    fn held(&self) -> u64 {
        self.tree.as_ref().map_or(0, |tree| tree.held())
    }

    fn used(&self) -> Usage {
        self.tree.as_ref().map(|tree| tree.used()).unwrap_or_default()
    }

    fn signals(&self) -> Arc<dyn Signals> {
        Arc::<Reach>::clone(&self.reach)
    }
}

/// Reaches the run until it has told its end; then it is killed by nobody but [`Farewell`].
#[derive(Debug)]
struct Reach {
    inner: Arc<dyn Signals>,
    reaped: AtomicBool,
}

impl Signals for Reach {
    fn ask(&self) {
        if !self.reaped.load(Ordering::Acquire) {
            self.inner.ask();
        }
    }

    fn kill(&self) {
        if !self.reaped.load(Ordering::Acquire) {
            self.inner.kill();
        }
    }
}
