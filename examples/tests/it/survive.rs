//! The `survive` example, with few kills.

use serde_json::Value;
use std::process::Command;

fn survive(arguments: &[&str]) -> Value {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/survive");
    let output = Command::new(&program)
        .args(arguments)
        .arg("--json")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo test` builds it", program.display()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(text.trim()).expect("one line")
}

#[test]
fn nothing_that_was_acknowledged_is_lost_by_kills() {
    let line = survive(&["--kills", "2", "--seed", "7"]);
    assert_eq!(
        (&line["kills"], &line["lost"]),
        (&Value::from(2), &Value::from(0)),
        "{line}"
    );
    assert_eq!(line["accepted"], line["answered"], "{line}");
    for way in ["on_connection", "by_id"] {
        assert!(line[way].as_u64().unwrap() > 0, "nobody was answered {way}: {line}");
    }
}

/// Each execution succeeds once with a number of its own, and those of a dead worker begin elsewhere; the exit code says
/// whether the memories are right.
#[test]
fn flows_of_killed_workers_go_on_where_they_were() {
    let line = survive(&["--workers", "3", "--executions", "300", "--kills", "3", "--seed", "1"]);
    for (name, expected) in [("stored", 300), ("succeeded", 300), ("problems", 0), ("went_back", 0)] {
        assert_eq!(line[name], expected, "{name}: {line}");
    }
    assert!(line["kills"].as_u64().unwrap() >= 3, "{line}");
    assert!(
        line["begun_again"].as_u64().unwrap() > 0,
        "nobody was killed at work: {line}"
    );
}
