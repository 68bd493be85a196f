//! The `doctor` example.

use serde_json::Value;
use std::process::{Command, Output};

fn doctor(arguments: &[&str]) -> Output {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples/doctor");
    Command::new(&program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; `cargo test` builds it", program.display()))
}

#[test]
fn it_tells_what_can_be_enforced_and_refuses_what_cannot() {
    let output = doctor(&["--json", "--require", "process"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success(), "{report}");
    assert_eq!(report["levels"]["process"], true, "{report}");
    assert_eq!(report["levels"][report["level"].as_str().unwrap()], true, "{report}");
    let interpreters = report["interpreters"].as_array().unwrap();
    let shell = interpreters
        .iter()
        .find(|interpreter| interpreter["name"] == "sh")
        .unwrap();
    for (level, there) in report["levels"].as_object().unwrap() {
        let trial = &shell["trials"][level];
        assert!(
            trial.is_null() || (trial["outcome"] == "ran") == (*there == true),
            "{level}: {report}"
        );
    }

    let refused = doctor(&["--require", "machine"]);
    assert_eq!(refused.status.code(), Some(1));
    let reason = String::from_utf8(refused.stderr).unwrap();
    assert!(reason.contains("machine: "), "it says what is missing: {reason}");
    assert_eq!(doctor(&["--require", "everything"]).status.code(), Some(2));
}
