//! The levels `confined` and `sandboxed`, started by the spawn core.

use super::{
    files::Files,
    folder::{Folder, Folders},
    launch::{self, Cause, Content, Launched, NETWORK, Place, Plan, Reader, Signals, Stdin, Tree, Way, Writer},
};
use crate::{
    egress::{Listener, Peers},
    spawn::{self, Child, Job, Reach, Sandbox},
};
use async_trait::async_trait;
use crosspoint_core::{Code, CustomerId, Egress, Error, ErrorExt, Isolation, Result, Usage};
use std::{
    io,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::task::spawn_blocking;

/// The private folder as a sandboxed run sees it.
const ROOT: &str = "/w";

/// Where a run at this level finds what is its own. `folder` is its folder on the host, which only `confined` has.
pub(super) fn place(sandbox: &Sandbox, folder: Option<&Folder>, egress: &Egress) -> Place {
    let reaches = matches!(egress, Egress::Broker | Egress::Allow(_));
    match folder {
        Some(folder) => Place {
            root: folder.path().to_owned(),
            descriptor: true,
            network: reaches.then_some(Way::Socket),
            desk: None,
        },
        None => Place {
            root: PathBuf::from(ROOT),
            descriptor: true,
            network: reaches.then_some(if sandbox.is_bubblewrap() {
                Way::Socket
            } else {
                Way::Port(spawn::PORT)
            }),
            desk: None,
        },
    }
}

/// Starts a plan at `sandboxed`.
pub(super) async fn sandboxed(
    sandbox: &Sandbox,
    folders: &Folders,
    plan: Plan,
    customer: &CustomerId,
) -> Result<Launched> {
    let inputs = plan.inputs.iter().map(|input| {
        let mut made = match &input.content {
            Content::Folder => spawn::Input::folder(&input.name),
            Content::File(content) => spawn::Input::file(&input.name, content.clone(), input.mode),
        };
        made.mode = input.mode;
        made
    });
    let inputs = inputs.collect();
    let mut job = job(plan);
    job.inputs = inputs;
    let through = sandbox.bubblewrap().await;
    let socket = match &through {
        Some(_) if job.network => Some(show_socket(&mut job, folders).await?),
        _ => None,
    };
    let mut child = sandbox.launch(Isolation::Sandboxed, job, customer).await?;
    let folder = child.folder.take();
    let folder = folder.ok_or_else(|| Error::new(Code::Internal, "a sandbox was started without its folder"))?;
    let listener = match socket {
        Some((socket, _folder)) => Some(Listener::Unix(socket, own(&child))),
        None => child.listener.take().map(Listener::Tcp),
    };
    let mut launched = launched(child, Files::Descriptor(folder), listener, Isolation::Sandboxed);
    launched.through = through.map(|version| format!("bubblewrap {version}"));
    Ok(launched)
}

/// A socket of the host's that a run finds in its folder. The folder can go when the run has been started.
async fn show_socket(job: &mut Job, folders: &Folders) -> Result<(UnixListener, Folder)> {
    let folders = folders.clone();
    let made = spawn_blocking(move || {
        let folder = folders.make()?;
        let listener = listen(folder.path())?;
        Ok((listener, folder))
    });
    let (listener, folder) = made.await.or_fail(Code::Internal, "the start of a script was lost")??;
    job.network = false;
    job.read_only
        .push((folder.path().join(NETWORK), Path::new(ROOT).join(NETWORK)));
    job.folder = Some(folder.path().to_owned());
    Ok((listener, folder))
}

/// Only processes of the run may connect.
fn own(child: &Child) -> Peers {
    let reach = child.reach();
    Peers::Those(Arc::new(move |pid| reach.has(pid)))
}

/// Starts a plan at `confined`, in a folder of the host.
pub(super) async fn confined(sandbox: &Sandbox, folder: Folder, plan: Plan, customer: &CustomerId) -> Result<Launched> {
    folder.fill(&plan.inputs)?;
    let listener = plan.network.then(|| listen(folder.path())).transpose()?;
    let mut job = job(plan);
    job.network = false;
    job.folder = Some(folder.path().to_owned());
    let child = sandbox.launch(Isolation::Confined, job, customer).await?;
    let listener = listener.map(|listener| Listener::Unix(listener, own(&child)));
    Ok(launched(child, Files::of(folder), listener, Isolation::Confined))
}

fn listen(folder: &Path) -> Result<UnixListener> {
    let listener = UnixListener::bind(folder.join(NETWORK));
    listener.or_fail(
        Code::ScriptNotStarted,
        "the socket of the broker could not be made; is the path of the folder for temporary files very long?",
    )
}

fn job(plan: Plan) -> Job {
    let mut job = Job::new(plan.program);
    job.args = plan.args;
    job.env = plan.env;
    job.dir = plan.dir;
    job.read_only = plan.read_only;
    job.stdin = match plan.stdin {
        Stdin::Null => spawn::Stdin::Null,
        Stdin::Pipe => spawn::Stdin::Pipe,
    };
    job.messages = plan.messages;
    job.limits = plan.limits;
    job.network = plan.network;
    job
}

fn launched(mut child: Child, files: Files, listener: Option<Listener>, isolation: Isolation) -> Launched {
    Launched {
        stdin: child.stdin.take().map(|pipe| Box::new(pipe) as Writer),
        stdout: child.stdout.take().map(|pipe| Box::new(pipe) as Reader),
        stderr: child.stderr.take().map(|pipe| Box::new(pipe) as Reader),
        messages: child.messages.take().map(|pipe| Box::new(pipe) as Reader),
        messages_kept: None,
        listener,
        tree: Box::new(child),
        files,
        isolation,
        through: None,
    }
}

#[async_trait]
impl Tree for Child {
    async fn ended(&mut self) {
        // How it ended, and whether anybody knows, is told by `reap`.
        self.wait().await.ok();
    }

    /// All of the run ends with its first process, or is killed with it.
    async fn reap(&mut self) -> io::Result<launch::Ended> {
        let ended = self.wait().await.map_err(io::Error::other)?;
        let mut usage = Usage::default();
        usage.cpu_ms = u64::try_from(ended.cpu.as_millis()).unwrap_or(u64::MAX);
        usage.peak_memory = ended.peak_memory;
        Ok(launch::Ended {
            status: ended.status,
            usage,
            cause: match ended.cause {
                spawn::Cause::OutOfMemory => Cause::OutOfMemory,
                spawn::Cause::OutOfTime => Cause::OutOfTime,
                spawn::Cause::Forbidden => Cause::Forbidden,
                _ => Cause::Own,
            },
        })
    }

    fn begin(&mut self, head_start: Duration) {
        Self::begin(self, head_start);
    }

    fn step_back(&mut self) {
        Self::step_back(self);
    }

    fn come_forward(&mut self) {
        Self::come_forward(self);
    }

    fn held(&self) -> u64 {
        Self::held(self)
    }

    fn used(&self) -> Usage {
        let (cpu, peak_memory) = Self::used(self);
        let mut usage = Usage::default();
        usage.cpu_ms = u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX);
        usage.peak_memory = peak_memory;
        usage
    }

    fn signals(&self) -> Arc<dyn Signals> {
        Arc::new(self.reach())
    }
}

impl Signals for Reach {
    fn ask(&self) {
        Self::ask(self);
    }

    fn kill(&self) {
        Self::kill(self);
    }
}
