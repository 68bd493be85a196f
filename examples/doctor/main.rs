//! What this machine can enforce, found by trying: `cargo run --example doctor [-- --require LEVEL] [--json]`.
//!
//! Says which levels of isolation scripts can have here, by which mechanisms, what is missing and how to get it; and for the
//! interpreters in PATH, whether a script of theirs really runs at each level. With `--require` the exit code is 1 if that
//! level cannot be had, for builds and for the start of a container.

mod interpreters;

use crosspoint::{core::IsolationReport, prelude::*};
use interpreters::{Interpreter, LEVELS, Trial};
use serde_json::{Value, json};
use std::{fmt::Write, process::ExitCode};

const USAGE: &str = "usage: doctor [--require trusted|process|confined|sandboxed|machine] [--json]";

const ALL: [(Isolation, &str); 5] = [
    (Isolation::Trusted, "Rust flows, in the host's own process"),
    (Isolation::Process, "a process of its own, with limits"),
    (
        Isolation::Confined,
        "and no files, network and system calls but those it needs",
    ),
    (
        Isolation::Sandboxed,
        "and nothing of the host has a name; what scripts ask for",
    ),
    (Isolation::Machine, "a kernel of its own"),
];

#[derive(Debug, Default)]
struct Arguments {
    require: Option<Isolation>,
    json: bool,
    help: bool,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> std::result::Result<Self, String> {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--json" => arguments.json = true,
                "--help" | "-h" => arguments.help = true,
                "--require" => {
                    let level = words.next().unwrap_or_default();
                    let known = serde_json::from_value(Value::from(level.as_str()));
                    arguments.require = Some(known.map_err(|_| format!("`{level}` is no level\n{USAGE}"))?);
                }
                other => return Err(format!("{other} is unknown\n{USAGE}")),
            }
        }
        Ok(arguments)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) if arguments.help => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("doctor: {problem}");
            return ExitCode::from(2);
        }
    };
    let report = Platform::probe().await;
    let interpreters = interpreters::examine().await;
    if arguments.json {
        println!("{}", as_json(&report, &interpreters));
    } else {
        print!("{}", as_text(&report, &interpreters));
    }
    match arguments.require {
        Some(level) if level > report.level => {
            eprintln!(
                "doctor: `{level}` is required, and `{}` is what was proved here:",
                report.level
            );
            for missing in &report.missing {
                eprintln!("  {missing}");
            }
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn as_json(report: &IsolationReport, interpreters: &[Interpreter]) -> Value {
    let levels = ALL
        .iter()
        .map(|(level, _)| (level.to_string(), Value::from(*level <= report.level)));
    json!({
        "level": report.level,
        "levels": levels.collect::<serde_json::Map<_, _>>(),
        "mechanisms": report.mechanisms,
        "missing": report.missing,
        "interpreters": interpreters,
    })
}

fn as_text(report: &IsolationReport, interpreters: &[Interpreter]) -> String {
    let mut text = "Levels of isolation, by trial\n".to_owned();
    for (level, what) in ALL {
        let there = yes(level <= report.level);
        let _ = writeln!(text, "  {:<10} {there:<4} {what}", level.to_string());
    }
    let _ = writeln!(text, "\nWhat works\n  {}", report.mechanisms.join("\n  "));
    if !report.missing.is_empty() {
        let _ = writeln!(text, "\nWhat is missing\n  {}", report.missing.join("\n  "));
    }
    let _ = write!(text, "\n{:<48}", "Interpreters in PATH, each by running a script");
    for level in LEVELS {
        let _ = write!(text, " {:<9}", level.to_string());
    }
    text.push('\n');
    for interpreter in interpreters {
        interpreter_line(&mut text, interpreter);
    }
    text
}

fn interpreter_line(text: &mut String, interpreter: &Interpreter) {
    let Some(path) = &interpreter.path else {
        let _ = writeln!(text, "  {:<8} not there", interpreter.name);
        return;
    };
    let _ = write!(text, "  {:<8} {:<37}", interpreter.name, path.display().to_string());
    for (_, trial) in &interpreter.trials {
        let _ = write!(text, " {:<9}", yes(trial.ran()));
    }
    text.push('\n');
    for (level, trial) in &interpreter.trials {
        if let Trial::Failed { reason } = trial {
            let _ = writeln!(text, "    {level}: {reason}");
        }
    }
}

const fn yes(there: bool) -> &'static str {
    if there { "yes" } else { "no" }
}
