//! What is published comes into the registry: here at once, and in other processes when they look.

use super::{Artifacts, ByVersion, Inner, disk, layers};
use async_trait::async_trait;
use crosspoint_core::{Code, ContentDigest, ErrorExt, Release, Result, StopSignal, Supply};
use semver::Version;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

/// What this process has put into the registry, and what it could not.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    here: ByVersion<Release>,
    /// Why, so that each reason is told once.
    failed: ByVersion<String>,
}

/// What a look at the store has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Looked {
    /// Versions that are in the registry now and were not, or not with this content.
    pub new: Vec<(String, String)>,
    /// Versions that cannot be run by this process, and why.
    pub failed: Vec<(String, String, String)>,
}

impl Artifacts {
    /// Looks at the store: puts what is new into the registry, takes out what was removed, and offers of each integration
    /// the highest version that was not withdrawn; a pre-release only if there is nothing else.
    ///
    /// A version that cannot be run by this process (its content is damaged, a connector or an interpreter is missing) is
    /// left out and told of; it is tried again at the next look.
    ///
    /// # Errors
    /// Whatever the store meets; the registry stays as it was.
    pub async fn refresh(&self) -> Result<Looked> {
        let looked = self.inner.refresh().await;
        self.inner.missed().clear();
        looked
    }

    /// Looks again and again, until told to stop.
    pub async fn watch(&self, stop: StopSignal) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.inner.interval) => {}
                _ = stop.stopped() => return,
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(error = ?error, "what was published could not be looked at; trying again");
            }
        }
    }

    /// Removes what nobody needs: versions that were withdrawn longer than `older_than` ago and are not among `used` (each
    /// a name and a version), and content that no version names and that is older than that. Answers what content is gone.
    ///
    /// `used` has to name what any installation or unfinished execution names. `older_than` has to be longer than the
    /// longest run, and than an operator takes to change their mind; a day or more.
    ///
    /// # Errors
    /// Whatever the store meets; what was removed before stays so.
    pub async fn collect(&self, used: &[(String, String)], older_than: Duration) -> Result<Vec<ContentDigest>> {
        let inner = &*self.inner;
        let before = inner.clock.now().minus(older_than);
        let used: BTreeSet<(&str, &str)> = used.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let unused = |release: &Release| {
            release.withdrawn.is_some_and(|at| at < before) && !used.contains(&(&*release.name, &*release.version))
        };
        let (gone, kept): (Vec<_>, Vec<_>) = self.releases().await?.into_iter().partition(unused);
        let removed = inner.store.collect(&gone, before).await?;
        let (assemblies, staging) = (inner.assemblies.clone(), inner.staging.clone());
        let left_behind = inner.clock.now().minus(disk::LEFT_BEHIND);
        let swept = tokio::task::spawn_blocking(move || {
            let pairs = kept
                .iter()
                .flat_map(|one| one.layers.iter().map(|layer| (one.digest, *layer)));
            let needed: BTreeSet<String> = pairs.map(|(of, layer)| layers::assembly(&of, &layer)).collect();
            disk::sweep(&staging, left_behind)?;
            for name in disk::names(&assemblies)?
                .into_iter()
                .filter(|name| !needed.contains(name))
            {
                let path = assemblies.join(name);
                if disk::older(&path, before) {
                    disk::remove(&path)?;
                }
            }
            Ok(())
        });
        swept
            .await
            .or_fail(Code::Internal, "folders of programs could not be removed")??;
        self.refresh().await?;
        Ok(removed)
    }
}

impl Inner {
    fn missed(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn refresh(&self) -> Result<Looked> {
        let mut loaded = self.loaded.lock().await;
        let releases = self.store.list().await?;
        let mut looked = Looked::default();
        let mut here = ByVersion::new();
        let mut failed = ByVersion::new();
        for release in releases {
            let key = (release.name.clone(), release.version.clone());
            let before = loaded.here.get(&key);
            let same = before.is_some_and(|b| {
                b.digest == release.digest && b.layers == release.layers && b.author == release.author
            });
            if same {
                here.insert(key, release);
                continue;
            }
            match self.bring(&release).await {
                Ok(()) => {
                    looked.new.push(key.clone());
                    here.insert(key, release);
                }
                Err(error) => {
                    let why = format!("{error:?}");
                    if loaded.failed.get(&key) != Some(&why) {
                        tracing::warn!(
                            integration = key.0,
                            version = key.1,
                            error = why,
                            "a version cannot be run here"
                        );
                    }
                    // What was replaced by something that does not run here goes on as it was.
                    here.extend(before.map(|before| (key.clone(), before.clone())));
                    looked.failed.push((key.0.clone(), key.1.clone(), error.to_string()));
                    failed.insert(key, why);
                }
            }
        }
        for (name, version) in loaded.here.keys().filter(|key| !here.contains_key(*key)) {
            self.registry.forget(name, version);
        }
        for (name, offered) in offers(&here) {
            self.registry.offer(&name, offered.as_deref());
        }
        *loaded = Loaded { here, failed };
        Ok(looked)
    }

    async fn bring(&self, release: &Release) -> Result<()> {
        if self.compiled.contains(&release.name) {
            let message =
                "an integration of this name is compiled into the host, and goes before the one that was published";
            return Err(crosspoint_core::Error::new(Code::Conflict, message));
        }
        let (_, integration) = self.load(release).await?;
        self.fits(&integration).await?;
        self.registry.put(integration)
    }
}

/// Of each integration the version that is offered.
fn offers(here: &ByVersion<Release>) -> BTreeMap<String, Option<String>> {
    let mut best: BTreeMap<String, Option<(bool, Version)>> = BTreeMap::new();
    for ((name, version), release) in here {
        let best = best.entry(name.clone()).or_default();
        if let (Ok(version), None) = (Version::parse(version), release.withdrawn) {
            let candidate = (version.pre.is_empty(), version);
            if best.as_ref().is_none_or(|best| candidate > *best) {
                *best = Some(candidate);
            }
        }
    }
    best.into_iter()
        .map(|(name, best)| (name, best.map(|(_, version)| version.to_string())))
        .collect()
}

#[async_trait]
impl Supply for Inner {
    async fn look(&self, name: &str, version: &str) -> Result<()> {
        let key = (name.to_owned(), version.to_owned());
        if self.missed().contains(&key) {
            return Ok(());
        }
        self.refresh().await?;
        if self.registry.integration(name, version).is_none() {
            self.missed().insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crosspoint_core::Timestamp;

    fn offered(versions: &[(&str, bool)]) -> Option<String> {
        let now = Timestamp::from_millis(1);
        let all = versions.iter().map(|(version, withdrawn)| {
            let mut release = Release::new("a", *version, ContentDigest::from_bytes([0; 32]), Vec::new(), now);
            release.withdrawn = withdrawn.then_some(now);
            (("a".to_owned(), (*version).to_owned()), release)
        });
        offers(&all.collect()).remove("a").flatten()
    }

    #[test]
    fn the_highest_release_is_offered_and_a_preliminary_one_only_without_any() {
        assert_eq!(offered(&[("1.9.0", false), ("1.10.0", false)]).unwrap(), "1.10.0");
        assert_eq!(offered(&[("1.0.0", false), ("1.1.0-dev", false)]).unwrap(), "1.0.0");
        assert_eq!(
            offered(&[("1.1.0-dev", false), ("1.1.0-rc.1", false)]).unwrap(),
            "1.1.0-rc.1"
        );
        assert_eq!(offered(&[("1.0.0", false), ("2.0.0", true)]).unwrap(), "1.0.0");
        assert_eq!(offered(&[("2.0.0", true)]), None);
    }
}
