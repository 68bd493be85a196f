//! Scripts, in processes of their own.
//!
//! [`binding`] lays out what the script sees and [`start`] plans a run; [`launch`] is the seam to the level it runs at, of
//! which [`process`] is one, with [`folder`], [`group`], [`meter`] and [`system`] beneath it. [`supervise`] watches the
//! run, stops it and reaps it; [`output`] reads what it prints, [`framed`] what it says, [`files`] what it leaves behind;
//! [`exit`] says what its end means and [`harvest`] makes the outcome.

mod binding;
mod exit;
mod files;
mod folder;
mod framed;
mod group;
mod harvest;
mod launch;
mod meter;
mod output;
mod process;
mod program;
mod start;
mod supervise;
mod system;

use async_trait::async_trait;
use crosspoint_core::{
    Clock, Code, Egress, Error, Isolation, IsolationReport, Result, RunHandle, RunSpec, Runner, Script, ScriptSource,
    Work,
};
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Arc};
use tokio::sync::OnceCell;

/// Runs scripts at [`Isolation::Process`]: a process group of its own, a clean environment, no inherited descriptors, a
/// private folder, limits on memory, open files and core dumps. It speaks the plain and the
/// framed binding of `crosspoint/1`.
///
/// At this level a script can still read what the host's user can read, use the network, and see other processes. When
/// it ends or is stopped, its whole process group is killed; a descendant that moved itself to another group or session
/// lives on. The limits are set right after the start, so a process that the script makes in its very first moment may
/// go without. [`Limits::processes`](crosspoint_core::Limits::processes) is not enforced at this level: the kernel counts
/// processes by user, and the user is the host's own. Processor time and the size of files are limited for each process,
/// memory for each and, looked at several times a second, for all of them together. On systems other than Linux no
/// resource limits are set. An [`Egress`] other than [`Egress::Open`] cannot be enforced here and is refused.
///
/// ```
/// use crosspoint_core::{Isolation, Runner, Script, SystemClock, Work};
/// use crosspoint_runtime::Subprocess;
/// use std::sync::Arc;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> crosspoint_core::Result<()> {
/// let runner = Subprocess::new(Arc::new(SystemClock::new()));
/// let script = Script::inline("sh", "echo hello >&2").isolation(Isolation::Process);
/// let script = Work::Script(Arc::new(script));
/// runner.prepare(&script, Isolation::Process).await?;
/// assert!(runner.prepare(&script, Isolation::Sandboxed).await.is_err(), "refused, never weakened");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Subprocess {
    clock: Arc<dyn Clock>,
    base: Arc<BTreeMap<OsString, OsString>>,
    folders: PathBuf,
    report: Arc<OnceCell<IsolationReport>>,
}

impl Subprocess {
    /// A runner whose private folders lie in the system's temporary folder. Of the host's environment scripts get
    /// `PATH`, `LANG` and `TZ`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            base: Arc::new(binding::base_environment()),
            folders: std::env::temp_dir(),
            report: Arc::default(),
        }
    }

    /// Puts the private folders of runs below this one, which has to exist.
    #[must_use]
    pub fn folders_in(mut self, parent: impl Into<PathBuf>) -> Self {
        self.folders = parent.into();
        self
    }

    async fn check(&self, require: Isolation) -> Result<()> {
        let achieved = self.probe().await;
        if require <= achieved.level {
            return Ok(());
        }
        Err(crate::isolation_unavailable(
            require,
            achieved.level,
            &achieved.missing.join("; "),
        ))
    }

    /// What a script may reach can be limited by stronger levels alone.
    fn check_egress(script: &Script) -> Result<()> {
        let egress = script.reachable(Isolation::Process);
        if egress == Egress::Open {
            return Ok(());
        }
        let missing = format!(
            "egress `{}`, which is enforced at `confined` and above",
            egress.as_str()
        );
        Err(crate::isolation_unavailable(
            script.required_isolation().max(Isolation::Confined),
            Isolation::Process,
            &missing,
        ))
    }

    fn script(work: &Work) -> Result<&Arc<Script>> {
        match work {
            Work::Script(script) => Ok(script),
            _ => Err(Error::new(
                Code::SetupInvalid,
                "this runner runs scripts, not Rust flows",
            )),
        }
    }

    fn environment_for(&self, script: &Script) -> BTreeMap<OsString, OsString> {
        let mut env = self.base.as_ref().clone();
        env.extend(script.environment().iter().map(|(k, v)| (k.into(), v.into())));
        env
    }

    fn program(&self, script: &Script) -> Result<PathBuf> {
        let env = self.environment_for(script);
        match script.source() {
            ScriptSource::Command { program, dir, .. } => program::find(program, dir.as_deref(), &env),
            ScriptSource::Inline { interpreter, .. } => program::find(interpreter, None, &env),
            _ => Err(Error::new(
                Code::SetupInvalid,
                "this runner does not know this kind of script",
            )),
        }
    }
}

#[async_trait]
impl Runner for Subprocess {
    fn name(&self) -> &'static str {
        "subprocess"
    }

    async fn probe(&self) -> IsolationReport {
        self.report.get_or_init(system::probe).await.clone()
    }

    async fn prepare(&self, work: &Work, require: Isolation) -> Result<()> {
        let script = Self::script(work)?;
        self.check(require.max(script.required_isolation())).await?;
        Self::check_egress(script)?;
        self.program(script).map(drop)
    }

    async fn start(&self, spec: RunSpec) -> Result<Box<dyn RunHandle>> {
        let script = Arc::clone(Self::script(&spec.work)?);
        self.check(spec.require).await?;
        Self::check_egress(&script)?;
        let program = self.program(&script)?;
        let start = start::Start {
            spec,
            script,
            program,
            clock: Arc::clone(&self.clock),
            base: Arc::clone(&self.base),
            folders: self.folders.clone(),
        };
        Ok(Box::new(start.run().await?))
    }
}
