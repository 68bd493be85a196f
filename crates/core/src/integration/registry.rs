//! The connectors and integrations of a platform: a value that is handed in, never a global.

use super::AnyIntegration;
use crate::{Code, Connector, Error, Problem, Result};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, OnceLock, PoisonError, RwLock, Weak},
};

/// Knows of integrations that came after the start, in this process or in another one. Implemented by the runtime's
/// artifacts.
#[async_trait]
pub trait Supply: Send + Sync + Debug + 'static {
    /// Puts what is new into the registry, because somebody asks for this version.
    async fn look(&self, name: &str, version: &str) -> Result<()>;
}

/// Everything that is registered: what is compiled into the host from the start on, and what is published while it runs.
///
/// Connectors are there from the start. Integrations can be put in, withdrawn and taken out while the registry is shared:
/// each look-up sees one moment of it, and what it answers stays what it is.
///
/// ```
/// use crosspoint_core::{Integration, Registry, Script, Trigger};
/// let hello = |version: &str| {
///     Integration::new("hello", version).script("greet", Trigger::call::<()>(), Script::command("true", [""; 0]))
/// };
/// let mut registry = Registry::new();
/// registry.add_integration(hello("1.0.0"))?;
///
/// let shared = std::sync::Arc::new(registry);
/// shared.put(hello("1.1.0"))?;
/// assert_eq!(shared.offered("hello").unwrap().version, "1.0.0", "it is known, and not offered yet");
/// shared.offer("hello", Some("1.1.0"));
/// assert_eq!(shared.offered("hello").unwrap().version, "1.1.0");
/// assert!(shared.integration("hello", "1.0.0").is_some(), "for those who have installed it");
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Registry {
    connectors: BTreeMap<String, Arc<dyn Connector>>,
    integrations: RwLock<Arc<Known>>,
    supply: OnceLock<Weak<dyn Supply>>,
}

/// One moment of the integrations.
#[derive(Debug, Clone, Default)]
struct Known {
    versions: BTreeMap<String, BTreeMap<String, Arc<AnyIntegration>>>,
    offered: BTreeMap<String, String>,
}

impl Known {
    fn get(&self, name: &str, version: &str) -> Option<&Arc<AnyIntegration>> {
        self.versions.get(name)?.get(version)
    }
}

impl Clone for Registry {
    fn clone(&self) -> Self {
        Self {
            connectors: self.connectors.clone(),
            integrations: RwLock::new(self.known()),
            supply: self.supply.clone(),
        }
    }
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
        self.check(&integration)?;
        if self.integration(&integration.name, &integration.version).is_some() {
            return Err(Error::new(Code::SetupInvalid, "a version is registered twice")
                .with("integration", &integration.name)
                .with("version", &integration.version));
        }
        let (name, version) = (integration.name.clone(), integration.version.clone());
        self.put(integration)?;
        self.offer(&name, Some(&version));
        Ok(())
    }

    /// Puts an integration in while the registry is shared, in place of the same version if there is one. Which version the
    /// catalogue offers stays as it is.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] with every problem found.
    pub fn put(&self, integration: impl Into<AnyIntegration>) -> Result<()> {
        let integration: AnyIntegration = integration.into();
        self.check(&integration)?;
        self.change(|known| {
            let versions = known.versions.entry(integration.name.clone()).or_default();
            versions.insert(integration.version.clone(), Arc::new(integration));
        });
        Ok(())
    }

    /// Makes a version the one that the catalogue offers; `None` takes the integration off the catalogue. Whoever has
    /// installed another version keeps it. Answers whether there is such a version.
    pub fn offer(&self, name: &str, version: Option<&str>) -> bool {
        let Some(version) = version else {
            self.change(|known| known.offered.remove(name));
            return true;
        };
        self.change(|known| {
            let there = known.get(name, version).is_some();
            if there {
                known.offered.insert(name.to_owned(), version.to_owned());
            }
            there
        })
    }

    /// Takes a version out, when nobody has it installed any more. What runs of it goes on.
    pub fn forget(&self, name: &str, version: &str) {
        self.change(|known| {
            if let Some(versions) = known.versions.get_mut(name) {
                versions.remove(version);
            }
            known.versions.retain(|_, versions| !versions.is_empty());
            if known.offered.get(name).is_some_and(|offered| offered == version) {
                known.offered.remove(name);
            }
        });
    }

    /// Who is asked for versions that are not here. The first one given stays; it is not kept alive by this.
    pub fn supplied_by(&self, supply: &Arc<dyn Supply>) {
        drop(self.supply.set(Arc::downgrade(supply)));
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

    /// An exact version of an integration, if it is here.
    #[must_use]
    pub fn integration(&self, name: &str, version: &str) -> Option<Arc<AnyIntegration>> {
        self.known().get(name, version).cloned()
    }

    /// An exact version of an integration. If it is not here, whoever supplies this registry is asked first: another
    /// process may have published it a moment ago.
    pub async fn find(&self, name: &str, version: &str) -> Option<Arc<AnyIntegration>> {
        if let Some(found) = self.integration(name, version) {
            return Some(found);
        }
        let supply = self.supply.get()?.upgrade()?;
        if let Err(error) = supply.look(name, version).await {
            tracing::warn!(integration = name, version, error = ?error, "what was published could not be looked at");
        }
        self.integration(name, version)
    }

    /// The version that the catalogue offers.
    #[must_use]
    pub fn offered(&self, name: &str) -> Option<Arc<AnyIntegration>> {
        let known = self.known();
        known.get(name, known.offered.get(name)?).cloned()
    }

    /// The catalogue by name: of each integration the version that is offered.
    #[must_use]
    pub fn catalogue(&self) -> Vec<Arc<AnyIntegration>> {
        let known = self.known();
        let offered = known.offered.iter();
        offered
            .filter_map(|(name, version)| known.get(name, version))
            .cloned()
            .collect()
    }

    /// Every version of every integration.
    #[must_use]
    pub fn integrations(&self) -> Vec<Arc<AnyIntegration>> {
        let known = self.known();
        known.versions.values().flat_map(BTreeMap::values).cloned().collect()
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.integrations.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.integrations.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut known))
    }

    /// Whether an integration could be put in.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] with every problem found.
    pub fn check(&self, integration: &AnyIntegration) -> Result<()> {
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
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Integration, Script, Trigger};
    use std::sync::Mutex;

    fn hello(version: &str) -> AnyIntegration {
        Integration::new("hello", version)
            .script("greet", Trigger::call::<()>(), Script::command("true", [""; 0]))
            .into()
    }

    #[test]
    fn what_was_looked_up_stays_when_the_version_is_replaced_or_taken_out() {
        let registry = Registry::new();
        registry.put(hello("1.0.0-dev")).unwrap();
        let held = registry.integration("hello", "1.0.0-dev").unwrap();
        registry.put(hello("1.0.0-dev")).unwrap();
        let again = registry.integration("hello", "1.0.0-dev").unwrap();
        assert!(!Arc::ptr_eq(&held, &again));
        registry.offer("hello", Some("1.0.0-dev"));
        registry.forget("hello", "1.0.0-dev");
        assert!(registry.offered("hello").is_none() && registry.catalogue().is_empty());
        assert!(registry.integrations().is_empty());
        assert_eq!(held.version, "1.0.0-dev");
    }

    #[test]
    fn an_integration_is_taken_off_the_catalogue_and_stays_known() {
        let mut registry = Registry::new();
        registry.add_integration(hello("1.0.0")).unwrap();
        assert!(!registry.offer("hello", Some("2.0.0")), "there is no such version");
        assert_eq!(registry.catalogue().len(), 1);
        registry.offer("hello", None);
        assert!(registry.catalogue().is_empty());
        assert!(registry.integration("hello", "1.0.0").is_some());
    }

    #[derive(Debug)]
    struct Late(Weak<Registry>, Mutex<u32>);

    #[async_trait]
    impl Supply for Late {
        async fn look(&self, _: &str, _: &str) -> Result<()> {
            *self.1.lock().unwrap() += 1;
            self.0.upgrade().unwrap().put(hello("2.0.0"))
        }
    }

    #[tokio::test]
    async fn who_supplies_is_asked_for_what_is_not_here_and_for_nothing_else() {
        let registry = Arc::new(Registry::new());
        registry.put(hello("1.0.0")).unwrap();
        let late = Arc::new(Late(Arc::downgrade(&registry), Mutex::default()));
        let supply: Arc<dyn Supply> = Arc::clone(&late) as _;
        registry.supplied_by(&supply);
        assert!(registry.find("hello", "1.0.0").await.is_some());
        assert_eq!(*late.1.lock().unwrap(), 0);
        assert!(registry.find("hello", "2.0.0").await.is_some());
        assert!(registry.find("hello", "3.0.0").await.is_none());
        assert_eq!(*late.1.lock().unwrap(), 2);
    }
}
