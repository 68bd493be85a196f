//! What scripts written for Pandium look for besides.

use super::{LONGEST_VARIABLE, Layout, upper_snake};
use crosspoint_core::{ExposeSecret, Result, RunMode, RunSpec, Script, TriggerKind};
use serde_json::{Value, json};

pub(super) fn add(layout: &mut Layout, spec: &RunSpec, script: &Script, state: &Value) -> Result<()> {
    let carries = matches!(spec.trigger, TriggerKind::Webhook | TriggerKind::Event);
    let (mode, source) = match spec.trigger {
        _ if spec.mode == RunMode::Init => ("init", "manual"),
        _ if carries => ("webhook", "webhook"),
        TriggerKind::Schedule => ("normal", "cron"),
        _ => ("normal", "manual"),
    };
    let payload = layout.json("payload.json", &spec.input)?;
    let triggers = json!([{ "id": spec.execution, "source": source, "mode": mode, "payload": { "file": payload } }]);
    layout.set("CTX_RUN_MODE", mode);
    layout.set("CTX_RUN_TRIGGERS", triggers.to_string());
    let file = layout.path("state.json");
    layout.set("CTX_TENANT_METADATA_FILE", file);
    let text = state.to_string();
    if text.len() <= LONGEST_VARIABLE && !spec.state.value.is_null() {
        layout.set("CTX_LAST_SUCCESSFUL_RUN_STD_OUT", text);
    }
    if script.wants_secrets() {
        for (name, secret) in spec.secrets.iter() {
            let value = secret.expose_secret();
            if value.len() <= LONGEST_VARIABLE && !value.contains('\0') {
                layout.set(&format!("SEC_{}", upper_snake(name)), value);
            }
        }
    }
    Ok(())
}
