//! The plain binding: everything is a variable or a file.

use super::{
    super::files::{RESULT, STATE_OUT},
    Layout, is_pandium, pandium, triggers,
};
use crosspoint_core::{ExposeSecret, Result, RunSpec, Script, Timestamp};
use serde_json::{Map, Value};

pub(super) fn files(layout: &mut Layout, spec: &RunSpec, script: &Script, now: Timestamp) -> Result<()> {
    let state = match &spec.state.value {
        Value::Null if is_pandium(script) => Value::Object(Map::new()),
        state => state.clone(),
    };
    let files = [
        ("CONFIG_FILE", "config.json", &spec.config),
        ("INPUT_FILE", "input.json", &spec.input),
        ("TRIGGERS_FILE", "triggers.json", &triggers(spec, now)),
        ("STATE_FILE", "state.json", &state),
    ];
    for (variable, name, content) in files {
        let path = layout.json(name, content)?;
        layout.set(variable, path);
    }
    let (result, state_out) = (layout.path(RESULT), layout.path(STATE_OUT));
    layout.set("RESULT_FILE", result);
    layout.set("STATE_OUT", state_out);
    if script.wants_secrets() {
        secrets(layout, spec);
    }
    if is_pandium(script) {
        pandium::add(layout, spec, script, &state)?;
    }
    Ok(())
}

/// One file per secret, readable by the owner alone.
fn secrets(layout: &mut Layout, spec: &RunSpec) {
    let folder = layout.folder("secrets");
    layout.set("SECRETS_DIR", folder);
    for (name, secret) in spec.secrets.iter() {
        let content = secret.expose_secret().as_bytes().to_vec();
        layout.file(&format!("secrets/{}", file_name(name)), content, 0o400);
    }
}

fn file_name(secret: &str) -> String {
    let sound = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut file: String = secret.chars().map(|c| if sound(c) { c } else { '_' }).collect();
    if file.starts_with('.') || file.is_empty() {
        file.insert(0, '_');
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_stay_in_their_folder() {
        for (name, file) in [
            ("shop.api_key", "shop.api_key"),
            ("../x", "_.._x"),
            ("a/b", "a_b"),
            (".", "_."),
            ("", "_"),
        ] {
            assert_eq!(file_name(name), file);
        }
    }
}
