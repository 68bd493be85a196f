//! What the machine has, and this program started once more as a process of its own.

use crosspoint_core::{Clock, Isolation, IsolationReport, Runner, SystemClock};
use crosspoint_runtime::Subprocess;
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};
use tokio::sync::OnceCell;

/// A Python that every user may run; at `confined`, what lies in the host user's home is closed to the customers' users.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// Whether everything has to be there, so that a test which cannot run is a failure.
pub(crate) fn required() -> bool {
    std::env::var_os("CROSSPOINT_REQUIRE_ALL").is_some_and(|v| v == "1")
}

/// The runner of scripts under test: this library's own, or in a process that [`again_through_bubblewrap`] started, one that
/// has bubblewrap make its sandboxes.
pub(crate) fn runner(clock: Arc<dyn Clock>) -> Subprocess {
    let runner = Subprocess::new(clock);
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    if is_bubblewrap() {
        return runner.sandbox(crosspoint_runtime::SandboxOptions::new().bubblewrap(BUBBLEWRAP));
    }
    runner
}

/// Where Debian puts it.
pub(crate) const BUBBLEWRAP: &str = "/usr/bin/bwrap";

/// Whether this is the process that was started for bubblewrap.
pub(crate) fn is_bubblewrap() -> bool {
    std::env::var_os("CROSSPOINT_BUBBLEWRAP").is_some()
}

/// Runs these tests once more at `sandboxed`, with bubblewrap.
pub(crate) fn again_through_bubblewrap(tests: &[&str]) {
    if is_bubblewrap() || !has("bwrap") {
        return;
    }
    let mut command = own();
    command
        .args(tests)
        .args(["--skip", "ordinary", "--test-threads", "2"])
        .env("CROSSPOINT_BUBBLEWRAP", "1");
    succeeds(command);
}

/// Whether a test that needs a program can run; missing ones are a failure where everything has to be there. The program
/// may lie where an ordinary user cannot go.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(found || !required() || is_ordinary(), "{program} is missing");
    if !found {
        eprintln!("skipped: {program} is missing");
    }
    found
}

/// Those levels from `weakest` to `sandboxed` that can be tested here; that one is missing is a failure where everything
/// has to be there.
pub(crate) async fn levels(weakest: Isolation) -> Vec<Isolation> {
    static REPORT: OnceCell<IsolationReport> = OnceCell::const_new();
    let look = || async { runner(Arc::new(SystemClock::new())).probe().await };
    let report = REPORT.get_or_init(look).await;
    let there = |level: &Isolation| {
        let there = *level <= report.level;
        assert!(there || !required(), "{level} is missing: {:?}", report.missing);
        if !there {
            eprintln!("skipped at {level}: {:?}", report.missing);
        }
        there
    };
    let all = [Isolation::Process, Isolation::Confined, Isolation::Sandboxed];
    all.into_iter()
        .filter(|level| !is_bubblewrap() || *level == Isolation::Sandboxed)
        .filter(|level| *level >= weakest)
        .filter(there)
        .collect()
}

fn own() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

fn succeeds(mut command: Command) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    eprint!("{}", text(&stderr));
    if !status.success() {
        // At once and past the harness, which shows what a test said when all of them have ended: a log may be cut by then.
        let said = text(&stdout);
        let failures = said
            .split_once("\nfailures:\n")
            .map_or(&*said, |(_, failures)| failures);
        std::io::stderr().write_all(failures.as_bytes()).ok();
        panic!("{said}{}", text(&stderr));
    }
}

/// Whether this is the process that was started for one test alone; else starts it.
pub(crate) fn alone(test: &str) -> bool {
    if std::env::var_os("CROSSPOINT_ALONE").is_some() {
        return true;
    }
    let mut command = own();
    command
        .args(["--exact", test, "--nocapture"])
        .env("CROSSPOINT_ALONE", "1");
    succeeds(command);
    false
}

/// Whether this is the process that was started for an ordinary user.
pub(crate) fn is_ordinary() -> bool {
    std::env::var_os("CROSSPOINT_ORDINARY").is_some()
}

/// The user that stands for all ordinary ones.
pub(crate) const ORDINARY: u32 = 54_321;

/// Runs these tests once more, as an ordinary user.
pub(crate) fn again_for_an_ordinary_user(tests: &str) {
    if is_ordinary() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: this is an ordinary user already");
        return;
    }
    let mut command = Command::new("setpriv");
    let id = ORDINARY.to_string();
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .arg(own().get_program())
        .args([tests, "--test-threads", "2"])
        .env("CROSSPOINT_ORDINARY", "1")
        .env("HOME", "/nonexistent")
        .env("TMPDIR", "/tmp")
        .current_dir("/");
    succeeds(command);
}

/// The mark that a host was given by [`host`]; none in a process that is not one.
pub(crate) fn mark() -> Option<String> {
    std::env::var("CROSSPOINT_MARK").ok()
}

/// Starts a host, which is a test of its own that prints `up` and the mark when its runs are up, and waits for that.
pub(crate) fn host(test: &str, mark: &str) -> Child {
    let mut host = own()
        .args(["--exact", test, "--nocapture"])
        .env("CROSSPOINT_MARK", mark)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(host.stdout.take().unwrap()).lines();
    let up = format!("up {mark}");
    assert!(
        lines.map_while(Result::ok).any(|line| line.ends_with(&up)),
        "the host started its runs"
    );
    host
}
