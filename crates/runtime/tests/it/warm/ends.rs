//! Interpreters that end before their time, and runs by them that have to be ended.

use super::{Bed, KEEP, grounds, marked, python};
use crate::scripts::{failure, succeeded};
use crosspoint_core::{Code, Isolation, RunEnd, Script, StopReason};
use serde_json::json;
use std::{sync::Arc, time::Duration};

const ANSWER: &str = "import os\nopen(os.environ['XP_RESULT_FILE'], 'w').write('1')";

fn signal(pids: &[i32], signal: rustix::process::Signal) {
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(*pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_never_gets_a_dead_interpreter_and_is_never_lost() {
    for level in grounds().await {
        let script = python(level, ANSWER).warm(["json"]).env("KILLED", level.to_string());
        let (script, mark) = (Arc::new(script), format!("KILLED={level}"));
        let bed = Bed::new(KEEP.per_script(1));
        bed.warm_up("acme", &script, |_| {}).await;
        let waiting = marked(&mark);
        signal(&waiting, rustix::process::Signal::KILL);
        super::gone(waiting).await;
        let outcome = bed.run("acme", &script, |_| {}).await;
        assert_eq!(succeeded(&outcome), &json!(1), "{level}");
        // A new one takes its place.
        bed.until(|stats| stats.ready > 0).await;
        bed.warmly("acme", &script, |_| {}).await;

        // One that does not move cannot be told from a living one, until it is handed a run.
        bed.until(|stats| stats.ready > 0).await;
        let lost = bed.runner.warm_stats().lost;
        signal(&marked(&mark), rustix::process::Signal::STOP);
        let outcome = bed.run("acme", &script, |_| {}).await;
        assert_eq!(succeeded(&outcome), &json!(1), "{level}");
        assert_eq!(bed.runner.warm_stats().lost, lost + 1, "{level}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_interpreter_is_replaced() {
    for level in grounds().await {
        let script = python(level, "pass").warm(["json"]).env("REPLACED", level.to_string());
        let (script, mark) = (Arc::new(script), format!("REPLACED={level}"));
        let bed = Bed::new(KEEP.per_script(1));
        bed.warm_up("acme", &script, |_| {}).await;
        let first = marked(&mark);
        signal(&first, rustix::process::Signal::KILL);
        bed.until(|stats| stats.ready == 0).await;
        bed.until(|stats| stats.ready > 0).await;
        let second = marked(&mark);
        assert!(
            !second.is_empty() && first.iter().all(|pid| !second.contains(pid)),
            "{level}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    let hog = "held = []\nwhile True: held.append(bytearray(4 << 20))";
    let spin = "while True: pass";
    let file = "import os\nopen(os.path.join(os.environ['TMPDIR'], 'x'), 'wb').write(bytes(64 << 20))";
    let wait = "import time\nwhile True: time.sleep(1000)";
    for level in grounds().await {
        for (text, deadline) in [(hog, 600), (spin, 600), (file, 600), (wait, 1)] {
            let script = Arc::new(python(level, text).warm(["json"]));
            let bed = Bed::new(KEEP.per_script(1));
            let limited = |spec: &mut crosspoint_core::RunSpec| {
                (spec.limits.memory, spec.limits.disk, spec.limits.cpu_ms) = (128 << 20, 16 << 20, 1000);
                spec.limits.grace_ms = 100;
                spec.deadline = crosspoint_core::Clock::now(&*bed.clock).plus(Duration::from_secs(deadline));
            };
            bed.warm_up("acme", &script, limited).await;
            let outcome = bed.warmly("acme", &script, limited).await;
            if deadline == 1 {
                assert!(
                    matches!(outcome.end, RunEnd::Stopped(StopReason::Deadline)),
                    "{level}: {outcome:?}"
                );
                assert!(outcome.run < Duration::from_secs(30), "{outcome:?}");
                continue;
            }
            let code = failure(&outcome).0;
            assert!(
                matches!(code, Code::ScriptCrashed | Code::ScriptFailed),
                "{level} {text}: {outcome:?}"
            );
            assert!(outcome.usage.peak_memory < 160 << 20, "{level} {text}: {outcome:?}");
            assert!(outcome.usage.cpu_ms < 8000, "{level} {text}: {outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_stopped() {
    let text = "import os, signal, sys, time\n\
                def stop(*_):\n    open(os.environ['XP_STATE_OUT'], 'w').write('7')\n    sys.exit(0)\n\
                signal.signal(signal.SIGTERM, stop)\n\
                open(os.environ['XP_STATE_OUT'] + '.ready', 'w')\nprint('here', flush=True)\n\
                while True: time.sleep(0.02)\n";
    for level in grounds().await {
        let script = Arc::new(python(level, text).warm(["signal"]));
        let bed = Bed::new(KEEP.per_script(1));
        let soon = |spec: &mut crosspoint_core::RunSpec| {
            spec.limits.grace_ms = 60_000;
            spec.deadline = crosspoint_core::Clock::now(&*bed.clock).plus(Duration::from_secs(4));
        };
        bed.warm_up("acme", &script, soon).await;
        let outcome = bed.warmly("acme", &script, soon).await;
        assert_eq!(outcome.state, Some(json!(7)), "{level}: {outcome:?}");
        bed.until(|stats| stats.ready > 0).await;
        let mut handle = bed.start("acme", &script, |spec| spec.limits.grace_ms = 60_000).await;
        handle.cancel(StopReason::Cancelled, Duration::ZERO).await;
        let outcome = handle.wait().await;
        assert!(
            matches!(outcome.end, RunEnd::Stopped(StopReason::Cancelled)),
            "{level}: {outcome:?}"
        );
    }
}

/// What the imports took is not the run's, neither of its time nor of its limit.
#[tokio::test(flavor = "multi_thread")]
async fn the_imports_are_not_accounted_to_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let own = std::fs::canonicalize(folder.path()).unwrap();
    let busy = "import time\nend = time.process_time() + 0.8\nwhile time.process_time() < end: pass\n";
    std::fs::write(own.join("busy.py"), busy).unwrap();
    std::fs::write(own.join("run.py"), format!("import busy\n{busy}")).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&own, open).unwrap();
    for level in grounds().await {
        let script = Script::command(super::PYTHON, ["run.py"]).dir(&own).isolation(level);
        let script = Arc::new(script.warm(["busy"]).env("PYTHONDONTWRITEBYTECODE", "1"));
        let bed = Bed::new(KEEP.per_script(1));
        let limited = |spec: &mut crosspoint_core::RunSpec| spec.limits.cpu_ms = 2000;
        let cold = bed.warm_up("acme", &script, limited).await;
        let warm = bed.warmly("acme", &script, limited).await;
        succeeded(&warm);
        assert!(cold.usage.cpu_ms >= 1500, "{level}: {:?}", cold.usage);
        let least = if level == Isolation::Process { 700 } else { 790 };
        assert!((least..1300).contains(&warm.usage.cpu_ms), "{level}: {:?}", warm.usage);
        assert!(warm.run < cold.run + Duration::from_secs(5));
    }
}
