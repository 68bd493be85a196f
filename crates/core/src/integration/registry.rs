//! The connectors and integrations of a platform: a value that is handed in, never a global.

use super::AnyIntegration;
use crate::{Code, Connector, Error, Problem, Result};
use std::{collections::BTreeMap, sync::Arc};

/// Everything that the host registered.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    connectors: BTreeMap<String, Arc<dyn Connector>>,
    integrations: BTreeMap<String, BTreeMap<String, Arc<AnyIntegration>>>,
    newest: BTreeMap<String, String>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a connector.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if the id is malformed or taken.
    pub fn add_connector(&mut self, connector: Arc<dyn Connector>) -> Result<()> {
        let id = connector.descriptor().id.clone();
        check_name("connector", &id)?;
        if self.connectors.insert(id.clone(), connector).is_some() {
            return Err(Error::new(Code::SetupInvalid, "two connectors have the same id").with("connector", id));
        }
        Ok(())
    }

    /// Adds an integration; the last one added of a name is the one that the catalogue offers.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] with every problem found.
    pub fn add_integration(&mut self, integration: impl Into<AnyIntegration>) -> Result<()> {
        let integration: AnyIntegration = integration.into();
        check_name("integration", &integration.name)?;
        let mut problems = Vec::new();
        if integration.flows.is_empty() {
            problems.push(Problem::new("/flows", "an integration has at least one flow"));
        }
        for (index, flow) in integration.flows.iter().enumerate() {
            if check_name("flow", &flow.name).is_err() {
                problems.push(Problem::new(
                    format!("/flows/{index}"),
                    "a flow's name is lower case letters, digits and hyphens",
                ));
            }
            if integration
                .flows
                .iter()
                .take(index)
                .any(|other| other.name == flow.name)
            {
                problems.push(Problem::new(
                    format!("/flows/{index}"),
                    format!("two flows are called `{}`", flow.name),
                ));
            }
        }
        for (index, slot) in integration.connections.iter().enumerate() {
            if !self.connectors.contains_key(&slot.connector) {
                let message = format!(
                    "no connector `{}` is registered; register it before the integration",
                    slot.connector
                );
                problems.push(Problem::new(format!("/connections/{index}"), message));
            }
        }
        if !problems.is_empty() {
            return Err(Error::new(Code::SetupInvalid, "the integration is not complete")
                .with("integration", &integration.name)
                .with_problems(problems));
        }
        let versions = self.integrations.entry(integration.name.clone()).or_default();
        if versions.contains_key(&integration.version) {
            return Err(Error::new(Code::SetupInvalid, "a version is registered twice")
                .with("integration", &integration.name)
                .with("version", &integration.version));
        }
        self.newest
            .insert(integration.name.clone(), integration.version.clone());
        versions.insert(integration.version.clone(), Arc::new(integration));
        Ok(())
    }

    /// The connector with this id.
    #[must_use]
    pub fn connector(&self, id: &str) -> Option<&Arc<dyn Connector>> {
        self.connectors.get(id)
    }

    /// All connectors by id.
    pub fn connectors(&self) -> impl Iterator<Item = &Arc<dyn Connector>> {
        self.connectors.values()
    }

    /// An exact version of an integration.
    #[must_use]
    pub fn integration(&self, name: &str, version: &str) -> Option<&Arc<AnyIntegration>> {
        self.integrations.get(name)?.get(version)
    }

    /// The version that the catalogue offers.
    #[must_use]
    pub fn offered(&self, name: &str) -> Option<&Arc<AnyIntegration>> {
        self.integration(name, self.newest.get(name)?)
    }

    /// The catalogue: of each integration the version that is offered.
    pub fn catalogue(&self) -> impl Iterator<Item = &Arc<AnyIntegration>> {
        self.newest
            .iter()
            .filter_map(|(name, version)| self.integration(name, version))
    }

    /// Every version of every integration.
    pub fn integrations(&self) -> impl Iterator<Item = &Arc<AnyIntegration>> {
        self.integrations.values().flat_map(BTreeMap::values)
    }
}

fn check_name(what: &'static str, name: &str) -> Result<()> {
    let ok = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-');
    if ok {
        return Ok(());
    }
    Err(Error::new(
        Code::SetupInvalid,
        format!("the name of a {what} is 1 to 64 lower case letters, digits and hyphens"),
    )
    .with("name", name))
}
