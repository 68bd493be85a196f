//! Whether scripts of the usual languages run at each level. An interpreter that works in a terminal may be out of reach of
//! a sandboxed run: below a closed home folder, behind a shim that wants to read other files, too large for the limits.

use crosspoint::{
    core::{InstallationId, RunEnd, RunSpec, Runner, Work},
    prelude::*,
    runtime::Subprocess,
};
use serde::{Serialize, Serializer};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The levels that a script can ask for.
pub const LEVELS: [Isolation; 3] = [Isolation::Process, Isolation::Confined, Isolation::Sandboxed];

/// Names, and how each is tried: the text of a script that leaves a result, or arguments that make it print something.
const TRIED: [(&str, Try); 5] = [
    ("sh", Try::Text("echo true > \"$XP_RESULT_FILE\"")),
    (
        "python3",
        Try::Text("import os, ssl\nopen(os.environ['XP_RESULT_FILE'], 'w').write('true')"),
    ),
    (
        "node",
        Try::Text("require('fs').writeFileSync(process.env.XP_RESULT_FILE, 'true')"),
    ),
    (
        "perl",
        Try::Text("open(my $out, '>', $ENV{XP_RESULT_FILE}) or die $!; print $out 'true'; close $out or die $!;"),
    ),
    ("java", Try::Arguments(&["-version"])),
];

#[derive(Clone, Copy)]
enum Try {
    Text(&'static str),
    Arguments(&'static [&'static str]),
}

/// One program in PATH.
#[derive(Debug, Serialize)]
pub struct Interpreter {
    pub name: &'static str,
    /// Where it is; none if it is nowhere in PATH.
    pub path: Option<PathBuf>,
    #[serde(serialize_with = "by_level")]
    pub trials: Vec<(Isolation, Trial)>,
}

/// How a run ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Trial {
    Ran,
    Failed { reason: String },
}

impl Trial {
    pub const fn ran(&self) -> bool {
        matches!(self, Self::Ran)
    }
}

fn by_level<S: Serializer>(trials: &[(Isolation, Trial)], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let named: BTreeMap<String, &Trial> = trials.iter().map(|(level, trial)| (level.to_string(), trial)).collect();
    named.serialize(serializer)
}

/// Tries all of them. Of a name whose first program in PATH does not run everywhere, the further ones are tried too.
pub async fn examine() -> Vec<Interpreter> {
    let runner = Subprocess::new(Arc::new(SystemClock::new()));
    let mut all = Vec::new();
    for (name, how) in TRIED {
        let found = in_path(name);
        if found.is_empty() {
            all.push(Interpreter {
                name,
                path: None,
                trials: Vec::new(),
            });
        }
        for path in found {
            let mut trials = Vec::new();
            for level in LEVELS {
                trials.push((level, trial(&runner, &path, how, level).await));
            }
            let everywhere = trials.iter().all(|(_, trial)| trial.ran());
            all.push(Interpreter {
                name,
                path: Some(path),
                trials,
            });
            if everywhere {
                break;
            }
        }
    }
    all
}

/// The programs of this name, in the order in which they are found, and each file once.
fn in_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut known = Vec::new();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .filter(|program| program.is_file())
        .filter(|program| {
            let file = program.canonicalize().unwrap_or_else(|_| program.clone());
            let new = !known.contains(&file);
            known.push(file);
            new
        })
        .collect()
}

async fn trial(runner: &Subprocess, program: &Path, how: Try, level: Isolation) -> Trial {
    let interpreter = program.display().to_string();
    let script = match how {
        Try::Text(text) => Script::inline(interpreter, text),
        Try::Arguments(arguments) => Script::command(interpreter, arguments.iter().copied()),
    };
    let Err(reason) = run(runner, script.isolation(level)).await else {
        return Trial::Ran;
    };
    let closed = closed(program).map(|closed| format!("; {closed}"));
    Trial::Failed {
        reason: reason + &closed.unwrap_or_default(),
    }
}

/// The commonest reason: a folder on the way there that not everybody may enter. Where the host runs as root, scripts at
/// `confined` run as users of their customers.
fn closed(program: &Path) -> Option<String> {
    let program = program.canonicalize().ok()?;
    let closed = |folder: &&Path| {
        let folder = folder.metadata();
        folder.is_ok_and(|folder| folder.permissions().mode() & 0o001 == 0)
    };
    let folder = program.ancestors().skip(1).find(closed)?;
    Some(format!(
        "`{}` is closed to other users of this machine",
        folder.display()
    ))
}

/// Runs a script as the platform would, or says why it did not succeed.
async fn run(runner: &Subprocess, script: Script) -> std::result::Result<(), String> {
    let clock = SystemClock::new();
    let customer = CustomerId::new("doctor").map_err(|error| error.to_string())?;
    let work = Work::Script(Arc::new(script));
    let (id, installation) = (InvocationId::mint(&clock), InstallationId::mint(&clock));
    let deadline = clock.now().plus(Duration::from_secs(30));
    let spec = RunSpec::new(id, customer, installation, "trial", work, deadline);
    let mut handle = runner.start(spec).await.map_err(|error| error.message().to_owned())?;
    let outcome = handle.wait().await;
    let problem = match outcome.end {
        RunEnd::Succeeded(_) => return Ok(()),
        RunEnd::Failed(error) => error.message().to_owned(),
        other => format!("{other:?}"),
    };
    // The interpreter's own words, if it had any.
    let said = outcome.log.last().map(|line| format!(" ({})", line.message));
    Err(problem + &said.unwrap_or_default())
}
