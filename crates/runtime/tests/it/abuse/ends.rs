//! Attempts to live on.

use super::{Host, levels, run, shell};
use crate::{
    machine,
    sandbox::{processes_with, unusual},
    scripts::limits,
};
use crosspoint_core::{Isolation, RunEnd, StopReason};
use std::time::Duration;

/// Waits until that many processes of the machine have the text in their command line.
async fn settles(text: &str, expected: usize) -> usize {
    for _ in 0..400 {
        if processes_with(text) == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    processes_with(text)
}

/// Ends what a test's script started and its level left running.
fn sweep(mark: &str) {
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let ours = String::from_utf8_lossy(&line).split('\0').any(|word| word == mark);
        let pid = entry.file_name().to_string_lossy().parse().ok().filter(|_| ours);
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_session() {
    for level in levels().await {
        let mark = unusual();
        // Where sessions are refused, it goes without.
        let text = format!(
            "S=$(setsid true 2>/dev/null && echo setsid); ($S sh -c '$0 sleep {mark} & exec sleep {mark}' \"${{S:-env}}\" >/dev/null \
             2>&1 &) ; sleep 0.3"
        );
        let outcome = run(shell(level, &text), |_| {}).await;
        assert!(matches!(outcome.end, RunEnd::Succeeded(_)), "{level}: {outcome:?}");
        let (left, expected) = match level {
            Isolation::Process => (settles(&mark, 2).await, 2),
            _ => (processes_with(&mark), 0),
        };
        sweep(&mark);
        assert_eq!(left, expected, "{level}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_deaf() {
    for level in levels().await {
        for text in [
            "kill -STOP $$; while :; do sleep 1; done",
            "sh -c 'kill -STOP $PPID; sleep 600'; while :; do sleep 1; done",
            "trap '' TERM HUP INT; while :; do sleep 1; done",
            "trap 'while :; do sleep 1; done' TERM; while :; do sleep 0.1; done",
        ] {
            let soon = |limits: &mut crosspoint_core::Limits| (limits.wall_ms, limits.grace_ms) = (1500, 500);
            let run = run(shell(level, text), soon);
            let outcome = tokio::time::timeout(Duration::from_secs(30), run)
                .await
                .expect("it ends");
            assert!(
                matches!(outcome.end, RunEnd::Stopped(StopReason::Deadline)),
                "{level}: {text}: {outcome:?}"
            );
        }
    }
}

const RUNS: usize = 20;

/// The host of the next test: starts runs, says so, and waits to be killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed() {
    let Some(mark) = machine::mark() else {
        return;
    };
    let host = Host::new();
    let mut runs = Vec::new();
    for level in levels().await {
        let of_level = format!("{mark}{}", level as u8);
        let text = format!(
            "S=$(setsid true 2>/dev/null && echo setsid); ($S sleep {of_level} &); sleep {of_level} & sleep {of_level}"
        );
        for _ in 0..RUNS {
            runs.push(host.start("acme", shell(level, &text), limits(|_| {})).await.unwrap());
        }
        assert_eq!(settles(&of_level, 3 * RUNS).await, 3 * RUNS, "{level}");
    }
    println!("\nup {mark}");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_run_outlives_its_host() {
    let mark = unusual();
    let mut host = machine::host("abuse::ends::a_host_that_is_killed", &mark);
    host.kill().unwrap();
    host.wait().unwrap();
    for level in levels().await {
        let of_level = format!("{mark}{}", level as u8);
        // At `process` nobody tells them: all of them live on.
        let expected = if level == Isolation::Process { 3 * RUNS } else { 0 };
        let left = settles(&of_level, expected).await;
        sweep(&of_level);
        assert_eq!(left, expected, "{level}");
    }
}
