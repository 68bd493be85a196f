//! The spawn core by itself: what a run can see, reach and use, at each level, for root and for an ordinary user.

mod confined;
mod ends;
mod files;
mod inside;
mod killed;
mod limits;
mod network;
mod ordinary;
mod probe;

use crate::machine::{self, has};
use crosspoint_core::{CustomerId, Isolation};
use crosspoint_runtime::bare::{Child, Ended, Job, Sandbox, SandboxOptions};
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::io::AsyncReadExt;

pub(crate) const SANDBOXED: Isolation = Isolation::Sandboxed;

pub(crate) fn customer(name: &str) -> CustomerId {
    CustomerId::new(name).unwrap()
}

pub(crate) fn sandbox() -> Sandbox {
    Sandbox::new(SandboxOptions::new())
}

pub(crate) fn shell(script: &str) -> Job {
    program("/bin/sh", &["-c", script])
}

pub(crate) fn perl(script: &str) -> Job {
    program("/usr/bin/perl", &["-e", script])
}

pub(crate) fn program(file: &str, args: &[&str]) -> Job {
    let mut job = Job::new(file);
    job.args = args.iter().map(Into::into).collect();
    job.env = vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())];
    job
}

/// Marks processes of one test, so that it can look for them on the whole machine: a number to sleep for.
pub(crate) fn unusual() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}.{number}", 100_000 + std::process::id())
}

/// Processes of this machine whose command line holds the text.
pub(crate) fn processes_with(text: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let line = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
    let lines = entries.filter_map(line);
    lines
        .filter(|line| String::from_utf8_lossy(line).split('\0').any(|word| word == text))
        .count()
}

/// What a run wrote, and how it ended.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) ended: Ended,
}

/// Reads both outputs to their ends.
pub(crate) async fn finish(child: &mut Child) -> Told {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let all = async {
        let (one, two) = tokio::join!(stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
        one.and(two).unwrap();
        child.wait().await.unwrap()
    };
    let ended = tokio::time::timeout(Duration::from_secs(120), all)
        .await
        .expect("a run ends");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Told {
        out: text(&out),
        err: text(&err),
        ended,
    }
}

pub(crate) async fn run(sandbox: &Sandbox, level: Isolation, job: Job) -> Told {
    let mut child = sandbox.launch(level, job, &customer("acme")).await.unwrap();
    finish(&mut child).await
}

/// Runs a script sandboxed and gives what it wrote to standard output.
pub(crate) async fn told(job: Job) -> String {
    let told = run(&sandbox(), SANDBOXED, job).await;
    assert!(told.ended.status.success(), "{told:?}");
    told.out
}
