//! Publishing integrations while the host runs: what the parts need from one another for it.

use crate::{AnyIntegration, CheckConfig, Code, Error, Registry, Result, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use schemars::Schema;
use std::{fmt, fmt::Debug, str::FromStr};

/// The SHA-256 by which content is found again; as text 64 hexadecimal digits.
///
/// ```
/// use crosspoint_core::ContentDigest;
/// let digest: ContentDigest = "0f".repeat(32).parse()?;
/// assert_eq!(digest.as_bytes()[0], 15);
/// assert_eq!(digest.to_string(), "0f".repeat(32));
/// assert!("0F".repeat(32).parse::<ContentDigest>().is_err(), "one spelling only");
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentDigest([u8; 32]);

impl ContentDigest {
    /// From the hash itself.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The hash itself.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ContentDigest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut bytes = [0; 32];
        let wrong = || Error::new(Code::IdMalformed, "a digest is 64 hexadecimal digits in lower case");
        if text.len() != 64 {
            return Err(wrong());
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let &[high, low] = pair else { return Err(wrong()) };
            *byte = digit(high).ok_or_else(wrong)? * 16 + digit(low).ok_or_else(wrong)?;
        }
        Ok(Self(bytes))
    }
}

impl serde::Serialize for ContentDigest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ContentDigest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for ContentDigest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ContentDigest".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "description": "A SHA-256 in hexadecimal", "pattern": "^[0-9a-f]{64}$" })
    }
}

/// A published version of an integration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct Release {
    /// The integration's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The content.
    pub digest: ContentDigest,
    /// The packages it needs, each a content of its own.
    pub layers: Vec<ContentDigest>,
    /// Who published it, in the host's words; nobody's name if the host did so itself. What trusts code by its author goes by
    /// this, never by what the code says about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// When it was published.
    pub published: Timestamp,
    /// Since when it is not offered any more; whoever has installed it keeps it.
    #[serde(default)]
    pub withdrawn: Option<Timestamp>,
}

impl Release {
    /// A version that is offered from now on.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        digest: ContentDigest,
        layers: Vec<ContentDigest>,
        published: Timestamp,
    ) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            digest,
            layers,
            author: None,
            published,
            withdrawn: None,
        }
    }
}

/// What became of something that was published.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct Published {
    /// The integration's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The content.
    pub digest: ContentDigest,
    /// The packages it needs, each a content of its own.
    pub layers: Vec<ContentDigest>,
    /// Whether it is there now that was not before; `false` for what was published before, and for a check.
    pub new: bool,
    /// What the author may want to know, in sentences.
    pub warnings: Vec<String>,
}

impl Published {
    /// A release, with what its author may want to know.
    #[must_use]
    pub fn new(release: &Release, new: bool, warnings: Vec<String>) -> Self {
        Self {
            name: release.name.clone(),
            version: release.version.clone(),
            digest: release.digest,
            layers: release.layers.clone(),
            new,
            warnings,
        }
    }
}

/// How something is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishOptions {
    /// Takes the place of the same version with other content. For pre-releases only.
    pub replace: bool,
    /// Looks whether it could be published, and publishes nothing.
    pub check: bool,
    /// What the content must be; refused if it is not.
    pub digest: Option<ContentDigest>,
    /// Who publishes; the host itself unless given. It stays with the version.
    pub author: Option<String>,
}

/// Publishes integrations. Implemented by the runtime's artifacts, used by the operators' routes.
#[async_trait]
pub trait Publish: Send + Sync + Debug + 'static {
    /// The size in bytes of the largest archive that is taken.
    fn largest(&self) -> u64;
    /// Begins to receive an archive.
    async fn receive(&self) -> Result<Box<dyn Incoming>>;
    /// Every version that was published, by name and version.
    async fn releases(&self) -> Result<Vec<Release>>;
    /// Takes a version off the catalogue; whoever has installed it keeps it.
    ///
    /// Fails with [`Code::NotFound`] if it was never published.
    async fn withdraw(&self, name: &str, version: &str) -> Result<Release>;
}

/// An archive that is being received. Dropped before its end, nothing of it stays.
#[async_trait]
pub trait Incoming: Send + Debug {
    /// The next part. Fails with [`Code::BodyTooLarge`] when it is too much.
    async fn write(&mut self, part: Bytes) -> Result<()>;
    /// The archive is here whole: publishes what it holds.
    async fn publish(self: Box<Self>, options: PublishOptions) -> Result<Published>;
}

/// What the marketplace knows about configurations and the runtime has to ask. Implemented by the marketplace.
pub trait Schemas: Send + Sync + Debug + 'static {
    /// Compiles a JSON Schema to a check. It fails with [`Code::ConfigInvalid`] and every problem, each with its JSON
    /// pointer, and answers a value that fits with the schema's defaults filled in.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] if it is no schema, or points outside of itself.
    fn compile(&self, schema: &Schema) -> Result<CheckConfig>;

    /// Whether the marketplace could offer an integration that is about to be put into the registry.
    ///
    /// # Errors
    /// [`Code::SetupInvalid`] with every problem, by the pointer of the field in the configuration's schema.
    fn offerable(&self, registry: &Registry, integration: &AnyIntegration) -> Result<()>;
}

/// One thing that an operator of the host may do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OperatorPermission {
    /// See what was published.
    ArtifactRead,
    /// Publish and withdraw.
    ArtifactPublish,
}

impl OperatorPermission {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::ArtifactRead, Self::ArtifactPublish];
}

/// Somebody of the host's own people, or their build server.
///
/// ```
/// use crosspoint_core::{Operator, OperatorPermission};
/// let ci = Operator::new("ci", OperatorPermission::ALL);
/// assert!(ci.may(OperatorPermission::ArtifactPublish));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operator {
    /// Who, in the host's words.
    pub name: String,
    /// What they may do.
    pub permissions: Vec<OperatorPermission>,
}

impl Operator {
    /// An operator who may do this.
    #[must_use]
    pub fn new(name: impl Into<String>, permissions: &[OperatorPermission]) -> Self {
        Self {
            name: name.into(),
            permissions: permissions.to_vec(),
        }
    }
    /// Whether they may.
    #[must_use]
    pub fn may(&self, permission: OperatorPermission) -> bool {
        self.permissions.contains(&permission)
    }
}

/// Establishes which operator is calling. Implemented by the host over its own staff's sessions or tokens; never by what
/// signs customers in.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not authenticate operators",
    note = "implement `Operators` over the sessions or tokens of the host's own staff"
)]
pub trait Operators: Send + Sync + Debug + 'static {
    /// Who sent this request.
    ///
    /// Fails with [`Code::SessionMissing`] or [`Code::SessionExpired`].
    async fn authenticate(&self, parts: &http::request::Parts) -> Result<Operator>;
}
