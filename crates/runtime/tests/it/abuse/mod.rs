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
    machine,
    scripts::{limits, spec},
};
use crosspoint_core::{
    Clock, CustomerId, Isolation, Limits, Result, RunHandle, RunOutcome, Runner, Script, SystemClock,
};
use crosspoint_runtime::Subprocess;
use std::sync::{Arc, LazyLock};

async fn levels() -> Vec<Isolation> {
    machine::levels(Isolation::Process).await
}

/// Those at which a run has limits of its own.
async fn isolated() -> Vec<Isolation> {
    machine::levels(Isolation::Confined).await
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
            runner: machine::runner(clock.clone()),
            clock,
        }
    }

    async fn start(&self, customer: &str, script: Script, limits: Limits) -> Result<Box<dyn RunHandle>> {
        // What is enforced here is found out once, which is not to take of the run's time.
        self.runner.probe().await;
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
    Script::inline(machine::PYTHON, text).isolation(level)
}

/// Attacks that take all of something are made one after the other.
static ALONE: LazyLock<tokio::sync::Mutex<()>> = LazyLock::new(tokio::sync::Mutex::default);

#[test]
fn every_attack_is_made_by_an_ordinary_user_too() {
    machine::again_for_an_ordinary_user("abuse::");
}
