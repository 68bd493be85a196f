//! The seam between a run and the level that it runs at: what is to be started, and what then runs.

use super::{files::Files, folder::Folder, process::ProcessTree};
use crate::egress::Listener;
use async_trait::async_trait;
use crosspoint_core::{Isolation, Limits, Result, Usage};
use std::{
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// The pipe for messages in the private folder, where none can be handed over as a descriptor.
pub(crate) const MESSAGES: &str = "messages";

/// The socket of the broker in the private folder, where a run has no loopback of its own.
pub(crate) const NETWORK: &str = "network";

/// The descriptor on which a script writes its messages, where it is handed over as one.
pub(crate) const MESSAGES_FD: u32 = 3;

/// Where a run finds what is its own, as it sees it itself.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The private folder.
    pub(crate) root: PathBuf,
    /// Messages go to [`MESSAGES_FD`], else to the pipe [`MESSAGES`] in the private folder.
    pub(crate) descriptor: bool,
    /// The way out, if there is one.
    pub(crate) network: Option<Way>,
    /// Where the host listens for messages over HTTP, if the run can reach it: address and token.
    pub(crate) desk: Option<(String, String)>,
}

/// How a run reaches the broker and the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A port on its own loopback.
    Port(u16),
    /// The socket [`NETWORK`] in the private folder.
    Socket,
}

impl Place {
    /// A host folder, and no network but the host's own.
    pub(crate) fn host(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            descriptor: false,
            network: None,
            desk: None,
        }
    }
}

/// What is to be started. Every path is as the child sees it, unless said otherwise.
pub(crate) struct Plan {
    /// A file, never a name to be looked up.
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// The working folder.
    pub(crate) dir: PathBuf,
    /// What is in the private folder before the start, folders before what is in them.
    pub(crate) inputs: Vec<Input>,
    /// What else it may read: path on the host, path as the child sees it.
    pub(crate) read_only: Vec<(PathBuf, PathBuf)>,
    pub(crate) stdin: Stdin,
    /// A pipe for messages, out of the child.
    pub(crate) messages: bool,
    pub(crate) limits: Limits,
    /// Somebody has to listen at [`Place::network`].
    pub(crate) network: bool,
}

impl fmt::Debug for Plan {
    /// Without arguments, environment and contents, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("program", &self.program)
            .field("dir", &self.dir)
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}

/// Something in the private folder.
pub(crate) struct Input {
    /// Relative, at most one folder deep.
    pub(crate) name: String,
    pub(crate) content: Content,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// What an [`Input`] is.
pub(crate) enum Content {
    Folder,
    File(Vec<u8>),
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:o})", self.name, self.mode)
    }
}

/// What a child's standard input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdin {
    Null,
    Pipe,
}

/// An end of a pipe to read from.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// An end of a pipe to write to.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// What runs.
pub(crate) struct Launched {
    pub(crate) stdin: Option<Writer>,
    pub(crate) stdout: Option<Reader>,
    pub(crate) stderr: Option<Reader>,
    pub(crate) messages: Option<Reader>,
    /// An end of the messages' pipe that keeps it from ending before the child does; to be dropped when it has ended.
    pub(crate) messages_kept: Option<std::os::fd::OwnedFd>,
    /// Where the broker is to be served: in the child's network namespace, or a socket in its folder.
    pub(crate) listener: Option<Listener>,
    pub(crate) tree: Box<dyn Tree>,
    pub(crate) files: Files,
    /// The level that was achieved.
    pub(crate) isolation: Isolation,
    /// The tool that made the sandbox, if not we did.
    pub(crate) through: Option<String>,
}

impl fmt::Debug for Launched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launched")
            .field("tree", &self.tree)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}

/// All processes of a run. Dropping it kills them.
#[async_trait]
pub(crate) trait Tree: fmt::Debug + Send {
    /// Completes when the first process of the run has ended. May be dropped and called again until it has.
    async fn ended(&mut self);

    /// Kills what is left and reaps it. Called once, after [`ended`](Self::ended).
    async fn reap(&mut self) -> io::Result<Ended>;

    /// From here on, processor time is the run's. What was used before is not, and the limit is `head_start` less than that
    /// of the plan.
    fn begin(&mut self, head_start: Duration);

    /// Nobody waits for it yet: others get the processors first, as far as the level knows how.
    fn step_back(&mut self) {}

    /// From here on somebody waits for it.
    fn come_forward(&mut self) {}

    /// Bytes of memory that it holds.
    fn held(&self) -> u64;

    /// What it has consumed so far, as in [`Ended`].
    fn used(&self) -> Usage;

    /// Reaches the run from elsewhere, and has no effect once it is reaped.
    fn signals(&self) -> Arc<dyn Signals>;
}

/// How the first process of a run ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Processor time and memory; the rest is left at zero.
    pub(crate) usage: Usage,
    pub(crate) cause: Cause,
}

/// Who ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It itself, or a signal: the status says it all.
    Own,
    /// It was killed for holding more memory than it may.
    OutOfMemory,
    /// It was killed for using more processor time than it may.
    OutOfTime,
    /// It was killed for a system call that is forbidden to it.
    Forbidden,
}

/// Wishes that reach every process of a run.
pub(crate) trait Signals: fmt::Debug + Send + Sync {
    /// To end, soon and in order.
    fn ask(&self);

    /// To be dead.
    fn kill(&self);
}

/// Kills the run when whoever owns it goes away.
#[derive(Debug)]
pub(crate) struct KillOnDrop(pub(crate) Arc<dyn Signals>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Starts a plan at [`Isolation::Process`], in a folder of the host. Blocks for a moment.
pub(crate) fn process(folder: Folder, plan: Plan) -> Result<Launched> {
    folder.fill(&plan.inputs)?;
    let pipe = plan.messages.then(|| folder.pipe(MESSAGES)).transpose()?;
    let (tree, stdio) = ProcessTree::start(plan)?;
    let (messages, messages_kept) = pipe.unzip();
    Ok(Launched {
        stdin: stdio.stdin,
        stdout: stdio.stdout,
        stderr: stdio.stderr,
        messages: messages.map(|pipe| Box::new(pipe) as Reader),
        messages_kept,
        listener: None,
        files: Files::of(folder),
        tree: Box::new(tree),
        isolation: Isolation::Process,
        through: None,
    })
}
