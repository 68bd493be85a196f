//! Hostile scripts, run as the platform runs them, at each level; as root and as an ordinary user.
//!
//! [`table`] says of every attack at which levels it is stopped; `docs/isolation.md` is made from it. Most attacks are a
//! few lines of Python beside their row ([`kernel`], [`others`], [`files`], [`network`]), and [`play`] makes all of them
//! at each level. The rest are tests of their own, which their rows name.

mod bombs;
mod ends;
mod files;
mod kernel;
mod languages;
mod leaks;
mod network;
mod others;
mod play;
mod speech;
mod table;

use crate::{
    sandbox::ordinary::is_ordinary,
    scripts::{limits, spec},
};
use crosspoint_core::{
    Clock, CustomerId, Isolation, Limits, Result, RunHandle, RunOutcome, Runner, Script, SystemClock,
};
use crosspoint_runtime::Subprocess;
use std::sync::{Arc, LazyLock};

/// One that every user may run.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

const ALL: [Isolation; 3] = [Isolation::Process, Isolation::Confined, Isolation::Sandboxed];

/// The levels that can be tested here; that one is missing is a failure where everything has to be there.
async fn levels() -> Vec<Isolation> {
    let report = Host::new().runner.probe().await;
    let required = std::env::var_os("CROSSPOINT_REQUIRE_ALL").is_some_and(|v| v == "1");
    let there = |level: &Isolation| {
        let there = *level <= report.level;
        assert!(there || !required, "{level} is missing: {:?}", report.missing);
        if !there {
            eprintln!("skipped at {level}: {:?}", report.missing);
        }
        there
    };
    ALL.into_iter().filter(there).collect()
}

/// Those at which a run has limits of its own.
async fn isolated() -> Vec<Isolation> {
    let levels = levels().await;
    levels.into_iter().filter(|level| *level > Isolation::Process).collect()
}

/// Whether customers have users of their own, as they have where the host is root.
fn own_users() -> bool {
    rustix::process::geteuid().is_root()
}

/// What runs the scripts of several customers.
struct Host {
    clock: Arc<SystemClock>,
    runner: Subprocess,
}

impl Host {
    fn new() -> Self {
        let clock = Arc::new(SystemClock::new());
        Self {
            runner: Subprocess::new(clock.clone()),
            clock,
        }
    }

    async fn start(&self, customer: &str, script: Script, limits: Limits) -> Result<Box<dyn RunHandle>> {
        let mut spec = spec(script, &*self.clock);
        spec.customer = CustomerId::new(customer).unwrap();
        spec.deadline = self.clock.now().plus(limits.wall());
        spec.limits = limits;
        self.runner.start(spec).await
    }

    async fn run(&self, script: Script, limits: Limits) -> RunOutcome {
        self.start("acme", script, limits).await.unwrap().wait().await
    }
}

async fn run(script: Script, change: impl FnOnce(&mut Limits)) -> RunOutcome {
    Host::new().run(script, limits(change)).await
}

fn shell(level: Isolation, text: &str) -> Script {
    Script::inline("sh", text).isolation(level)
}

fn python(level: Isolation, text: &str) -> Script {
    Script::inline(PYTHON, text).isolation(level)
}

/// Attacks that take all of something are made one after the other.
static ALONE: LazyLock<tokio::sync::Mutex<()>> = LazyLock::new(tokio::sync::Mutex::default);

#[test]
fn every_attack_is_made_by_an_ordinary_user_too() {
    if is_ordinary() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: this is an ordinary user already");
        return;
    }
    let mut command = std::process::Command::new("setpriv");
    command
        .args(["--reuid", "54321", "--regid", "54321", "--clear-groups"])
        .arg(std::env::current_exe().unwrap())
        .args(["abuse::", "--test-threads", "2"]);
    command
        .env("CROSSPOINT_ORDINARY", "1")
        .env("HOME", "/nonexistent")
        .env("TMPDIR", "/tmp")
        .current_dir("/");
    let out = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{}{}", text(&out.stdout), text(&out.stderr));
}
