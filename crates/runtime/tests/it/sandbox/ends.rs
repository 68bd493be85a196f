//! How runs end, and that nothing of them stays.

use super::*;
use crate::{machine::alone, processes};
use crosspoint_runtime::bare::Cause;
use rustix::process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior};

pub(crate) const LEVELS: [Isolation; 2] = [SANDBOXED, Isolation::Confined];

/// Waits until no process of the machine has the text in its command line.
pub(crate) async fn gone(text: &str) -> bool {
    for _ in 0..400 {
        if processes_with(text) == 0 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        if read("cmdline").split('\0').any(|word| word == text) {
            let limits = read("limits");
            let mark = limits.lines().find(|line| line.starts_with("Max realtime timeout"));
            eprintln!("it is there still: {} {mark:?} {}", read("stat"), read("wchan"));
        }
    }
    false
}

#[tokio::test]
async fn a_grandchild_that_lost_its_parent_ends_with_the_run() {
    for level in LEVELS {
        let mark = unusual();
        let script = format!("((setsid sleep {mark} || sleep {mark}) >/dev/null 2>&1 &) ; sleep 0.2; echo started");
        let told = confined::run_at(level, shell(&script)).await;
        assert_eq!(told.out, "started\n", "{level}");
        assert_eq!(processes_with(&mark), 0, "{level}: not even for an instant");
    }
}

#[tokio::test]
async fn a_kill_takes_the_whole_tree() {
    for level in LEVELS {
        let mark = unusual();
        let script = format!(
            "for i in 1 2 3 4 5; do (sleep {mark} &) & done; trap '' TERM; echo ready; while :; do sleep {mark}; done"
        );
        let folder = confined::Folder::new();
        let mut child = sandbox()
            .launch(level, folder.at(level, shell(&script)), &customer("acme"))
            .await
            .unwrap();
        let mut word = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut word).await.unwrap();
        child.kill();
        let ended = child.wait().await.unwrap();
        assert_eq!(ended.cause, Cause::Killed, "{level}");
        assert_eq!(processes_with(&mark), 0, "{level}");
    }
}

/// Of a chain of processes, each of which starts the next one and ends, a look at all processes may see none.
#[tokio::test]
async fn a_chain_of_processes_ends_with_its_run() {
    if !has("perl") {
        return;
    }
    let subreaper = libc::SYS_prctl;
    for level in LEVELS {
        for _ in 0..6 {
            let mark = unusual();
            // The first process adopts the links and forgets them; the chain goes on past its end, and then stays.
            let script = format!(
                "syscall({subreaper}, 36, 1, 0, 0, 0); $SIG{{CHLD}} = 'IGNORE'; if (!fork) {{ for (1..1500) {{ my $p = fork; \
                 next if !defined $p; exit if $p }} close STDOUT; close STDERR; sleep 600 }} select undef, undef, undef, 0.2"
            );
            let mut job = perl(&script);
            job.args.push(mark.clone().into());
            let told = confined::run_at(level, job).await;
            assert!(told.ended.status.success(), "{level}: {told:?}");
            assert_eq!(processes_with(&mark), 0, "{level}");
        }
    }
}

/// Whoever starts a run may give up just when it has begun: nobody is there to watch it then.
#[tokio::test]
async fn a_start_that_is_given_up_too_late_is_a_killed_run() {
    for level in LEVELS {
        let (mark, folder, sandbox) = (unusual(), confined::Folder::new(), sandbox());
        let job = |text: &str| folder.at(level, shell(text));
        let acme = customer("acme");
        finish(&mut sandbox.launch(level, job("true"), &acme).await.unwrap()).await;
        let (mut begun, mut tries) = (false, 0);
        while !begun {
            tries += 1;
            assert!(tries < 100, "{level}: it has never begun");
            let mut launch = Box::pin(sandbox.launch(level, job(&format!("sleep {mark} & sleep {mark}")), &acme));
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(launch.as_mut().poll(cx))).await;
            if polled.is_ready() {
                // The other thread was faster.
                continue;
            }
            // This thread alone would take the answer, and does not.
            for look in 0..200 {
                let there = processes_with(&mark) > 1;
                begun |= there && look > 20;
                if begun {
                    break;
                }
            }
        }
        assert!(gone(&mark).await, "{level}");
    }
}

#[tokio::test]
async fn a_dropped_run_is_a_killed_run() {
    for level in LEVELS {
        let mark = unusual();
        let folder = confined::Folder::new();
        let job = folder.at(level, shell(&format!("sleep {mark} & sleep {mark}")));
        let sandbox = sandbox();
        let child = sandbox.launch(level, job, &customer("acme")).await.unwrap();
        drop(child);
        assert!(gone(&mark).await, "{level}");
    }
}

#[tokio::test]
async fn a_run_is_asked_only_if_it_listens() {
    let sandbox = sandbox();
    let mut child = sandbox
        .launch(
            SANDBOXED,
            shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"),
            &customer("acme"),
        )
        .await
        .unwrap();
    let mut word = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut word).await.unwrap();
    assert!(child.ask());
    let told = finish(&mut child).await;
    assert_eq!((told.ended.status.code(), &*told.out), (Some(7), "bye\n"));

    let mut deaf = sandbox
        .launch(SANDBOXED, shell("echo ready; exec sleep 600"), &customer("acme"))
        .await
        .unwrap();
    deaf.stdout.as_mut().unwrap().read_exact(&mut word).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!deaf.ask());
    assert_eq!(deaf.wait().await.unwrap().cause, Cause::Killed);
}

#[tokio::test]
async fn a_crash_is_told_from_an_exit() {
    let sandbox = sandbox();
    // The first process of a namespace cannot signal itself; another one can.
    let crash = run(&sandbox, SANDBOXED, shell("sh -c 'kill -SEGV $$'; exit $?")).await;
    assert_eq!(
        (crash.ended.cause, crash.ended.status.code()),
        (Cause::Exited, Some(139))
    );
    if has("perl") {
        let crash = run(&sandbox, SANDBOXED, perl("unpack('p', pack('J', 8))")).await;
        assert_eq!(crash.ended.cause, Cause::Crashed, "{crash:?}");
    }
}

pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Processes that have ended and that nobody reaped, among those that this process is an ancestor of.
pub(crate) fn zombies() -> Vec<String> {
    let all = processes::all();
    processes::below(&all)
        .filter(|(_, process, _)| process.is_zombie())
        .map(|(pid, process, _)| format!("{pid} {process:?}"))
        .collect()
}

/// Control groups of runs of this process.
fn groups() -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut rest = vec![std::path::PathBuf::from("/sys/fs/cgroup")];
    let own = format!("crosspoint-{}", std::process::id());
    while let Some(folder) = rest.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if folder.ends_with(&own) || path.to_string_lossy().contains(&format!("{own}-")) {
                found.push(path.clone());
            }
            rest.push(path);
        }
    }
    found
}

/// Runs in a process of its own, where nothing else opens and closes.
#[tokio::test]
async fn a_thousand_runs_leave_nothing_behind() {
    if !alone("sandbox::ends::a_thousand_runs_leave_nothing_behind") {
        return;
    }
    for level in LEVELS {
        let sandbox = Sandbox::new(SandboxOptions::new().networks(4).reuse_networks(4, 1000));
        let once = async |n: usize| {
            let folder = confined::Folder::new();
            let mut job = folder.at(level, Job::new(if n % 10 == 9 { "/nowhere" } else { "/bin/true" }));
            job.network = level == SANDBOXED && n.is_multiple_of(3);
            match sandbox.launch(level, job, &customer(&format!("c{}", n % 4))).await {
                Ok(mut child) if n.is_multiple_of(2) => drop(child.wait().await.unwrap()),
                Ok(child) => drop(child),
                Err(_) => {}
            }
        };
        for n in 0..50 {
            once(n).await;
        }
        // Networks are made ahead, beside all else: until they are, there is less than there will be.
        let mut before = descriptors();
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            before = before.max(descriptors());
        }
        for n in 0..1000 {
            once(n).await;
        }
        // What is left is closed, reaped and removed beside all else.
        let mut left = (descriptors(), zombies(), groups());
        for _ in 0..600 {
            if left.0 <= before + 4 && left.1.is_empty() && left.2.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            left = (descriptors(), zombies(), groups());
        }
        assert!(left.0 <= before + 4, "{level}: {before} descriptors became {}", left.0);
        assert_eq!((left.1, left.2), (Vec::new(), Vec::new()), "{level}");
    }
}

/// The host of the next test: starts runs, says so, and waits to be killed.
#[tokio::test]
async fn a_host_that_is_killed() {
    let Some(mark) = machine::mark() else {
        return;
    };
    let sandbox = sandbox();
    let mut children = Vec::new();
    let mut folders = Vec::new();
    for level in LEVELS {
        for _ in 0..5 {
            let folder = confined::Folder::new();
            let job = folder.at(level, shell(&format!("(sleep {mark} &); echo up; sleep {mark}")));
            let mut child = sandbox.launch(level, job, &customer("acme")).await.unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).await.unwrap();
            children.push(child);
            folders.push(folder);
        }
    }
    println!("\nup {mark}");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn no_run_outlives_its_host() {
    let mark = unusual();
    let mut host = machine::host("sandbox::ends::a_host_that_is_killed", &mark);
    assert!(processes_with(&mark) >= 10);
    host.kill().unwrap();
    host.wait().unwrap();
    assert!(gone(&mark).await, "{} processes live on", processes_with(&mark));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_all_run_and_the_host_can_still_be_dumped() {
    // The mark belongs to the process.
    if !alone("sandbox::ends::many_at_once_all_run_and_the_host_can_still_be_dumped") {
        return;
    }
    let sandbox = sandbox();
    let before = dumpable_behavior().unwrap();
    for level in LEVELS {
        let runs: Vec<_> = (0..8)
            .map(|caller| {
                let sandbox = sandbox.clone();
                tokio::spawn(async move {
                    for _ in 0..25 {
                        let folder = confined::Folder::new();
                        let job = folder.at(level, Job::new("/bin/true"));
                        let mut child = sandbox
                            .launch(level, job, &customer(&format!("c{caller}")))
                            .await
                            .unwrap();
                        assert!(child.wait().await.unwrap().status.success());
                    }
                })
            })
            .collect();
        for run in runs {
            run.await.unwrap();
        }
    }
    assert_eq!(dumpable_behavior().unwrap(), before);
}

#[tokio::test]
async fn a_sandbox_that_is_made_beside_a_start_of_another_leaves_the_host_as_it_was() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: an ordinary user's runs do not change their user");
        return;
    }
    if !alone("sandbox::ends::a_sandbox_that_is_made_beside_a_start_of_another_leaves_the_host_as_it_was") {
        return;
    }
    let run = async |sandbox: Sandbox| {
        let job = Job::new("/bin/true");
        let mut child = sandbox.launch(SANDBOXED, job, &customer("acme")).await.unwrap();
        assert!(child.wait().await.unwrap().status.success());
    };
    run(sandbox()).await;
    // What a spawner does to the host's memory for an instant.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).unwrap();
    run(sandbox()).await;
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
}

/// The kernel frees a tmpfs in whoever closes it last: a task that is in nobody's way.
#[tokio::test]
async fn what_a_run_leaves_in_memory_is_freed_by_the_sweeper() {
    if !alone("sandbox::ends::what_a_run_leaves_in_memory_is_freed_by_the_sweeper") {
        return;
    }
    let sandbox = Sandbox::new(SandboxOptions::new().spawners(1));
    let fill = async || {
        let mut job = shell("head -c 100000000 /dev/zero > left; echo done");
        (job.limits.memory, job.limits.disk) = (512 << 20, 256 << 20);
        let mut child = sandbox.launch(SANDBOXED, job, &customer("acme")).await.unwrap();
        assert_eq!(finish(&mut child).await.out, "done\n");
        child
    };
    let mut held = fill().await;
    let sweeper = killed::helpers("crosspoint-swe", 1)[0];
    let session = rustix::process::getsid(Some(sweeper)).unwrap();
    assert_eq!(session, sweeper, "a session of its own");
    let used = || {
        let schedule = std::fs::read_to_string(format!("/proc/{}/schedstat", sweeper.as_raw_pid())).unwrap();
        let nanos: u64 = schedule.split(' ').next().unwrap().parse().unwrap();
        Duration::from_nanos(nanos)
    };
    let before = used();
    for _ in 0..4 {
        // What was mounted is gone, and the host has the last descriptor, when the next run has ended.
        held = fill().await;
    }
    drop(held);
    // A page takes the kernel more than 30 ns, and there are 100,000 of them.
    for _ in 0..2000 {
        if used() > before + Duration::from_millis(3) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("somebody else has done it: {:?}", used().saturating_sub(before));
}
