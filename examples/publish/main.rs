//! Publishes an integration from its author's repository, as a step of its build or from a git hook:
//! `cargo run --example publish -- <folder> --to http://localhost:3000/operators --token-env OPERATOR_TOKEN`.
//!
//! With `--check` nothing is published: without `--to` the folder is looked at here, with it the host is asked too.
//!
//! Exit codes: 0 it is published, or nothing is wrong with it; 1 it was refused, and the problems are told; 2 the command
//! line is wrong; 3 the host could not be asked or failed, so that another try may help.

use crosspoint::{
    core::{Error, Kind, ProblemDetails, Published},
    marketplace::{FormSchemas, renderable},
    runtime::artifacts::{ArtifactLimits, AuthorPolicy, Inspected, inspect, pack},
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

const USAGE: &str =
    "usage: publish <folder> [--to <operators' address> --token-env <name>] [--check] [--replace] [--json]";

#[derive(Debug, Default)]
struct Wish {
    folder: PathBuf,
    to: Option<String>,
    token_env: Option<String>,
    check: bool,
    replace: bool,
    json: bool,
}

fn wish() -> Result<Wish, String> {
    let mut wish = Wish::default();
    let mut arguments = std::env::args().skip(1);
    let mut folder = None;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--to" => wish.to = Some(value()?.trim_end_matches('/').to_owned()),
            "--token-env" => wish.token_env = Some(value()?),
            "--check" => wish.check = true,
            "--replace" => wish.replace = true,
            "--json" => wish.json = true,
            other if other.starts_with('-') => return Err(format!("{other} is not known")),
            path if folder.is_none() => folder = Some(PathBuf::from(path)),
            other => return Err(format!("{other} is one folder too many")),
        }
    }
    wish.folder = folder.ok_or("name the folder with crosspoint.json")?;
    if wish.to.is_none() && !wish.check {
        return Err("say where to: --to, or --check to look at it only".to_owned());
    }
    Ok(wish)
}

/// How it ended: what is told, and with which exit code.
enum End {
    Published(Box<Published>),
    Sound(Box<Inspected>),
    Refused(Box<Value>),
    Failed(String),
}

#[tokio::main]
async fn main() -> ExitCode {
    let wish = match wish() {
        Ok(wish) => wish,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let end = match look(&wish.folder) {
        Err(end) => end,
        Ok(inspected) => match &wish.to {
            None => End::Sound(Box::new(inspected)),
            Some(to) => send(&wish, to).await.unwrap_or_else(End::Failed),
        },
    };
    tell(&wish, &end);
    ExitCode::from(match end {
        End::Published(_) | End::Sound(_) => 0,
        End::Refused(_) => 1,
        End::Failed(_) => 3,
    })
}

/// What can be said without the host. Isolation and limits are the host's to grant, so they are not looked at here.
fn look(folder: &Path) -> Result<Inspected, End> {
    let mut policy = AuthorPolicy::new()
        .isolation(crosspoint::core::Isolation::Process)
        .open_egress(true);
    policy.most = crosspoint::core::Limits::default();
    let generous = [
        &mut policy.most.wall_ms,
        &mut policy.most.cpu_ms,
        &mut policy.most.memory,
        &mut policy.most.disk,
    ];
    generous.into_iter().for_each(|limit| *limit = u64::MAX);
    let inspected =
        inspect(folder, &ArtifactLimits::default(), &policy, &FormSchemas).map_err(|error| refused(&error))?;
    match renderable(&inspected.manifest.config) {
        Ok(()) => Ok(inspected),
        Err(problems) => {
            let error = Error::new(
                crosspoint::core::Code::ArtifactInvalid,
                "the form does not show the configuration",
            );
            Err(refused(&error.with_problems(problems)))
        }
    }
}

fn refused(error: &Error) -> End {
    match error.kind() {
        Kind::InvalidInput => End::Refused(Box::new(json!(ProblemDetails::of(error)))),
        _ => End::Failed(format!("{error:?}")),
    }
}

async fn send(wish: &Wish, to: &str) -> Result<End, String> {
    let archive = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    let digest = pack(&wish.folder, archive.path(), &ArtifactLimits::default()).map_err(|e| e.to_string())?;
    let body = std::fs::read(archive.path()).map_err(|e| e.to_string())?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(900))
        .build()
        .map_err(|e| e.to_string())?;
    let url = format!(
        "{to}/v1/artifacts?check={}&replace={}&digest={digest}",
        wish.check, wish.replace
    );
    let mut request = client
        .post(url)
        .header("content-type", "application/gzip")
        .header("x-crosspoint", "1")
        .body(body);
    if let Some(name) = &wish.token_env {
        let token = std::env::var(name).map_err(|_| format!("the variable {name} holds no token"))?;
        request = request.bearer_auth(token.trim());
    }
    let answer = request
        .send()
        .await
        .map_err(|e| format!("the host cannot be asked: {e}"))?;
    let status = answer.status();
    let text = answer
        .text()
        .await
        .map_err(|e| format!("the host's answer did not arrive: {e}"))?;
    let wrong = || format!("the host answered {status}: {text:.500}");
    let value: Value = serde_json::from_str(&text).map_err(|_| wrong())?;
    match status.as_u16() {
        200 => serde_json::from_value(value)
            .map(|done| End::Published(Box::new(done)))
            .map_err(|_| wrong()),
        408 | 429 | 500.. => Err(wrong()),
        _ => Ok(End::Refused(Box::new(value))),
    }
}

fn tell(wish: &Wish, end: &End) {
    if wish.json {
        let value = match end {
            End::Published(published) => json!(published),
            End::Sound(found) => json!({
                "name": found.manifest.name, "version": found.manifest.version, "digest": found.digest,
                "layers": [], "new": false, "warnings": found.warnings
            }),
            End::Refused(problem) => (**problem).clone(),
            End::Failed(why) => json!({ "detail": why }),
        };
        println!("{value}");
        return;
    }
    let warn = |warnings: &[String]| warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    match end {
        End::Published(published) => {
            warn(&published.warnings);
            let what = match (wish.check, published.new) {
                (true, _) => "can be published",
                (false, true) => "is published",
                (false, false) => "was published before, and has not changed",
            };
            println!("{} {} {what}", published.name, published.version);
        }
        End::Sound(found) => {
            warn(&found.warnings);
            println!(
                "{} {}: nothing is wrong with it",
                found.manifest.name, found.manifest.version
            );
        }
        End::Refused(problem) => {
            eprintln!("refused: {}", problem["detail"].as_str().unwrap_or_default());
            for problem in problem["errors"].as_array().into_iter().flatten() {
                let text = |name: &str| problem[name].as_str().unwrap_or_default();
                eprintln!("  {} {}", text("pointer"), text("message"));
            }
        }
        End::Failed(why) => eprintln!("{why}"),
    }
}
