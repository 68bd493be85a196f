//! The kit's own tests. Its suites run in the crates whose stores they test.

use crosspoint_core::{Clock, Enqueue, Memory, TargetId};
use crosspoint_testkit::{Faults, ManualClock, Method, VirtualClock, When, envelope, hold_time};
use std::{fs, path::Path, sync::Arc, thread, time::Duration};
use tokio::{sync::oneshot, time};

/// A suite that nobody runs tests nothing: every public one stands in the macro's list.
#[test]
fn every_suite_is_listed() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let list = fs::read_to_string(src.join("macros.rs")).unwrap();
    let modules = list.split("$crate::__suites! { $harness").nth(1).unwrap();
    let modules = modules.split('}').next().unwrap();
    let mut found = 0;
    for entry in fs::read_dir(src.join("suites")).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("pub async fn ")) {
            let suite = line.split('(').next().unwrap();
            let listed = modules.split(';').find(|m| m.trim().starts_with(&format!("{module}:")));
            let listed = listed.unwrap_or_else(|| panic!("no module `{module}` in conformance!"));
            let (_, names) = listed.split_once(':').unwrap();
            assert!(
                names.split(',').any(|name| name.trim() == suite),
                "{module}::{suite} is not listed"
            );
            found += 1;
        }
    }
    assert!(found > 100, "found {found}");
}

#[tokio::test(start_paused = true)]
async fn the_virtual_clock_follows_paused_time() {
    let clock = Arc::new(VirtualClock::new());
    let start = clock.now();
    time::sleep(Duration::from_secs(3600)).await;
    time::advance(Duration::from_secs(1)).await;
    assert_eq!(clock.now().since(start), Duration::from_secs(3601));
    clock.jump(-3_600_000);
    assert_eq!(clock.now().since(start), Duration::from_secs(1));
}

#[test]
fn the_manual_clock_is_the_same_on_every_thread() {
    let clock = Arc::new(ManualClock::new());
    let start = clock.now();
    let other = Arc::clone(&clock);
    thread::spawn(move || other.advance(Duration::from_millis(5)))
        .join()
        .unwrap();
    assert_eq!(clock.now().since(start), Duration::from_millis(5));
    clock.set(start);
    assert_eq!(clock.now(), start);
}

#[tokio::test(start_paused = true)]
async fn faults_add_up_until_they_are_used() {
    let clock = Arc::new(VirtualClock::new());
    let (store, faults) = Faults::wrap(&Memory::with_clock(clock.clone()).into());
    let call = || envelope::service(&*clock, "target", "acme");
    let enqueue = || store.dispatch.enqueue(vec![Enqueue::queued(call())]);
    let waiting = || async { store.dispatch.admin().unwrap().stats().await.unwrap()[0].ready };
    faults.fail_next(Method::Enqueue, 2, When::Before);
    faults.fail(Method::Enqueue, 4, When::After);
    faults.delay(Method::Enqueue, 3, Duration::from_secs(7));
    let mut answers = Vec::new();
    let start = time::Instant::now();
    for _ in 0..5 {
        assert!(faults.pending() || answers.len() == 4);
        answers.push(enqueue().await.is_ok());
    }
    assert_eq!(answers, [false, false, true, false, true]);
    assert_eq!(start.elapsed(), Duration::from_secs(7));
    assert_eq!(waiting().await, 3, "the fourth was written");
    faults.fail_all(Method::Recall, When::Before);
    faults.fail_all(Method::Ended, When::After);
    let target = TargetId::new("target").unwrap();
    for _ in 0..3 {
        assert!(store.dispatch.admin().unwrap().recall(&target).await.is_err());
        assert!(store.dispatch.ended(&[]).await.is_err());
    }
    assert!(!faults.pending(), "these have no end of their own");
    faults.down(When::Before);
    assert!(store.dispatch.admin().unwrap().stats().await.is_err());
    assert!(enqueue().await.is_err());
    faults.up();
    assert!(store.dispatch.ended(&[]).await.is_ok());
    assert_eq!((waiting().await, faults.calls(Method::Enqueue)), (3, 6));
}

/// Without the guard the timeout would elapse at once, while the thread is still being started.
#[tokio::test(start_paused = true)]
async fn held_time_waits_for_a_thread() {
    let start = time::Instant::now();
    let held = hold_time();
    for n in 0..20 {
        let (answer, work) = oneshot::channel();
        let thread = thread::spawn(move || answer.send(n).unwrap());
        let got = time::timeout(Duration::from_secs(30), work).await;
        assert_eq!(got.expect("no time passes").unwrap(), n);
        thread.join().unwrap();
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(held);
    time::sleep(Duration::from_secs(30)).await;
    assert_eq!(start.elapsed(), Duration::from_secs(30), "time goes on");
}
