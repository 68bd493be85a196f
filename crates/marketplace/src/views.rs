//! What the API answers and takes, as types: the schemas of the document come from here.

use crosspoint_core::{
    AuthScheme, Choice, ConnectionId, Failure, Health, InstallationId, InstallationState, InvocationId, Permission,
    ReplayConfig, ReplayState, Schedule, ScheduleSpec, Ticks, Timestamp, Timetable,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt};

/// Who is signed in.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Session {
    /// The host's id of the company.
    pub(crate) customer: String,
    /// Its name for people.
    pub(crate) customer_name: String,
    /// The user, in the host's words.
    pub(crate) user: String,
    /// What the user may do.
    pub(crate) permissions: Vec<Permission>,
}

/// Everything that is offered.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Catalogue {
    /// The integrations by name.
    pub(crate) items: Vec<Offer>,
}

/// An integration that is offered.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Offer {
    /// Its name.
    pub(crate) name: String,
    /// The version that is offered.
    pub(crate) version: String,
    /// Its name for people.
    pub(crate) title: String,
    /// One line about it.
    pub(crate) summary: String,
    /// Where it stands in the catalogue.
    pub(crate) category: String,
    /// The customer's installations of it.
    pub(crate) installations: Vec<Installed>,
}

/// An installation in short.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Installed {
    /// Its id.
    pub(crate) id: InstallationId,
    /// Where it stands.
    pub(crate) state: InstallationState,
}

/// An integration that is offered, with what is needed to install it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OfferDetail {
    #[serde(flatten)]
    pub(crate) offer: Offer,
    /// What it does, in paragraphs of plain text.
    pub(crate) description: String,
    /// JSON Schema (2020-12) of its configuration.
    pub(crate) config_schema: Value,
    /// The connections it needs.
    pub(crate) connections: Vec<Slot>,
    /// What it does.
    pub(crate) flows: Vec<FlowDetail>,
}

/// A connection that an integration needs.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Slot {
    /// The name that installations use.
    pub(crate) name: String,
    /// The connector's id.
    pub(crate) connector: String,
    /// The provider's name for people.
    pub(crate) title: String,
    /// One line about the provider.
    pub(crate) summary: String,
    /// Whether each connection has its own `base_url` among its variables.
    pub(crate) base_url_needed: bool,
    /// How connections can authenticate; the first is the default.
    pub(crate) schemes: Vec<Scheme>,
}

/// How a connection can authenticate.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Scheme {
    #[serde(flatten)]
    pub(crate) scheme: AuthScheme,
    /// The fields of its credential.
    pub(crate) fields: Vec<&'static str>,
}

/// A flow of an integration.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FlowSummary {
    /// Its name.
    pub(crate) name: String,
    /// What starts it.
    pub(crate) trigger: TriggerView,
}

/// A flow of an integration, with what it takes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FlowDetail {
    #[serde(flatten)]
    pub(crate) flow: FlowSummary,
    /// JSON Schema of its input.
    pub(crate) input_schema: Value,
}

/// What starts a flow.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[schemars(rename = "Trigger")]
pub(crate) enum TriggerView {
    /// Something happens in the host.
    Event {
        /// What.
        event: String,
    },
    /// Its time has come.
    Schedule {
        /// When.
        schedule: ScheduleSpec,
    },
    /// Somebody starts it.
    Call,
    /// Another flow of the integration looks for something new, and has found it. Nobody starts it by hand.
    Poll,
}

/// An integration set up for a customer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Installation")]
pub(crate) struct InstallationView {
    /// Its id.
    pub(crate) id: InstallationId,
    /// The integration's name.
    pub(crate) integration: String,
    /// The integration's name for people.
    pub(crate) title: String,
    /// The version that is installed.
    pub(crate) version: String,
    /// The version that the catalogue offers; null if it offers none.
    pub(crate) offered_version: Option<String>,
    /// Where it stands.
    pub(crate) state: InstallationState,
    /// Why it needs attention.
    pub(crate) attention: Option<Failure>,
    /// The configuration; a secret shows as `{"$secret": name, "set": true}`.
    pub(crate) config: Value,
    /// The connections by slot.
    pub(crate) connections: BTreeMap<String, ConnectionId>,
    /// Rises with every change; the `ETag`.
    pub(crate) revision: u64,
    /// When it was installed.
    pub(crate) created: Timestamp,
    /// When it was last changed.
    pub(crate) updated: Timestamp,
    /// When its flows run by themselves.
    pub(crate) schedules: Vec<ScheduleView>,
    /// What it does; empty if its version is not registered.
    pub(crate) flows: Vec<FlowSummary>,
}

/// When a flow of an installation runs.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Schedule")]
pub(crate) struct ScheduleView {
    /// The flow.
    pub(crate) flow: String,
    /// The cron expression; absent for an interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cron: Option<String>,
    /// IANA time zone of the cron expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timezone: Option<String>,
    /// Milliseconds from tick to tick; absent for a cron expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) every_ms: Option<u64>,
    /// The next time; null while it does not run.
    pub(crate) next: Option<Timestamp>,
    /// The next ten times; empty while it does not run.
    pub(crate) upcoming: Vec<Timestamp>,
    /// Since when it is paused, apart from its installation.
    pub(crate) paused: Option<Timestamp>,
}

impl ScheduleView {
    pub(crate) fn new(schedule: Schedule, timetable: &dyn Timetable) -> Self {
        let mut upcoming: Vec<Timestamp> = schedule.next.into_iter().collect();
        if let Some(next) = schedule.next {
            // A schedule that cannot be read has parked its installation, which says why.
            upcoming.extend(timetable.upcoming(&schedule.spec, next, 9).unwrap_or_default());
        }
        let (cron, timezone, every_ms) = match schedule.spec.ticks {
            Ticks::Cron { expression, timezone } => (Some(expression), Some(timezone), None),
            Ticks::Every(time) => (None, None, u64::try_from(time.as_millis()).ok()),
            _ => (None, None, None),
        };
        Self {
            flow: schedule.flow,
            cron,
            timezone,
            every_ms,
            next: schedule.next,
            upcoming,
            paused: schedule.paused,
        }
    }
}

/// An integration to install.
///
/// ```
/// use crosspoint_marketplace::Install;
/// use serde_json::json;
/// let wish = Install::new("order-alerts", json!({ "minimum": 100 })).draft();
/// ```
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(description = "An integration to install.")]
#[must_use = "nothing is installed before `Marketplace::install`"]
pub struct Install {
    /// The integration's name.
    pub(crate) integration: String,
    /// Its configuration. Secrets are sent as text.
    #[serde(default = "nothing")]
    #[schemars(with = "Map<String, Value>")]
    pub(crate) config: Value,
    /// The connections by slot.
    #[serde(default)]
    pub(crate) connections: BTreeMap<String, ConnectionId>,
    /// Whether it runs at once; if not, it is a draft that may be incomplete, and `resume` starts it.
    #[serde(default = "yes")]
    pub(crate) activate: bool,
}

const fn yes() -> bool {
    true
}

fn nothing() -> Value {
    Value::Object(Map::new())
}

impl Install {
    /// The integration with this name, running at once, with a configuration (an object) whose secrets are given as
    /// text.
    pub fn new(integration: impl Into<String>, config: Value) -> Self {
        Self {
            integration: integration.into(),
            config,
            connections: BTreeMap::new(),
            activate: true,
        }
    }

    /// With one of the customer's connections in a slot.
    pub fn connection(mut self, slot: impl Into<String>, connection: ConnectionId) -> Self {
        self.connections.insert(slot.into(), connection);
        self
    }

    /// As a draft: it may be incomplete and does not run.
    pub const fn draft(mut self) -> Self {
        self.activate = false;
        self
    }
}

impl fmt::Debug for Install {
    /// Without the configuration, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Install")
            .field("integration", &self.integration)
            .finish_non_exhaustive()
    }
}

/// A change to an installation. What is left out stays as it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// The whole configuration. A secret that is left out or null is kept.
    #[serde(default)]
    pub(crate) config: Option<Map<String, Value>>,
    /// All connections by slot.
    #[serde(default)]
    pub(crate) connections: Option<BTreeMap<String, ConnectionId>>,
}

/// What a script is told that is asked for choices.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskFields {
    /// The configuration as far as it is filled in.
    #[serde(default)]
    pub(crate) config: Option<Map<String, Value>>,
    /// The connections that are chosen so far, by slot.
    #[serde(default)]
    pub(crate) connections: Option<BTreeMap<String, ConnectionId>>,
}

/// What fields of a configuration can be.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FieldChoices {
    /// The choices by the name that the script gives them, as in `"source": "flow:<flow>.<name>"`.
    pub(crate) fields: BTreeMap<String, Vec<Choice>>,
}

/// What a flow is started with.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "StartFlow")]
pub(crate) struct StartInput {
    /// The flow's input; for a schedule, this moment's tick unless given.
    #[serde(default)]
    pub(crate) input: Option<Value>,
}

/// How an execution is repeated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Replay")]
pub(crate) struct ReplayInput {
    /// Another input in place of the original one.
    #[serde(default)]
    pub(crate) input: Option<Value>,
    /// With which configuration; `config-gone` if the original one is not kept any more.
    #[serde(default)]
    pub(crate) config: ReplayConfig,
    /// What becomes of the state that it would save. With `discard`, its effects happen all the same.
    #[serde(default)]
    pub(crate) state: ReplayState,
}

/// An execution that was started.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Started {
    /// Its id.
    pub(crate) id: InvocationId,
}

/// What became of the wish to cancel.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Cancelled {
    /// `cancelled`: it had not begun; `requested`: it was told to stop; `finished`: it had ended already.
    pub(crate) result: CancelResult,
}

/// What became of the wish to cancel.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CancelResult {
    /// It had not begun and never will.
    Cancelled,
    /// It was told to stop.
    Requested,
    /// It had ended already.
    Finished,
}

/// A customer's authorised link to a provider.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Connection")]
pub(crate) struct ConnectionView {
    /// Its id.
    pub(crate) id: ConnectionId,
    /// The connector's id.
    pub(crate) connector: String,
    /// The provider's name for people.
    pub(crate) title: String,
    /// Its name for people.
    pub(crate) label: String,
    /// How it authenticates.
    pub(crate) scheme: String,
    /// What is not secret, such as `base_url`.
    pub(crate) variables: BTreeMap<String, String>,
    /// How it is doing.
    pub(crate) health: Health,
    /// When it was made.
    pub(crate) created: Timestamp,
    /// When its credential was last replaced.
    pub(crate) updated: Timestamp,
    /// The installations that use it.
    pub(crate) used_by: Vec<InstallationId>,
}

/// A credential to connect with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connect {
    /// The connector's id.
    pub(crate) connector: String,
    /// How it authenticates; the connector's first scheme unless given.
    #[serde(default)]
    pub(crate) scheme: Option<String>,
    /// Its name for people.
    #[serde(default)]
    pub(crate) label: Option<String>,
    /// What is not secret, such as `base_url`.
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
    /// The secret fields of the scheme.
    #[serde(default)]
    pub(crate) fields: BTreeMap<String, String>,
}

/// A credential in place of the one that a connection has. What is left out stays as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reconnect {
    /// How it authenticates.
    #[serde(default)]
    pub(crate) scheme: Option<String>,
    /// Its name for people.
    #[serde(default)]
    pub(crate) label: Option<String>,
    /// What is not secret, such as `base_url`.
    #[serde(default)]
    pub(crate) variables: Option<BTreeMap<String, String>>,
    /// The secret fields of the scheme, all of them.
    #[serde(default)]
    pub(crate) fields: BTreeMap<String, String>,
}
