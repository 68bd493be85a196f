//! What this system can do for a process: limits, and word of its end. Found out by trying.

use crosspoint_core::{Code, Error, Isolation, IsolationReport, Limits, Result, Retry};
use rustix::process::Pid;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// Sets the limits of a process that was just started. Those that it has already may be lower; they stay.
#[cfg(target_os = "linux")]
pub(super) fn limit(pid: Pid, limits: &Limits) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
    // `Data` and not `As`: interpreters reserve far more addresses than they ever use, and Java or WebAssembly in Node do
    // not even start when those are limited. What is mapped as shared escapes it; the meter sees that.
    for (resource, wanted) in [
        (Resource::Core, 0),
        (Resource::Data, limits.memory),
        (Resource::Cpu, limits.cpu_ms.div_ceil(1000).max(1)),
        (Resource::Fsize, limits.disk),
        (Resource::Nofile, u64::from(limits.open_files)),
    ] {
        let inherited = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let wanted = Some(wanted.min(inherited));
        let new = Rlimit {
            current: wanted,
            maximum: wanted,
        };
        match prlimit(Some(pid), resource, new) {
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => {
                let missing = "resource limits: prlimit(2) is refused here, probably by a seccomp profile; permit it";
                return Err(
                    crate::isolation_unavailable(Isolation::Process, Isolation::Trusted, missing)
                        .with("limit", format!("{resource:?}"))
                        .caused_by(errno),
                );
            }
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(super) fn limit(_: Pid, _: &Limits) -> Result<()> {
    Ok(())
}

/// Learns of the leader's end, if possible without reaping it.
#[derive(Debug)]
pub(super) enum ExitWatch {
    #[cfg(target_os = "linux")]
    Pidfd(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>),
    /// The leader is reaped when it ends. In the instant until the rest of its group is killed, the kernel could in
    /// theory give its number away.
    Reap,
}

impl ExitWatch {
    pub(super) fn of(pid: Pid) -> Self {
        #[cfg(target_os = "linux")]
        {
            let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK);
            let readable = tokio::io::Interest::READABLE;
            #[expect(
                deprecated,
                reason = "its successor is unsafe only for types that may swap their descriptor; an `OwnedFd` does not"
            )]
            let watched = pidfd.map(|fd| tokio::io::unix::AsyncFd::with_interest(fd, readable));
            if let Ok(Ok(watched)) = watched {
                return Self::Pidfd(watched);
            }
        }
        let _ = pid;
        Self::Reap
    }

    pub(super) async fn exited(&self, child: &mut Child) {
        match self {
            #[cfg(target_os = "linux")]
            Self::Pidfd(watched) => drop(watched.readable().await),
            Self::Reap => drop(child.wait().await),
        }
    }
}

/// Starts a shell that does nothing, in the way in which scripts are started. With the error if it could not be started for a
/// reason that may have passed.
pub(super) async fn look() -> (IsolationReport, Option<Error>) {
    let mut mechanisms: Vec<String> = [
        "process-group",
        "clean-environment",
        "closed-descriptors",
        "private-folder",
    ]
    .map(str::to_owned)
    .into();
    let mut missing = Vec::new();
    let mut passing = None;
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", ":"])
        .env_clear()
        .process_group(0)
        .kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut child) => {
            let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            match pid.map(|pid| limit(pid, &Limits::default())) {
                Some(Err(error)) => missing.push(error.message().to_owned()),
                _ if cfg!(target_os = "linux") => mechanisms.push("resource-limits".to_owned()),
                _ => {}
            }
            if matches!(pid.map(ExitWatch::of), Some(watch) if !matches!(watch, ExitWatch::Reap)) {
                mechanisms.push("pidfd".to_owned());
            }
            drop(child.wait().await);
        }
        // No shell says nothing about other programs.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            missing.push(format!("processes cannot be started here: {error}"));
            let retry = super::exit::unstarted(&error);
            if retry == Retry::Backoff {
                let error =
                    Error::new(Code::ScriptNotStarted, "processes cannot be started here for now").caused_by(error);
                passing = Some(error.with_retry(retry));
            }
        }
    }
    let level = if missing.is_empty() {
        Isolation::Process
    } else {
        Isolation::Trusted
    };
    if !cfg!(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )) {
        missing.push(
            "confined and above: they need Linux on x86-64 or AArch64; a script whose author you trust like your own \
             code can declare `.isolation(Isolation::Process)`"
                .to_owned(),
        );
    }
    (IsolationReport::new(level, mechanisms, missing), passing)
}
