//! What is published is offered at once, here and elsewhere, and what is installed stays.

use super::site::{Site, hello};
use crate::machine;
use crosspoint_core::{
    Clock, CustomerId, InstallationId, InvocationId, RunEnd, RunSpec, Runner, StopReason, StopSource, SystemClock, Work,
};
use crosspoint_runtime::Runners;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Runs a flow of an offered integration and answers its result.
pub(super) async fn run(site: &Site, name: &str, version: &str, flow: &str) -> Value {
    let clock = Arc::new(SystemClock::new());
    let integration = site.registry.integration(name, version).unwrap();
    let Work::Script(script) = &integration.flow(flow).unwrap().work else {
        panic!("an artifact has scripts")
    };
    let deadline = clock.now().plus(Duration::from_secs(60));
    let mut spec = RunSpec::new(
        InvocationId::mint(&*clock),
        CustomerId::new("acme").unwrap(),
        InstallationId::mint(&*clock),
        flow,
        Work::Script(Arc::clone(script)),
        deadline,
    );
    spec.require = script.required_isolation();
    let mut handle = Runners::standard(clock).start(spec).await.unwrap();
    let outcome = handle.wait().await;
    match outcome.end {
        RunEnd::Succeeded(value) => value,
        other => panic!("{other:?}\n{:#?}", outcome.log),
    }
}

#[tokio::test]
async fn a_new_version_is_offered_at_once_and_the_old_one_runs_on() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    site.publish(hello("1.0.0").path()).await.unwrap();
    assert_eq!(run(&site, "hello", "1.0.0", "greet").await, json!("1.0.0"));
    site.publish(hello("1.1.0").path()).await.unwrap();
    site.publish(hello("1.0.1").path()).await.unwrap();
    assert_eq!(
        site.offered("hello").unwrap(),
        "1.1.0",
        "a repair of an old version does not go before a newer one"
    );
    for version in ["1.0.0", "1.0.1", "1.1.0"] {
        assert_eq!(run(&site, "hello", version, "greet").await, json!(version));
    }
    let withdrawn = site.artifacts.withdraw("hello", "1.1.0").await.unwrap();
    assert!(withdrawn.withdrawn.is_some());
    assert_eq!(site.offered("hello").unwrap(), "1.0.1");
    assert_eq!(
        run(&site, "hello", "1.1.0", "greet").await,
        json!("1.1.0"),
        "for those who have installed it"
    );
    // Published again, it is offered again.
    assert!(site.publish(hello("1.1.0").path()).await.unwrap().new);
    assert_eq!(site.offered("hello").unwrap(), "1.1.0");
    let missing = site.artifacts.withdraw("hello", "9.0.0").await.unwrap_err();
    assert_eq!(missing.code(), crosspoint_core::Code::NotFound);
}

#[tokio::test]
async fn a_run_that_has_begun_goes_on_when_its_version_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    site.publish(hello("1.0.0-dev").path()).await.unwrap();
    let held = site.registry.integration("hello", "1.0.0-dev").unwrap();
    let changed = hello("1.0.0-dev");
    super::site::write(
        changed.path(),
        "greet.sh",
        b"echo '\"changed\"' > \"$XP_RESULT_FILE\"\n",
    );
    let mut replace = crosspoint_core::PublishOptions::default();
    replace.replace = true;
    site.artifacts.publish(changed.path(), &replace).await.unwrap();
    assert_eq!(run(&site, "hello", "1.0.0-dev", "greet").await, json!("changed"));
    let Work::Script(script) = &held.flow("greet").unwrap().work else {
        panic!()
    };
    let crosspoint_core::ScriptSource::Command { dir, .. } = script.source() else {
        panic!()
    };
    let text = std::fs::read_to_string(dir.as_ref().unwrap().join("greet.sh")).unwrap();
    assert!(text.contains("1.0.0-dev"), "the files of what runs are still there");
}

#[tokio::test]
async fn another_process_finds_what_somebody_has_installed_without_waiting_for_its_next_look() {
    let root = tempfile::tempdir().unwrap();
    let (one, other) = (Site::over(root.path()), Site::over(root.path()));
    one.publish(hello("1.0.0").path()).await.unwrap();
    assert!(other.registry.integration("hello", "1.0.0").is_none());
    assert!(other.registry.find("hello", "1.0.0").await.is_some());
    assert!(other.registry.find("hello", "7.0.0").await.is_none());
    assert_eq!(other.offered("hello").unwrap(), "1.0.0");
    // What was not there is not looked for at every event, but at the next regular look.
    one.publish(hello("7.0.0").path()).await.unwrap();
    assert!(other.registry.find("hello", "7.0.0").await.is_none());
    other.artifacts.refresh().await.unwrap();
    assert!(other.registry.find("hello", "7.0.0").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn another_process_looks_every_few_seconds_until_it_is_told_to_stop() {
    let root = tempfile::tempdir().unwrap();
    let (one, other) = (Site::over(root.path()), Site::over(root.path()));
    let stop = StopSource::new();
    let watching = tokio::spawn({
        let (artifacts, stop) = (other.artifacts.clone(), stop.signal());
        async move { artifacts.watch(stop).await }
    });
    for version in ["1.0.0", "2.0.0"] {
        one.publish(hello(version).path()).await.unwrap();
        while other.offered("hello").as_deref() != Some(version) {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    one.artifacts.withdraw("hello", "2.0.0").await.unwrap();
    while other.offered("hello").as_deref() != Some("1.0.0") {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    stop.stop(StopReason::Draining);
    watching.await.unwrap();
}

/// Whoever reads while others publish sees one moment: an integration that is offered is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_never_in_the_way_of_publishing() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let stop = StopSource::new();
    let reader = tokio::spawn({
        let (registry, stop) = (Arc::clone(&site.registry), stop.signal());
        async move {
            let mut seen = 0_u64;
            while stop.reason().is_none() {
                for offered in registry.catalogue() {
                    assert!(registry.integration(&offered.name, &offered.version).is_some());
                    seen += 1;
                }
                tokio::task::yield_now().await;
            }
            seen
        }
    });
    for patch in 0..10 {
        site.publish(hello(&format!("1.0.{patch}")).path()).await.unwrap();
    }
    stop.stop(StopReason::Draining);
    assert!(reader.await.unwrap() > 0);
    assert_eq!(site.offered("hello").unwrap(), "1.0.9");
}

/// Every language that the machine has; one that is missing is told of, and a failure where everything has to be there.
#[tokio::test]
async fn programs_in_many_languages_are_started_as_their_manifest_says() {
    const JAVA: &str = "import java.nio.file.*; public class Greet { public static void main(String[] args) throws Exception {\
        Files.writeString(Path.of(System.getenv(\"XP_RESULT_FILE\")), \"\\\"\" + args[0] + \"\\\"\"); } }";
    let languages = [
        ("sh", "sh", "greet.sh", "printf '\"%s\"' \"$1\" > \"$XP_RESULT_FILE\""),
        (
            "static",
            "sh",
            "bin/greet!",
            "#!/bin/sh\nprintf '\"%s\"' \"$1\" > \"$XP_RESULT_FILE\"",
        ),
        (
            "python",
            "python3",
            "greet.py",
            "import os, sys; open(os.environ['XP_RESULT_FILE'], 'w').write('\"%s\"' % sys.argv[1])",
        ),
        (
            "node",
            "node",
            "greet.js",
            "require('fs').writeFileSync(process.env.XP_RESULT_FILE, JSON.stringify(process.argv[2]))",
        ),
        (
            "perl",
            "perl",
            "greet.pl",
            "open(my $f, '>', $ENV{XP_RESULT_FILE}); print $f '\"' . $ARGV[0] . '\"';",
        ),
        ("java", "java", "Greet.java", JAVA),
    ];
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    for (language, program, file, text) in languages {
        if !machine::has(program) {
            continue;
        }
        let entry = json!({ "program": file.trim_end_matches('!'), "args": [language] });
        // A virtual machine reserves far more memory than it uses.
        let limits = json!({ "memory": 4_u64 << 30 });
        let flow =
            json!({ "name": "greet", "trigger": "call", "language": language, "entry": entry, "limits": limits });
        let manifest = super::site::manifest("1.0.0", json!({ "name": language, "flows": [flow] }));
        let source = super::site::folder(&[("crosspoint.json", &manifest.to_string()), (file, text)]);
        site.publish(source.path()).await.unwrap();
        assert_eq!(run(&site, language, "1.0.0", "greet").await, json!(language));
    }
}

/// A program that was written for Pandium, from its author's repository as it is.
#[tokio::test]
async fn a_script_for_pandium_is_published_unchanged() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::over(root.path());
    let entry = json!({ "program": "run.sh" });
    let flow = json!({
        "name": "sync", "trigger": { "schedule": { "cron": "*/15 * * * *" } }, "language": "sh", "entry": entry, "env_prefix": "PAN"
    });
    let manifest = super::site::manifest("1.0.0", json!({ "flows": [flow] }));
    let script = "test -n \"$PAN_CTX_RUN_MODE\" || exit 1\ntest -z \"$XP_RUN_KEY\" || exit 2\necho working >&2\necho '{ \"last\": 7 }'\n";
    let source = super::site::folder(&[("crosspoint.json", &manifest.to_string()), ("run.sh", script)]);
    site.publish(source.path()).await.unwrap();
    run(&site, "hello", "1.0.0", "sync").await;
}
