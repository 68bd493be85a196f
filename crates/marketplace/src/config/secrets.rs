//! Secrets of configurations: they come in as text, are sealed beside the configuration, and never go out again.

use super::{Form, PREFIX};
use crate::check::escape;
use crosspoint_core::{
    CustomerId, ExposeSecret, Installation, InstallationId, Problem, Result, SealContext, SecretBox, SecretString,
    Vault,
};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How long one secret may be, in bytes.
const MAX_SECRET: usize = 64 * 1024;

/// A configuration as it was sent, with its secrets taken out.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The configuration with references in place of secrets.
    pub(crate) config: Value,
    /// New secrets by name.
    fresh: BTreeMap<String, SecretString>,
    /// The names of all secrets that the configuration refers to.
    referenced: BTreeSet<String>,
}

/// Takes the secrets out of a configuration. Text sets a secret; null, nothing, or the reference that an answer showed
/// keeps the one that is stored; the reference with `"set": false` removes it.
pub(crate) fn split(form: &Form, config: Map<String, Value>, stored: &Installation) -> (Settings, Vec<Problem>) {
    let mut settings = Settings {
        config: Value::Null,
        fresh: BTreeMap::new(),
        referenced: BTreeSet::new(),
    };
    let mut problems = Vec::new();
    let mut config = config;
    for name in &form.secrets {
        let wrong = |message: &str| Problem::new(format!("{PREFIX}/{}", escape(name)), message);
        let keep = match config.remove(name) {
            Some(Value::String(text)) => {
                if text.is_empty() || text.len() > MAX_SECRET {
                    problems.push(wrong("a secret has 1 to 65536 bytes"));
                }
                settings.fresh.insert(name.clone(), SecretString::from(text));
                true
            }
            None | Some(Value::Null) => stored.secrets.contains_key(name),
            Some(Value::Object(echo)) if echo.get("$secret").and_then(Value::as_str) == Some(name) => {
                echo.get("set") != Some(&Value::Bool(false)) && stored.secrets.contains_key(name)
            }
            Some(_) => {
                problems.push(wrong("a secret is sent as text; leave it out to keep the stored one"));
                true
            }
        };
        if keep {
            config.insert(name.clone(), json!({ "$secret": name }));
            settings.referenced.insert(name.clone());
        }
    }
    settings.config = Value::Object(config);
    (settings, problems)
}

/// Seals the new secrets and puts everything into the record.
pub(crate) async fn seal(vault: &dyn Vault, settings: Settings, record: &mut Installation) -> Result<()> {
    record.secrets.retain(|name, _| settings.referenced.contains(name));
    for (name, secret) in settings.fresh {
        let generation = record.secrets.get(&name).map_or(0, |(generation, _)| *generation) + 1;
        let context = context(&record.customer, record.id, &name, generation);
        let plain = SecretBox::new(Box::new(secret.expose_secret().as_bytes().to_vec()));
        let sealed = vault.seal(&context, &plain).await?;
        record.secrets.insert(name, (generation, sealed));
    }
    record.config = settings.config;
    Ok(())
}

fn context(customer: &CustomerId, installation: InstallationId, name: &str, generation: u64) -> SealContext {
    SealContext::config(customer.clone(), installation, name, generation)
}

/// The configuration as answers show it: of a secret, that it is set.
pub(crate) fn shown(record: &Installation) -> Value {
    let mut config = record.config.clone();
    if let Some(config) = config.as_object_mut() {
        for name in record.secrets.keys() {
            config.insert(name.clone(), json!({ "$secret": name, "set": true }));
        }
    }
    config
}
