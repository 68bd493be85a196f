//! The http binding, spoken with `curl`.

use crate::{
    framed::{Shelf, outcome_with, start_with},
    machine::has,
    scripts::{failure, sh, succeeded, texts},
};
use crosspoint_core::{Code, Protocol, Retry, RunEnd, Script, StopReason};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// `fetch` and `post` answer with the status of the answer; what was fetched is in `got`.
const PRELUDE: &str = r#"
    set -eu
    call() { curl -sS -o got -w '%{http_code}' -H "Authorization: Bearer ${token:-$XP_HTTP_TOKEN}" "$@"; }
    fetch() { call "$XP_HTTP_URL/messages?after=$1"; }
    post() { call -H "XP-Batch: $1" --data-binary "$2" "$XP_HTTP_URL/messages"; }
    must() { [ "$1" = "$2" ] || { echo "$1 instead of $2" >&2; exit 65; }; }
"#;

fn http(text: &str) -> Script {
    sh(&format!("{PRELUDE}\n{text}")).protocol(Protocol::Http)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_fetched_and_posted() {
    if !has("curl") {
        return;
    }
    let text = r#"
        must "$XP_BINDING" http
        must "$(fetch 0)" 200
        start=$(cat got)
        must "$(fetch 0)" 200; must "$(cat got)" "$start"    # the answer might have been lost
        must "$(post 1 '{"type":"state","seq":1,"value":1}
{"type":"log","message":"two in one batch"}')" 204
        must "$(fetch 1)" 200; ack=$(cat got)
        must "$(post 2 "{\"type\":\"result\",\"value\":[$start,$ack]}")" 204
    "#;
    let shelf = Arc::new(Shelf::default());
    let outcome = outcome_with(http(text), |spec| spec.checkpoint = Some(shelf.clone())).await;
    let result = succeeded(&outcome);
    assert_eq!((&result[0]["type"], &result[0]["v"]), (&json!("start"), &json!(1)));
    assert_eq!(result[1], json!({ "type": "ack", "seq": 1, "version": 1 }));
    assert_eq!(*shelf.kept.lock().unwrap(), [json!(1)]);
    assert!(texts(&outcome).contains(&"two in one batch"), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_counts_once_and_none_is_left_out() {
    if !has("curl") {
        return;
    }
    let text = r#"
        must "$(post 1 '{"type":"metric","name":"n","value":1}')" 204
        must "$(post 1 '{"type":"metric","name":"n","value":1}')" 204
        must "$(post 3 '{"type":"metric","name":"n","value":1}')" 409
        must "$(post x '')" 400
        must "$(fetch 5)" 409
        must "$(fetch x)" 400
        must "$(call "$XP_HTTP_URL/other")" 404
        must "$(call -X DELETE "$XP_HTTP_URL/messages")" 405
        head -c 5000000 /dev/zero > large; must "$(post 2 @large)" 413
        must "$(token=guess; post 2 '{"type":"metric","name":"n","value":9}')" 401
        must "$(token=$(echo "$XP_HTTP_TOKEN" | tr 0-9a-f 1-9a-f0); post 2 '{"type":"metric","name":"n","value":9}')" 401
        must "$(post 2 '{"type":"metric","name":"n","value":1}')" 204
    "#;
    let outcome = outcome_with(http(text), |_| {}).await;
    assert_eq!(succeeded(&outcome), &Value::Null);
    assert!(texts(&outcome).contains(&"Metric n: 2"), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_to_stop_reaches_a_guest_that_waits() {
    if !has("curl") {
        return;
    }
    let text = r#"
        trap '' TERM
        must "$(fetch 0)" 200
        echo ready > "$FIFO"
        must "$(fetch 1)" 200
        must "$(post 1 "{\"type\":\"state\",\"seq\":1,\"value\":$(cat got)}")" 204
    "#;
    let fifo = crate::stops::Fifo::new();
    let shelf = Arc::new(Shelf::default());
    let script = http(text).env("FIFO", fifo.path());
    let mut handle = start_with(script, |spec| spec.checkpoint = Some(shelf.clone()))
        .await
        .unwrap();
    assert_eq!(fifo.read().await, "ready\n");
    handle.cancel(StopReason::Draining, Duration::from_secs(60)).await;
    succeeded(&handle.wait().await);
    assert_eq!(shelf.kept.lock().unwrap()[0]["reason"], "draining");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_exit_codes_mean_the_same() {
    if !has("curl") {
        return;
    }
    let busy = http(r#"must "$(post 1 '{"type":"error","message":"busy","retryable":true}')" 204; exit 65"#);
    let outcome = outcome_with(busy, |_| {}).await;
    assert_eq!(failure(&outcome), (Code::ScriptFailed, Retry::Backoff));
    let outcome = outcome_with(http("exit 78"), |_| {}).await;
    assert_eq!(failure(&outcome), (Code::ScriptFailed, Retry::Never));
    let other = http(r#"must "$(post 1 '{"type":"hello","v":7}')" 204; while :; do sleep 1000; done"#);
    let outcome = outcome_with(other, |_| {}).await;
    assert!(
        matches!(&outcome.end, RunEnd::Failed(error) if error.message().contains("version 7")),
        "{outcome:?}"
    );
}
