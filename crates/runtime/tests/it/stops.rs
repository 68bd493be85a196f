//! Scripts that are stopped. Every wait is for something that the script does.

use crate::{
    scripts::{demo, install, limits, sh, start, succeeded, texts},
    world::{ACME, World, scope},
};
use crosspoint_core::{Cancel, Control, ExecutionStatus, Limits, RunEnd, StopReason};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

/// A FIFO: whoever opens it for reading waits until somebody has opened it for writing, and the other way round.
pub(crate) struct Fifo {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Fifo {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        Self { _folder: folder, path }
    }

    pub(crate) fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// Reads until every writer has closed it.
    pub(crate) async fn read(&self) -> String {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap())
            .await
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_kills_the_whole_group() {
    // Each process of the tree ignores SIGTERM and holds the FIFO open; it ends for the reader when all are dead.
    let fifo = Fifo::new();
    let text = r"
        trap '' TERM
        (trap '' TERM; (trap '' TERM; while :; do sleep 1000; done) & while :; do sleep 1000; done) &
        echo all here
        while :; do sleep 1000; done
    ";
    let script = sh(&format!("exec 9> '{}'; echo started >&9\n{text}", fifo.path()));
    let short = limits(|l| {
        l.wall_ms = 5_000;
        l.grace_ms = 100;
    });
    let mut handle = start(script, short).await.unwrap();
    let (outcome, seen) = tokio::join!(handle.wait(), fifo.read());
    assert!(
        matches!(outcome.end, RunEnd::Stopped(StopReason::Deadline)),
        "{outcome:?}"
    );
    assert_eq!(seen, "started\n");
    assert_eq!(texts(&outcome), ["all here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_may_save_its_cursor_when_it_is_told_to_stop() {
    let fifo = Fifo::new();
    let text = format!(
        r#"
        trap 'echo 7 > "$XP_STATE_OUT"; exit 0' TERM
        echo ready > '{}'
        while :; do sleep 0.02; done
        "#,
        fifo.path()
    );
    for (why, state) in [(StopReason::Draining, Some(json!(7))), (StopReason::Cancelled, None)] {
        let mut handle = start(sh(&text), Limits::default()).await.unwrap();
        assert_eq!(fifo.read().await, "ready\n");
        handle.cancel(why, Duration::from_secs(60)).await;
        let outcome = handle.wait().await;
        match &outcome.end {
            RunEnd::Succeeded(_) => assert_eq!(why, StopReason::Draining),
            RunEnd::Stopped(reason) => assert_eq!((*reason, why), (StopReason::Cancelled, StopReason::Cancelled)),
            other => panic!("{other:?}"),
        }
        assert_eq!(outcome.state, state);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_script_is_cancelled() {
    let fifo = Fifo::new();
    let script = sh(&format!(
        "echo 1 > \"$XP_STATE_OUT\"; echo here > '{}'; exec sleep 1000",
        fifo.path()
    ));
    let world = World::new([demo(script)]);
    let installation = install(&world, json!({})).await;
    let id = world.call(&installation, "go", Value::Null).await;
    let (_stop, handled) = world.deliver(&world.lease().await.unwrap());
    let task = tokio::spawn(handled);
    assert_eq!(fifo.read().await, "here\n");
    assert_eq!(world.runtime.cancel(&scope(ACME), id).await.unwrap(), Cancel::Requested);
    assert_eq!(task.await.unwrap().unwrap().status(), 409);
    assert_eq!(world.execution(id).await.status, ExecutionStatus::Cancelled);
    assert_eq!(world.state(&installation, "go").await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_run_kills_it() {
    let fifo = Fifo::new();
    let script = sh(&format!("exec 9> '{}'; echo here >&9; sleep 1000 & wait", fifo.path()));
    let handle = start(script, Limits::default()).await.unwrap();
    let reader = tokio::spawn({
        let path = fifo.path.clone();
        async move {
            use tokio::io::AsyncReadExt;
            let mut pipe = tokio::net::unix::pipe::OpenOptions::new().open_receiver(path).unwrap();
            let mut first = [0; 5];
            pipe.readable().await.unwrap();
            pipe.read_exact(&mut first).await.unwrap();
            (pipe, first)
        }
    });
    let (mut pipe, first) = reader.await.unwrap();
    assert_eq!(&first, b"here\n");
    drop(handle);
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut pipe, &mut rest)
        .await
        .unwrap();
    assert!(rest.is_empty(), "both processes are gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_script_leaves_running_ends_with_it() {
    let fifo = Fifo::new();
    let script = sh(&format!("exec 9> '{}'; sleep 1000 & echo left $! >&9", fifo.path()));
    let mut handle = start(script, Limits::default()).await.unwrap();
    let (outcome, seen) = tokio::join!(handle.wait(), fifo.read());
    succeeded(&outcome);
    assert!(seen.starts_with("left "), "{seen}");
}
