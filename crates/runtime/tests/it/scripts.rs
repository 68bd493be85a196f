//! Scripts in processes of their own, on the machine's own time. Where a test waits, it waits for an event that the
//! script makes: a file, an exit, a line of log.

use crate::{
    machine::has,
    world::{CANARY, World, seal},
};
use crosspoint_core::{
    AnyIntegration, Audience, Code, ConnectionId, Execution, ExecutionStatus, FlowOptions, Installation,
    InstallationState, Integration, Isolation, Jitter, Limits, Result, Retry, RetryPolicy, RunEnd, RunHandle,
    RunOutcome, RunSpec, Runner, Script, SystemClock, Timestamp, Trigger, Work,
};
use crosspoint_runtime::{Runners, Subprocess};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub(crate) fn sh(text: &str) -> Script {
    Script::inline("sh", text).isolation(Isolation::Process)
}

pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

pub(crate) fn demo(script: Script) -> AnyIntegration {
    demo_with(script, Limits::default())
}

fn demo_with(script: Script, limits: Limits) -> AnyIntegration {
    let retry = RetryPolicy::default()
        .with_jitter(Jitter::None)
        .with_initial(Duration::from_secs(3600));
    let options = FlowOptions::default()
        .retry(retry.with_cap(Duration::from_secs(3600)))
        .limits(limits);
    Integration::new("demo", "1.0.0")
        .connection("shop", "shop")
        .script_with("go", Trigger::call::<Value>(), script, options)
        .into()
}

pub(crate) async fn install(world: &World, config: Value) -> Installation {
    let connection = ConnectionId::mint(&*world.clock);
    let connected = |i: &mut Installation| {
        i.connections.insert("shop".to_owned(), connection);
        seal(i, "token", &format!("{CANARY}-token"));
    };
    world.install_with("demo", config, connected).await
}

/// Runs a script once as an execution.
async fn once(script: Script) -> (World, Execution, Value) {
    let world = World::new([demo(script)]);
    let installation = install(&world, json!({})).await;
    let (execution, reply) = world.run(&installation, "go", json!({ "n": 1 })).await;
    (world, execution, reply)
}

/// Starts a script without the platform around it.
pub(crate) async fn start(script: Script, limits: Limits) -> Result<Box<dyn RunHandle>> {
    let clock = Arc::new(SystemClock::new());
    let runner = Subprocess::new(clock.clone());
    // What is enforced here is found out once, which is not to take of the run's time.
    runner.probe().await;
    let mut spec = spec(script, &*clock);
    spec.deadline = crosspoint_core::Clock::now(&*clock).plus(limits.wall());
    spec.limits = limits;
    runner.start(spec).await
}

pub(crate) fn spec(script: Script, clock: &dyn crosspoint_core::Clock) -> RunSpec {
    RunSpec::new(
        crosspoint_core::InvocationId::mint(clock),
        crate::world::acme(),
        crosspoint_core::InstallationId::mint(clock),
        "go",
        Work::Script(Arc::new(script)),
        clock.now().plus(Duration::from_secs(900)),
    )
}

async fn outcome(script: Script) -> RunOutcome {
    start(script, Limits::default()).await.unwrap().wait().await
}

pub(crate) fn failure(outcome: &RunOutcome) -> (Code, Retry) {
    match &outcome.end {
        RunEnd::Failed(error) => (error.code(), error.retry()),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn succeeded(outcome: &RunOutcome) -> &Value {
    match &outcome.end {
        RunEnd::Succeeded(value) => value,
        other => panic!("{other:?}, {:?}", outcome.log),
    }
}

/// What it wrote and said. Which tool made its sandbox is not its own word.
pub(crate) fn texts(outcome: &RunOutcome) -> Vec<&str> {
    let lines = outcome.log.iter().map(|line| line.message.as_str());
    lines.filter(|line| !line.starts_with("sandboxed by ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_sees_its_binding_and_nothing_else() {
    let script = sh(r#"
        set -eu
        [ "$XP_CFG_START_DATE" = 2026-01-01 ] && [ "$XP_CFG_LIMIT" = 5 ] && [ "$XP_CFG_DRY" = true ]
        [ "$XP_CTX_CUSTOMER" = acme ] && [ "$XP_CTX_FLOW" = go ] && [ "$XP_CTX_INTEGRATION" = demo ]
        [ "$XP_CTX_ATTEMPT" = 1 ] && [ "$XP_CTX_TRIGGER" = call ] && [ "$XP_CTX_RUN_MODE" = normal ]
        [ "$EXTRA" = yes ] && [ -z "${CARGO:-}" ] && [ -z "${XP_SECRETS_DIR:-}" ] && [ -z "${XP_CFG_TOKEN:-}" ]
        [ "$(cat)" = "" ] && [ "$(ls -A)" = "" ] && [ "$HOME" = "$PWD" ] && [ -d "$TMPDIR" ]
        cp "$XP_TRIGGERS_FILE" "$XP_RESULT_FILE"
        cp "$XP_CONFIG_FILE" "$XP_STATE_OUT"
        echo "$XP_DEADLINE"
        echo "$XP_CTX_EXECUTION $XP_RUN_KEY $XP_CTX_INSTALLATION $XP_PROTOCOL" >&2
        env | cut -d= -f1 | grep -v '^XP_' | sort | tr '\n' ' '
    "#)
    .env("EXTRA", "yes");
    let world = World::new([demo(script)]);
    let config =
        json!({ "startDate": "2026-01-01", "limit": 5, "dry": true, "token": { "$secret": "token" }, "x": [1] });
    let installation = install(&world, config.clone()).await;
    let (done, reply) = world.run(&installation, "go", json!({ "n": 1 })).await;
    let lines = world.log(done.id, Audience::Developer).await;
    assert_eq!(done.status, ExecutionStatus::Succeeded, "{lines:?}");
    assert_eq!(done.isolation, Some(Isolation::Process));
    let event = &reply[0];
    assert_eq!(
        (&event["data"], &event["type"]),
        (&json!({ "n": 1 }), &json!("crosspoint.call"))
    );
    assert_eq!(event["id"], done.id.to_string());
    assert_eq!(world.state(&installation, "go").await, config);
    let ids = format!("{} {} {} crosspoint/1", done.id, done.id, installation.id);
    assert!(lines.contains(&ids), "{lines:?}");
    assert!(
        lines.iter().any(|line| line.parse::<Timestamp>().is_ok()),
        "the deadline is a time: {lines:?}"
    );
    let mut names: Vec<&str> = lines
        .iter()
        .find(|line| line.contains("EXTRA"))
        .unwrap()
        .split(' ')
        .collect();
    names.retain(|name| !["", "TZ", "_", "PWD", "OLDPWD", "SHLVL"].contains(name));
    assert_eq!(names, ["EXTRA", "HOME", "LANG", "PATH", "TMPDIR"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_moves_with_success_alone() {
    let script = sh(r#"
        n=$(cat "$XP_STATE_FILE"); [ "$n" != null ] || n=0
        echo $((n + 1)) > "$XP_STATE_OUT"
        printf '{"summary":"Exported %s orders","count":%s}' $((n + 1)) $((n + 1)) > "$XP_RESULT_FILE"
        case $(cat "$XP_INPUT_FILE") in '"fail"') exit 65;; esac
    "#);
    let world = World::new([demo(script)]);
    let installation = install(&world, json!({})).await;
    for (input, status, state) in [
        (json!(1), ExecutionStatus::Succeeded, json!(1)),
        (json!("fail"), ExecutionStatus::Failed, json!(1)),
        (json!(1), ExecutionStatus::Succeeded, json!(2)),
    ] {
        let (execution, reply) = world.run(&installation, "go", input).await;
        assert_eq!(
            (execution.status, world.state(&installation, "go").await),
            (status, state)
        );
        if status == ExecutionStatus::Succeeded {
            let lines = world.log(execution.id, Audience::Customer).await;
            assert_eq!(lines[0], reply["summary"].as_str().unwrap());
            assert!(lines[1].starts_with("Finished in "), "{lines:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_decide_what_happens() {
    for (script, code, status, attention) in [
        ("exit 65", Code::ScriptFailed, ExecutionStatus::Failed, false),
        ("exit 75", Code::ScriptFailed, ExecutionStatus::Waiting, false),
        ("exit 77", Code::CredentialsRefused, ExecutionStatus::Failed, true),
        ("exit 78", Code::ScriptFailed, ExecutionStatus::Failed, false),
        (
            "surely-not-a-program",
            Code::ScriptNotStarted,
            ExecutionStatus::Failed,
            false,
        ),
        ("/dev/null", Code::ScriptNotStarted, ExecutionStatus::Failed, false),
        ("exit 1", Code::ScriptFailed, ExecutionStatus::Waiting, false),
        ("kill -SEGV $$", Code::ScriptCrashed, ExecutionStatus::Waiting, false),
        ("kill -KILL $$", Code::ScriptCrashed, ExecutionStatus::Waiting, false),
    ] {
        let (world, execution, _) = once(sh(script)).await;
        assert_eq!(execution.status, status, "{script}");
        assert_eq!(execution.failure.unwrap().code, code, "{script}");
        let state = world.installation(execution.installation).await.state;
        assert_eq!(state == InstallationState::NeedsAttention, attention, "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_refused_and_not_repeated() {
    for script in [
        "echo '{\"half\":' > $XP_RESULT_FILE",
        "printf '\\377\\376' > $XP_RESULT_FILE",
        "echo 1 2 > $XP_STATE_OUT",
        "ln -s /etc/hostname $XP_RESULT_FILE",
        "ln -s $XP_CONFIG_FILE $XP_STATE_OUT",
        "ln $XP_CONFIG_FILE $XP_RESULT_FILE",
        "mkfifo $XP_RESULT_FILE",
        "mkdir $XP_STATE_OUT",
        "head -c 5000000 /dev/zero | tr '\\0' 1 > $XP_RESULT_FILE",
        "head -c 1048577 /dev/zero | tr '\\0' 1 > $XP_STATE_OUT",
        "head -c 100000 /dev/zero | tr '\\0' '[' > $XP_RESULT_FILE",
    ] {
        let outcome = outcome(sh(script)).await;
        assert_eq!(failure(&outcome), (Code::ScriptOutputInvalid, Retry::Never), "{script}");
        assert_eq!(outcome.state, None, "{script}");
    }
    for script in ["true", "echo > $XP_RESULT_FILE; : > $XP_STATE_OUT"] {
        let outcome = outcome(sh(script)).await;
        assert_eq!((succeeded(&outcome), &outcome.state), (&Value::Null, &None), "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_does_not_start() {
    let here = tempfile::tempdir().unwrap();
    let lost = here.path().join("lost.sh");
    std::fs::write(&lost, "#!/no/such/interpreter\n").unwrap();
    let mut mode = std::fs::metadata(&lost).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    std::fs::set_permissions(&lost, mode).unwrap();
    for script in [
        Script::inline("no-such-interpreter", "x"),
        Script::command("/no/such/program", ["x"]),
        Script::command(lost.display().to_string(), [""; 0]),
        Script::command("sh", ["-c", "true"]).dir("/no/such/folder"),
    ] {
        let (_, failed, reply) = once(script.isolation(Isolation::Process)).await;
        assert_eq!(failed.failure.unwrap().code, Code::ScriptNotStarted);
        assert_eq!(
            (failed.status, reply["status"].as_u64()),
            (ExecutionStatus::Failed, Some(500))
        );
        assert_eq!(failed.isolation, None, "nothing has run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_isolation_than_there_is_is_refused() {
    let runners = Runners::standard(Arc::new(SystemClock::new()));
    let report = runners.probe().await;
    assert!(
        (Isolation::Process..Isolation::Machine).contains(&report.level),
        "{report:?}"
    );
    assert!(!report.missing.is_empty());
    let beyond = || Script::inline("sh", "true").isolation(Isolation::Machine);
    let (_, failed, _) = once(beyond()).await;
    let why = failed.failure.unwrap();
    assert_eq!(
        (failed.status, why.code),
        (ExecutionStatus::Failed, Code::IsolationUnavailable)
    );
    let default = Work::Script(Arc::new(beyond()));
    let error = runners.prepare(&default, Isolation::Process).await.unwrap_err();
    let facts: Vec<&str> = error.context().iter().map(|(name, _)| *name).collect();
    assert_eq!(facts, ["asked", "achieved", "missing"]);
    let plain = Work::Script(Arc::new(sh("true")));
    runners.prepare(&plain, Isolation::Trusted).await.unwrap();
    assert!(runners.prepare(&plain, Isolation::Machine).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_there_when_declared_and_never_in_what_is_written() {
    let text = r#"
        [ -n "${XP_SECRETS_DIR:-}" ] || exit 65
        cat "$XP_SECRETS_DIR/token" "$XP_SECRETS_DIR/shop.api_key" >&2
        ls -ld "$XP_SECRETS_DIR" "$XP_SECRETS_DIR/token" | cut -c1-10
        printf '{"token":"%s","summary":"%s"}' "$(cat "$XP_SECRETS_DIR/token")" "$(cat "$XP_SECRETS_DIR/token")" \
            > "$XP_RESULT_FILE"
    "#;
    let (world, done, reply) = once(sh(text).needs_secrets()).await;
    let lines = world.log(done.id, Audience::Developer).await;
    assert_eq!(done.status, ExecutionStatus::Succeeded, "{lines:?}");
    assert_eq!(reply, json!({ "token": "[secret]", "summary": "[secret]" }));
    assert!(lines.contains(&"[secret][secret]".to_owned()), "{lines:?}");
    assert!(
        lines.contains(&"drwx------".to_owned()) && lines.contains(&"-r--------".to_owned()),
        "{lines:?}"
    );
    assert!(!format!("{lines:?} {reply}").contains(CANARY));
    let (_, failed, _) = once(sh(text)).await;
    assert_eq!(
        failed.failure.unwrap().message,
        "the script refused its input (exit code 65)"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_connection_asks_for_a_person() {
    let world = World::new([demo(sh("true"))]);
    let installation = world.install("demo", json!({})).await;
    let (failed, _) = world.run(&installation, "go", Value::Null).await;
    assert_eq!(failed.failure.unwrap().code, Code::ConnectionMissing);
    assert_eq!(
        world.installation(installation.id).await.state,
        InstallationState::NeedsAttention
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_read_and_dropped() {
    let text = r#"
        head -c 20000000 /dev/zero | tr '\0' 'x'
        echo
        yes 'another line' | head -n 30000 >&2
        echo '"done"' > "$XP_RESULT_FILE"
    "#;
    let mut handle = start(sh(text), limits(|l| l.log_bytes = 1 << 20)).await.unwrap();
    let outcome = handle.wait().await;
    assert_eq!(succeeded(&outcome), "done");
    let kept: usize = outcome.log.iter().map(|line| line.message.len()).sum();
    assert!(kept < (1 << 20) + 10_000, "{kept}");
    let lines = outcome.log.len() as u64;
    assert!(
        outcome.log_dropped + (kept as u64) + lines >= 20_000_001 + 390_000,
        "all of it was read"
    );
    assert!(texts(&outcome)[0].ends_with("[the line goes on]"));
    assert!(
        texts(&outcome)
            .last()
            .unwrap()
            .ends_with("further bytes of output were dropped")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strange_bytes_do_no_harm() {
    let outcome = outcome(sh("printf 'a\\377b\\000c\\nlast without end'; exec >&- 2>&-; exit 0")).await;
    succeeded(&outcome);
    assert_eq!(texts(&outcome), ["a\u{fffd}b\u{fffd}c", "last without end"]);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn limits_reach_the_script() {
    let text = r#"
        until [ "$(ulimit -n)" = 99 ]; do :; done
        echo "$(ulimit -d) $(ulimit -n) $(ulimit -c)"
    "#;
    let limits = limits(|l| {
        l.memory = 512 << 20;
        l.open_files = 99;
    });
    let outcome = start(sh(text), limits).await.unwrap().wait().await;
    succeeded(&outcome);
    assert_eq!(texts(&outcome), ["524288 99 0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_on_the_disk() {
    let parent = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock::new());
    let runner = Subprocess::new(clock.clone()).folders_in(parent.path());
    for text in ["touch a; mkdir b; touch b/c; chmod 0 b", "exit 1", "kill -9 $$"] {
        runner.start(spec(sh(text), &*clock)).await.unwrap().wait().await;
    }
    let missing = Script::command("sh", ["-c", "true"]).dir("/no/such/folder");
    assert!(runner.start(spec(missing, &*clock)).await.is_err());
    assert_eq!(entries(parent.path()), Vec::<PathBuf>::new());
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_in_its_folder() {
    let here = tempfile::tempdir().unwrap();
    std::fs::write(here.path().join("run.sh"), "#!/bin/sh\npwd\necho \"$@\"\n").unwrap();
    let mut mode = std::fs::metadata(here.path().join("run.sh")).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    std::fs::set_permissions(here.path().join("run.sh"), mode).unwrap();
    let script = Script::command("./run.sh", ["a b", "c"]).dir(here.path());
    let outcome = outcome(script.isolation(Isolation::Process)).await;
    succeeded(&outcome);
    let folder = here.path().canonicalize().unwrap().display().to_string();
    assert_eq!(texts(&outcome), [folder.as_str(), "a b c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_for_pandium_run_unchanged() {
    let text = r#"
        set -eu
        [ "$PAN_CTX_RUN_MODE" = normal ] && [ "$PAN_CFG_SIZE" = 5 ] && [ "$PAN_SEC_TOKEN" = "canary-5e1f-token" ]
        [ "$PAN_SEC_SHOP_API_KEY" = canary-5e1f ]
        echo "$PAN_CTX_RUN_TRIGGERS" | grep -q '"source":"manual"'
        echo "log $(cat "$PAN_CTX_TENANT_METADATA_FILE")" >&2
        echo 'a line that is no state'
        echo "{\"page\":2,\"$(cat "$PAN_INPUT_FILE")\":true}"
        echo
    "#;
    let world = World::new([demo(sh(text).env_prefix("PAN").needs_secrets())]);
    let installation = install(&world, json!({ "size": 5 })).await;
    for (input, before, state) in [
        (json!(1), json!({}), json!({ "page": 2, "1": true })),
        (
            json!(2),
            json!({ "page": 2, "1": true }),
            json!({ "page": 2, "1": true, "2": true }),
        ),
    ] {
        let (done, _) = world.run(&installation, "go", input).await;
        let lines = world.log(done.id, Audience::Developer).await;
        assert_eq!(done.status, ExecutionStatus::Succeeded, "{lines:?}");
        let seen = lines.iter().find_map(|line| line.strip_prefix("log ")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(seen).unwrap(), before);
        assert_eq!(world.state(&installation, "go").await, state);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pandiums_state_comes_from_a_success_and_is_an_object() {
    for (text, code) in [
        ("echo '{\"page\":3}'; exit 1", Code::ScriptFailed),
        ("echo '[1]'", Code::ScriptOutputInvalid),
        ("echo done", Code::ScriptOutputInvalid),
    ] {
        let outcome = outcome(sh(text).env_prefix("PAN")).await;
        assert_eq!(failure(&outcome).0, code, "{text}");
        assert_eq!(outcome.state, None);
    }
    let silent = outcome(sh("true").env_prefix("PAN")).await;
    assert_eq!((succeeded(&silent), &silent.state), (&Value::Null, &None));
}

#[tokio::test(flavor = "multi_thread")]
async fn python_speaks_it_too() {
    if !has("python3") {
        return;
    }
    let text = r"
import json, os, pathlib, sys
state = json.loads(pathlib.Path(os.environ['XP_STATE_FILE']).read_text()) or {'runs': 0}
state['runs'] += 1
print('a print is a line of log')
print('and so is this', file=sys.stderr)
pathlib.Path(os.environ['XP_STATE_OUT']).write_text(json.dumps(state))
result = {'summary': f'Run number {state[chr(114) + chr(117) + chr(110) + chr(115)]}'}
pathlib.Path(os.environ['XP_RESULT_FILE']).write_text(json.dumps(result))
";
    let world = World::new([demo(Script::inline("python3", text).isolation(Isolation::Process))]);
    let installation = install(&world, json!({})).await;
    for expected in ["Run number 1", "Run number 2"] {
        let (done, reply) = world.run(&installation, "go", Value::Null).await;
        let lines = world.log(done.id, Audience::Developer).await;
        assert_eq!(done.status, ExecutionStatus::Succeeded, "{lines:?}");
        assert_eq!(reply["summary"], expected);
    }
    let raising = Script::inline("python3", "raise ValueError('no')").isolation(Isolation::Process);
    let (world, failed, _) = once(raising).await;
    assert_eq!(failed.failure.unwrap().code, Code::ScriptFailed);
    let lines = world.log(failed.id, Audience::Developer).await;
    assert!(lines.contains(&"ValueError: no".to_owned()), "{lines:?}");
}
