//! What the runtime asks about configurations of integrations that are published while the host runs.

use crate::{check::Checker, config::Forms, start};
use crosspoint_core::{AnyIntegration, CheckConfig, Code, Error, Registry, Result, Schemas};
use schemars::Schema;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Compiles configuration schemas with the checks of the form.
///
/// ```
/// use crosspoint_core::Schemas;
/// use crosspoint_marketplace::FormSchemas;
/// use serde_json::json;
/// let check = FormSchemas.compile(&schemars::json_schema!({
///     "type": "object",
///     "properties": { "top": { "type": "integer", "minimum": 1, "default": 10 } }
/// }))?;
/// assert_eq!(check(&json!({}))?, json!({ "top": 10 }));
/// assert_eq!(check(&json!({ "top": 0 })).unwrap_err().problems()[0].pointer, "/top");
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has nothing to hold")]
pub struct FormSchemas;

impl Schemas for FormSchemas {
    fn compile(&self, schema: &Schema) -> Result<CheckConfig> {
        let checker = Checker::new(schema.as_value())?;
        let schema = schema.clone();
        Ok(Arc::new(move |value: &Value| {
            let mut value = value.clone();
            fill(schema.as_value(), schema.as_value(), &mut value, 0);
            let problems = checker.problems(&value, "");
            match problems.is_empty() {
                true => Ok(value),
                false => {
                    let error = Error::new(Code::ConfigInvalid, "the configuration does not fit its schema");
                    Err(error.with_problems(problems))
                }
            }
        }))
    }

    fn offerable(&self, registry: &Registry, integration: &AnyIntegration) -> Result<()> {
        let problems = start::of_one(registry, integration);
        if !problems.is_empty() {
            let error = Error::new(Code::SetupInvalid, "a configuration cannot be offered as a form");
            return Err(error.with_problems(problems));
        }
        for flow in &integration.flows {
            Checker::new(flow.input_schema.as_value()).map_err(|error| error.with("flow", &flow.name))?;
        }
        Forms::default().of(&Arc::new(integration.clone())).map(drop)
    }
}

/// As deep as the form shows groups, and some more.
const DEEPEST: usize = 16;

/// Puts the defaults of properties in where there is nothing, in objects that are there.
fn fill(root: &Value, schema: &Value, value: &mut Value, depth: usize) {
    let (schema, Value::Object(object)) = (resolve(root, schema), value) else {
        return;
    };
    let properties = schema.get("properties").and_then(Value::as_object);
    if depth > DEEPEST {
        return;
    }
    for (name, property) in properties.into_iter().flatten() {
        let property = resolve(root, property);
        match object.get_mut(name) {
            Some(inner) => fill(root, property, inner, depth + 1),
            None => {
                if let Some(default) = property.get("default") {
                    let mut default = default.clone();
                    fill(root, property, &mut default, depth + 1);
                    object.insert(name.clone(), default);
                }
            }
        }
    }
}

/// A local reference, followed once; what it leads to may refer again.
fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let mut schema = schema;
    for _ in 0..DEEPEST {
        let target = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| reference.strip_prefix('#'))
            .and_then(|pointer| root.pointer(pointer));
        match target {
            Some(target) if schema.as_object().map_or(0, Map::len) == 1 => schema = target,
            _ => break,
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
    fn defaults_are_filled_in_at_every_depth_and_never_over_what_is_there() {
        let check = FormSchemas
            .compile(&json_schema!({
                "type": "object",
                "properties": {
                    "a": { "type": "object", "properties": { "b": { "default": 1 }, "c": { "default": 2 } } },
                    "d": { "type": "object", "default": {}, "properties": { "e": { "default": true } } },
                    "f": { "$ref": "#/$defs/F" },
                    "g": { "type": "string" }
                },
                "$defs": { "F": { "type": "object", "default": { "h": 1 } } }
            }))
            .unwrap();
        assert_eq!(
            check(&json!({ "a": { "c": null } })).unwrap(),
            json!({ "a": { "b": 1, "c": null }, "d": { "e": true }, "f": { "h": 1 } })
        );
    }

    #[test]
    fn every_problem_is_told_and_a_default_that_does_not_fit_is_one() {
        let check = FormSchemas
            .compile(&json_schema!({
                "type": "object",
                "properties": { "a": { "type": "integer", "default": "x" }, "b": { "type": "string" } },
                "required": ["b"]
            }))
            .unwrap();
        let error = check(&json!({})).unwrap_err();
        let pointers: Vec<&str> = error.problems().iter().map(|p| p.pointer.as_str()).collect();
        assert_eq!((error.code(), pointers), (Code::ConfigInvalid, vec!["/a", "/b"]));
    }

    #[test]
    fn a_schema_that_contains_itself_ends() {
        let schema = json_schema!({
            "type": "object",
            "properties": { "next": { "$ref": "#" } },
        });
        let check = FormSchemas.compile(&schema).unwrap();
        assert_eq!(check(&json!({ "next": {} })).unwrap(), json!({ "next": {} }));
    }
}
