//! Scripts, in processes of their own.
//!
//! [`binding`] lays out what the script sees and [`start`] plans a run in its [`setting`]; [`warm`] keeps interpreters that
//! wait for one. [`launch`] is the seam to the level it runs at, of which [`process`] is one, with [`folder`], [`group`], [`meter`] and [`system`] beneath it. [`supervise`] watches the
//! run, stops it and reaps it; [`output`] reads what it prints, [`framed`] what it says, [`files`] what it leaves behind;
//! [`exit`] says what its end means and [`harvest`] makes the outcome.

mod binding;
mod exit;
mod files;
mod folder;
mod framed;
mod group;
mod harvest;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod isolated;
mod launch;
mod meter;
mod output;
mod pace;
mod process;
mod program;
mod setting;
mod start;
mod supervise;
mod system;
mod warm;

use crate::egress::SystemResolver;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
use crate::spawn::{Sandbox, SandboxOptions};
use async_trait::async_trait;
use crosspoint_core::{
    Clock, Code, Egress, EgressPolicy, Error, Isolation, IsolationReport, Protocol, Resolve, Result, RunHandle,
    RunSpec, Runner, Script, ScriptSource, Work,
};
use folder::Folders;
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Arc};
use tokio::sync::OnceCell;
pub(crate) use warm::is_module;
pub use warm::{WarmOptions, WarmStats};

/// Runs scripts in processes of their own, at [`Isolation::Process`], [`Isolation::Confined`] or
/// [`Isolation::Sandboxed`], whichever the script asks for. It speaks the plain and the framed binding of `crosspoint/1`.
///
/// What this machine can enforce is found out by starting trial runs, once. A script that asks for more is refused with
/// `isolation-unavailable`, which says what is missing and how to get it; it never runs at less. Confined and sandboxed runs
/// need Linux on x86-64 or `AArch64`.
///
/// Which attacks each level stops is listed in `docs/isolation.md`, attack by attack.
///
/// - **Sandboxed**: namespaces of its own, a root of which only `/w` can be written and is in memory, no network but the
///   way out that its [`Egress`] grants, no capabilities, a filter on system calls. Nothing of the host or of other
///   customers has a name. When it ends or is stopped, everything that it started is killed. Made by this library, or by
///   bubblewrap where the host wants that ([`SandboxOptions::bubblewrap`]).
/// - **Confined**: where namespaces are forbidden, as in many containers: Landlock and the filter. It reads the system's
///   programs and its own folder, and has no network but a socket to the broker. It sees the list of processes. Where the
///   host is an ordinary user, it has that user's rights in what Landlock does not know: it can change the modes and times
///   of that user's files, and connect to sockets that have a path. Where the host is root, each customer has a user.
/// - **Process**: a process group, a clean environment, no descriptors but those that the host leaves open for every child
///   (without close-on-exec), a private folder, limits. It can read
///   what the host's user can read, use the network, and see other processes; a descendant that moves itself to another
///   group or session lives on. The limits are set right after the start, so a process that the script makes in its very
///   first moment may go without. [`Limits::processes`](crosspoint_core::Limits::processes) is not enforced: the kernel
///   counts processes by user, and the user is the host's own. Processor time and the size of files are limited for each
///   process, memory for each and, looked at several times a second, for all of them together. An [`Egress`] other than
///   [`Egress::Open`] cannot be enforced here and is refused. On systems other than Linux no resource limits are set.
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
/// assert!(runner.prepare(&script, Isolation::Machine).await.is_err(), "refused, never weakened");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Subprocess {
    clock: Arc<dyn Clock>,
    base: Arc<BTreeMap<OsString, OsString>>,
    folders: Folders,
    report: Arc<OnceCell<IsolationReport>>,
    ground: Ground,
    pool: warm::Pool,
}

/// What all runs stand on.
#[derive(Debug, Clone)]
struct Ground {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    sandbox: Sandbox,
    resolve: Arc<dyn Resolve>,
    /// Hosts that a script may name although their addresses are not public.
    internal: EgressPolicy,
}

impl Subprocess {
    /// A runner whose private folders lie in the system's temporary folder. Of the host's environment scripts get
    /// `PATH`, `LANG` and `TZ`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            base: Arc::new(binding::base_environment()),
            folders: Folders::below(std::env::temp_dir()),
            report: Arc::default(),
            ground: Ground {
                #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
                sandbox: Sandbox::new(SandboxOptions::new()),
                resolve: Arc::new(SystemResolver::new()),
                internal: EgressPolicy::new(),
            },
            pool: warm::Pool::new(WarmOptions::new()),
        }
    }

    /// Isolates scripts in this way; the defaults suit most hosts.
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    #[must_use]
    pub fn sandbox(mut self, options: SandboxOptions) -> Self {
        self.ground.sandbox = Sandbox::new(options);
        self.report = Arc::default();
        self.pool = warm::Pool::new(self.pool.options());
        self
    }

    /// Keeps so many interpreters ready for scripts that ask for it ([`Script::warm`]); the defaults suit most hosts.
    ///
    /// ```
    /// use crosspoint_core::SystemClock;
    /// use crosspoint_runtime::{Subprocess, WarmOptions};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let runner = Subprocess::new(std::sync::Arc::new(SystemClock::new())).warm(WarmOptions::new().total(16));
    /// assert_eq!(runner.warm_stats().ready, 0, "none is ready before a script was used");
    /// # }
    /// ```
    #[must_use]
    pub fn warm(mut self, options: WarmOptions) -> Self {
        self.pool = warm::Pool::new(options);
        self
    }

    /// How many interpreters are ready, and how often one was when it was needed.
    #[must_use]
    pub fn warm_stats(&self) -> WarmStats {
        self.pool.stats()
    }

    /// Waits until the pool of ready interpreters is as wished. For tests and benches.
    #[doc(hidden)]
    pub async fn warm_until(&self, wished: impl FnMut(&WarmStats) -> bool + Send) {
        self.pool.until(wished).await;
    }

    /// Lets scripts whose egress names these hosts reach them although their addresses are not public: services in the
    /// host's own network. None unless set.
    #[must_use]
    pub fn internal_hosts(mut self, policy: EgressPolicy) -> Self {
        self.ground.internal = policy;
        self
    }

    /// Looks names up for scripts that reach hosts by themselves; the machine's own resolver unless set.
    #[must_use]
    pub fn resolve(mut self, resolve: Arc<dyn Resolve>) -> Self {
        self.ground.resolve = resolve;
        self
    }

    /// Puts the private folders of runs below this one, which has to exist and to be this machine's own, on no network file
    /// system; the system's temporary folder unless set. Those that killed hosts of this machine have left behind there
    /// (`crosspoint-run-*`) are removed when the first is made, and again when one is made ten minutes later or more.
    #[must_use]
    pub fn folders_in(mut self, parent: impl Into<PathBuf>) -> Self {
        self.folders = Folders::below(parent);
        self
    }

    async fn check(&self, require: Isolation) -> Result<()> {
        match self.known().await {
            Ok(achieved) if require > achieved.level => Err(crate::isolation_unavailable(
                require,
                achieved.level,
                &achieved.missing.join("; "),
            )),
            Err((achieved, passing)) if require > achieved.level => Err(passing),
            _ => Ok(()),
        }
    }

    /// What a script reaches at a level, if that can be enforced. Less than everything can be enforced from `confined` on, single hosts at
    /// `sandboxed` alone, and who wants everything is content with `process`.
    fn egress(script: &Script, level: Isolation, egress: Egress) -> Result<Egress> {
        if script.spoken() == Protocol::Http && level > Isolation::Process {
            let message = "the http binding is for scripts that can reach the host; above `process` use `framed`";
            return Err(Error::new(Code::SetupInvalid, message).with("isolation", level));
        }
        let needed = match (&egress, level) {
            (Egress::Open, Isolation::Confined | Isolation::Sandboxed) => {
                let message = "a script with egress `open` runs at isolation `process`: nothing above it has a network";
                return Err(Error::new(Code::SetupInvalid, message).with("isolation", level));
            }
            (Egress::None | Egress::Broker, _) => Isolation::Confined,
            (Egress::Allow(_), _) => Isolation::Sandboxed,
            _ => Isolation::Process,
        };
        if needed <= level {
            return Ok(egress);
        }
        let missing = format!(
            "egress `{}`, which is enforced at `{needed}` and above",
            egress.as_str()
        );
        Err(crate::isolation_unavailable(needed, level, &missing))
    }

    /// What bubblewrap makes has no loopback of ours, and clients of a proxy know no sockets.
    fn within_reach(&self, level: Isolation, egress: &Egress) -> Result<()> {
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
        if level == Isolation::Sandboxed && matches!(egress, Egress::Allow(_)) && self.ground.sandbox.is_bubblewrap() {
            let message =
                "egress `allow` is not to be had through bubblewrap; use `broker`, or this library's own sandbox";
            return Err(Error::new(Code::IsolationUnavailable, message).with("asked", level));
        }
        let _ = (level, egress);
        Ok(())
    }

    /// A script runs at the level that it asks for or that the host demands, and at no other.
    fn level(script: &Script, require: Isolation) -> Isolation {
        require.max(script.required_isolation()).max(Isolation::Process)
    }

    /// What is enforced here, which is found out once. The error is a report of what holds for now, and why more may hold soon.
    async fn known(&self) -> std::result::Result<&IsolationReport, (IsolationReport, Error)> {
        let look = || async {
            match self.look().await {
                (report, None) => Ok(report),
                (report, Some(passing)) => Err((report, passing)),
            }
        };
        self.report.get_or_try_init(look).await
    }

    async fn look(&self) -> (IsolationReport, Option<Error>) {
        let (process, passing) = system::look().await;
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
        if process.level >= Isolation::Process {
            let (mut found, passing) = self.ground.sandbox.look().await;
            let mut mechanisms = process.mechanisms;
            mechanisms.retain(|known| !found.mechanisms.contains(known));
            mechanisms.append(&mut found.mechanisms);
            found
                .missing
                .push("machine: this release has no runner with a kernel of its own".to_owned());
            let level = found.level.max(process.level);
            return (IsolationReport::new(level, mechanisms, found.missing), passing);
        }
        (process, passing)
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
        match self.known().await {
            Ok(report) => report.clone(),
            Err((report, _)) => report,
        }
    }

    async fn prepare(&self, work: &Work, require: Isolation) -> Result<()> {
        let script = Self::script(work)?;
        let level = Self::level(script, require);
        self.check(level).await?;
        self.within_reach(level, &Self::egress(script, level, script.reachable(level))?)?;
        warm::check(script)?;
        self.program(script).map(drop)
    }

    async fn start(&self, spec: RunSpec) -> Result<Box<dyn RunHandle>> {
        let script = Arc::clone(Self::script(&spec.work)?);
        let level = Self::level(&script, spec.require);
        self.check(level).await?;
        let egress = Self::egress(&script, level, spec.reachable(&script, level))?;
        self.within_reach(level, &egress)?;
        let pool = warm::check(&script)?.then(|| self.pool.clone());
        let setting = setting::Setting {
            program: self.program(&script)?,
            script,
            customer: spec.customer.clone(),
            limits: spec.limits,
            level,
            egress,
            clock: Arc::clone(&self.clock),
            base: Arc::clone(&self.base),
            folders: self.folders.clone(),
            ground: self.ground.clone(),
        };
        let start = start::Start { spec, setting, pool };
        Ok(Box::new(Box::pin(start.run()).await?))
    }
}
