//! `crosspoint.json`: what an artifact says about itself.

use super::Language;
use crosspoint_core::{ConnectionSlot, Egress, Isolation, Limits, Protocol, RetryPolicy, ScheduleSpec};
use schemars::Schema;
use serde_json::Value;

/// The name of the file with the manifest, in the root of an artifact.
pub const MANIFEST: &str = "crosspoint.json";

/// What an artifact says about itself, in `crosspoint.json`. Its JSON Schema is `docs/crosspoint.schema.json`.
///
/// ```
/// use crosspoint_runtime::artifacts::Manifest;
/// let manifest: Manifest = serde_json::from_str(r#"{
///     "name": "hello",
///     "version": "1.0.0",
///     "title": "Hello",
///     "flows": [{
///         "name": "greet",
///         "trigger": { "event": "order.created" },
///         "language": "python",
///         "entry": { "program": "greet.py" }
///     }]
/// }"#).unwrap();
/// assert_eq!(manifest.flows[0].entry.program, "greet.py");
/// ```
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// Where the schema of this file is, for editors. Not looked at.
    #[serde(default, rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The integration's name: lower case letters, digits and hyphens. It never changes.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9-]{0,63}$"))]
    pub name: String,
    /// Its version, as semver: `1.2.0`, or `1.2.0-dev` for one that may be published again and again.
    pub version: String,
    /// Its name for people.
    #[schemars(length(min = 1, max = 80))]
    pub title: String,
    /// One line for the catalogue.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub summary: String,
    /// What it does, in paragraphs.
    #[serde(default)]
    #[schemars(length(max = 10_000))]
    pub description: String,
    /// Where it stands in the catalogue.
    #[serde(default)]
    #[schemars(length(max = 80))]
    pub category: String,
    /// The connections that it needs.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub connections: Vec<Slot>,
    /// JSON Schema of its configuration, an object: what the form shows and the flows get. Nothing unless given.
    #[serde(default = "nothing")]
    pub config: Schema,
    /// What it does.
    #[schemars(length(min = 1, max = 64))]
    pub flows: Vec<FlowManifest>,
}

/// A connection that an artifact needs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Slot {
    /// The name that its flows use: lower case letters, digits, hyphens and underscores.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]{0,63}$"))]
    pub name: String,
    /// The id of a connector that the host has.
    pub connector: String,
}

impl From<Slot> for ConnectionSlot {
    fn from(slot: Slot) -> Self {
        Self::new(slot.name, slot.connector)
    }
}

/// One flow of an artifact.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FlowManifest {
    /// Its name within the integration: lower case letters, digits and hyphens.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9-]{0,63}$"))]
    pub name: String,
    /// What starts it.
    pub trigger: TriggerManifest,
    /// JSON Schema of what its trigger brings; anything unless given. A schedule brings its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Schema>,
    /// What is run.
    pub entry: Entry,
    /// What the entry is written in.
    #[serde(default)]
    pub language: Language,
    /// How the program and its supervisor talk.
    #[serde(default)]
    pub protocol: Protocol,
    /// The prefix of its environment variables; with `PAN`, scripts written for Pandium run unchanged.
    #[serde(default = "prefix")]
    #[schemars(regex(pattern = "^[A-Za-z][A-Za-z0-9_]{0,31}$"))]
    pub env_prefix: String,
    /// The weakest isolation that it accepts; that of the host unless given. Less than the host's is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// What it may reach over the network; its connections unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Whether it gets raw secrets: those of the configuration, and the fields of its connections' credentials.
    #[serde(default)]
    pub secrets: bool,
    /// Its limits. The host has limits of its own, above which these are refused.
    #[serde(default)]
    pub limits: Limits,
    /// When failed attempts are repeated.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// How many of its executions run at once for one installation, at least 1; no maximum unless given. Further ones wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_in_flight: Option<u32>,
    /// How many of its executions start in a time for one installation; no rate unless given. Further ones are delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateManifest>,
    /// Whether it remembers something between executions. Then they run one at a time for each installation.
    #[serde(default = "yes")]
    pub stateful: bool,
    /// Keeps interpreters ready for it, so that runs that are made often start at once. Only with the language `python`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<WarmManifest>,
}

/// How many executions start in a time: `count` in every `per_ms`, all of them at once if they come together.
///
/// ```
/// use crosspoint_runtime::artifacts::RateManifest;
/// let hundred_a_minute: RateManifest = serde_json::from_str(r#"{ "count": 100, "per_ms": 60000 }"#).unwrap();
/// assert_eq!(hundred_a_minute.count, 100);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RateManifest {
    /// How many, at least 1.
    #[schemars(range(min = 1))]
    pub count: u32,
    /// In how long, in milliseconds: 1 to 2,678,400,000, which is 31 days.
    #[schemars(range(min = 1, max = 2_678_400_000_u64))]
    pub per_ms: u64,
}

/// What an interpreter that is kept ready does ahead.
///
/// ```
/// use crosspoint_runtime::artifacts::WarmManifest;
/// let warm: WarmManifest = serde_json::from_str(r#"{ "imports": ["ssl", "urllib.request"] }"#).unwrap();
/// assert_eq!(warm.imports.len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WarmManifest {
    /// Modules that it imports, such as `ssl` or `urllib.request`.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub imports: Vec<String>,
}

/// What starts a flow of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TriggerManifest {
    /// Something happens in the host: an event of this name.
    Event(String),
    /// Its time has come.
    Schedule(ScheduleSpec),
    /// Somebody calls it: through the API, or by hand in the marketplace.
    Call,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Entry {
    /// A file of the artifact, by its path.
    #[schemars(length(min = 1, max = 240))]
    pub program: String,
    /// Its arguments.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub args: Vec<String>,
}

fn nothing() -> Schema {
    schemars::json_schema!({ "type": "object", "properties": {}, "additionalProperties": false })
}

fn prefix() -> String {
    "XP".to_owned()
}

const fn yes() -> bool {
    true
}

impl Manifest {
    /// The JSON Schema of `crosspoint.json`.
    ///
    /// ```
    /// use crosspoint_runtime::artifacts::Manifest;
    /// let schema = Manifest::schema();
    /// assert!(schema.get("properties").is_some());
    /// ```
    #[must_use]
    pub fn schema() -> Schema {
        let mut schema = schemars::schema_for!(Self);
        for (keyword, text) in [
            ("title", "crosspoint.json"),
            (
                "description",
                "What an artifact says about itself: see docs/artifacts.md.",
            ),
        ] {
            schema.insert(keyword.to_owned(), Value::String(text.to_owned()));
        }
        schema
    }
}
