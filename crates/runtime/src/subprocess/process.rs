//! The level `process`: a process group of its own, started by the standard library.
//!
//! Whatever is set here must keep the standard library on `posix_spawn`: with `pre_exec`, a user or a group it would fork
//! the host, which costs the more the more memory the host has.

use super::{
    exit,
    group::Group,
    launch::{Cause, Ended, Plan, Reader, Signals, Stdin, Tree, Writer},
    meter::Meter,
    system::{ExitWatch, limit},
};
use async_trait::async_trait;
use crosspoint_core::{Code, Error, Result, Usage};
use rustix::process::{Pid, Signal};
use std::{io, process::Stdio, sync::Arc, time::Duration};
use tokio::process::{Child, Command};

/// A process group.
#[derive(Debug)]
pub(super) struct ProcessTree {
    child: Child,
    group: Group,
    exit: ExitWatch,
    meter: Meter,
}

/// The ends of a child's standard streams.
pub(super) struct Stdio3 {
    pub(super) stdin: Option<Writer>,
    pub(super) stdout: Option<Reader>,
    pub(super) stderr: Option<Reader>,
}

impl ProcessTree {
    pub(super) fn start(plan: Plan) -> Result<(Self, Stdio3)> {
        let mut command = Command::new(&plan.program);
        command
            .args(plan.args)
            .env_clear()
            .envs(plan.env)
            .current_dir(plan.dir)
            .stdin(match plan.stdin {
                Stdin::Null => Stdio::null(),
                Stdin::Pipe => Stdio::piped(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| {
            let message = "the script or its interpreter could not be started";
            Error::new(Code::ScriptNotStarted, message)
                .with_retry(exit::unstarted(&e))
                .with("program", plan.program.display())
                .caused_by(e)
        })?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::new(Code::Internal, "a process without a number was started"))?;
        let group = Group::new(pid);
        if let Err(error) = limit(pid, &plan.limits) {
            group.kill();
            return Err(error);
        }
        let stdio = Stdio3 {
            stdin: child.stdin.take().map(|pipe| Box::new(pipe) as Writer),
            stdout: child.stdout.take().map(|pipe| Box::new(pipe) as Reader),
            stderr: child.stderr.take().map(|pipe| Box::new(pipe) as Reader),
        };
        let tree = Self {
            child,
            exit: ExitWatch::of(pid),
            meter: Meter::new(pid, group.clone(), plan.limits.memory),
            group,
        };
        Ok((tree, stdio))
    }
}

#[async_trait]
impl Tree for ProcessTree {
    async fn ended(&mut self) {
        let exited = self.exit.exited(&mut self.child);
        tokio::select! {
            biased;
            () = exited => {}
            never = self.meter.watch() => match never {},
        }
    }

    async fn reap(&mut self) -> io::Result<Ended> {
        // The leader is still a zombie: its number is nobody else's, and what it consumed can be read.
        let usage = self.meter.read();
        self.group.finish();
        let status = self.child.wait().await?;
        let cause = if self.meter.exceeded {
            Cause::OutOfMemory
        } else {
            Cause::Own
        };
        Ok(Ended { status, usage, cause })
    }

    fn begin(&mut self, _: Duration) {
        self.meter.begin();
    }

    fn held(&self) -> u64 {
        self.meter.held()
    }

    fn used(&self) -> Usage {
        self.meter.read()
    }

    fn signals(&self) -> Arc<dyn Signals> {
        Arc::new(self.group.clone())
    }
}

impl Drop for ProcessTree {
    /// `kill_on_drop` reaches the leader alone.
    fn drop(&mut self) {
        self.group.kill();
    }
}

impl Signals for Group {
    /// Those that are stopped are woken up to hear of it.
    fn ask(&self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    fn kill(&self) {
        self.signal(Signal::KILL);
    }
}
