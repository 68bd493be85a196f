//! Integrations that are published while the host runs.

use super::Platform;
use axum::Router;
use crosspoint_core::{
    Clock, Code, ContentDigest, Error, ExecutionFilter, FleetScope, Operators, Page, Registry, Result, Runner, Schemas,
    StopSource,
};
use crosspoint_marketplace::{FormSchemas, OperatorParts};
use crosspoint_runtime::artifacts::{Artifacts, ArtifactsConfig};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Brings what was published into the registry, and keeps it up to date until told to stop.
pub(super) async fn open(
    config: Option<ArtifactsConfig>,
    registry: &Arc<Registry>,
    runners: &Arc<dyn Runner>,
    clock: &Arc<dyn Clock>,
    stop: &StopSource,
) -> Result<Option<Artifacts>> {
    let Some(config) = config else { return Ok(None) };
    let schemas: Arc<dyn Schemas> = Arc::new(FormSchemas);
    let (registry, runners, clock) = (Arc::clone(registry), Arc::clone(runners), Arc::clone(clock));
    let artifacts = Artifacts::open(config, registry, schemas, runners, clock)?;
    artifacts.refresh().await?;
    let (watching, signal) = (artifacts.clone(), stop.signal());
    tokio::spawn(async move { watching.watch(signal).await });
    Ok(Some(artifacts))
}

impl Platform {
    /// What was published, and publishing more.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if the platform was made without [`Builder::artifacts`](super::Builder::artifacts).
    pub fn artifacts(&self) -> Result<&Artifacts> {
        let artifacts = self.inner.artifacts.as_ref();
        artifacts.ok_or_else(|| {
            let message = "this platform takes no artifacts: say where they are kept, `.artifacts(\"artifacts\")`";
            Error::new(Code::SetupInvalid, message)
        })
    }

    /// The operators' routes, to be nested where the host's staff and build servers reach them:
    /// `Router::nest_service("/operators", platform.operators(auth)?)`. `auth` says which operator is calling:
    /// [`OperatorToken`](crosspoint_marketplace::OperatorToken), or the host's own. What signs customers in is not for this.
    ///
    /// # Errors
    /// As [`Platform::artifacts`].
    pub fn operators(&self, auth: impl Operators) -> Result<Router> {
        crosspoint_marketplace::operators(OperatorParts {
            auth: Arc::new(auth),
            publish: Arc::new(self.artifacts()?.clone()),
        })
    }

    /// Removes versions that were withdrawn longer than `older_than` ago and that no installation and no unfinished
    /// execution names, with the content and the packages that nothing else needs. To be called now and then, with a day or
    /// more. Answers what content is gone.
    ///
    /// # Errors
    /// As [`Platform::artifacts`], and whatever the stores meet.
    pub async fn collect_artifacts(&self, older_than: Duration) -> Result<Vec<ContentDigest>> {
        let artifacts = self.artifacts()?;
        let used: Vec<_> = self.used_versions().await?.into_iter().collect();
        artifacts.collect(&used, older_than).await
    }

    /// Every version that an installation or an unfinished execution names.
    async fn used_versions(&self) -> Result<BTreeSet<(String, String)>> {
        let fleet = fleet();
        let store = self.store();
        let mut used = BTreeSet::new();
        let mut page = Page::first(100);
        loop {
            let part = store.installations.list((&fleet).into(), page).await?;
            used.extend(part.items.into_iter().map(|one| (one.integration, one.version)));
            match part.next {
                Some(next) => page = Page::after(next, 100),
                None => break,
            }
        }
        let mut filter = ExecutionFilter::default();
        filter.active = true;
        let mut page = Page::first(100);
        loop {
            let part = store.executions.list((&fleet).into(), &filter, page).await?;
            used.extend(part.items.into_iter().map(|one| (one.integration, one.version)));
            match part.next {
                Some(next) => page = Page::after(next, 100),
                None => return Ok(used),
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what nobody needs is known only over all customers"
)]
const fn fleet() -> FleetScope {
    FleetScope::trusted()
}
