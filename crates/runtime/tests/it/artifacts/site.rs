//! A host in small that takes artifacts.

use crosspoint_core::{
    BaseUrl, Connector, ConnectorDescriptor, ContentDigest, Error, Isolation, PublishOptions, Published, Registry,
    Release, Result, SystemClock,
};
use crosspoint_marketplace::FormSchemas;
use crosspoint_runtime::{
    Runners,
    artifacts::{ArtifactStore, Artifacts, ArtifactsConfig, AuthorPolicy},
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::TempDir;

#[derive(Debug)]
struct Shop(ConnectorDescriptor);

impl Connector for Shop {
    fn descriptor(&self) -> &ConnectorDescriptor {
        &self.0
    }
}

pub(crate) struct Site {
    pub(crate) registry: Arc<Registry>,
    pub(crate) artifacts: Artifacts,
}

/// What is tested here is the same at every isolation, and there is only one at which scripts run everywhere.
pub(crate) fn trusting() -> AuthorPolicy {
    AuthorPolicy::new().isolation(Isolation::Process)
}

impl Site {
    /// Over a folder; several sites over one folder are several processes.
    pub(crate) fn over(root: &Path) -> Self {
        Self::with(ArtifactsConfig::folder(root).authors(trusting()))
    }

    pub(crate) fn stored(store: Arc<dyn ArtifactStore>, local: &Path) -> Self {
        Self::with(ArtifactsConfig::store(store, local).authors(trusting()))
    }

    pub(crate) fn with(config: ArtifactsConfig) -> Self {
        let mut registry = Registry::new();
        let shop = ConnectorDescriptor::new("shop", "Shop", BaseUrl::Fixed("https://shop.test".to_owned()));
        registry.add_connector(Arc::new(Shop(shop))).unwrap();
        Self::around(config, registry)
    }

    pub(crate) fn around(config: ArtifactsConfig, registry: Registry) -> Self {
        let registry = Arc::new(registry);
        let clock = Arc::new(SystemClock::new());
        let runners = Arc::new(Runners::standard(clock.clone()));
        let artifacts = Artifacts::open(config, Arc::clone(&registry), Arc::new(FormSchemas), runners, clock);
        Self {
            registry,
            artifacts: artifacts.unwrap(),
        }
    }

    pub(crate) async fn publish(&self, source: impl AsRef<Path>) -> Result<Published> {
        self.artifacts.publish(source, &PublishOptions::default()).await
    }

    pub(crate) async fn refusal(&self, source: impl AsRef<Path>) -> Error {
        self.publish(source).await.unwrap_err()
    }

    pub(crate) fn offered(&self, name: &str) -> Option<String> {
        self.registry
            .offered(name)
            .map(|integration| integration.version.clone())
    }

    pub(crate) async fn releases(&self) -> Vec<(String, ContentDigest)> {
        let releases = self.artifacts.releases().await.unwrap().into_iter();
        releases
            .map(|Release { version, digest, .. }| (version, digest))
            .collect()
    }
}

/// The smallest manifest, with changes.
pub(crate) fn manifest(version: &str, changes: Value) -> Value {
    let mut manifest = json!({
        "name": "hello", "version": version, "title": "Hello",
        "flows": [{ "name": "greet", "trigger": "call", "language": "sh", "entry": { "program": "greet.sh" } }]
    });
    merge(&mut manifest, changes);
    manifest
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A folder with files; those whose name ends in `!` are executable.
pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        write(folder.path(), path, content.as_bytes());
    }
    folder
}

pub(crate) fn write(folder: &Path, path: &str, content: &[u8]) -> PathBuf {
    let plain = path.trim_end_matches('!');
    let file = folder.join(plain);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, content).unwrap();
    let mode = if plain == path { 0o644 } else { 0o755 };
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file
}

/// An integration that answers its version.
pub(crate) fn hello(version: &str) -> TempDir {
    let script = format!("echo '\"{version}\"' > \"$XP_RESULT_FILE\"\n");
    folder(&[
        ("crosspoint.json", &manifest(version, json!({})).to_string()),
        ("greet.sh", &script),
    ])
}

/// How many things lie in a folder below the artifacts.
pub(crate) fn count(root: &Path, below: &str) -> usize {
    fs::read_dir(root.join(below)).map_or(0, Iterator::count)
}
