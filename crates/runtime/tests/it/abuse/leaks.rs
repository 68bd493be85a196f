//! That nothing of a run stays with the host.

use super::{Host, levels, python, shell};
use crate::{
    machine::alone,
    processes,
    scripts::{limits, spec},
};
use crosspoint_core::{CustomerId, Isolation, Protocol, Runner, Script, StopReason};
use crosspoint_runtime::SandboxOptions;
use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

fn entries(path: impl AsRef<Path>) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

/// Folders of control groups whose names are of this library's making.
fn groups(below: &Path) -> usize {
    let Ok(found) = fs::read_dir(below) else { return 0 };
    let folders = found
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders
        .map(|entry| usize::from(entry.file_name().to_string_lossy().contains("crosspoint")) + groups(&entry.path()))
        .sum()
}

/// Processes below this one: how many there are, how many are dead and unreaped, and how many namespaces they are in.
fn descendants() -> (usize, usize, usize) {
    let all = processes::all();
    let below: Vec<_> = processes::below(&all).collect();
    let spaces = below.iter().flat_map(|(pid, ..)| {
        let links = fs::read_dir(format!("/proc/{pid}/ns")).into_iter().flatten().flatten();
        links.filter_map(|link| fs::read_link(link.path()).ok())
    });
    let spaces: std::collections::BTreeSet<_> = spaces.collect();
    (
        below.len(),
        below.iter().filter(|(_, process, _)| process.is_zombie()).count(),
        spaces.len(),
    )
}

/// Everything that could be more afterwards.
fn count(parent: &Path) -> BTreeMap<&'static str, usize> {
    let (below, dead, spaces) = descendants();
    BTreeMap::from([
        ("descriptors", entries("/proc/self/fd")),
        ("threads", entries("/proc/self/task")),
        (
            "mounts",
            fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
        ),
        ("control groups", groups(Path::new("/sys/fs/cgroup"))),
        ("processes", below),
        ("zombies", dead),
        ("namespaces", spaces),
        ("folders", entries(parent)),
    ])
}

/// One run of many kinds.
async fn once(host: &Host, level: Isolation, n: usize, parent: &Path) {
    let script = match n % 10 {
        0 => shell(level, "exit 1"),
        1 => shell(
            level,
            "S=$(setsid true 2>/dev/null && echo setsid); ($S sleep 600 >/dev/null 2>&1 &); exit 75",
        ),
        2 => shell(level, "head -c 300000 /dev/zero; mkdir -p a/b/c; mkfifo f"),
        3 => Script::inline("sh", "read -r start; exit 0")
            .isolation(level)
            .protocol(Protocol::Framed),
        4 => Script::command("/nowhere", Vec::<String>::new()).isolation(level),
        5 => shell(level, "sleep 600"),
        6 => python(level, "import os\nfor _ in range(5):\n  if os.fork() == 0: os._exit(0)"),
        _ => shell(level, "echo '{}' > \"$XP_RESULT_FILE\""),
    };
    // At `process` what left the group lives on: that is another test.
    let script = if level == Isolation::Process && n % 10 == 1 {
        shell(level, "kill -9 $$")
    } else {
        script
    };
    let mut spec = spec(script, &*host.clock);
    spec.customer = CustomerId::new(format!("c{}", n % 7)).unwrap();
    spec.limits = limits(|limits| limits.processes = 32);
    let runner = host.runner.clone().folders_in(parent);
    let mut run = match runner.start(spec).await {
        Ok(run) => run,
        Err(error) => {
            assert_eq!(n % 10, 4, "{level}: one of many that start at once is refused: {error}");
            return;
        }
    };
    match n % 20 {
        5 => drop(run),
        15 => {
            run.cancel(StopReason::Cancelled, Duration::ZERO).await;
            run.wait().await;
        }
        _ => drop(run.wait().await),
    }
}

/// In a process of its own, where nothing else opens and closes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_runs_leave_nothing() {
    if !alone("abuse::leaks::many_runs_leave_nothing") {
        return;
    }
    let long = std::env::var_os("CROSSPOINT_LONG").is_some_and(|v| v == "1");
    let runs = if long { 10_000 } else { 300 };
    let parent = tempfile::tempdir().unwrap();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut host = Host::new();
    host.runner = host
        .runner
        .sandbox(SandboxOptions::new().networks(4).reuse_networks(4, 1000));
    for level in levels().await {
        for n in 0..40 {
            once(&host, level, n, parent.path()).await;
        }
        let before = settled(parent.path(), None).await;
        for n in 0..runs / 10 {
            let ten = (0..10).map(|m| once(&host, level, n * 10 + m, parent.path()));
            futures(ten).await;
        }
        let after = settled(parent.path(), Some(&before)).await;
        eprintln!("{level}, {runs} runs: {before:?} became {after:?}");
        for (what, now) in &after {
            // Ready networks are made ahead and kept, so many as the options say; threads for blocking work stay for seconds.
            let slack = match *what {
                "descriptors" => 8,
                "threads" => 16,
                "processes" => 1,
                // The two spawners and the maker of networks go from one network to the next.
                "namespaces" => 4,
                _ => 0,
            };
            assert!(
                *now <= before[what] + slack,
                "{level}: {what}: {before:?} became {after:?}"
            );
        }
        assert_eq!(after["zombies"], 0, "{level}");
        assert_eq!(after["folders"], 0, "{level}");
    }
}

/// All of them, side by side.
async fn futures(all: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// The counts once they no longer fall, after dropped runs have ended.
async fn settled(parent: &Path, before: Option<&BTreeMap<&'static str, usize>>) -> BTreeMap<&'static str, usize> {
    let mut last = count(parent);
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = count(parent);
        let done = before.is_none_or(|before| now.iter().all(|(what, n)| n <= &before[what]));
        if now == last && done {
            return now;
        }
        last = now;
    }
    last
}
