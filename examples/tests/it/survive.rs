//! The `survive` example, with few kills.

use serde_json::Value;
use std::process::Command;

#[test]
fn nothing_that_was_acknowledged_is_lost_by_kills() {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/survive");
    let output = Command::new(&program)
        .args(["--kills", "2", "--seed", "7", "--json"])
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo test` builds it", program.display()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line: Value = serde_json::from_str(text.trim()).expect("one line");
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
