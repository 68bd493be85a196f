//! Configurations: checked against the integration's schema and type, and their secrets kept apart.

mod secrets;

pub(crate) use secrets::{Settings, seal, shown, split};

use crate::{check::Checker, renderable};
use crosspoint_core::{AnyIntegration, Problem, Registry, Result};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, Weak},
};

/// Where a configuration stands in the body of a request, so that pointers lead to its fields.
pub(crate) const PREFIX: &str = "/config";

/// How complete a configuration must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completeness {
    /// What is there must be right; what is missing may come later.
    Draft,
    /// It must be what the flows expect.
    Full,
}

/// What is known about the configuration of one version of an integration.
#[derive(Debug)]
pub(crate) struct Form {
    checker: Checker,
    /// The names of the properties that hold secrets.
    pub(crate) secrets: Vec<String>,
    /// The names of all properties, unless the schema itself says what further ones may be.
    closed: Option<Vec<String>>,
}

impl Form {
    fn new(integration: &AnyIntegration) -> Result<Self> {
        let schema = &integration.config_schema;
        let says_more = ["additionalProperties", "unevaluatedProperties", "patternProperties"];
        let properties = schema.get("properties").and_then(Value::as_object);
        let names = || properties.into_iter().flatten().map(|(name, _)| name.clone()).collect();
        Ok(Self {
            checker: Checker::new(schema.as_value())?,
            secrets: renderable::secrets(schema),
            closed: (!says_more.iter().any(|keyword| schema.get(*keyword).is_some())).then(names),
        })
    }

    /// Every problem of a configuration whose secrets are references already.
    pub(crate) fn problems(
        &self,
        integration: &AnyIntegration,
        config: &Value,
        completeness: Completeness,
    ) -> Vec<Problem> {
        let mut problems = self.checker.problems(config, PREFIX);
        if completeness == Completeness::Draft {
            problems.retain(|problem| present(config, &problem.pointer));
        }
        if let (Some(closed), Some(config)) = (&self.closed, config.as_object()) {
            for name in config.keys().filter(|name| !closed.contains(name)) {
                let pointer = format!("{PREFIX}/{}", crate::check::escape(name));
                problems.push(Problem::new(pointer, "is not known here"));
            }
        }
        // The type is asked only about what fits the schema: it finds one problem at a time and cannot say where.
        if problems.is_empty()
            && completeness == Completeness::Full
            && let Err(error) = (integration.check_config)(config)
        {
            let found = error.problems();
            problems.extend(
                found
                    .iter()
                    .map(|p| Problem::new(format!("{PREFIX}{}", p.pointer), p.message.clone())),
            );
            if found.is_empty() {
                problems.push(Problem::new(PREFIX, error.message()));
            }
        }
        problems
    }

    /// A configuration without problems, with the defaults of its type filled in: scripts see the same as Rust flows.
    /// A secret that is not set has no place in it.
    pub(crate) fn filled(&self, integration: &AnyIntegration, config: &Value) -> Result<Value> {
        let mut config = (integration.check_config)(config)?;
        if let Some(config) = config.as_object_mut() {
            config.retain(|name, value| !(value.is_null() && self.secrets.contains(name)));
        }
        Ok(config)
    }
}

fn present(config: &Value, pointer: &str) -> bool {
    pointer
        .strip_prefix(PREFIX)
        .is_some_and(|below| config.pointer(below).is_some())
}

/// The forms of the versions that are registered.
#[derive(Debug, Default)]
pub(crate) struct Forms(RwLock<BTreeMap<(String, String), Compiled>>);

/// A form, and the version that it was made of.
type Compiled = (Weak<AnyIntegration>, Arc<Form>);

impl Forms {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let forms = Self::default();
        for integration in registry.integrations() {
            forms.of(&integration)?;
        }
        Ok(forms)
    }

    /// The form of a version, compiled when it is first asked for, and anew when the version was replaced.
    pub(crate) fn of(&self, integration: &Arc<AnyIntegration>) -> Result<Arc<Form>> {
        let key = (integration.name.clone(), integration.version.clone());
        if let Some((of, form)) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key)
            && Weak::ptr_eq(of, &Arc::downgrade(integration))
        {
            return Ok(Arc::clone(form));
        }
        let form = Arc::new(Form::new(integration)?);
        let mut forms = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // What was taken out of the registry is not kept for its form.
        forms.retain(|_, (of, _)| of.strong_count() > 0);
        forms.insert(key, (Arc::downgrade(integration), Arc::clone(&form)));
        Ok(form)
    }
}
