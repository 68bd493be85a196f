//! From a specification to something that runs.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
use super::isolated;
use super::{
    Ground,
    binding::{self, Layout},
    folder::Folder,
    framed::{Desk, Talk},
    harvest::Harvest,
    launch::{self, KillOnDrop, Launched, Place, Plan, Stdin},
    output::Output,
    supervise::{Handle, Running},
};
use crate::{
    egress::{Policy, Server},
    redact::Redactor,
};
use crosspoint_core::{
    Clock, Code, Egress, Error, ErrorExt, Isolation, Protocol, Result, RunSpec, Script, ScriptSource, Timestamp,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};
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
    /// The level to run at.
    pub(super) level: Isolation,
    pub(super) egress: Egress,
    pub(super) ground: Ground,
}

/// How a run is going to be talked to.
enum Speech {
    Plain,
    Framed(Vec<u8>),
    Http(Vec<u8>, Desk),
}

impl Speech {
    fn over_pipes(hello: Option<Vec<u8>>) -> Self {
        hello.map_or(Self::Plain, Self::Framed)
    }
}

/// What follows from where the program comes from.
struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    dir: PathBuf,
    read_only: Vec<(PathBuf, PathBuf)>,
}

/// A script's own folder as a sandboxed run sees it.
const APP: &str = "/app";

impl Start {
    pub(super) async fn run(self) -> Result<Handle> {
        let began = Instant::now();
        let now = self.clock.now();
        match self.level {
            #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
            Isolation::Sandboxed => {
                let (plan, hello) = self.plan(isolated::place(None, &self.egress), now)?;
                let launched = isolated::sandboxed(&self.ground.sandbox, plan, &self.spec.customer).await?;
                self.supervise(launched, Speech::over_pipes(hello), began, now)
            }
            #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
            Isolation::Confined => {
                let in_folder = move |start: &Self| {
                    let folder = Folder::make(&start.folders)?;
                    let planned = start.plan(isolated::place(Some(&folder), &start.egress), now)?;
                    Ok((folder, planned))
                };
                let (start, (folder, (plan, hello))) = self.blocking(in_folder).await?;
                let customer = &start.spec.customer;
                let launched = isolated::confined(&start.ground.sandbox, folder, plan, customer).await?;
                start.supervise(launched, Speech::over_pipes(hello), began, now)
            }
            _ => {
                let (start, (launched, speech)) = self.blocking(move |start| start.at_process(now)).await?;
                start.supervise(launched, speech, began, now)
            }
        }
    }

    /// Works on a thread that may block.
    async fn blocking<T: Send + 'static>(
        self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<(Self, T)> {
        let worked = spawn_blocking(move || {
            let made = work(&self)?;
            Ok::<_, Error>((self, made))
        });
        worked.await.or_fail(Code::Internal, "the start of a script was lost")?
    }

    /// Runs on a thread that may block.
    fn at_process(&self, now: Timestamp) -> Result<(Launched, Speech)> {
        let folder = Folder::make(&self.folders)?;
        let mut place = Place::host(folder.path());
        let desk = match self.script.spoken() {
            Protocol::Http => Some(Desk::open()?),
            _ => None,
        };
        place.desk = desk.as_ref().map(Desk::address);
        let (plan, hello) = self.plan(place, now)?;
        let launched = launch::process(folder, plan)?;
        let speech = match (hello, desk) {
            (Some(hello), Some(desk)) => Speech::Http(hello, desk),
            (hello, _) => Speech::over_pipes(hello),
        };
        Ok((launched, speech))
    }

    /// What is to be started, and the message `start` unless the script speaks the plain binding.
    fn plan(&self, place: Place, now: Timestamp) -> Result<(Plan, Option<Vec<u8>>)> {
        let network = place.network.is_some();
        let run = (&self.spec, &*self.script);
        let mut layout = binding::prepare(run, &self.base, place, &self.egress, now)?;
        let hello = match self.script.spoken() {
            Protocol::Plain => None,
            _ => Some(binding::start(&layout, &self.spec, &self.script, now)?),
        };
        let framed = self.script.spoken() == Protocol::Framed;
        let Command {
            program,
            args,
            dir,
            mut read_only,
        } = self.command(&mut layout)?;
        read_only.extend(self.layers(&mut layout));
        let plan = Plan {
            program,
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
        Ok((plan, hello))
    }

    fn command(&self, layout: &mut Layout) -> Result<Command> {
        match self.script.source() {
            ScriptSource::Inline { text, .. } => {
                let file = layout.file("script", text.as_bytes().to_vec(), 0o600);
                Ok(Command {
                    program: self.program.clone(),
                    args: vec![file.into()],
                    dir: layout.work.clone(),
                    read_only: Vec::new(),
                })
            }
            ScriptSource::Command { args, dir, .. } => {
                let args = args.iter().map(OsString::from).collect();
                let Some(host) = dir else {
                    return Ok(Command {
                        program: self.program.clone(),
                        args,
                        dir: layout.work.clone(),
                        read_only: Vec::new(),
                    });
                };
                let (shown, seen) = self.shown(host);
                let inside = match host.strip_prefix(&shown) {
                    Ok(below) if !below.as_os_str().is_empty() => seen.join(below),
                    _ => seen.clone(),
                };
                let program = match self.program.strip_prefix(host) {
                    Ok(below) => inside.join(below),
                    Err(_) => self.program.clone(),
                };
                Ok(Command {
                    program,
                    args,
                    dir: inside,
                    read_only: vec![(shown, seen)],
                })
            }
            _ => Err(Error::new(
                Code::SetupInvalid,
                "this runner does not know this kind of script",
            )),
        }
    }

    /// What the script is shown of its own, on the host and as the run sees it.
    fn shown(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let host = self.script.root().unwrap_or(dir).to_owned();
        let seen = self.inside(&host, APP);
        (host, seen)
    }

    /// Where a folder of the host is, as the run sees it.
    fn inside(&self, host: &Path, sandboxed: &str) -> PathBuf {
        match self.level {
            Isolation::Sandboxed => PathBuf::from(sandboxed),
            _ => host.to_owned(),
        }
    }

    /// Shows the script the further folders that it reads, and tells it where they are.
    fn layers(&self, layout: &mut Layout) -> Vec<(PathBuf, PathBuf)> {
        let layers = self.script.layers().iter().enumerate();
        layers
            .map(|(index, (variable, host))| {
                let inside = self.inside(host, &format!("/layer/{index}"));
                layout.env.insert(variable.into(), inside.clone().into());
                (host.clone(), inside)
            })
            .collect()
    }

    fn supervise(self, mut launched: Launched, speech: Speech, began: Instant, now: Timestamp) -> Result<Handle> {
        let spec = self.spec;
        let redactor = Redactor::new(&spec.secrets);
        let output = Output::new(redactor, Arc::clone(&self.clock), spec.limits.log_bytes);
        let talk = match (speech, launched.stdin.take(), launched.messages.take()) {
            (Speech::Plain, ..) => None,
            (Speech::Framed(hello), Some(stdin), Some(messages)) => {
                Some(Talk::over_pipes(hello, stdin, messages, output.clone(), &spec))
            }
            (Speech::Http(hello, desk), ..) => Some(Talk::over_http(hello, desk, output.clone(), &spec)?),
            (Speech::Framed(_), ..) => {
                return Err(Error::new(Code::Internal, "a script was started without its pipes"));
            }
        };
        let signals = launched.tree.signals();
        let egress = match launched.listener.take() {
            Some(listener) => {
                let resolve = Arc::clone(&self.ground.resolve);
                let mut policy = Policy::of(&spec, self.egress, resolve, Arc::clone(&self.clock));
                policy.internal = self.ground.internal;
                Some(Server::start(listener, policy).inspect_err(|_| signals.kill())?)
            }
            None => None,
        };
        let running = Running {
            egress,
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
