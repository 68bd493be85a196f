//! From an artifact to an integration that the registry takes.

use super::{Artifact, AuthorPolicy, FlowManifest, Language, TriggerManifest, layers};
use crosspoint_core::{
    AnyIntegration, ConnectionSlot, FlowDefinition, FlowOptions, Integration, NoConfig, Result, Schemas, Script,
    SecretRef, Source, Tick, Work,
};
use schemars::{Schema, schema_for};
use serde_json::Value;
use std::{borrow::Cow, num::NonZeroU32, sync::Arc, time::Duration};

/// The integration that an artifact is.
pub(super) fn integration(artifact: &Artifact, policy: &AuthorPolicy, schemas: &dyn Schemas) -> Result<AnyIntegration> {
    let manifest = &artifact.manifest;
    let mut integration = AnyIntegration::from(Integration::<NoConfig>::new(&manifest.name, &manifest.version));
    integration.title.clone_from(&manifest.title);
    integration.summary.clone_from(&manifest.summary);
    integration.description.clone_from(&manifest.description);
    integration.category.clone_from(&manifest.category);
    integration.connections = manifest.connections.iter().cloned().map(ConnectionSlot::from).collect();
    integration.config_schema = config_schema(&manifest.config);
    integration.check_config = schemas.compile(&integration.config_schema)?;
    integration.flows = manifest
        .flows
        .iter()
        .map(|flow| definition(artifact, flow, policy))
        .collect();
    Ok(integration)
}

fn definition(artifact: &Artifact, flow: &FlowManifest, policy: &AuthorPolicy) -> FlowDefinition {
    let source = match &flow.trigger {
        TriggerManifest::Event(name) => Source::Event(Cow::Owned(name.clone())),
        TriggerManifest::Schedule(spec) => Source::Schedule(spec.clone()),
        TriggerManifest::Call => Source::Call,
    };
    let scheduled = matches!(source, Source::Schedule(_));
    let script = script(artifact, flow, policy);
    let mut definition = FlowDefinition::new(&flow.name, source, Work::Script(Arc::new(script)));
    definition.stateful = flow.stateful;
    definition.options = FlowOptions::default().retry(flow.retry.clone()).limits(flow.limits);
    definition.options.max_in_flight = flow.max_in_flight.and_then(NonZeroU32::new);
    if let Some(rate) = flow.rate {
        definition.options = definition.options.rate(rate.count, Duration::from_millis(rate.per_ms));
    }
    if scheduled {
        definition.input_schema = schema_for!(Tick);
    } else if let Some(input) = &flow.input {
        definition.input_schema = input.clone();
    }
    definition
}

fn script(artifact: &Artifact, flow: &FlowManifest, policy: &AuthorPolicy) -> Script {
    let (program, args) = flow.language.command(&flow.entry.program, &flow.entry.args);
    let script = match &artifact.assembly {
        Some(root) => Script::command(program, args).dir_in(root, layers::APP),
        None => Script::command(program, args).dir(&artifact.folder),
    };
    let mut script = script
        .isolation(flow.isolation.unwrap_or(policy.isolation).max(policy.isolation))
        .env_prefix(&flow.env_prefix)
        .protocol(flow.protocol);
    if flow.language == Language::Python {
        // At the weaker levels nothing else keeps Python from writing beside the author's files.
        script = script.env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(packages) = &artifact.python {
            script = script.layer("PYTHONPATH", packages);
        }
    }
    if let Some(warm) = &flow.warm {
        script = script.warm(&warm.imports);
    }
    if let Some(egress) = &flow.egress {
        script = script.egress(egress.clone());
    }
    if flow.secrets {
        script = script.needs_secrets();
    }
    script
}

/// The schema as the author wrote it, with what a secret becomes once it is sealed: authors say that a text is a secret,
/// and what is stored of it is a reference.
fn config_schema(written: &Schema) -> Schema {
    let mut schema = written.clone();
    let secret = schema_for!(SecretRef);
    let Some(Value::Object(properties)) = schema.get_mut("properties") else {
        return schema;
    };
    for node in properties.values_mut().filter_map(Value::as_object_mut) {
        let marked = node
            .get("x-crosspoint")
            .and_then(|hints| hints.get("widget"))
            .and_then(Value::as_str);
        if marked != Some("secret") || node.get("type").and_then(Value::as_str) != Some("string") {
            continue;
        }
        for keyword in ["type", "minLength", "maxLength", "pattern", "format"] {
            node.remove(keyword);
        }
        for (keyword, value) in secret.as_object().into_iter().flatten() {
            if !matches!(keyword.as_str(), "$schema" | "title" | "description" | "x-crosspoint") {
                node.insert(keyword.clone(), value.clone());
            }
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::json_schema;
    use serde_json::json;

    #[test]
    fn a_text_that_is_marked_as_a_secret_is_stored_as_a_reference() {
        let schema = config_schema(&json_schema!({
            "type": "object",
            "properties": {
                "key": { "type": "string", "title": "Key", "minLength": 3, "x-crosspoint": { "widget": "secret" } },
                "name": { "type": "string" }
            }
        }));
        let properties = schema.get("properties").unwrap();
        assert_eq!(properties["name"], json!({ "type": "string" }));
        assert_eq!(properties["key"]["title"], "Key");
        assert_eq!(properties["key"]["x-crosspoint"]["widget"], "secret");
        assert!(properties["key"].get("minLength").is_none());
        assert_eq!(
            properties["key"]["type"],
            schema_for!(SecretRef).get("type").unwrap().clone()
        );
    }
}
