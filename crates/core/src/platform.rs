//! The platform's own records: customers, installations, connections, data keys and schedules.
//!
//! Each repository is a small trait; an operation that must be atomic is one method that takes one struct.

use crate::{
    ConnectionId, CustomerId, CustomerScope, Envelope, Failure, FleetScope, InstallationId, Page, Paged, Result,
    ScheduleSpec, Scope, Sealed, Timestamp,
};
use async_trait::async_trait;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug};

/// A client company of the host, known since somebody of it was first seen.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct Customer {
    /// The host's id.
    pub id: CustomerId,
    /// Its name for people.
    pub name: String,
    /// When it was first seen.
    pub created: Timestamp,
}

impl Customer {
    /// A customer seen now for the first time.
    #[must_use]
    pub fn new(id: CustomerId, name: impl Into<String>, created: Timestamp) -> Self {
        Self {
            id,
            name: name.into(),
            created,
        }
    }
}

/// Customers, just in time.
#[async_trait]
pub trait Customers: Send + Sync + Debug + 'static {
    /// Makes the record if there is none, and updates the name if it changed.
    async fn ensure(&self, scope: &CustomerScope, customer: &Customer) -> Result<()>;
    /// All customers by id.
    async fn list(&self, scope: &FleetScope, page: Page) -> Result<Paged<Customer>>;
}

/// Where an installation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InstallationState {
    /// Being set up; nothing runs.
    Draft,
    /// It runs.
    Active,
    /// Paused by somebody; triggers are ignored.
    Paused,
    /// Something only a person can mend.
    NeedsAttention,
    /// Being removed.
    Removing,
}

impl InstallationState {
    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::NeedsAttention => "needs-attention",
            Self::Removing => "removing",
        }
    }
}

/// An integration set up for a customer.
#[derive(Debug, Clone, PartialEq)]
#[doc(alias = "instance")]
#[non_exhaustive]
pub struct Installation {
    /// Its id.
    pub id: InstallationId,
    /// Whose.
    pub customer: CustomerId,
    /// The integration's name.
    pub integration: String,
    /// The integration's version.
    pub version: String,
    /// Where it stands.
    pub state: InstallationState,
    /// Why it needs attention.
    pub attention: Option<Failure>,
    /// The configuration, with references in place of secrets.
    pub config: Value,
    /// The secrets of the configuration by name, and the generation each was sealed with.
    pub secrets: BTreeMap<String, (u64, Sealed)>,
    /// The customer's connections by slot.
    pub connections: BTreeMap<String, ConnectionId>,
    /// Rises with every save.
    pub revision: u64,
    /// When it was installed.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

impl Installation {
    /// A draft.
    #[must_use]
    pub fn new(
        id: InstallationId,
        customer: CustomerId,
        integration: impl Into<String>,
        version: impl Into<String>,
        created: Timestamp,
    ) -> Self {
        Self {
            id,
            customer,
            integration: integration.into(),
            version: version.into(),
            state: InstallationState::Draft,
            attention: None,
            config: Value::Object(serde_json::Map::new()),
            secrets: BTreeMap::new(),
            connections: BTreeMap::new(),
            revision: 0,
            created,
            updated: created,
        }
    }

    /// How many configurations of its past a store keeps for one installation at most; the oldest go first.
    pub const KEPT: usize = 100;

    /// Whether an execution runs the same with either: same version, settings, secrets and connections.
    #[must_use]
    pub fn runs_as(&self, other: &Self) -> bool {
        self.version == other.version
            && self.config == other.config
            && self.secrets == other.secrets
            && self.connections == other.connections
    }
}

/// A change to an installation, with everything that must change together with it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SaveInstallation {
    /// The new record. Its `revision` is the one it was read at (0 to create); the store writes the next one.
    pub installation: Installation,
    /// Replaces the installation's schedules, if given. One that is paused stays so, without a next tick: only
    /// [`Schedules::pause`] lets it go on.
    pub schedules: Option<Vec<Schedule>>,
    /// Executions that start with this commit.
    pub starts: Vec<Envelope>,
}

impl SaveInstallation {
    /// A change to the record alone.
    #[must_use]
    pub const fn new(installation: Installation) -> Self {
        Self {
            installation,
            schedules: None,
            starts: Vec::new(),
        }
    }
}

/// The answer to a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Saved {
    /// It is written.
    Applied,
    /// Somebody else wrote first; nothing was written.
    Stale,
}

/// Installations.
#[async_trait]
pub trait Installations: Send + Sync + Debug + 'static {
    /// Creates or changes one; conditional on its revision.
    async fn save(&self, scope: Scope<'_>, save: SaveInstallation) -> Result<Saved>;
    /// One.
    async fn get(&self, scope: Scope<'_>, id: InstallationId) -> Result<Option<Installation>>;
    /// One as it was: with the version, the configuration, its secrets (sealed, as they were) and the connections that it
    /// had at a revision; everything else as it is now. `None` if there is no such installation, or if that is not kept.
    ///
    /// What an installation had is kept, once it has left the draft, from when a save changes it until a
    /// [purge](crate::DispatchAdmin::purge) takes the last execution that ran with it. Of one installation the last
    /// [`Installation::KEPT`] are kept.
    async fn as_of(&self, scope: Scope<'_>, id: InstallationId, revision: u64) -> Result<Option<Installation>>;
    /// All in the scope, newest first.
    async fn list(&self, scope: Scope<'_>, page: Page) -> Result<Paged<Installation>>;
    /// Removes one with its past, its schedules and its flows' state; executions stay until their retention ends. `Stale`
    /// if the revision moved on or it does not exist.
    async fn remove(&self, scope: Scope<'_>, id: InstallationId, revision: u64) -> Result<Saved>;
}

/// How a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Health {
    /// Never used yet.
    Unknown,
    /// The last use went well.
    Connected,
    /// It works, with trouble.
    Degraded,
    /// Somebody must authorise it again.
    NeedsReconnect,
}

impl Health {
    /// As in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Connected => "connected",
            Self::Degraded => "degraded",
            Self::NeedsReconnect => "needs-reconnect",
        }
    }
}

/// A customer's authorised link to a provider. The link outlives the secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Whose.
    pub customer: CustomerId,
    /// The connector's id.
    pub connector: String,
    /// Its name for people.
    pub label: String,
    /// The name of the authentication scheme.
    pub scheme: String,
    /// What is not secret, such as `base_url`.
    pub variables: BTreeMap<String, String>,
    /// How it is doing.
    pub health: Health,
    /// The credential.
    pub sealed: Option<Sealed>,
    /// Rises whenever the credential is replaced; authenticated with it.
    pub generation: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When the credential was last replaced.
    pub updated: Timestamp,
}

impl Connection {
    /// A connection without a credential.
    #[must_use]
    pub fn new(
        id: ConnectionId,
        customer: CustomerId,
        connector: impl Into<String>,
        scheme: impl Into<String>,
        created: Timestamp,
    ) -> Self {
        let connector = connector.into();
        Self {
            id,
            customer,
            label: connector.clone(),
            connector,
            scheme: scheme.into(),
            variables: BTreeMap::new(),
            health: Health::Unknown,
            sealed: None,
            generation: 0,
            created,
            updated: created,
        }
    }
}

/// Connections. Credentials are kept sealed and never leave in another form.
#[async_trait]
pub trait Connections: Send + Sync + Debug + 'static {
    /// Creates one, or replaces everything but `created` of one whose generation is one less than the given record's.
    async fn save(&self, scope: Scope<'_>, connection: &Connection) -> Result<Saved>;
    /// One.
    async fn get(&self, scope: Scope<'_>, id: ConnectionId) -> Result<Option<Connection>>;
    /// All in the scope, newest first.
    async fn list(&self, scope: Scope<'_>, page: Page) -> Result<Paged<Connection>>;
    /// Writes how it is doing; touches nothing else and never makes a save stale.
    async fn set_health(&self, scope: Scope<'_>, id: ConnectionId, health: Health) -> Result<()>;
    /// Removes one. Whether it existed.
    async fn remove(&self, scope: Scope<'_>, id: ConnectionId) -> Result<bool>;
}

/// A customer's data key, wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataKey {
    /// Its number within the customer, from 1.
    pub number: u32,
    /// The key, wrapped by a [`KeyWrap`](crate::KeyWrap).
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created: Timestamp,
}

impl DataKey {
    /// A wrapped key.
    #[must_use]
    pub const fn new(number: u32, wrapped: Vec<u8>, created: Timestamp) -> Self {
        Self {
            number,
            wrapped,
            created,
        }
    }
}

/// Data keys of customers.
#[async_trait]
pub trait DataKeys: Send + Sync + Debug + 'static {
    /// All keys of a customer by number.
    async fn keys(&self, scope: &CustomerScope) -> Result<Vec<DataKey>>;
    /// Adds a key; `Stale` if its number is taken (somebody else was first: read again).
    async fn add(&self, scope: &CustomerScope, key: &DataKey) -> Result<Saved>;
    /// Replaces the wrapping of a key, if it still is `from`.
    async fn rewrap(&self, scope: &CustomerScope, number: u32, from: &[u8], to: &[u8]) -> Result<Saved>;
}

/// When a flow of an installation runs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schedule {
    /// The installation.
    pub installation: InstallationId,
    /// Whose.
    pub customer: CustomerId,
    /// The flow's name.
    pub flow: String,
    /// When.
    pub spec: ScheduleSpec,
    /// The next tick, as scheduled (without jitter); `None` while it or the installation is paused, or at the end.
    pub next: Option<Timestamp>,
    /// Since when it is paused, apart from its installation.
    pub paused: Option<Timestamp>,
}

impl Schedule {
    /// A schedule whose next tick is `next`.
    #[must_use]
    pub fn new(
        installation: InstallationId,
        customer: CustomerId,
        flow: impl Into<String>,
        spec: ScheduleSpec,
        next: Option<Timestamp>,
    ) -> Self {
        Self {
            installation,
            customer,
            flow: flow.into(),
            spec,
            next,
            paused: None,
        }
    }
}

/// A tick that is due: moves the schedule on and starts executions, in one transaction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Fire {
    /// The installation.
    pub installation: InstallationId,
    /// The flow's name.
    pub flow: String,
    /// The tick that is fired: `next` as it was read.
    pub scheduled: Timestamp,
    /// The tick after it.
    pub next: Option<Timestamp>,
    /// Executions that start with this commit; none if the tick is skipped.
    pub starts: Vec<Envelope>,
}

impl Fire {
    /// Fires `scheduled` and moves on to `next`.
    #[must_use]
    pub fn new(schedule: &Schedule, scheduled: Timestamp, next: Option<Timestamp>, starts: Vec<Envelope>) -> Self {
        Self {
            installation: schedule.installation,
            flow: schedule.flow.clone(),
            scheduled,
            next,
            starts,
        }
    }
}

/// Schedules of installations. They are written by [`Installations::save`], and by themselves only paused and moved on.
#[async_trait]
pub trait Schedules: Send + Sync + Debug + 'static {
    /// Schedules whose next tick is at or before `until`, soonest first.
    async fn due(&self, scope: &FleetScope, until: Timestamp, limit: usize) -> Result<Vec<Schedule>>;
    /// When the soonest tick of all is.
    async fn soonest(&self, scope: &FleetScope) -> Result<Option<Timestamp>>;
    /// The schedules of an installation.
    async fn of(&self, scope: Scope<'_>, installation: InstallationId) -> Result<Vec<Schedule>>;
    /// Fires a tick, if it is still the next one: any number of schedulers fire it once.
    async fn fire(&self, scope: &FleetScope, fire: Fire) -> Result<Saved>;
    /// Lets one rest since `paused`, without a next tick; or, with `None`, go on at `next`. One that rests already keeps
    /// the time since when. The schedule as it is then; `None` if there is none in the scope.
    async fn pause(
        &self,
        scope: Scope<'_>,
        installation: InstallationId,
        flow: &str,
        paused: Option<Timestamp>,
        next: Option<Timestamp>,
    ) -> Result<Option<Schedule>>;
}
