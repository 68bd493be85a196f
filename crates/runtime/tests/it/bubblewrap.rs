//! Sandboxed runs that bubblewrap starts: what is its own way of doing things, and everything that is tested of the level.

use crate::{
    machine::{self, BUBBLEWRAP, PYTHON, again_through_bubblewrap, has},
    processes::Process,
    sandbox::{customer, finish, shell, unusual},
    scripts::{failure, limits, spec, succeeded, texts},
};
use crosspoint_core::{
    Clock, Code, Egress, Isolation, Result, Retry, RunEnd, RunHandle, RunOutcome, Runner, Script, StopReason,
    SystemClock, Work,
};
use crosspoint_runtime::{
    SandboxOptions, Subprocess,
    bare::{Input, Sandbox},
};
use serde_json::json;
use std::{fs, path::Path, sync::Arc, time::Duration};

fn through(program: &str) -> Subprocess {
    let options = SandboxOptions::new().bubblewrap(program);
    Subprocess::new(Arc::new(SystemClock::new())).sandbox(options)
}

/// Whether bubblewrap is there, and may do its work. Where everything has to be there, it has to.
async fn works() -> bool {
    if !has("bwrap") {
        return false;
    }
    let report = through(BUBBLEWRAP).probe().await;
    let works = report.level >= Isolation::Sandboxed;
    assert!(works || !machine::required(), "{:?}", report.missing);
    if !works {
        eprintln!("skipped: {:?}", report.missing);
    }
    works
}

async fn start(script: Script) -> Result<Box<dyn RunHandle>> {
    let clock = SystemClock::new();
    let mut spec = spec(script, &clock);
    spec.limits = limits(|_| {});
    spec.deadline = clock.now().plus(spec.limits.wall());
    through(BUBBLEWRAP).start(spec).await
}

fn sandboxed(text: &str) -> Script {
    Script::inline("sh", text).isolation(Isolation::Sandboxed)
}

async fn outcome(script: Script) -> RunOutcome {
    start(script).await.unwrap().wait().await
}

/// Each is told to bubblewrap by a descriptor, and there may be more of them than there are ready numbers.
#[tokio::test(flavor = "multi_thread")]
async fn many_inputs_are_what_was_given_in_each_of_many_runs() {
    if !works().await {
        return;
    }
    let sandbox = Sandbox::new(SandboxOptions::new().bubblewrap(BUBBLEWRAP).spawners(1));
    for (run, count) in [3, 60, 60, 11, 35, 60, 22, 48].into_iter().enumerate() {
        let mut job = shell("cat /w/in/*");
        let content = |n: usize| format!("{run} {n}\n");
        let inputs = (0..count).map(|n| Input::file(format!("in/{n:03}"), content(n), 0o600));
        job.inputs = inputs.collect();
        let mut child = sandbox
            .launch(Isolation::Sandboxed, job, &customer("acme"))
            .await
            .unwrap();
        let told = finish(&mut child).await;
        let all: String = (0..count).map(content).collect();
        assert_eq!(told.out, all, "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_says_what_it_holds_and_what_it_does_not() {
    if !works().await {
        return;
    }
    let report = through(BUBBLEWRAP).probe().await;
    assert_eq!(report.level, Isolation::Sandboxed, "{report:?}");
    let has = |name: &str| report.mechanisms.iter().any(|mechanism| mechanism.starts_with(name));
    for name in [
        "bubblewrap:",
        "seccomp",
        "capped-tmpfs",
        "masked-proc",
        "pid-namespace",
        "network-namespace",
    ] {
        assert!(has(name), "{name}: {report:?}");
    }
    assert!(!has("landlock"), "{report:?}");
    for lacking in ["landlock", "number of files", "egress `allow`"] {
        assert!(
            report.missing.iter().any(|missing| missing.contains(lacking)),
            "{lacking}: {report:?}"
        );
    }
}

/// Nothing is started in another way.
#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_missing_nothing_is_sandboxed() {
    for program in ["/nonexistent/bwrap", "/bin/true", "/etc/passwd"] {
        let runner = through(program);
        let report = runner.probe().await;
        assert!(report.level < Isolation::Sandboxed, "{program}: {report:?}");
        assert!(
            report.missing.iter().any(|missing| missing.contains("bubblewrap")),
            "{report:?}"
        );
        let script = Work::Script(Arc::new(sandboxed("true")));
        let refused = runner.prepare(&script, Isolation::Sandboxed).await.unwrap_err();
        assert_eq!(refused.code(), Code::IsolationUnavailable, "{program}");
        let spec = spec(sandboxed("true"), &SystemClock::new());
        let refused = runner.start(spec).await.unwrap_err();
        assert_eq!(refused.code(), Code::IsolationUnavailable, "{program}");
    }
}

/// In the environment of bubblewrap itself, what the script says would hold outside.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_script_is_in_the_environment_or_the_command_line_outside() {
    if !works().await {
        return;
    }
    let (mark, secret) = (unusual(), format!("secret-{}", unusual()));
    let script = sandboxed(&format!("sleep {mark}"))
        .env("SECRET", &secret)
        .env("LD_PRELOAD", "/nonexistent.so");
    let mut run = start(script).await.unwrap();
    let monitors = || {
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let ours = |path: &std::path::PathBuf| {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            name == "bwrap\n" && parent(path) == Some(std::process::id())
        };
        processes.filter(ours).collect::<Vec<_>>()
    };
    // Its parent is a task of this process.
    let found = monitors();
    assert!(!found.is_empty(), "it is there to be looked at");
    let everybody = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    for path in everybody {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        assert!(!contains(&line, &secret), "{}", path.display());
    }
    for path in &found {
        assert_eq!(
            fs::read(path.join("environ")).unwrap_or_default(),
            b"",
            "{}",
            path.display()
        );
    }
    run.cancel(StopReason::Cancelled, Duration::ZERO).await;
    run.wait().await;
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// The process that started this one or the one before it.
fn parent(path: &Path) -> Option<u32> {
    let pid = path.file_name()?.to_str()?.parse().ok()?;
    let task = Process::of(pid)?.parent;
    u32::try_from(Process::of(task)?.parent).ok()
}

/// It tells all ends by an exit code of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_as_what_it_was() {
    if !works().await {
        return;
    }
    let fine = outcome(sandboxed("echo '{\"n\":1}' > \"$XP_RESULT_FILE\"")).await;
    assert_eq!(succeeded(&fine), &json!({ "n": 1 }));
    assert_eq!(fine.isolation, Isolation::Sandboxed);
    assert!(
        fine.log
            .iter()
            .any(|line| line.message.starts_with("sandboxed by bubblewrap ")),
        "{fine:?}"
    );
    for (text, code, retry) in [
        ("exit 1", Code::ScriptFailed, Retry::Backoff),
        ("exit 65", Code::ScriptFailed, Retry::Never),
        ("exit 77", Code::CredentialsRefused, Retry::Reauthorize),
        ("exit 143", Code::ScriptFailed, Retry::Backoff),
    ] {
        assert_eq!(failure(&outcome(sandboxed(text)).await), (code, retry), "{text}");
    }
    if has(PYTHON) {
        let crash = Script::inline(PYTHON, "import ctypes; ctypes.string_at(0)").isolation(Isolation::Sandboxed);
        let crashed = outcome(crash).await;
        assert_eq!(failure(&crashed).0, Code::ScriptCrashed, "{crashed:?}");
        assert!(format!("{:?}", crashed.end).contains("SIGSEGV"), "{crashed:?}");
    }
}

/// It is there on the host, and not inside.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_visible_inside_was_not_started() {
    if !works().await {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::copy("/bin/true", &program).unwrap();
    let script = Script::command(program.to_str().unwrap(), Vec::<String>::new()).isolation(Isolation::Sandboxed);
    let failed = outcome(script).await;
    assert_eq!(failure(&failed), (Code::ScriptNotStarted, Retry::Never), "{failed:?}");
    assert!(texts(&failed).iter().any(|line| line.contains("execvp")), "{failed:?}");
    let lost = Script::command("sh", ["-c", "true"])
        .dir(folder.path().join("lost"))
        .isolation(Isolation::Sandboxed);
    let refused = start(lost).await.unwrap_err();
    assert_eq!(refused.code(), Code::ScriptNotStarted, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn single_hosts_are_refused_in_plain_words() {
    if !works().await {
        return;
    }
    let allow = || sandboxed("true").egress(Egress::Allow(vec!["api.example.com".to_owned()]));
    let work = Work::Script(Arc::new(allow()));
    for refused in [
        through(BUBBLEWRAP)
            .prepare(&work, Isolation::Sandboxed)
            .await
            .unwrap_err(),
        start(allow()).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::IsolationUnavailable);
        assert!(refused.message().contains("egress `allow`"), "{refused}");
    }
}

/// A run that is given up while bubblewrap builds its root leaves nobody behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_given_up_leaves_nothing() {
    if !works().await {
        return;
    }
    let mark = unusual();
    let runner = Arc::new(through(BUBBLEWRAP));
    runner.probe().await;
    // Some are given up before bubblewrap runs, some while it builds, some when the script runs.
    for after in 0..24 {
        let spec = spec(sandboxed(&format!("exec sleep {mark}")), &SystemClock::new());
        drop(tokio::time::timeout(Duration::from_millis(after), runner.start(spec)).await);
    }
    let gone = || crate::sandbox::processes_with(&mark) == 0;
    for _ in 0..400 {
        if gone() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(gone(), "{} are left", crate::sandbox::processes_with(&mark));
    // And the next one is none the worse.
    let clock = SystemClock::new();
    let mut last = runner.start(spec(sandboxed("true"), &clock)).await.unwrap();
    assert!(matches!(last.wait().await.end, RunEnd::Succeeded(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_is_the_same() {
    if works().await {
        again_through_bubblewrap(&["levels::", "warm::same::"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_are_stopped_as_the_page_says() {
    if works().await {
        again_through_bubblewrap(&[
            "abuse::play::each",
            "abuse::ends",
            "bombs::forks",
            "bombs::disk",
            "bombs::inodes",
            "bombs::memory",
        ]);
    }
}

#[test]
fn everything_holds_for_an_ordinary_user() {
    machine::again_for_an_ordinary_user("bubblewrap::");
}
