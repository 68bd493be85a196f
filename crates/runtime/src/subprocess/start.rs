//! From a specification to something that runs.

use super::{
    binding::{self, Layout},
    folder::Folder,
    framed::Talk,
    harvest::Harvest,
    launch::{self, KillOnDrop, Launched, Place, Plan, Stdin},
    output::Output,
    supervise::{Handle, Running},
};
use crate::redact::Redactor;
use crosspoint_core::{
    Clock, Code, Error, ErrorExt, Isolation, Protocol, Result, RunSpec, Script, ScriptSource, Timestamp,
};
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Arc};
use tokio::{sync::watch, task::spawn_blocking, time::Instant};

/// Everything that a start needs.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) spec: RunSpec,
    pub(super) script: Arc<Script>,
    pub(super) program: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) base: Arc<BTreeMap<OsString, OsString>>,
    pub(super) folders: PathBuf,
}

/// A plan, and the first message if the script waits for one.
struct Planned {
    plan: Plan,
    hello: Option<Vec<u8>>,
}

/// What follows from where the program comes from.
struct Command {
    args: Vec<OsString>,
    dir: PathBuf,
    read_only: Vec<(PathBuf, PathBuf)>,
}

impl Start {
    pub(super) async fn run(self) -> Result<Handle> {
        let began = Instant::now();
        let now = self.clock.now();
        let at_work = spawn_blocking(move || {
            let launched = self.at_process(now)?;
            Ok::<_, Error>((self, launched))
        });
        let (start, (launched, hello)) = at_work
            .await
            .or_fail(Code::Internal, "the start of a script was lost")??;
        start.supervise(launched, hello, began, now)
    }

    /// Runs on a thread that may block.
    fn at_process(&self, now: Timestamp) -> Result<(Launched, Option<Vec<u8>>)> {
        let folder = Folder::make(&self.folders)?;
        let Planned { plan, hello } = self.plan(Place::host(folder.path()), now)?;
        Ok((launch::process(folder, plan)?, hello))
    }

    fn plan(&self, place: Place, now: Timestamp) -> Result<Planned> {
        let network = place.network.is_some();
        let egress = self.script.reachable(Isolation::Process);
        let run = (&self.spec, &*self.script);
        let mut layout = binding::prepare(run, &self.base, place, &egress, now)?;
        let framed = self.script.spoken() == Protocol::Framed;
        let hello = if framed {
            Some(binding::start(&layout, &self.spec, &self.script, now)?)
        } else {
            None
        };
        let Command { args, dir, read_only } = self.command(&mut layout)?;
        let plan = Plan {
            program: self.program.clone(),
            args,
            env: layout.env.into_iter().collect(),
            dir,
            inputs: layout.inputs,
            read_only,
            stdin: if framed { Stdin::Pipe } else { Stdin::Null },
            messages: framed,
            limits: self.spec.limits,
            network,
        };
        Ok(Planned { plan, hello })
    }

    /// Folders that have the same path inside as outside.
    fn readable(&self, dir: Option<&PathBuf>) -> Vec<(PathBuf, PathBuf)> {
        let folders = dir.into_iter().chain(self.script.readable());
        folders.map(|folder| (folder.clone(), folder.clone())).collect()
    }

    fn command(&self, layout: &mut Layout) -> Result<Command> {
        match self.script.source() {
            ScriptSource::Inline { text, .. } => {
                let file = layout.file("script", text.as_bytes().to_vec(), 0o600);
                Ok(Command {
                    args: vec![file.into()],
                    dir: layout.work.clone(),
                    read_only: self.readable(None),
                })
            }
            ScriptSource::Command { args, dir, .. } => Ok(Command {
                args: args.iter().map(OsString::from).collect(),
                dir: dir.clone().unwrap_or_else(|| layout.work.clone()),
                read_only: self.readable(dir.as_ref()),
            }),
            _ => Err(Error::new(
                Code::SetupInvalid,
                "this runner does not know this kind of script",
            )),
        }
    }

    fn supervise(self, launched: Launched, hello: Option<Vec<u8>>, began: Instant, now: Timestamp) -> Result<Handle> {
        let spec = self.spec;
        let redactor = Redactor::new(&spec.secrets);
        let output = Output::new(redactor, Arc::clone(&self.clock), spec.limits.log_bytes);
        let mut launched = launched;
        let talk = match (hello, launched.stdin.take(), launched.messages.take()) {
            (Some(hello), Some(stdin), Some(messages)) => {
                Some(Talk::start(hello, stdin, messages, output.clone(), &spec))
            }
            (None, ..) => None,
            _ => {
                launched.tree.signals().kill();
                return Err(Error::new(Code::Internal, "a script was started without its pipes"));
            }
        };
        let signals = launched.tree.signals();
        let running = Running {
            guard: KillOnDrop(Arc::clone(&signals)),
            output,
            talk,
            limits: spec.limits,
            deadline: began + spec.deadline.since(now).min(crate::FAR),
            setup: began.elapsed(),
            harvest: Harvest {
                limits: spec.limits,
                pandium: binding::is_pandium(&self.script),
                mode: spec.mode,
                state: spec.state.value,
                clock: self.clock,
            },
            launched,
        };
        let (stop, stops) = watch::channel(None);
        Ok(Handle::new(
            stop,
            tokio::spawn(running.supervise(stops)),
            KillOnDrop(signals),
        ))
    }
}
