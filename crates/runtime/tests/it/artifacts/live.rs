//! What is published is offered at once, here and elsewhere, and what is installed stays.

use super::site::{Site, hello};
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
