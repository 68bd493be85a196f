//! Somebody kills the host's helper tasks: nothing waits for ever, and the next runs find new ones.

use super::{
    ends::{LEVELS, descriptors, gone, zombies},
    *,
};
use crate::{
    machine::alone,
    processes::{self, Process},
};
use crosspoint_core::{Code, Retry, Runner, Script, SystemClock};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, kill_process},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Helper tasks of this process whose name starts so, the newest last. At depth 1 are its own children, at 2 theirs: those in
/// the ready namespaces, whose parents have led there. Below them are runs, which have the name for as long as they are
/// being started.
pub(super) fn helpers(name: &str, at: usize) -> Vec<Pid> {
    let all = processes::all();
    // A dead one leads to nobody who lives.
    let all = all.into_iter().filter(|(_, process)| !process.is_zombie()).collect();
    let mut named: Vec<_> = processes::below(&all)
        .filter(|(_, process, depth)| process.name.starts_with(name) && *depth == at)
        .map(|(pid, process, _)| (process.start, pid))
        .collect();
    // Numbers begin again when they are used up.
    named.sort_unstable();
    named.into_iter().filter_map(|(_, pid)| Pid::from_raw(pid)).collect()
}

/// The same, when there are so many: one that did not start what runs may not be there yet.
async fn helpers_when(name: &str, at: usize, count: usize) -> Vec<Pid> {
    let there = async {
        loop {
            let all = helpers(name, at);
            if all.len() >= count {
                break all;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let all = tokio::time::timeout(Duration::from_secs(10), there).await;
    all.unwrap_or_else(|_| panic!("{name}: {:?} are there, not {count}", helpers(name, at)))
}

fn about(pid: Pid) -> Option<Process> {
    Process::of(pid.as_raw_pid())
}

/// Waits until no helper has anything to do: the end of one may be the end of others, wherever they are.
async fn all_wait() {
    let busy = || {
        let all = processes::all();
        let mut helpers = processes::below(&all).filter(|(_, process, _)| process.name.starts_with("crosspoint-"));
        helpers.any(|(_, process, _)| !matches!(process.state, 'S' | 'Z'))
    };
    let rest = async {
        while busy() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let rest = tokio::time::timeout(Duration::from_secs(60), rest).await;
    rest.expect("helpers have something to do for a minute");
}

/// Kills a helper that has nothing to do but to wait: one that is busy, with its own beginning, say, leaves things behind.
async fn kill(pid: Pid) {
    let state = || Some(about(pid)?.state);
    while state().is_some_and(|state| !matches!(state, 'S' | 'Z')) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // It may have ended with the one before.
    kill_process(pid, Signal::KILL).ok();
    while state().is_some_and(|state| state != 'Z') {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Calls that a task may make with a lock of the allocator's or of another library's.
const LOCKED: [i64; 7] = [
    libc::SYS_futex,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
];

/// Kills a helper in the middle of something, but in a system call that it makes without a lock: one that it had would be
/// lost with it, for the whole host.
async fn kill_in_a_call(pid: Pid) {
    loop {
        if kill_process(pid, Signal::STOP).is_err() {
            return;
        }
        loop {
            match about(pid).map(|process| process.state) {
                // It waits for its child, which leaves its memory, or not.
                Some('T' | 'D') => break,
                None | Some('Z') => return,
                Some(_) => tokio::task::yield_now().await,
            }
        }
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", pid.as_raw_pid())).unwrap_or_default();
        let call = call.split(' ').next().and_then(|number| number.parse().ok());
        if call.is_some_and(|number: i64| number >= 0 && !LOCKED.contains(&number)) {
            kill_process(pid, Signal::KILL).ok();
            return;
        }
        kill_process(pid, Signal::CONT).ok();
        tokio::task::yield_now().await;
    }
}

/// Whether a run works; one that was being started when its spawner was killed may be tried again.
async fn works(sandbox: &Sandbox, level: Isolation, folder: &confined::Folder) -> bool {
    match sandbox
        .launch(level, folder.at(level, shell("echo fine")), &customer("acme"))
        .await
    {
        Ok(mut child) => {
            let mut stdout = child.stdout.take().unwrap();
            let reading = tokio::spawn(async move {
                let mut out = String::new();
                stdout.read_to_string(&mut out).await.unwrap();
                out
            });
            match child.wait().await {
                Ok(ended) => {
                    let out = reading.await.unwrap();
                    assert!(ended.status.success() && out == "fine\n", "{ended:?}: {out}");
                    true
                }
                Err(error) => {
                    // A spawner that was killed in the middle of something has left the other end open for good.
                    reading.abort();
                    assert_eq!(error.retry(), Retry::Backoff, "{error:?}");
                    false
                }
            }
        }
        Err(error) => {
            assert_eq!(
                (error.code(), error.retry()),
                (Code::ScriptNotStarted, Retry::Backoff),
                "{error:?}"
            );
            false
        }
    }
}

/// A supervised run whose spawner somebody kills fails in a way that is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_spawner_is_killed_may_be_tried_again() {
    if !alone("sandbox::killed::a_run_whose_spawner_is_killed_may_be_tried_again") {
        return;
    }
    let clock: Arc<SystemClock> = Arc::default();
    let runner = machine::runner(clock.clone());
    for (level, depth) in [(SANDBOXED, 2), (confined::CONFINED, 1)] {
        let script = Script::inline("sh", "sleep 600").isolation(level);
        let mut run = runner.start(crate::scripts::spec(script, &*clock)).await.unwrap();
        for one in helpers("crosspoint-sp", depth) {
            kill(one).await;
        }
        let outcome = tokio::time::timeout(Duration::from_secs(30), run.wait()).await;
        let (code, retry) = crate::scripts::failure(&outcome.expect("its end is told"));
        assert_eq!((code, retry), (Code::ScriptCrashed, Retry::Backoff), "{level}");
    }
}

/// What descriptors are open, of each kind how many.
fn links() -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let link = std::fs::read_link(entry.path()).unwrap_or_default();
        let kind = link
            .to_string_lossy()
            .replace("anon_inode:[", "")
            .split(":[")
            .next()
            .unwrap_or_default()
            .to_owned();
        *all.entry(kind).or_default() += 1;
    }
    all
}

/// Each kind of helper is killed while it has nothing to do but to wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_helper_is_replaced_and_leaves_nothing() {
    if !alone("sandbox::killed::a_killed_helper_is_replaced_and_leaves_nothing") {
        return;
    }
    for level in LEVELS {
        let sandbox = Sandbox::new(SandboxOptions::new().networks(2));
        let folder = confined::Folder::new();
        // A spawner in namespaces, the one that led it there, and so on.
        let victims: &[(&str, usize)] = match level {
            SANDBOXED => &[
                ("crosspoint-sp", 2),
                ("crosspoint-sp", 1),
                ("crosspoint-net", 2),
                ("crosspoint-net", 1),
                ("crosspoint-init", 1),
                ("crosspoint-swe", 1),
            ],
            _ => &[("crosspoint-sp", 1), ("crosspoint-swe", 1)],
        };
        let mut before = None;
        for _ in 0..5 {
            for (name, depth) in victims {
                let mark = unusual();
                let script = format!("echo up; (sleep {mark} &); sleep {mark}");
                let job = || folder.at(level, shell(&script));
                let mut child = match sandbox.launch(level, job(), &customer("acme")).await {
                    // It may have found the last victim before its death was heard of.
                    Err(error) if error.retry() == Retry::Backoff => {
                        sandbox.launch(level, job(), &customer("acme")).await.unwrap()
                    }
                    launched => launched.unwrap(),
                };
                child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).await.unwrap();
                // Either spawner may have started it.
                let count = if *name == "crosspoint-sp" { 2 } else { 1 };
                let all = helpers_when(name, *depth, count).await;
                all_wait().await;
                for one in all.iter().rev().take(count) {
                    kill(*one).await;
                }
                if ["crosspoint-net", "crosspoint-swe"].contains(name) {
                    // What runs goes on.
                    child.kill();
                    child.wait().await.unwrap();
                } else {
                    let end = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
                    let end = end.unwrap_or_else(|_| panic!("{level}, {name}: its end is not told"));
                    assert!(end.is_err(), "{level}, {name}: nobody knows how");
                }
                drop(child);
                assert!(gone(&mark).await, "{level}, {name}: a run outlived it");
                let mut again = 0;
                while !works(&sandbox, level, &folder).await {
                    again += 1;
                    assert!(again < 100, "{level}, {name}: nothing works any more");
                }
            }
            // What is left is closed beside all else, what the guards of the last crew had a moment later.
            const MOMENT: usize = 3;
            let mut now = descriptors();
            for _ in 0..400 {
                if before.is_some_and(|first| now <= first + MOMENT) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(if before.is_none() { 2 } else { 25 })).await;
                now = descriptors();
            }
            let first = *before.get_or_insert(now);
            assert!(
                now <= first + MOMENT,
                "{level}: {first} descriptors became {now}: {:?}",
                links()
            );
        }
        // Those that were killed last are reaped beside all else.
        for _ in 0..400 {
            if zombies().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(zombies(), Vec::<String>::new(), "{level}");
    }
}

/// Threads of this process that lend spawners their storage.
fn lenders() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("crosspoint-sp") {
            all.insert(entry.file_name().into_string().unwrap());
        }
    }
    all
}

/// Stops a child that is still in the memory of its spawner. Spawners are at this depth.
async fn stop_a_child(depth: usize) -> Pid {
    let children = |spawner: Pid| {
        let spawner = spawner.as_raw_pid();
        let all = std::fs::read_to_string(format!("/proc/{spawner}/task/{spawner}/children"));
        // Not every kernel has it.
        let Ok(all) = all else {
            return helpers("crosspoint-sp", depth + 1);
        };
        let all = all
            .split_whitespace()
            .filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
        all.collect::<Vec<_>>()
    };
    loop {
        // They come one by one, and one of them may start all.
        let spawners = helpers("crosspoint-sp", depth);
        for _ in 0..200 {
            for child in spawners.iter().copied().flat_map(children) {
                kill_process(child, Signal::STOP).ok();
                while about(child).is_some_and(|child| !matches!(child.state, 'T' | 'Z')) {
                    tokio::task::yield_now().await;
                }
                if about(child).is_some_and(|child| child.state == 'T' && child.name.starts_with("crosspoint-sp")) {
                    return child;
                }
                kill_process(child, Signal::CONT).ok();
            }
            tokio::task::yield_now().await;
        }
    }
}

/// Who holds many connections starts runs as fast as who holds none, and what it closes is closed there and then: a child that
/// is being born has copies of the lowest numbers only.
#[tokio::test(flavor = "multi_thread")]
async fn a_child_has_no_copies_of_the_hosts_connections() {
    if !alone("sandbox::killed::a_child_has_no_copies_of_the_hosts_connections") {
        return;
    }
    for (level, depth) in [(SANDBOXED, 2), (confined::CONFINED, 1)] {
        let sandbox = Sandbox::new(SandboxOptions::new().spawners(1));
        assert!(works(&sandbox, level, &confined::Folder::new()).await);
        // There are others that it needs, or that were there before.
        let few = descriptors() + 128;
        let mut held: Vec<_> = (0..few).map(|_| UnixStream::pair().unwrap()).collect();
        let (mine, closed) = held.pop().unwrap();
        let (stop, theirs) = (Arc::new(AtomicBool::new(false)), sandbox.clone());
        let until = Arc::clone(&stop);
        let starting = tokio::spawn(async move {
            let folder = confined::Folder::new();
            while !until.load(Ordering::Relaxed) {
                assert!(works(&theirs, level, &folder).await);
            }
        });
        let mut copied = Vec::new();
        let child = loop {
            assert!(copied.len() < 100, "{level}, {few} are few: {copied:?}");
            let child = tokio::time::timeout(Duration::from_secs(60), stop_a_child(depth)).await;
            let child = child.expect("some child is met in its spawner's memory");
            let theirs = std::fs::read_dir(format!("/proc/{}/fd", child.as_raw_pid()));
            let theirs = theirs.map_or(usize::MAX, Iterator::count);
            // Before it has a table of its own, what it shows is the host's.
            if (1..few).contains(&theirs) {
                break child;
            }
            copied.push(theirs);
            kill_process(child, Signal::CONT).ok();
        };
        drop(closed);
        let mut end = [PollFd::new(&mine, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(poll(&mut end, Some(&now)), Ok(1), "{level}: it is open in the child");
        stop.store(true, Ordering::Relaxed);
        kill_process(child, Signal::CONT).unwrap();
        starting.await.unwrap();
    }
}

/// A child that was being started when its spawner was killed goes on in memory that is nobody else's by then. (A confined one
/// is found by its mark, and hardly ever goes on.)
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_a_killed_spawner_stays_for_its_child() {
    if !alone("sandbox::killed::the_memory_of_a_killed_spawner_stays_for_its_child") {
        return;
    }
    let (sandbox, mut tries) = (sandbox(), 0);
    loop {
        let (stop, theirs) = (Arc::new(AtomicBool::new(false)), sandbox.clone());
        let until = Arc::clone(&stop);
        let starting = tokio::spawn(async move {
            let folder = confined::Folder::new();
            while !works(&theirs, SANDBOXED, &folder).await || !until.load(Ordering::Relaxed) {}
        });
        let child = tokio::time::timeout(Duration::from_secs(60), stop_a_child(2)).await;
        let child = child.expect("some child is met in its spawner's memory");
        let before = lenders();
        stop.store(true, Ordering::Relaxed);
        kill_process(Pid::from_raw(about(child).unwrap().parent).unwrap(), Signal::KILL).unwrap();
        // There are new spawners, and one works.
        starting.await.unwrap();
        let left = || lenders().intersection(&before).count();
        let fewer_than = async |count| {
            let wait = async {
                while left() >= count {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let waited = tokio::time::timeout(Duration::from_secs(30), wait).await;
            waited.expect("spawners end that are no longer needed");
        };
        fewer_than(2).await;
        let stopped = about(child).is_some_and(|child| child.state == 'T');
        if stopped {
            assert_eq!(left(), 1, "somebody waits for the child");
        }
        kill_process(child, Signal::CONT).ok();
        fewer_than(1).await;
        // Otherwise it had gone so far that it was told to end with its spawner.
        if stopped {
            break;
        }
        tries += 1;
        assert!(tries < 100, "it never goes on");
    }
}

/// In whatever system call a spawner is killed, nobody waits for ever, and what could not be started may be tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_spawner_that_is_killed_under_load_stops_nobody() {
    if !alone("sandbox::killed::a_spawner_that_is_killed_under_load_stops_nobody") {
        return;
    }
    for level in LEVELS {
        let sandbox = sandbox();
        let all = async {
            let mut runs = tokio::task::JoinSet::new();
            for _ in 0..8 {
                let sandbox = sandbox.clone();
                runs.spawn(async move {
                    let folder = confined::Folder::new();
                    let mut fine = 0;
                    while fine < 40 {
                        fine += u32::from(works(&sandbox, level, &folder).await);
                    }
                });
            }
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                let depth = if level == SANDBOXED { 2 } else { 1 };
                if let Some(pid) = helpers("crosspoint-sp", depth).last() {
                    kill_in_a_call(*pid).await;
                }
            }
            while let Some(run) = runs.join_next().await {
                run.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(300), all)
            .await
            .expect("nobody waits for ever");
    }
}
