//! What is known of a run before anybody knows which run it is: the script, the level, the way out.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
use super::isolated;
use super::{
    Ground,
    binding::Layout,
    folder::Folders,
    launch::{self, Launched, Place, Plan, Stdin},
};
use crosspoint_core::{
    Clock, Code, CustomerId, Egress, Error, ErrorExt, Isolation, Limits, Result, Script, ScriptSource,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::spawn_blocking;

/// Where and how a script's runs of one customer are started.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) script: Arc<Script>,
    pub(super) program: PathBuf,
    pub(super) customer: CustomerId,
    pub(super) limits: Limits,
    /// The level to run at.
    pub(super) level: Isolation,
    pub(super) egress: Egress,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) base: Arc<BTreeMap<OsString, OsString>>,
    pub(super) folders: Folders,
    pub(super) ground: Ground,
}

/// What of a start follows from where the program comes from.
struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    dir: PathBuf,
    read_only: Vec<(PathBuf, PathBuf)>,
}

/// A script's own folder as a sandboxed run sees it.
const APP: &str = "/app";

/// The same script of the same customer, started in the same way by the same runner.
impl PartialEq for Setting {
    fn eq(&self, other: &Self) -> bool {
        self.customer == other.customer
            && self.level == other.level
            && self.limits == other.limits
            && self.program == other.program
            && self.egress == other.egress
            && (Arc::ptr_eq(&self.script, &other.script) || self.script == other.script)
    }
}

impl Setting {
    /// Starts what is planned for the place that it gets; answers what the planner says besides.
    pub(super) async fn launch<T: Send + 'static>(
        &self,
        planner: impl FnOnce(&Self, Place) -> Result<(Plan, T)> + Send + 'static,
    ) -> Result<(Launched, T)> {
        match self.level {
            #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
            Isolation::Sandboxed => {
                let (plan, more) = planner(self, isolated::place(&self.ground.sandbox, None, &self.egress))?;
                let launched = isolated::sandboxed(&self.ground.sandbox, &self.folders, plan, &self.customer).await?;
                Ok((launched, more))
            }
            #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
            Isolation::Confined => {
                let in_folder = move |setting: &Self| {
                    let folder = setting.folders.make()?;
                    let planned = planner(
                        setting,
                        isolated::place(&setting.ground.sandbox, Some(&folder), &setting.egress),
                    )?;
                    Ok((folder, planned))
                };
                let (folder, (plan, more)) = self.blocking(in_folder).await?;
                let launched = isolated::confined(&self.ground.sandbox, folder, plan, &self.customer).await?;
                Ok((launched, more))
            }
            _ => {
                let at_process = move |setting: &Self| {
                    let folder = setting.folders.make()?;
                    let (plan, more) = planner(setting, Place::host(folder.path()))?;
                    Ok((launch::process(folder, plan)?, more))
                };
                self.blocking(at_process).await
            }
        }
    }

    /// Works on a thread that may block.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let setting = self.clone();
        let worked = spawn_blocking(move || work(&setting));
        worked.await.or_fail(Code::Internal, "the start of a script was lost")?
    }

    /// A start in this layout, with everything of its own that the script reads shown to it and told in its environment.
    /// `talks`: whether messages go to and fro while it runs.
    pub(super) fn plan(&self, mut layout: Layout, talks: bool) -> Result<Plan> {
        let Command {
            program,
            args,
            dir,
            mut read_only,
        } = self.source(&mut layout)?;
        read_only.extend(self.layers(&mut layout));
        Ok(Plan {
            program,
            args,
            env: layout.env.into_iter().collect(),
            dir,
            inputs: layout.inputs,
            read_only,
            stdin: if talks { Stdin::Pipe } else { Stdin::Null },
            messages: talks,
            limits: self.limits,
            network: layout.place.network.is_some(),
        })
    }

    fn source(&self, layout: &mut Layout) -> Result<Command> {
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
}
