//! The examples with pods, run for a short while as a person would run them.

use serde_json::Value;
use std::process::Command;

fn run(example: &str, arguments: &[&str]) -> String {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("examples").join(example);
    let output = Command::new(&program).args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example}: {text}\n{errors}");
    assert!(
        !text.contains(std::env::temp_dir().to_str().unwrap()),
        "no path is printed: {text}"
    );
    text
}

#[test]
fn clients_of_killed_pods_are_answered() {
    let text = run("pods", &["--seconds", "6"]);
    let all: Vec<_> = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("all "))
        .unwrap_or_else(|| panic!("{text}"))
        .split_whitespace()
        .collect();
    let number = |column: usize| all[column].parse::<usize>().unwrap();
    assert!(number(0) > 50, "{text}");
    assert!(number(2) > 0, "some had to wait: {text}");
    assert_eq!(number(4), 0, "none was lost or failed: {text}");
    assert_eq!(number(1) + number(2) + number(3), number(0), "{text}");
    for pod in 1..=3 {
        assert!(
            text.contains(&format!("pod {pod} killed")) && text.contains(&format!("pod {pod} back")),
            "{text}"
        );
    }
}

#[test]
fn the_pool_grows_with_the_demand_and_loses_nothing() {
    let text = run("autoscale", &["--seconds", "10", "--seed", "7", "--json"]);
    let result: Value = serde_json::from_str(&text).unwrap();
    let summary = &result["summary"];
    let number = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(number("other"), 0, "{summary}");
    assert_eq!(number("answered") + number("accepted"), number("sent"), "{summary}");
    assert!(number("most_replicas") > 1, "{summary}");
    let first = &result["looks"][0];
    assert_eq!(first["replicas"], 1, "{first}");
}
