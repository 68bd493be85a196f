//! What a run finds in its folder, leaves there, and may read besides.

use super::*;
use crate::machine::alone;
use crosspoint_core::{Code, Retry, RunEnd, Runner, Script, SystemClock};
use crosspoint_runtime::{
    Subprocess,
    bare::{Input, Stdin},
};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::{fs, io::Read, os::unix::fs::PermissionsExt, sync::Arc};
use tokio::io::AsyncWriteExt;

/// Reads what a run left, as a supervisor does.
fn left(child: &Child, name: &str) -> rustix::io::Result<String> {
    let folder = child.folder.as_ref().unwrap();
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = openat2(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    let mut text = String::new();
    fs::File::from(file).read_to_string(&mut text).unwrap();
    Ok(text)
}

#[tokio::test]
async fn inputs_are_there_and_results_are_read_after_the_end() {
    let mut job =
        shell("cat in/config.json secrets/key; ls -l secrets | tail -1; echo done > result; ln -s /etc/passwd link");
    job.inputs = vec![
        Input::file("in/config.json", "{}\n", 0o600),
        Input::folder("secrets"),
        Input::file("secrets/key", "s3cret\n", 0o400),
    ];
    let mut child = sandbox().launch(SANDBOXED, job, &customer("acme")).await.unwrap();
    let told = finish(&mut child).await;
    assert!(told.out.starts_with("{}\ns3cret\n-r--------"), "{told:?}");
    assert_eq!(left(&child, "result").unwrap(), "done\n");
    assert_eq!(left(&child, "link").unwrap_err(), rustix::io::Errno::LOOP);
    assert_eq!(left(&child, "../etc/passwd").unwrap_err(), rustix::io::Errno::XDEV);
}

/// Whatever of a start there is no descriptor for: it is an error, nobody gets what another run was to get, and as soon as there
/// are enough all is well.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_descriptors_starts_nothing_and_mixes_nothing_up() {
    if !alone("sandbox::files::a_host_without_descriptors_starts_nothing_and_mixes_nothing_up") {
        return;
    }
    let limit = Rlimit {
        current: Some(400),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    for level in [SANDBOXED, confined::CONFINED] {
        let sandbox = Sandbox::new(SandboxOptions::new().spawners(1));
        let folder = confined::Folder::new();
        let mut tokens = 0_u32;
        let mut try_one = async || {
            tokens += 1;
            let token = tokens.to_string();
            let mut job = folder.at(level, shell(&format!("echo {token} > result; echo {token}")));
            // One that is told much needs no number after the child's birth that it did not need before; the other does.
            job.network = level == SANDBOXED && (tokens / 2).is_multiple_of(2);
            if !job.network {
                job.read_only = vec![("/usr".into(), "/app".into()), ("/usr".into(), "/layer/0".into())];
            }
            let launched = sandbox.launch(level, job, &customer("acme")).await;
            let mut child = match launched {
                Ok(child) => child,
                Err(error) => {
                    assert_eq!(error.code(), Code::ScriptNotStarted, "{level}: {error:?}");
                    assert_eq!(error.retry(), Retry::Backoff, "{level}: {error:?}");
                    return Err(error);
                }
            };
            let told = finish(&mut child).await;
            assert_eq!(told.out, format!("{token}\n"), "{level}: {told:?}");
            if level == SANDBOXED
                && let Ok(result) = left(&child, "result")
            {
                assert_eq!(result, told.out, "{level}: it is another one's folder");
            }
            Ok(())
        };
        // Networks are made ahead, beside all else.
        let open = || {
            let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
            let links = links.filter_map(|link| fs::read_link(link.path()).ok());
            links.filter(|link| !link.to_string_lossy().starts_with("net:")).count()
        };
        try_one().await.unwrap();
        let before = open();
        let mut failed = 0;
        for room in (0..40).chain((0..40).rev()) {
            let mut held = Vec::new();
            // Without any, so often that nothing is left of what was made ahead.
            for _ in 0..if room == 0 { 20 } else { 1 } {
                held.extend(std::iter::from_fn(|| fs::File::open("/dev/null").ok()));
                held.truncate(held.len() - room);
                failed += u32::from(try_one().await.is_err());
            }
            drop(held);
            let after = try_one().await;
            assert!(after.is_ok(), "{level}: after one with room for {room}: {after:?}");
        }
        assert!((40..117).contains(&failed), "{level}: {failed} of 118 failed");
        // What ended runs had is closed beside all else.
        let mut now = open();
        for _ in 0..4000 {
            if now <= before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            now = open();
        }
        assert!(now <= before, "{level}: {before} descriptors became {now}");
    }
}

/// What a machine can enforce is found out once, but not by a look that had too little to see it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_shortage_hid_is_looked_for_again() {
    if !alone("sandbox::files::what_a_shortage_hid_is_looked_for_again") {
        return;
    }
    let clock = Arc::new(SystemClock::new());
    let script = || Script::inline("sh", "exit 0").isolation(SANDBOXED);
    let limit = Rlimit {
        current: Some(200),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    for room in [0, 4, 8, 16, 24, 32] {
        let runner = Subprocess::new(clock.clone());
        let mut held: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        held.truncate(held.len() - room);
        let error = runner.start(crate::scripts::spec(script(), &*clock)).await.unwrap_err();
        assert_eq!(
            (error.code(), error.retry()),
            (Code::ScriptNotStarted, Retry::Backoff),
            "room for {room}: {error:?}"
        );
        drop(held);
        let mut run = runner.start(crate::scripts::spec(script(), &*clock)).await.unwrap();
        let end = run.wait().await.end;
        assert!(matches!(end, RunEnd::Succeeded(_)), "{end:?}");
        assert_eq!(runner.probe().await.level, SANDBOXED);
    }
}

#[tokio::test]
async fn folders_of_the_host_are_shown_read_only() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("main"), "code").unwrap();
    let mut job = shell(
        "cat /app/main /layer/0/main /w/deep/er/main /w/one; for f in /app/x /layer/0/x /w/deep/er/x /w/one /usr/x /x \
         /etc/x /dev/x /proc/1/comm; do (echo > $f) 2>/dev/null && echo wrote $f; done; rm /app/main; true",
    );
    job.read_only = ["/app", "/layer/0", "/w/deep/er"]
        .map(|at| (folder.path().to_owned(), at.into()))
        .into();
    job.read_only.push((folder.path().join("main"), "/w/one".into()));
    let told = run(&sandbox(), SANDBOXED, job).await;
    assert_eq!(told.out, "codecodecodecode", "{told:?}");
    assert!(folder.path().join("main").exists());
}

#[tokio::test]
async fn what_cannot_be_shown_is_an_error_of_the_run() {
    let sandbox = sandbox();
    for (source, target) in [
        ("/nowhere", "/app"),
        ("/usr", "/etc/x"),
        ("/usr", "/layer/99"),
        ("/usr", "/w/../x"),
        ("/usr", "/w"),
    ] {
        let mut job = shell("true");
        job.read_only = vec![(source.into(), target.into())];
        let error = sandbox.launch(SANDBOXED, job, &customer("acme")).await.unwrap_err();
        assert_eq!(error.code(), Code::ScriptNotStarted, "{source} at {target}: {error}");
    }
    for name in ["../x", "/etc/x", ""] {
        let mut job = shell("true");
        job.inputs = vec![Input::file(name, "", 0o600)];
        let error = sandbox.launch(SANDBOXED, job, &customer("acme")).await.unwrap_err();
        assert_eq!(error.code(), Code::ScriptNotStarted, "{name}: {error}");
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_named_as_the_cause() {
    let sandbox = sandbox();
    for file in ["/nowhere", "/etc/passwd", "/usr"] {
        let error = sandbox
            .launch(SANDBOXED, Job::new(file), &customer("acme"))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::ScriptNotStarted, "{file}");
        assert!(error.to_string().contains("execution of the program"), "{error}");
    }
    let mut job = shell("true");
    job.dir = "/nowhere".into();
    let error = sandbox.launch(SANDBOXED, job, &customer("acme")).await.unwrap_err();
    assert!(error.to_string().contains("working folder"), "{error}");
    let told = run(&sandbox, SANDBOXED, shell("true")).await;
    assert!(told.ended.status.success(), "the next one runs");
}

#[tokio::test]
async fn streams_are_pipes() {
    let mut job = shell("cat; echo note >&3; echo oops >&2");
    job.stdin = Stdin::Pipe;
    job.messages = true;
    let mut child = sandbox().launch(SANDBOXED, job, &customer("acme")).await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    drop(stdin);
    let mut messages = String::new();
    child
        .messages
        .take()
        .unwrap()
        .read_to_string(&mut messages)
        .await
        .unwrap();
    let told = finish(&mut child).await;
    assert_eq!((&*told.out, &*told.err, &*messages), ("hello", "oops\n", "note\n"));
}

/// Somebody's `PATH` may lead there.
#[tokio::test]
async fn a_folder_where_a_run_has_its_own_is_left_out_and_stops_nothing() {
    let theirs = tempfile::tempdir_in("/tmp").unwrap();
    fs::write(theirs.path().join("x"), "x").unwrap();
    let sandbox = Sandbox::new(SandboxOptions::new().read_only([theirs.path()]));
    let script = format!("ls {} 2>/dev/null; echo fine", theirs.path().display());
    assert_eq!(run(&sandbox, SANDBOXED, shell(&script)).await.out, "fine\n");
}
