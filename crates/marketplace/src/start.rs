//! What is looked at once, before the first request.

use crate::{config::Forms, renderable};
use crosspoint_core::{AnyIntegration, Code, Error, Problem, Registry, Result, Work};

/// Whether the marketplace can offer everything that is registered: the form shows every configuration, every schema
/// compiles, and every dynamic choice has a connector that the integration uses and that offers it.
///
/// [`Marketplace::new`](crate::Marketplace::new) asks this too; a host's own test can ask it without a store.
///
/// ```
/// use crosspoint_core::Registry;
/// crosspoint_marketplace::check(&Registry::new())?;
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
///
/// # Errors
/// [`Code::SetupInvalid`] with every problem of every version, each by `/<integration>/<version>/<field>`.
pub fn check(registry: &Registry) -> Result<()> {
    let mut problems = Vec::new();
    for integration in registry.integrations() {
        let at = format!("/{}/{}", integration.name, integration.version);
        let below = |problem: Problem| Problem::new(format!("{at}{}", problem.pointer), problem.message);
        problems.extend(of_one(registry, &integration).into_iter().map(below));
    }
    if !problems.is_empty() {
        let error = Error::new(Code::SetupInvalid, "a configuration cannot be offered as a form");
        return Err(error.with_problems(problems));
    }
    Forms::new(registry).map(drop)
}

/// What keeps one version from being offered, by the pointer of its field.
pub(crate) fn of_one(registry: &Registry, integration: &AnyIntegration) -> Vec<Problem> {
    let mut problems = renderable(&integration.config_schema).err().unwrap_or_default();
    problems.extend(sources(registry, integration));
    problems
}

fn sources(registry: &Registry, integration: &AnyIntegration) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, source) in renderable::sources(&integration.config_schema) {
        if let Some(asked) = source.strip_prefix("flow:") {
            let flow = asked.rsplit_once('.').and_then(|(flow, _)| integration.flow(flow));
            if !flow.is_some_and(|flow| matches!(flow.work, Work::Script(_))) {
                let message = format!("`{source}` names no script of the integration, as `flow:<flow>.<list>` does");
                problems.push(Problem::new(at, message));
            }
            continue;
        }
        let Some((connector, name)) = source.split_once('.') else {
            continue;
        };
        if !integration.connections.iter().any(|slot| slot.connector == connector) {
            let message =
                format!("`{source}` needs a connection of `{connector}`, which the integration does not declare");
            problems.push(Problem::new(at, message));
        } else if !registry
            .connector(connector)
            .is_some_and(|connector| connector.data_sources().iter().any(|source| source.name() == name))
        {
            problems.push(Problem::new(at, format!("the connector offers no `{name}`")));
        }
    }
    problems
}
