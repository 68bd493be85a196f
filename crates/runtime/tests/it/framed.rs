//! The framed binding, spoken by scripts of a few lines, and the mode `init`.

use crate::{
    scripts::{demo, failure, install, limits, sh, spec, start, succeeded, texts},
    stops::Fifo,
    world::{CANARY, World},
};
use async_trait::async_trait;
use crosspoint_core::{
    Audience, Checkpoint, Code, Error, ExecutionStatus, Level, Limits, Protocol, Result, Retry, RunEnd, RunHandle,
    RunMode, RunOutcome, RunSpec, Runner, Script, StopReason, SystemClock,
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Helps a script of a few lines to speak: `say` writes a message, and `start` has the first one.
const PRELUDE: &str = r#"
    set -eu
    say() { printf '%s\n' "$1" > "$XP_OUT_PATH"; }
    read -r start
"#;

pub(crate) fn framed(text: &str) -> Script {
    sh(&format!("{PRELUDE}\n{text}")).protocol(Protocol::Framed)
}

/// Starts a script with a changed specification, without the platform around it.
pub(crate) async fn start_with(script: Script, change: impl FnOnce(&mut RunSpec)) -> Result<Box<dyn RunHandle>> {
    let clock = Arc::new(SystemClock::new());
    let runner = crate::machine::runner(clock.clone());
    // What is enforced here is found out once, which is not to take of the run's time.
    runner.probe().await;
    let mut spec = spec(script, &*clock);
    change(&mut spec);
    runner.start(spec).await
}

pub(crate) async fn outcome_with(script: Script, change: impl FnOnce(&mut RunSpec)) -> RunOutcome {
    start_with(script, change).await.unwrap().wait().await
}

async fn outcome(script: Script) -> RunOutcome {
    outcome_with(script, |_| {}).await
}

/// Keeps states in memory; answers as it is told before that.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    answers: Mutex<VecDeque<Error>>,
    pub(crate) kept: Mutex<Vec<Value>>,
}

impl Shelf {
    fn that_answers(codes: &[Code]) -> Arc<Self> {
        let answers = codes.iter().map(|code| Error::new(*code, "as told")).collect();
        Arc::new(Self {
            answers: Mutex::new(answers),
            ..Self::default()
        })
    }
}

#[async_trait]
impl Checkpoint for Shelf {
    async fn save(&self, state: Value) -> Result<u64> {
        if let Some(error) = self.answers.lock().unwrap().pop_front() {
            return Err(error);
        }
        let mut kept = self.kept.lock().unwrap();
        kept.push(state);
        Ok(kept.len() as u64)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_says_everything() {
    let script = framed(
        r#"
        [ "$XP_BINDING" = framed ] && [ "$XP_PROTOCOL" = crosspoint/1 ] && [ -z "${XP_STATE_FILE:-}" ] || exit 65
        [ -z "${XP_SECRETS_DIR:-}" ] && [ "$(ls "$HOME/..")" = "$(printf 'messages\nscript\ntmp\nwork')" ] || exit 65
        say "{\"type\":\"result\",\"value\":$start}"
        "#,
    );
    for secrets in [false, true] {
        let script = if secrets {
            script.clone().needs_secrets()
        } else {
            script.clone()
        };
        let world = World::new([demo(script)]);
        let installation = install(&world, json!({ "startDate": "2026-01-01" })).await;
        let (done, start) = world.run(&installation, "go", json!({ "n": 1 })).await;
        let lines = world.log(done.id, Audience::Developer).await;
        assert_eq!(done.status, ExecutionStatus::Succeeded, "{lines:?}");
        let facts = json!({
            "type": "start", "v": 1, "mode": "normal", "attempt": 1, "customer": "acme", "flow": "go",
            "integration": "demo", "trigger": "call", "config": { "startDate": "2026-01-01" }, "broker": null,
            "state": { "version": 0, "value": null }, "features": ["checkpoint"], "grace_ms": 10_000,
        });
        for (name, value) in facts.as_object().unwrap() {
            assert_eq!(&start[name], value, "{name}");
        }
        assert_eq!(start["execution"], done.id.to_string());
        assert_eq!(start["run_key"], done.id.to_string());
        assert_eq!(start["triggers"][0]["data"], json!({ "n": 1 }));
        assert_eq!(start["limits"]["messages_per_second"], 1000);
        assert!(start["deadline"].as_str().unwrap().ends_with('Z'));
        // The result is redacted as a whole, so only the names are there to be seen.
        let names = start["secrets"]
            .as_object()
            .map(|secrets| secrets.keys().cloned().collect::<Vec<_>>());
        assert_eq!(
            names,
            secrets.then(|| vec!["shop.api_key".to_owned(), "token".to_owned()])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_prints_do_not_meet() {
    let outcome = outcome(framed(
        r#"
        say '{"type":"hello","v":1,"sdk":"sh"}'
        echo '{"type":"result","value":"a print is a line of log"}'
        echo 'and so is this' >&2
        say '{"type":"log","level":"warn","message":"careful","fields":{"n":1}}'
        say '{"type":"log","message":"Exported","audience":"customer","more":"than is known"}'
        say '{"type":"progress","done":1,"total":2,"message":"half"}'
        say '{"type":"metric","name":"orders","value":2}'
        say '{"type":"metric","name":"orders","value":3}'
        say '{"type":"metric","name":"left","kind":"gauge","value":9}'
        say '{"type":"metric","name":"left","kind":"gauge","value":7}'
        say '{"type":"of tomorrow"}'
        say 'no JSON'
        say '{"type":"result","value":{"summary":"Done."}}'
        "#,
    ))
    .await;
    assert_eq!(succeeded(&outcome), &json!({ "summary": "Done." }));
    let has = |level, audience, text: &str| {
        let found = outcome
            .log
            .iter()
            .any(|l| (l.level, l.audience, l.message.as_str()) == (level, audience, text));
        assert!(found, "{text}: {:?}", outcome.log);
    };
    has(Level::Info, Audience::Developer, "and so is this");
    has(
        Level::Info,
        Audience::Developer,
        r#"{"type":"result","value":"a print is a line of log"}"#,
    );
    has(Level::Warn, Audience::Developer, r#"careful {"n":1}"#);
    has(Level::Info, Audience::Customer, "Exported");
    has(Level::Debug, Audience::Developer, "Progress: 1 of 2: half");
    has(Level::Info, Audience::Developer, "Metric orders: 5");
    has(Level::Info, Audience::Developer, "Metric left: 7");
    has(
        Level::Info,
        Audience::Developer,
        "2 messages were not understood and left out",
    );
    has(Level::Info, Audience::Customer, "Done.");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_state_survives_the_script() {
    let script = framed(
        r#"
        say '{"type":"state","seq":1,"patch":{"page":1}}'
        read -r ack; case $ack in *'"version":1'*) ;; *) exit 65 ;; esac
        say '{"type":"state","seq":2,"patch":{"more":2}}'
        read -r ack; case $ack in *'"version":2'*) ;; *) exit 65 ;; esac
        kill -KILL $$
        "#,
    );
    let world = World::new([demo(script)]);
    let installation = install(&world, json!({})).await;
    let (crashed, _) = world.run(&installation, "go", Value::Null).await;
    assert_eq!(crashed.failure.unwrap().code, Code::ScriptCrashed);
    assert_eq!(crashed.status, ExecutionStatus::Waiting);
    assert_eq!(world.state(&installation, "go").await, json!({ "page": 1, "more": 2 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_goes_on_from_the_last_checkpoint() {
    // The second state is neither waited for nor acknowledged; the flow succeeds with it all the same.
    let script = framed(
        r#"
        say '{"type":"state","seq":1,"value":1}'
        read -r ack
        say '{"type":"state","seq":2,"value":2}'
        say '{"type":"result","value":"done"}'
        "#,
    );
    let world = World::new([demo(script)]);
    let installation = install(&world, json!({})).await;
    for _ in 0..2 {
        let (done, reply) = world.run(&installation, "go", Value::Null).await;
        assert_eq!((done.status, reply), (ExecutionStatus::Succeeded, json!("done")));
        assert_eq!(world.state(&installation, "go").await, json!(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_ends_the_run_at_once() {
    let shelf = Shelf::that_answers(&[Code::LeaseStale]);
    let script = framed(r#"trap '' TERM; say '{"type":"state","seq":1,"value":1}'; while :; do sleep 1000; done"#);
    let outcome = outcome_with(script, |spec| spec.checkpoint = Some(shelf.clone())).await;
    assert!(
        matches!(outcome.end, RunEnd::Stopped(StopReason::LeaseLost)),
        "{outcome:?}"
    );
    assert_eq!((outcome.state, shelf.kept.lock().unwrap().len()), (None, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_is_asked_again() {
    let shelf = Shelf::that_answers(&[Code::StoreUnavailable, Code::StoreUnavailable]);
    let script = framed(
        r#"
        say '{"type":"state","seq":7,"value":"x"}'
        read -r ack
        say "{\"type\":\"result\",\"value\":$ack}"
        "#,
    );
    let outcome = outcome_with(script, |spec| spec.checkpoint = Some(shelf.clone())).await;
    assert_eq!(succeeded(&outcome), &json!({ "type": "ack", "seq": 7, "version": 1 }));
    assert_eq!(*shelf.kept.lock().unwrap(), [json!("x")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_state_ends_the_attempt() {
    let shelf = Shelf::that_answers(&[Code::StateConflict]);
    let script = framed(r#"say '{"type":"state","seq":1,"value":1}'; while :; do sleep 1000; done"#);
    let outcome = outcome_with(script, |spec| spec.checkpoint = Some(shelf)).await;
    assert_eq!(failure(&outcome), (Code::StateConflict, Retry::Backoff));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_listens_holds_up_nobody() {
    // More acknowledgements than the pipe to the guest can hold, and more states than a store keeps in that time.
    let text = r#"
        awk 'BEGIN { for (i = 1; i <= 20000; i++) printf "{\"type\":\"state\",\"seq\":%d,\"value\":%d}\n", i, i }' \
            > "$XP_OUT_PATH"
        say '{"type":"result","value":"done"}'
    "#;
    let shelf = Arc::new(Shelf::default());
    let outcome = outcome_with(framed(text), |spec| spec.checkpoint = Some(shelf.clone())).await;
    assert_eq!(succeeded(&outcome), "done");
    let kept = shelf.kept.lock().unwrap();
    assert_eq!(
        kept.last(),
        Some(&json!(20_000)),
        "the last state is kept, whatever was left out before it"
    );
    assert!(
        kept.windows(2).all(|pair| pair[0].as_u64() < pair[1].as_u64()),
        "in order"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_checkpoints_the_state_comes_with_success() {
    for (end, state) in [("exit 0", Some(json!({ "a": 1, "b": 2 }))), ("exit 1", None)] {
        let script = framed(&format!(
            r#"
            say '{{"type":"state","seq":1,"value":{{"a":1}}}}'
            say '{{"type":"state","seq":2,"patch":{{"b":2}}}}'
            {end}
            "#
        ));
        assert_eq!(outcome(script).await.state, state, "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_more_than_an_exit_code() {
    for (message, exit, code, retry) in [
        (
            r#""code":"busy","message":"no","retryable":true"#,
            65,
            Code::ScriptFailed,
            Retry::Backoff,
        ),
        (
            r#""code":"odd","message":"no","retryable":false"#,
            0,
            Code::ScriptFailed,
            Retry::Never,
        ),
        (r#""code":"odd","message":"no""#, 1, Code::ScriptFailed, Retry::Backoff),
        (
            r#""code":"input-invalid","message":"no""#,
            1,
            Code::ScriptFailed,
            Retry::Never,
        ),
        (
            r#""code":"credentials-refused","message":"no""#,
            1,
            Code::CredentialsRefused,
            Retry::Reauthorize,
        ),
    ] {
        let outcome = outcome(framed(&format!("say '{{\"type\":\"error\",{message}}}'; exit {exit}"))).await;
        assert_eq!(failure(&outcome), (code, retry), "{message}");
        assert!(matches!(&outcome.end, RunEnd::Failed(error) if error.message() == "no"));
    }
    let later = outcome(framed(
        r#"say '{"type":"error","message":"no","retry_after_ms":5000}'; exit 75"#,
    ))
    .await;
    assert!(matches!(failure(&later).1, Retry::At(_)), "{later:?}");
    let silent = outcome(framed("exit 78")).await;
    assert_eq!(failure(&silent), (Code::ScriptFailed, Retry::Never));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_ends_the_run() {
    let outcome = outcome(framed(r#"say '{"type":"hello","v":2}'; while :; do sleep 1000; done"#)).await;
    assert_eq!(failure(&outcome), (Code::ScriptFailed, Retry::Never));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_fails_the_run_unless_it_is_mended() {
    let big = "$(head -c 1100000 /dev/zero | tr '\\0' x)";
    let huge = "head -c 6000000 /dev/zero | tr '\\0' x > \"$XP_OUT_PATH\"; say ''";
    let mended = r#"say '{"type":"state","seq":2,"value":1}'"#;
    let too_big = format!(r#"say "{{\"type\":\"state\",\"seq\":1,\"value\":\"{big}\"}}""#);
    for (text, works) in [
        (too_big.clone(), false),
        (format!("{too_big}\n{mended}"), true),
        (format!("{too_big}\nsay '{{\"type\":\"result\",\"value\":1}}'"), false),
        (r#"say '{"type":"state","seq":1}'"#.to_owned(), false),
        (r#"say '{"type":"state","seq":1,"patch":[1]}'"#.to_owned(), false),
        (
            r#"say '{"type":"state","seq":1,"value":1,"patch":{}}'"#.to_owned(),
            false,
        ),
        (huge.to_owned(), false),
        (
            format!("{huge}\n{mended}\nsay '{{\"type\":\"result\",\"value\":1}}'"),
            true,
        ),
    ] {
        let shelf = Arc::new(Shelf::default());
        let outcome = outcome_with(framed(&text), |spec| spec.checkpoint = Some(shelf.clone())).await;
        if works {
            succeeded(&outcome);
            assert_eq!(*shelf.kept.lock().unwrap(), [json!(1)]);
        } else {
            assert_eq!(
                failure(&outcome),
                (Code::ScriptOutputInvalid, Retry::Never),
                "{outcome:?}"
            );
            assert_eq!(shelf.kept.lock().unwrap().len(), 0);
        }
    }
    let refused = outcome(framed(&format!(
        "{too_big}\nread -r no\nsay '{{\"type\":\"state\",\"seq\":2,\"value\":0}}'\nsay \"{{\\\"type\\\":\\\"result\\\",\\\"value\\\":$no}}\""
    )))
    .await;
    let answer = succeeded(&refused);
    assert_eq!(
        (&answer["type"], &answer["seq"], &answer["code"]),
        (&json!("refused"), &json!(1), &json!("too-large"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_is_read_and_dropped() {
    let text = r#"
        yes '{"type":"log","message":"and another"}' | head -n 300000 > "$XP_OUT_PATH"
        head -c 20000000 /dev/zero | tr '\0' x > "$XP_OUT_PATH"
        say ''
        say '{"type":"state","seq":1,"value":1}'
        say '{"type":"result","value":"done"}'
    "#;
    let outcome = start(framed(text), limits(|l| l.log_bytes = 1 << 20))
        .await
        .unwrap()
        .wait()
        .await;
    assert_eq!((succeeded(&outcome), &outcome.state), (&json!("done"), &Some(json!(1))));
    let dropped = texts(&outcome)
        .into_iter()
        .find(|line| line.ends_with("bytes each are kept"))
        .unwrap();
    let dropped: u64 = dropped.split(' ').next().unwrap().parse().unwrap();
    let kept = outcome.log.iter().filter(|line| line.message == "and another").count() as u64;
    // The line of 20 MB was dropped too. What was within the rate and beyond the log's limits counts as output.
    assert!(
        (1000..=10_000).contains(&kept) && dropped >= 200_000,
        "{kept} kept, {dropped} dropped"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_do_not_get_out_by_messages() {
    let text = format!(
        r#"
        say '{{"type":"log","message":"{CANARY}","fields":{{"a":"{CANARY}"}}}}'
        say '{{"type":"metric","name":"{CANARY}","value":1}}'
        say '{{"type":"progress","message":"{CANARY}"}}'
        say '{{"type":"error","message":"bad key {CANARY}","retryable":false}}'
        exit 1
        "#
    );
    let world = World::new([demo(framed(&text).needs_secrets())]);
    let installation = install(&world, json!({})).await;
    let (failed, _) = world.run(&installation, "go", Value::Null).await;
    assert_eq!(failed.failure.as_ref().unwrap().message, "bad key [secret]");
    let lines = world.log(failed.id, Audience::Developer).await;
    assert!(lines.contains(&r#"[secret] {"a":"[secret]"}"#.to_owned()), "{lines:?}");
    assert!(lines.contains(&"Metric [secret]: 1".to_owned()), "{lines:?}");
    assert!(!format!("{lines:?} {failed:?}").contains(CANARY));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_to_stop_comes_as_a_message() {
    let fifo = Fifo::new();
    let text = format!(
        r#"
        trap '' TERM
        echo ready > '{}'
        read -r cancel
        say "{{\"type\":\"state\",\"seq\":1,\"value\":$cancel}}"
        "#,
        fifo.path()
    );
    let shelf = Arc::new(Shelf::default());
    let keep = |spec: &mut RunSpec| spec.checkpoint = Some(shelf.clone());
    let mut handle = start_with(framed(&text), keep).await.unwrap();
    assert_eq!(fifo.read().await, "ready\n");
    handle.cancel(StopReason::Draining, Duration::from_secs(60)).await;
    succeeded(&handle.wait().await);
    let kept = shelf.kept.lock().unwrap().pop().unwrap();
    assert_eq!((&kept["type"], &kept["reason"]), (&json!("cancel"), &json!("draining")));
    assert!(matches!(kept["grace_ms"].as_u64(), Some(50_000..=60_000)), "{kept}");

    // After a cancel nothing counts any more.
    let mut handle = start_with(framed(&text), keep).await.unwrap();
    assert_eq!(fifo.read().await, "ready\n");
    handle.cancel(StopReason::Cancelled, Duration::from_secs(60)).await;
    let outcome = handle.wait().await;
    assert!(
        matches!(outcome.end, RunEnd::Stopped(StopReason::Cancelled)),
        "{outcome:?}"
    );
    assert_eq!(outcome.state, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mode_init_answers_choices_and_keeps_nothing() {
    let choices = json!({ "list": [{ "value": "a", "label": "A" }], "summary": "x" });
    let init = |spec: &mut RunSpec| spec.mode = RunMode::Init;
    let plain = sh(r#"
        [ "$XP_CTX_RUN_MODE" = init ] || exit 65
        echo 1 > "$XP_STATE_OUT"
        echo '{"list":[{"value":"a","label":"A"}],"summary":"x"}' > "$XP_RESULT_FILE"
    "#);
    let pandium = sh(r#"
        [ "$PAN_CTX_RUN_MODE" = init ] || exit 65
        echo "$PAN_CTX_RUN_TRIGGERS" | grep -q '"mode":"init"'
        echo '{"list":[{"value":"a","label":"A"}],"summary":"x"}'
    "#)
    .env_prefix("PAN");
    let framed = framed(
        r#"
        [ "$XP_CTX_RUN_MODE" = init ] || exit 65
        say '{"type":"state","seq":1,"value":1}'
        read -r refused
        case $refused in *'"code":"init"'*) ;; *) exit 65 ;; esac
        say '{"type":"result","value":{"list":[{"value":"a","label":"A"}],"summary":"x"}}'
        "#,
    );
    for script in [plain, pandium, framed] {
        let shelf = Arc::new(Shelf::default());
        let outcome = outcome_with(script, |spec| {
            init(spec);
            spec.checkpoint = Some(shelf.clone());
        })
        .await;
        assert_eq!((succeeded(&outcome), &outcome.state), (&choices, &None));
        assert_eq!(shelf.kept.lock().unwrap().len(), 0);
        assert!(
            !texts(&outcome).contains(&"x"),
            "nobody is told that something was done"
        );
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_measured() {
    let text = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done";
    let outcome = outcome(sh(text)).await;
    succeeded(&outcome);
    assert!(outcome.usage.cpu_ms >= 10, "{:?}", outcome.usage);
    assert!(
        (100_000..1 << 30).contains(&outcome.usage.peak_memory),
        "{:?}",
        outcome.usage
    );
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn memory_of_all_processes_together_is_limited() {
    // `tail` holds a line until it has seen its end. Neither of the two is over the limit by itself.
    let hold = "{ head -c 40000000 /dev/zero; sleep 1000; } | tail -n 1";
    let memory = limits(|l| l.memory = 64 << 20);
    let outcome = start(sh(&format!("{hold} & {hold} & wait")), memory)
        .await
        .unwrap()
        .wait()
        .await;
    let RunEnd::Failed(error) = &outcome.end else {
        panic!("{outcome:?}")
    };
    assert_eq!(error.code(), Code::ScriptCrashed);
    assert!(error.message().contains("more memory than it may"), "{error:?}");
    assert!(outcome.usage.peak_memory > 64 << 20, "{:?}", outcome.usage);
    assert_eq!(Limits::default().memory, 1 << 30);
}
