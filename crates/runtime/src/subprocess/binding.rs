//! The plain binding of `crosspoint/1`: what a script finds in its environment and in its private folder.

use super::folder::{Folder, RESULT, STATE_OUT};
use crosspoint_core::{Code, Error, ErrorExt, ExposeSecret, Result, RunSpec, Script, Timestamp, TriggerKind};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

/// Values above this are found in the configuration's file only: the kernel takes no variable above 128 KiB.
const LONGEST_VARIABLE: usize = 32 * 1024;

/// The prefix of scripts that were written for Pandium.
const PANDIUM: &str = "PAN";

pub(super) fn is_pandium(script: &Script) -> bool {
    script.prefix() == PANDIUM
}

/// The environment of a run, complete: nothing of the host's own is inherited.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) env: BTreeMap<OsString, OsString>,
    /// Where the script runs, unless it says otherwise.
    pub(super) work: PathBuf,
}

impl Binding {
    fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.env.insert(name.into(), value.into());
    }
}

/// Writes the folder and makes the environment. `base` is what every script gets: `PATH`, `LANG`, `TZ`.
pub(super) fn prepare(
    spec: &RunSpec,
    script: &Script,
    base: &BTreeMap<OsString, OsString>,
    folder: &Folder,
    now: Timestamp,
) -> Result<Binding> {
    let prefix = script.prefix();
    let sound = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if prefix.is_empty() || !sound {
        let message = "the prefix of a script's variables is letters, digits and underscores";
        return Err(Error::new(Code::SetupInvalid, message).with("prefix", prefix));
    }
    let mut binding = Binding {
        env: base.clone(),
        work: folder.folder("work")?,
    };
    binding.set("HOME", binding.work.clone());
    binding.set("TMPDIR", folder.folder("tmp")?);
    for (name, value) in script.environment() {
        binding.set(name, value);
    }
    let named = |name: &str| format!("{prefix}_{name}");
    binding.set(named("PROTOCOL"), "crosspoint/1");
    binding.set(named("RUN_KEY"), spec.run_key.to_string());
    binding.set(named("DEADLINE"), spec.deadline.to_string());
    for (name, value) in context(spec) {
        binding.set(named(&format!("CTX_{name}")), value);
    }
    for (name, value) in scalars(&spec.config) {
        binding.set(named(&format!("CFG_{name}")), value);
    }

    let state = match &spec.state.value {
        Value::Null if is_pandium(script) => Value::Object(Map::new()),
        state => state.clone(),
    };
    let files = [
        ("CONFIG_FILE", "config.json", &spec.config),
        ("INPUT_FILE", "input.json", &spec.input),
        ("TRIGGERS_FILE", "triggers.json", &json!([cloud_event(spec, now)])),
        ("STATE_FILE", "state.json", &state),
    ];
    for (variable, name, content) in files {
        binding.set(named(variable), folder.write(name, &bytes(content)?, 0o600)?);
    }
    binding.set(named("RESULT_FILE"), folder.path(RESULT));
    binding.set(named("STATE_OUT"), folder.path(STATE_OUT));
    if script.wants_secrets() {
        let secrets = secrets(spec, folder)?;
        binding.set(named("SECRETS_DIR"), secrets);
    }
    if is_pandium(script) {
        pandium(&mut binding, spec, script, folder, &state)?;
    }
    Ok(binding)
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).or_fail(Code::Internal, "a JSON value does not serialise")
}

fn context(spec: &RunSpec) -> [(&'static str, String); 8] {
    [
        ("CUSTOMER", spec.customer.to_string()),
        ("INSTALLATION", spec.installation.to_string()),
        ("INTEGRATION", spec.integration.as_ref().to_owned()),
        ("FLOW", spec.flow.as_ref().to_owned()),
        ("EXECUTION", spec.execution.to_string()),
        ("ATTEMPT", spec.attempt.to_string()),
        ("TRIGGER", trigger(spec.trigger).to_owned()),
        ("RUN_MODE", "normal".to_owned()),
    ]
}

const fn trigger(kind: TriggerKind) -> &'static str {
    match kind {
        TriggerKind::Event => "event",
        TriggerKind::Schedule => "schedule",
        TriggerKind::Webhook => "webhook",
        TriggerKind::FollowUp => "follow-up",
        _ => "call",
    }
}

/// What started the run, as an envelope of `CloudEvents` 1.0.
fn cloud_event(spec: &RunSpec, now: Timestamp) -> Value {
    let kind = spec
        .event
        .as_deref()
        .map_or_else(|| format!("crosspoint.{}", trigger(spec.trigger)), str::to_owned);
    json!({
        "specversion": "1.0",
        "id": spec.execution,
        "source": format!("/installations/{}", spec.installation),
        "type": kind,
        "time": now,
        "datacontenttype": "application/json",
        "data": spec.input,
    })
}

/// Texts, numbers and booleans of the configuration's top level, by variable.
fn scalars(config: &Value) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in config.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => continue,
        };
        if text.len() <= LONGEST_VARIABLE && !text.contains('\0') {
            variables.insert(upper_snake(name), text);
        }
    }
    variables
}

/// `startDate`, `start-date` and `start_date` all become `START_DATE`.
fn upper_snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        });
    }
    out
}

/// One file per secret, readable by the owner alone.
fn secrets(spec: &RunSpec, folder: &Folder) -> Result<PathBuf> {
    let path = folder.folder("secrets")?;
    for (name, secret) in spec.secrets.iter() {
        let mut file: String = name
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() || "._-".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        if file.starts_with('.') || file.is_empty() {
            file.insert(0, '_');
        }
        folder.write(&format!("secrets/{file}"), secret.expose_secret().as_bytes(), 0o400)?;
    }
    Ok(path)
}

/// What scripts written for Pandium look for besides.
fn pandium(binding: &mut Binding, spec: &RunSpec, script: &Script, folder: &Folder, state: &Value) -> Result<()> {
    let carries = matches!(spec.trigger, TriggerKind::Webhook | TriggerKind::Event);
    let (mode, source) = match spec.trigger {
        _ if carries => ("webhook", "webhook"),
        TriggerKind::Schedule => ("normal", "cron"),
        _ => ("normal", "manual"),
    };
    let payload = folder.write("payload.json", &bytes(&spec.input)?, 0o600)?;
    let triggers = json!([{ "id": spec.execution, "source": source, "mode": mode, "payload": { "file": payload } }]);
    binding.set("PAN_CTX_RUN_MODE", mode);
    binding.set("PAN_CTX_RUN_TRIGGERS", triggers.to_string());
    binding.set("PAN_CTX_TENANT_METADATA_FILE", folder.path("state.json"));
    let text = state.to_string();
    if text.len() <= LONGEST_VARIABLE && !spec.state.value.is_null() {
        binding.set("PAN_CTX_LAST_SUCCESSFUL_RUN_STD_OUT", text);
    }
    if script.wants_secrets() {
        for (name, secret) in spec.secrets.iter() {
            let value = secret.expose_secret();
            if value.len() <= LONGEST_VARIABLE && !value.contains('\0') {
                binding.set(format!("PAN_SEC_{}", upper_snake(name)), value);
            }
        }
    }
    Ok(())
}

/// The environment that every script gets, taken from the host's once.
pub(super) fn base_environment() -> BTreeMap<OsString, OsString> {
    let mut base = BTreeMap::new();
    for (name, otherwise) in [
        ("PATH", Some("/usr/local/bin:/usr/bin:/bin")),
        ("LANG", Some("C.UTF-8")),
        ("TZ", None),
    ] {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(value) = value.or_else(|| otherwise.map(OsString::from)) {
            base.insert(OsString::from(name), value);
        }
    }
    base
}

/// The file of a program: a path as it is (relative to `dir`), a name looked up in `PATH`.
///
/// It is looked up here and not by the standard library, which would have to fork the host to do it with another `PATH`.
pub(super) fn find(program: &str, dir: Option<&Path>, env: &BTreeMap<OsString, OsString>) -> Result<PathBuf> {
    let missing = || {
        let message = format!("the program `{program}` is not there or not executable");
        Error::new(Code::ScriptNotStarted, message).with("program", program)
    };
    if program.contains('/') {
        let path = dir.map_or_else(|| PathBuf::from(program), |dir| dir.join(program));
        let path = std::path::absolute(path).map_err(|e| missing().caused_by(e))?;
        return if executable(&path) { Ok(path) } else { Err(missing()) };
    }
    let path = env.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|candidate| executable(candidate))
        .ok_or_else(missing)
}

fn executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_variables() {
        for (name, variable) in [
            ("startDate", "START_DATE"),
            ("start-date", "START_DATE"),
            ("start_date", "START_DATE"),
            ("URL2Path", "URL2_PATH"),
            ("größe", "GR__E"),
        ] {
            assert_eq!(upper_snake(name), variable);
        }
    }

    #[test]
    fn only_scalars_become_variables() {
        let config = json!({ "a": "x", "b": 1.5, "c": true, "d": null, "e": [1], "f": { "$secret": "f" }, "g": "\0" });
        let variables: Vec<_> = scalars(&config).into_iter().collect();
        let expected = [("A", "x"), ("B", "1.5"), ("C", "true")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(variables, expected);
    }

    #[test]
    fn programs_are_looked_up_in_the_scripts_own_path() {
        let env = BTreeMap::from([(
            OsString::from("PATH"),
            OsString::from("relative:/nowhere:/usr/bin:/bin"),
        )]);
        assert!(find("sh", None, &env).unwrap().is_absolute());
        for program in ["surely-not-there", "/etc/passwd", "./sh", "/"] {
            assert_eq!(
                find(program, None, &env).unwrap_err().code(),
                Code::ScriptNotStarted,
                "{program}"
            );
        }
        assert!(find("./sh", Some(Path::new("/bin")), &env).is_ok());
    }
}
