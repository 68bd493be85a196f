//! An interpreter serves one run of one customer, and no more of them wait than may.

use super::{Bed, KEEP, gone, grounds, marked, python};
use crate::scripts::succeeded;
use crosspoint_core::{Code, Isolation, Runner, Script, Work};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Does all the harm that it can to whoever comes next, and tells what it found of others.
const POISON: &str = r#"
import builtins, json, os, pathlib, sys, threading, time
found = []
folders = {pathlib.Path(os.environ[name]).resolve() for name in ("HOME", "TMPDIR")}
for folder in folders | ({pathlib.Path("/tmp").resolve()} if pathlib.Path("/w").exists() else set()):
    found += [path.name for path in folder.iterdir()]
    (folder / "left").write_text("mine")
found += [name for name in ("left", "LEFT") if hasattr(builtins, name) or name in os.environ]
found += ["thread"] * (threading.active_count() - 1)
answer = {"found": found, "dumps": json.dumps([1]), "hash": hash("x"), "customer": os.environ["XP_CTX_CUSTOMER"]}
open(os.environ["XP_RESULT_FILE"], "w").write(repr(answer).replace("'", '"'))
json.dumps = lambda value: "poisoned"
builtins.left = os.environ["LEFT"] = "mine"
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_run_is_found_by_the_next() {
    for level in grounds().await {
        let script = Arc::new(python(level, POISON).warm(["json", "pathlib", "threading"]));
        let bed = Bed::new(KEEP);
        let mut hashes = Vec::new();
        bed.warm_up("acme", &script, |_| {}).await;
        for customer in ["acme", "acme", "bolt", "bolt", "bolt", "acme"] {
            let hits = bed.runner.warm_stats().hits;
            let outcome = bed.run(customer, &script, |_| {}).await;
            let seen = succeeded(&outcome).clone();
            assert_eq!(
                (&seen["found"], &seen["dumps"], &seen["customer"]),
                (&json!([]), &json!("[1]"), &json!(customer)),
                "{level}"
            );
            hashes.push(seen["hash"].as_i64().unwrap());
            let first_of_bolt = hashes.len() == 3;
            assert!(
                !first_of_bolt || bed.runner.warm_stats().hits == hits,
                "what waits is acme's"
            );
            bed.until(|stats| stats.ready > 0 && stats.warming == 0).await;
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 6, "each in an interpreter with a seed of its own");
    }
}

/// What is fixed when an interpreter starts is part of what it waits for.
#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_waits_for_one_way_to_start() {
    let grounds = grounds().await;
    for level in grounds {
        let script = Arc::new(python(level, "pass").warm(["json"]));
        let bed = Bed::new(KEEP);
        bed.warm_up("acme", &script, |_| {}).await;
        let others: [Arc<Script>; 3] = [
            Arc::new(python(level, "pass").warm(["json", "ssl"])),
            Arc::new(python(level, "pass # other").warm(["json"])),
            Arc::new(python(level, "pass").warm(["json"]).env("A", "b")),
        ];
        for other in &others {
            bed.run("acme", other, |_| {}).await;
        }
        bed.run("acme", &script, |spec| spec.limits.memory -= 4096).await;
        assert_eq!(bed.runner.warm_stats().hits, 0, "{level}");
        // Another value of the same script is the same script.
        let same = Arc::new(python(level, "pass").warm(["json"]));
        bed.warmly("acme", &same, |_| {}).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_wait_than_may() {
    for level in grounds().await.into_iter().rev().take(1) {
        let options = KEEP.per_script(3).per_customer(4).total(5);
        let bed = Bed::new(options);
        let scripts: Vec<_> = (0..3)
            .map(|n| Arc::new(python(level, &format!("pass # {n}")).warm(Vec::<String>::new())))
            .collect();
        let mut most = 0;
        for customer in ["acme", "bolt"] {
            for script in &scripts {
                for _ in 0..6 {
                    bed.run(customer, script, |_| {}).await;
                    let stats = bed.runner.warm_stats();
                    most = most.max(stats.ready + stats.warming);
                }
            }
        }
        bed.until(|stats| stats.ready == 5).await;
        assert!(most <= 5, "{most}");
        let none = Bed::new(KEEP.per_script(0));
        for _ in 0..3 {
            none.run("acme", &scripts[0], |_| {}).await;
        }
        let stats = none.runner.warm_stats();
        assert_eq!((stats.ready, stats.warming, stats.misses), (0, 0, 3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_nobody_uses_go() {
    for level in grounds().await {
        let mark = format!("{:?}", std::thread::current().id());
        // Longer than a worker takes to be ready on a busy machine.
        let bed = Bed::new(KEEP.idle(Duration::from_secs(15)));
        let script = Arc::new(python(level, "pass").warm(["json"]).env("IDLE", &mark));
        bed.warm_up("acme", &script, |_| {}).await;
        let waiting = marked(&format!("IDLE={mark}"));
        assert!(!waiting.is_empty(), "{level}");
        bed.until(|stats| stats.ready + stats.warming == 0).await;
        gone(waiting).await;
        // Others may have come since, and are dying.
        gone(marked(&format!("IDLE={mark}"))).await;
        assert_eq!(marked(&format!("IDLE={mark}")), [0; 0]);
        assert_eq!(bed.runner.warm_stats().memory, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_runner_that_is_dropped() {
    for level in grounds().await {
        let folders = tempfile::tempdir().unwrap();
        let mut bed = Bed::new(KEEP);
        bed.runner = bed.runner.folders_in(folders.path());
        if level == Isolation::Confined {
            // The customer's own user has to get to its folder.
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(folders.path(), open).unwrap();
        }
        let script = Arc::new(python(level, "pass").warm(["json"]).env("DROPPED", level.to_string()));
        bed.warm_up("acme", &script, |_| {}).await;
        let waiting = marked(&format!("DROPPED={level}"));
        assert!(!waiting.is_empty(), "{level}");
        drop(bed);
        gone(waiting).await;
        // The task that makes them may just be letting go of one.
        while std::fs::read_dir(folders.path()).unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn what_cannot_be_kept_warm_is_refused() {
    let bed = Bed::new(KEEP);
    for script in [
        Script::inline("sh", "true").warm(["ssl"]),
        Script::command("python3", ["-m", "http.server"]).warm(["ssl"]),
        Script::inline("python3", "").warm(["os;import sys"]),
    ] {
        let work = Work::Script(Arc::new(script.isolation(Isolation::Process)));
        let refused = bed.runner.prepare(&work, Isolation::Process).await.unwrap_err();
        assert_eq!(refused.code(), Code::SetupInvalid);
        let Work::Script(script) = &work else { return };
        let refused = bed.runner.start(bed.spec("acme", script)).await.unwrap_err();
        assert_eq!(refused.code(), Code::SetupInvalid);
    }
}

/// Modules that cannot be imported, and those that end the interpreter, cost the start ahead and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn imports_that_fail_harm_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let own = std::fs::canonicalize(folder.path()).unwrap();
    let files = [
        (
            "run.py",
            "import os\nopen(os.environ['XP_RESULT_FILE'], 'w').write('1')",
        ),
        ("raises.py", "1 / 0"),
        ("ends.py", "import os; os._exit(0)"),
    ];
    for (name, text) in files {
        std::fs::write(own.join(name), text).unwrap();
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&own, open).unwrap();
    for level in grounds().await {
        let script = |imports: [&str; 2]| {
            let script = Script::command(super::PYTHON, ["run.py"]).dir(&own).isolation(level);
            Arc::new(script.warm(imports))
        };
        let bed = Bed::new(KEEP);
        let raises = script(["raises", "json"]);
        bed.warm_up("acme", &raises, |_| {}).await;
        assert_eq!(succeeded(&bed.warmly("acme", &raises, |_| {}).await), &json!(1));
        let bed = Bed::new(KEEP);
        let ends = script(["ends", "json"]);
        bed.run("acme", &ends, |_| {}).await;
        bed.run("acme", &ends, |_| {}).await;
        bed.until(|stats| stats.warming > 0).await;
        bed.until(|stats| stats.warming == 0).await;
        let outcome = bed.run("acme", &ends, |_| {}).await;
        assert_eq!(succeeded(&outcome), &Value::from(1));
        assert_eq!(bed.runner.warm_stats().hits, 0);
    }
}
