//! Sandboxed runs that bubblewrap starts, for hosts that want it so.
//!
//! It builds the namespaces and the root and locks the run in ([`words`]); a spawner without namespaces starts it, with the
//! customer's user where the host is root, and no capabilities. Before the program starts the host takes a hold of it
//! ([`meeting`]). From there on it is a run like all others: its first process is the first of its PID namespace, by which it is
//! killed, seen and measured.
//!
//! Until then it has no hold but the mark that runs without namespaces carry (`confined`). It keeps it: when the host is killed
//! in the middle of a start, and bubblewrap does not hear of it, the spawner does.

mod meeting;
mod words;

pub(super) use meeting::Told;

use super::{
    Crew, Entry, Means,
    confined::give_folder,
    filter::{self, Kind},
    guard::Killer,
    ids::{Id, Ids},
    job::Job,
    orders::{Grants, Orders},
    paths::Visible,
    running::Child,
    step::{Step, Trouble, io_step, step},
};
use crosspoint_core::{Code, CustomerId, Error, Isolation, Retry};
use meeting::{Met, meet, rendezvous};
use rustix::{
    fd::OwnedFd,
    fs::Access,
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};
use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe::{Receiver, Sender},
    time::timeout,
};

/// Longer than any start.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is kept of what it says when it fails.
const SAID: u64 = 4096;

/// What runs that go through bubblewrap need.
pub(super) struct Bubblewrap {
    program: PathBuf,
    pub(super) version: String,
    visible: Visible,
    filter: Vec<u8>,
    ids: Option<Arc<Ids>>,
    pub(super) crew: Crew,
}

/// Why a run was not started.
pub(super) enum Failure {
    Step(Trouble),
    /// In bubblewrap's own words.
    Said(String),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self::Step(trouble)
    }
}

impl Failure {
    /// As the error of a run that asked for `asked`.
    pub(super) fn error(self, asked: Isolation) -> Error {
        let said = match self {
            Self::Step(trouble) => return trouble.error(asked),
            Self::Said(said) => said,
        };
        let now = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
        let now = now.iter().any(|errno| said.contains(&reason(*errno)));
        if now || said.is_empty() {
            let message = format!("the script could not be started for now: bubblewrap: {said}");
            Error::new(Code::ScriptNotStarted, message).with_retry(Retry::Backoff)
        } else if said.contains("source path") {
            let message = format!("the script could not be started: a folder of its own is out of reach: {said}");
            Error::new(Code::ScriptNotStarted, message)
        } else {
            let missing = format!("bubblewrap: {said}; {}", Step::Bubblewrap.cure());
            crate::isolation_unavailable(asked, Isolation::Process, &missing)
        }
    }
}

/// As the C library says it.
fn reason(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

impl Bubblewrap {
    /// Looks for the program and starts the spawners. Blocks.
    pub(super) fn make(program: PathBuf, means: Means) -> Result<Self, Trouble> {
        let version = version(&program)?;
        let (mut visible, ids) = (means.visible.beside_own(), means.ids);
        // It says nothing of what it cannot read, but ends.
        visible.trees.retain(|tree| reachable(tree, ids.is_some()));
        let bytes = filter::program(Kind::Bubblewrap)?.into_iter().flat_map(|op| {
            let mut bytes = [0_u8; 8];
            let (code, k) = (op.code.to_ne_bytes(), op.k.to_ne_bytes());
            for (to, from) in bytes.iter_mut().zip(code.into_iter().chain([op.jt, op.jf]).chain(k)) {
                *to = from;
            }
            bytes
        });
        Ok(Self {
            program,
            version,
            visible,
            filter: bytes.collect(),
            ids,
            crew: Crew::start(means.options.spawners, None, None, &means.hogs, &means.floor)?,
        })
    }

    /// Starts a run.
    pub(super) async fn launch(&self, job: &Job, customer: &CustomerId, group: Entry) -> Result<Child, Failure> {
        let id = self.ids.as_ref().map(|ids| ids.hold(customer.as_str())).transpose()?;
        if let (Some(id), Some(folder)) = (&id, &job.folder) {
            give_folder(folder, id.number())?;
        }
        let user = id.as_ref().map(Id::number);
        let grants = Grants {
            locks: None,
            network: None,
            grounds: None,
            id,
            group,
        };
        let (status, told) = pipe()?;
        let (waits, ready) = rendezvous(words::LAST.1)?;
        let more = words::descriptors(job, &self.visible, &self.filter, told, waits)?;
        let words = words::WORDS.to_string();
        let mut argv: Vec<&OsStr> = ["bwrap", "--args", &words, "--"].map(OsStr::new).into();
        argv.push(job.program.as_os_str());
        argv.extend(job.args.iter().map(std::ffi::OsString::as_os_str));
        let (orders, ends) = Orders::through(&self.program, &argv, job, more, grants)?;
        let mut told = Told::new(io_step(Step::Pipes, Receiver::from_owned_fd(status))?);
        let ready = io_step(Step::Pipes, Sender::from_owned_fd(ready))?;
        let mut started = self.crew.start_run(Box::new(orders)).await?;
        let killer = Killer {
            pidfd: Arc::clone(&started.pidfd),
            mark: started.mark,
        };
        let met = timeout(PATIENCE, meet(&killer, &mut told, &ready, job, user)).await;
        let met = met.unwrap_or(Err(Trouble {
            step: Step::HandOut,
            errno: Errno::TIMEDOUT,
        }))?;
        let Some(Met {
            first,
            folder,
            processes,
            namespace,
        }) = met
        else {
            killer.kill();
            return Err(Failure::Said(said(ends.stderr).await));
        };
        (started.pidfd, started.mark) = (first, None);
        started.handed = vec![folder, processes];
        let child = self.crew.watch(started, ends, job.limits)?.through(told, namespace);
        // It goes on.
        drop(ready);
        Ok(child)
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Trouble> {
    step(Step::Pipes, pipe_with(PipeFlags::CLOEXEC))
}

/// What it said before it ended.
async fn said(stderr: OwnedFd) -> String {
    let Ok(pipe) = Receiver::from_owned_fd(stderr) else {
        return String::new();
    };
    let mut text = Vec::new();
    let all = pipe.take(SAID);
    tokio::pin!(all);
    timeout(PATIENCE, all.read_to_end(&mut text)).await.ok();
    let text = String::from_utf8_lossy(&text);
    text.trim().trim_start_matches("bwrap: ").to_owned()
}

fn version(program: &Path) -> Result<String, Trouble> {
    let found = io_step(Step::Bubblewrap, fs::metadata(program))?;
    if found.permissions().mode() & 0o4000 != 0 {
        // It would run as root until it has dropped that, and hide the run from its host.
        return Err(Trouble {
            step: Step::Bubblewrap,
            errno: Errno::PERM,
        });
    }
    let mut command = Command::new(program);
    let said = command.arg("--version").env_clear().stdin(Stdio::null()).output();
    let said = io_step(Step::Bubblewrap, said)?.stdout;
    let said = String::from_utf8_lossy(&said);
    said.trim()
        .strip_prefix("bubblewrap ")
        .map(str::to_owned)
        .ok_or(Trouble {
            step: Step::Bubblewrap,
            errno: Errno::NOEXEC,
        })
}

/// Whether bubblewrap can show it: as this user, or as the user of any customer.
fn reachable(tree: &Path, as_anybody: bool) -> bool {
    if !as_anybody {
        return rustix::fs::access(tree, Access::READ_OK).is_ok();
    }
    let others =
        |path: &Path, bits: u32| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & bits == bits);
    others(tree, 0o004) && tree.ancestors().skip(1).all(|above| others(above, 0o001))
}
