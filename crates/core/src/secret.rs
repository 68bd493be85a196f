//! Secret material, sealed at rest and never shown.
//!
//! Nothing here that holds a secret serialises, and `Debug` never prints one. What the stores keep is [`Sealed`]: the
//! output of an AEAD whose associated data is the [`SealContext`], so that a sealed value moved to another row, customer
//! or generation does not open.

use crate::{ConnectionId, CustomerId, Result};
use async_trait::async_trait;
use secrecy::zeroize::Zeroizing;
use std::{collections::BTreeMap, fmt::Debug};

pub use secrecy::{ExposeSecret, SecretBox, SecretString};

/// Bytes that are wiped when dropped.
pub type SecretBytes = SecretBox<Vec<u8>>;

/// What a sealed value is for. All of it is authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealContext {
    /// What kind of secret: `credential`, `config`.
    pub purpose: &'static str,
    /// Whose.
    pub customer: CustomerId,
    /// Which record: the connection's or installation's id.
    pub record: String,
    /// Which field of the record.
    pub field: String,
    /// Which version of the record.
    pub generation: u64,
}

impl SealContext {
    /// The credential of a connection.
    #[must_use]
    pub fn credential(customer: CustomerId, connection: ConnectionId, generation: u64) -> Self {
        Self {
            purpose: "credential",
            customer,
            record: connection.to_string(),
            field: String::new(),
            generation,
        }
    }

    /// A secret in an installation's configuration.
    #[must_use]
    pub fn config(
        customer: CustomerId,
        installation: crate::InstallationId,
        field: impl Into<String>,
        generation: u64,
    ) -> Self {
        Self {
            purpose: "config",
            customer,
            record: installation.to_string(),
            field: field.into(),
            generation,
        }
    }
}

/// A sealed value: key id, nonce, ciphertext and tag in the vault's own layout.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// From bytes that a store kept.
    #[must_use]
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
    /// The bytes for a store to keep.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// Seals and opens secrets.
#[async_trait]
pub trait Vault: Send + Sync + Debug + 'static {
    /// Seals under the customer's newest data key.
    async fn seal(&self, context: &SealContext, secret: &SecretBytes) -> Result<Sealed>;

    /// Opens with whichever active key sealed it.
    ///
    /// Fails with [`Code::SecretUnreadable`](crate::Code::SecretUnreadable) if the key is not at hand, or if the
    /// context is not the one it was sealed with.
    async fn open(&self, context: &SealContext, sealed: &Sealed) -> Result<SecretBytes>;
}

/// Wraps data keys: a local key ring, or a key management service.
#[async_trait]
pub trait KeyWrap: Send + Sync + Debug + 'static {
    /// The id of the key that wraps now.
    fn current(&self) -> String;
    /// Wraps a data key for a customer; the answer holds the id of the wrapping key.
    async fn wrap(&self, customer: &CustomerId, key: &SecretBytes) -> Result<Vec<u8>>;
    /// The id of the key that wrapped it, where that can be seen without unwrapping. With `None` a rotation wraps every
    /// key again.
    fn wrapped_with(&self, wrapped: &[u8]) -> Option<String> {
        let _ = wrapped;
        None
    }
    /// Unwraps with whichever active key wrapped it.
    async fn unwrap(&self, customer: &CustomerId, wrapped: &[u8]) -> Result<SecretBytes>;
}

/// The secret fields of a credential by name (`api_key`; `username` and `password`), as they are before sealing.
///
/// ```
/// use crosspoint_core::{CredentialFields, ExposeSecret};
/// let fields = CredentialFields::from([("api_key", "canary")]);
/// assert_eq!(fields.get("api_key").map(|s| s.expose_secret()), Some("canary"));
/// assert!(!format!("{fields:?}").contains("canary"));
/// ```
#[derive(Default)]
pub struct CredentialFields(BTreeMap<String, SecretString>);

impl CredentialFields {
    /// The field's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&SecretString> {
        self.0.get(name)
    }

    /// Sets a field.
    pub fn insert(&mut self, name: impl Into<String>, value: SecretString) {
        self.0.insert(name.into(), value);
    }

    /// Names and values in order of name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The plaintext to be sealed (JSON).
    #[must_use]
    pub fn to_plaintext(&self) -> SecretBytes {
        let plain: BTreeMap<&str, &str> = self.0.iter().map(|(k, v)| (k.as_str(), v.expose_secret())).collect();
        SecretBox::new(Box::new(serde_json::to_vec(&plain).unwrap_or_default()))
    }

    /// Reads what [`CredentialFields::to_plaintext`] made.
    ///
    /// # Errors
    /// [`Code::SecretUnreadable`](crate::Code::SecretUnreadable) if it is something else; the error does not quote it.
    pub fn from_plaintext(plain: &SecretBytes) -> Result<Self> {
        let map: BTreeMap<String, Zeroizing<String>> =
            serde_json::from_slice::<BTreeMap<String, String>>(plain.expose_secret())
                .map(|m| m.into_iter().map(|(k, v)| (k, Zeroizing::new(v))).collect())
                .map_err(|_| {
                    crate::Error::new(
                        crate::Code::SecretUnreadable,
                        "a credential is not in the form that this release writes",
                    )
                })?;
        Ok(Self(
            map.into_iter()
                .map(|(k, v)| (k, SecretString::from(v.as_str())))
                .collect(),
        ))
    }
}

impl Debug for CredentialFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for CredentialFields {
    fn from(fields: [(&str, &str); N]) -> Self {
        Self(
            fields
                .into_iter()
                .map(|(k, v)| (k.to_owned(), SecretString::from(v)))
                .collect(),
        )
    }
}

/// A place in a configuration where a secret belongs. The configuration holds only this reference; the secret is sealed
/// beside it and read with [`FlowContext::secret`](crate::FlowContext::secret).
///
/// In a form it is a write-only field: what was typed never comes back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SecretRef {
    /// The name under which the secret is sealed (the field's name).
    #[serde(rename = "$secret")]
    name: String,
}

impl SecretRef {
    /// A reference to the secret sealed under `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// The name under which it is sealed.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl schemars::JsonSchema for SecretRef {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretRef".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "properties": { "$secret": { "type": "string" } },
            "required": ["$secret"],
            "additionalProperties": false,
            "x-crosspoint": { "widget": "secret" }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_a_secret() {
        let fields = CredentialFields::from([("password", "canary-7f3")]);
        let plain = fields.to_plaintext();
        let sealed = Sealed::from_bytes(b"canary-7f3".to_vec());
        for text in [format!("{fields:?}"), format!("{plain:?}"), format!("{sealed:?}")] {
            assert!(!text.contains("canary-7f3"), "{text}");
        }
        let back = CredentialFields::from_plaintext(&plain).unwrap();
        assert_eq!(back.get("password").unwrap().expose_secret(), "canary-7f3");
        let garbage = CredentialFields::from_plaintext(&SecretBox::new(Box::new(b"canary-7f3".to_vec()))).unwrap_err();
        assert!(!format!("{garbage:?}").contains("canary-7f3"));
    }
}
