//! What a run may use.

use super::{confined::CONFINED, *};
use crosspoint_runtime::bare::Cause;

#[tokio::test]
async fn files_stop_at_the_limit_of_bytes_and_of_number() {
    let mut job = shell(
        "dd if=/dev/zero of=/w/tmp/big bs=64k count=1024 2>/dev/null; wc -c < /w/tmp/big; rm /w/tmp/big; i=0; \
         while true 2>/dev/null > /w/tmp/$i; do i=$((i+1)); [ $i -gt 9999 ] && break; done; echo $i",
    );
    job.limits.disk = 16 << 20;
    let told = run(&sandbox(), SANDBOXED, job).await;
    let numbers: Vec<u64> = told.out.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!((15 << 20..=16 << 20).contains(&numbers[0]), "{told:?}");
    assert!((4000..=4096).contains(&numbers[1]), "{told:?}");
}

#[tokio::test]
async fn a_fork_bomb_stops_and_disturbs_nobody() {
    if !has("perl") {
        return;
    }
    let sandbox = sandbox();
    let bomb = || {
        let mut job =
            perl("my $n=0; while (1) { my $p = fork(); last unless defined $p; if (!$p) { sleep 60 } $n++ } print $n");
        job.limits.processes = 64;
        job
    };
    let runs = (0..3).map(|n| {
        let (sandbox, job) = (sandbox.clone(), bomb());
        async move {
            let mut child = sandbox
                .launch(SANDBOXED, job, &customer(&format!("c{n}")))
                .await
                .unwrap();
            let mut count = [0; 2];
            let out = child.stdout.as_mut().unwrap();
            tokio::time::timeout(Duration::from_secs(60), out.read_exact(&mut count))
                .await
                .unwrap()
                .unwrap();
            child.wait().await.unwrap();
            String::from_utf8_lossy(&count).into_owned()
        }
    });
    let runs: Vec<_> = runs.map(tokio::spawn).collect();
    for run in runs {
        assert_eq!(run.await.unwrap(), "63");
    }
}

#[tokio::test]
async fn descriptors_and_cores_are_limited() {
    let mut job = shell("ulimit -n; ulimit -c; ulimit -s");
    job.limits.open_files = 99;
    let out = told(job).await;
    assert_eq!(out, "99\n0\n8192\n");
}

#[tokio::test]
async fn private_memory_of_a_process_stops_at_the_limit() {
    if !has("perl") {
        return;
    }
    let mut job = perl("my $x = 'a' x (200 << 20); print length $x");
    job.limits.memory = 64 << 20;
    let told = run(&sandbox(), SANDBOXED, job).await;
    assert_eq!(told.out, "", "{told:?}");
    assert!(!told.ended.status.success());
}

#[tokio::test]
async fn memory_of_all_processes_together_ends_the_run() {
    if !has("perl") {
        return;
    }
    let script = "for (1..8) { if (!fork()) { my $x = 'a' x (24 << 20); sleep 60; exit } } sleep 60";
    let mut job = perl(script);
    job.limits.memory = 64 << 20;
    let told = run(&sandbox(), SANDBOXED, job).await;
    assert_eq!(told.ended.cause, Cause::OutOfMemory, "{told:?}");
    assert!(told.ended.peak_memory >= 48 << 20, "{told:?}");
}

/// Memory that the kernel's sums of a process do not show.
#[tokio::test]
async fn memory_that_hides_is_found() {
    if !has("python3") {
        return;
    }
    let start = "import ctypes, mmap, os, threading, time; libc = ctypes.CDLL(None)\n";
    let hold = "def hold():\n  global b\n  b = b'x' * (24 << 20); time.sleep(20)\n";
    let crowd = |each: &str| {
        format!("{start}{hold}for _ in range(8):\n  if os.fork() == 0:\n    {each}\n    hold()\ntime.sleep(20)")
    };
    let ways = [
        // A name that is no text; a process that does not want to be looked at; one whose first thread is dead.
        crowd("libc.prctl(15, b'\\xff\\xfe', 0, 0, 0)"),
        crowd("libc.prctl(4, 0, 0, 0, 0)"),
        crowd(&format!(
            "threading.Thread(target=hold).start(); time.sleep(0.1); libc.syscall({}, 0)",
            libc::SYS_exit
        )),
        // Pages that no process has, but what they all could map.
        format!(
            "{start}m = mmap.mmap(-1, 160 << 20)\nfor at in range(0, 160 << 20, 1 << 20):\n  m[at:at + (1 << 20)] = bytes(1 << 20)\n  \
             m.madvise(mmap.MADV_DONTNEED, at, 1 << 20)\ntime.sleep(20)"
        ),
        // Page tables: of 2 MiB one page each, and none of them a page of its own.
        format!(
            "{start}m = mmap.mmap(-1, 64 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ)\n\
             m.madvise(15)\nfor at in range(0, 64 << 30, 2 << 20): m[at]\ntime.sleep(20)"
        ),
    ];
    for level in [SANDBOXED, CONFINED] {
        for way in &ways {
            let mut job = program("/usr/bin/env", &["python3", "-c", way]);
            job.limits.memory = 96 << 20;
            let told = confined::run_at(level, job).await;
            assert_eq!(told.ended.cause, Cause::OutOfMemory, "{level} {way}: {told:?}");
        }
    }
}

#[tokio::test]
async fn processor_time_is_counted_and_ends() {
    let mut job = shell("while :; do :; done");
    job.limits.cpu_ms = 1000;
    let told = run(&sandbox(), SANDBOXED, job).await;
    assert!(!told.ended.status.success(), "{told:?}");
    assert!(told.ended.cpu >= Duration::from_millis(750), "{told:?}");
    assert!(told.ended.cpu <= Duration::from_millis(2500), "{told:?}");
}

/// The kernel forgets what they have used: without anybody remembering it, these runs would use twenty times their limit.
#[tokio::test]
async fn processor_time_of_children_that_nobody_waits_for_is_counted() {
    if !has("perl") {
        return;
    }
    let burn = "use Time::HiRes qw(clock_gettime CLOCK_PROCESS_CPUTIME_ID); \
        sub burn { my $end = clock_gettime(CLOCK_PROCESS_CPUTIME_ID) + $_[0]; 1 while clock_gettime(CLOCK_PROCESS_CPUTIME_ID) < $end }";
    // One at a time: `wait` returns when there is none left.
    let ignored = |seconds: f64| {
        let times = 20.0 / seconds;
        format!("{burn} $SIG{{CHLD}} = 'IGNORE'; for (1..{times}) {{ if (!fork) {{ burn({seconds}); exit }} wait }}")
    };
    let orphans = format!(
        "{burn} for (1..60) {{ pipe(my $r, my $w); if (!fork) {{ if (!fork) {{ burn(0.3); exit }} exit }} close $w; wait; <$r> }}"
    );
    let scripts = [
        (SANDBOXED, ignored(0.1)),
        (SANDBOXED, ignored(0.005)),
        (CONFINED, ignored(0.1)),
        (CONFINED, orphans),
    ];
    for (level, script) in scripts {
        let mut job = perl(&script);
        job.limits.cpu_ms = 1000;
        let told = confined::run_at(level, job).await;
        assert_eq!(told.ended.cause, Cause::OutOfTime, "{level} {script}: {told:?}");
        assert!(told.ended.cpu >= Duration::from_secs(1), "{level} {script}: {told:?}");
    }
}

#[tokio::test]
async fn a_control_group_limits_a_whole_run_where_there_can_be_one() {
    if !has("perl") {
        return;
    }
    let sandbox = Sandbox::new(SandboxOptions::new().control_groups(true));
    let report = sandbox.probe().await;
    let grouped = report.mechanisms.iter().any(|name| name.contains("control-group"));
    if !grouped {
        assert!(machine::is_ordinary() || !machine::required());
        eprintln!("skipped: no control group can be made here");
        return;
    }
    let mut job = perl("my @held; while (1) { push @held, 'a' x (1 << 20) }");
    job.limits.memory = 48 << 20;
    let told = run(&sandbox, SANDBOXED, job).await;
    assert!(
        matches!(told.ended.cause, Cause::OutOfMemory | Cause::Exited),
        "{told:?}"
    );
    assert!(!told.ended.status.success());
    assert!(told.ended.peak_memory >= 40 << 20, "{told:?}");
    let script = "for (1..4) { if (!fork()) { my $x = 'a' x (20 << 20); sleep 5; exit } } wait for 1..4";
    let mut job = perl(script);
    job.limits.memory = 48 << 20;
    let told = run(&sandbox, SANDBOXED, job).await;
    assert!(told.ended.peak_memory <= 49 << 20, "{told:?}");
}
