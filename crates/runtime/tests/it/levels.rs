//! Scripts at the levels above `process`, through the runner that the platform uses. What a level keeps out is tested with
//! the spawn core; here, that a script does its work at each of them just as it does below.

use crate::{
    framed::{Shelf, start_with},
    machine::{self, PYTHON, has},
    scripts::{demo, failure, install, limits, succeeded, texts},
    world::{CANARY, World},
};
use crosspoint_core::{
    Audience, Clock, Code, Egress, ExecutionStatus, Isolation, Limits, Protocol, RunOutcome, RunSpec, Runner, Script,
    StopReason, SystemClock, Work,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

async fn levels() -> Vec<Isolation> {
    machine::levels(Isolation::Confined).await
}

fn at(level: Isolation, text: &str) -> Script {
    Script::inline("sh", text).isolation(level)
}

async fn outcome(script: Script) -> RunOutcome {
    outcome_with(script, |_| {}).await
}

async fn outcome_with(script: Script, change: impl FnOnce(&mut RunSpec)) -> RunOutcome {
    start_with(script, change).await.unwrap().wait().await
}

fn with_limits(change: impl FnOnce(&mut Limits)) -> impl FnOnce(&mut RunSpec) {
    let limits = limits(change);
    move |spec| spec.limits = limits
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_does_its_work_and_the_level_is_recorded() {
    for level in levels().await {
        let script = at(
            level,
            r#"
            set -eu
            echo "hello of $XP_CTX_CUSTOMER" >&2
            test "$PWD" = "$HOME"
            echo kept > "$TMPDIR/file" && cat "$TMPDIR/file"
            test -z "${USER:-}"
            printf '{"state":%s}' "$(cat "$XP_STATE_FILE")" > "$XP_RESULT_FILE"
            echo '{"page":2}' > "$XP_STATE_OUT"
            "#,
        );
        let world = World::new([demo(script)]);
        let installation = install(&world, json!({})).await;
        for expected in [Value::Null, json!({ "page": 2 })] {
            let (done, reply) = world.run(&installation, "go", json!({})).await;
            let lines = world.log(done.id, Audience::Developer).await;
            assert_eq!(done.status, ExecutionStatus::Succeeded, "{level}: {lines:?}");
            assert_eq!(done.isolation, Some(level));
            assert_eq!(reply["state"], expected);
            assert_eq!(world.state(&installation, "go").await, json!({ "page": 2 }));
            assert!(lines.contains(&"hello of acme".to_owned()), "{lines:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_framed_binding_keeps_its_checkpoints() {
    for level in levels().await {
        let script = at(
            level,
            r#"
            set -eu
            say() { printf '%s\n' "$1" >&3; }
            test "$XP_OUT_FD" = 3
            read -r start
            say '{"type":"hello","v":1,"sdk":"test"}'
            say '{"type":"state","seq":1,"value":{"page":1}}'
            read -r ack
            say '{"type":"log","level":"info","message":"acked","audience":"developer"}'
            say '{"type":"result","value":{"done":true}}'
            "#,
        )
        .protocol(Protocol::Framed);
        let shelf = Arc::new(Shelf::default());
        let kept = Arc::clone(&shelf);
        let outcome = outcome_with(script, |spec| spec.checkpoint = Some(shelf)).await;
        assert_eq!(succeeded(&outcome), &json!({ "done": true }), "{level}: {outcome:?}");
        assert_eq!(*kept.kept.lock().unwrap(), [json!({ "page": 1 })]);
        assert!(texts(&outcome).contains(&"acked"), "{outcome:?}");
    }
}

/// A folder of the script's own is there to be read, at `sandboxed` as `/app`.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_reads_its_own_folder_and_cannot_change_it() {
    let folder = tempfile::tempdir().unwrap();
    let own = std::fs::canonicalize(folder.path()).unwrap();
    std::fs::create_dir(own.join("lib")).unwrap();
    std::fs::write(own.join("lib/words"), "words").unwrap();
    let text = "#!/bin/sh\nread -r words < lib/words || true\n(echo x > lib/new) 2>/dev/null && exit 1\n\
                printf '{\"pwd\":\"%s\",\"words\":\"%s\"}' \"$PWD\" \"$words\" > \"$XP_RESULT_FILE\"\n";
    std::fs::write(own.join("run.sh"), text).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    for path in [own.clone(), own.join("lib"), own.join("run.sh")] {
        std::fs::set_permissions(path, std::fs::Permissions::clone(&mode)).unwrap();
    }
    for level in levels().await {
        for script in [
            Script::command("./run.sh", Vec::<String>::new()),
            Script::command("sh", ["run.sh"]),
        ] {
            let outcome = outcome(script.dir(&own).isolation(level)).await;
            let result = succeeded(&outcome);
            let pwd = if level == Isolation::Sandboxed {
                "/app"
            } else {
                own.to_str().unwrap()
            };
            assert_eq!(result, &json!({ "pwd": pwd, "words": "words" }), "{level}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_connections_are_reached_through_the_broker_and_nothing_else() {
    if !has(PYTHON) {
        return;
    }
    let text = r#"
import json, os, socket, http.client, pathlib
url = os.environ['XP_BROKER_URL']
if 'XP_NETWORK_SOCKET' in os.environ:
    client = http.client.HTTPConnection('localhost')
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.connect(os.environ['XP_NETWORK_SOCKET'])
else:
    client = http.client.HTTPConnection(url.removeprefix('http://'))
client.request('POST', '/c/shop/orders', b'{"n":1}', {'content-type': 'application/json'})
answer = client.getresponse()
body = answer.read().decode()
reached = []
for family, address in [(socket.AF_INET, ('127.0.0.1', 22)), (socket.AF_INET, ('169.254.169.254', 80)),
                        (socket.AF_INET, ('1.1.1.1', 443))]:
    try:
        direct = socket.socket(family)
        direct.settimeout(5)
        direct.connect(address)
        reached.append(address[0])
    except OSError:
        pass
pathlib.Path(os.environ['XP_RESULT_FILE']).write_text(json.dumps(
    {'status': answer.status, 'body': body, 'reached': reached}))
"#;
    for level in levels().await {
        let script = Script::inline(PYTHON, text).isolation(level);
        let world = World::new([demo(script)]);
        let installation = install(&world, json!({})).await;
        let (done, reply) = world.run(&installation, "go", json!({})).await;
        let lines = world.log(done.id, Audience::Developer).await;
        assert_eq!(done.status, ExecutionStatus::Succeeded, "{level}: {lines:?}");
        assert_eq!(
            reply,
            json!({ "status": 200, "body": "{\"n\":1}", "reached": [] }),
            "{level}"
        );
        assert!(!lines.iter().any(|line| line.contains(CANARY)), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_level_cannot_enforce_is_refused() {
    let runner = machine::runner(Arc::new(SystemClock::new()));
    let allow = || Egress::Allow(vec!["api.example.com".to_owned()]);
    for level in levels().await {
        let open = at(level, "true").egress(Egress::Open);
        let refused = runner.prepare(&Work::Script(Arc::new(open)), level).await.unwrap_err();
        assert_eq!(refused.code(), Code::SetupInvalid, "{level}");
        let hosts = at(level, "true").egress(allow());
        let answer = runner.prepare(&Work::Script(Arc::new(hosts)), level).await;
        let code = answer.err().map(|error| error.code());
        let lacking = level == Isolation::Confined || machine::is_bubblewrap();
        let expected = lacking.then_some(Code::IsolationUnavailable);
        assert_eq!(code, expected, "{level}");
    }
    let machine = Work::Script(Arc::new(at(Isolation::Machine, "true")));
    let refused = runner.prepare(&machine, Isolation::Machine).await.unwrap_err();
    assert_eq!(refused.code(), Code::IsolationUnavailable);
}

/// What is asked of a script in its last moments reaches it, though it is the first process of its namespace.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_listens_is_asked_to_stop_and_one_that_does_not_is_killed() {
    for level in levels().await {
        let text = "trap 'echo \"{}\" > \"$XP_STATE_OUT\"; exit 0' TERM; while :; do sleep 0.05; done";
        let soft = with_limits(|limits| (limits.wall_ms, limits.grace_ms) = (3000, 2500));
        let clock = SystemClock::new();
        let outcome = outcome_with(at(level, text), |spec| {
            soft(spec);
            spec.deadline = clock.now().plus(spec.limits.wall());
        })
        .await;
        assert_eq!(outcome.state, Some(json!({})), "{level}: {outcome:?}");

        let deaf = start_with(
            at(
                level,
                "trap '' TERM; S=$(setsid true 2>/dev/null && echo setsid); ($S sleep 600 &); sleep 600",
            ),
            |_| {},
        )
        .await;
        let mut deaf = deaf.unwrap();
        deaf.cancel(StopReason::Cancelled, Duration::ZERO).await;
        let outcome = deaf.wait().await;
        assert!(
            matches!(outcome.end, crosspoint_core::RunEnd::Stopped(StopReason::Cancelled)),
            "{outcome:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_and_forbidden_calls_are_told_apart() {
    if !has(PYTHON) {
        return;
    }
    for level in levels().await {
        let hog = "held = []\nwhile True: held.append(bytearray(4 << 20))";
        let hog = Script::inline(PYTHON, hog).isolation(level);
        let outcome = outcome_with(hog, with_limits(|limits| limits.memory = 256 << 20)).await;
        let code = failure(&outcome).0;
        assert!(
            matches!(code, Code::ScriptCrashed | Code::ScriptFailed),
            "{level}: {outcome:?}"
        );
        assert_eq!(
            outcome.usage.peak_memory.min(300 << 20),
            outcome.usage.peak_memory,
            "{level}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_says_what_it_consumed() {
    for level in levels().await {
        let text = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let outcome = outcome(at(level, text)).await;
        assert!(outcome.usage.cpu_ms > 0, "{level}: {:?}", outcome.usage);
        assert!(outcome.usage.peak_memory > 0, "{level}: {:?}", outcome.usage);
    }
}
