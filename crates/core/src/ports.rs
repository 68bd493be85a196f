//! What one part needs from another: traits here, implemented by one crate, used by another, wired by the facade.

use crate::{
    AuthScheme, Cancel, Choice, ChoicePage, ChoiceQuery, Connection, ConnectionClient, ConnectionId, CredentialFields,
    CustomerId, CustomerScope, Enqueued, Envelope, Installation, InstallationId, InvocationId, ReplayOptions, Reply,
    Result, Schedule, ScheduleSpec, Timestamp,
};
use async_trait::async_trait;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug, time::Duration};

/// Puts work on the road. Implemented by the gateway.
#[async_trait]
pub trait Submit: Send + Sync + Debug + 'static {
    /// Stores one envelope durably, runs it as soon as there is capacity, and waits up to `hold` for the reply.
    async fn submit(&self, envelope: Envelope, hold: Duration) -> Result<Submitted>;
    /// Stores envelopes durably and returns at once.
    async fn enqueue(&self, envelopes: Vec<Envelope>) -> Result<Vec<Enqueued>>;
}

/// What became of a submitted call.
#[derive(Debug)]
#[non_exhaustive]
pub enum Submitted {
    /// The answer came in time.
    Answered(Reply),
    /// It is stored and goes on; ask for it by id.
    Accepted {
        /// The id to ask for.
        id: InvocationId,
        /// When asking is worth while.
        retry_after: Duration,
    },
}

/// Steers executions. Implemented by the runtime.
#[async_trait]
pub trait Control: Send + Sync + Debug + 'static {
    /// Asks an execution to stop.
    async fn cancel(&self, scope: &CustomerScope, id: InvocationId) -> Result<Cancel>;
    /// Does the same again under a new id, with keys of its own for outside effects.
    ///
    /// Fails with [`Code::ConfigGone`](crate::Code::ConfigGone) if the original configuration is asked for and not kept
    /// any more, and with [`Code::Conflict`](crate::Code::Conflict) if it was made for a version of the integration that
    /// is not registered here.
    async fn replay(&self, scope: &CustomerScope, id: InvocationId, options: ReplayOptions) -> Result<InvocationId>;
    /// Starts a flow now.
    async fn start(
        &self,
        scope: &CustomerScope,
        installation: InstallationId,
        flow: &str,
        input: Value,
    ) -> Result<InvocationId>;
    /// Asks the script of a flow, in the mode `init`, what the fields of a configuration can be: lists of choices by name.
    /// `installation` need not be stored; it says with which version, configuration and connections, as far as they are
    /// chosen, the script is run. Ends within half a minute.
    ///
    /// Fails with [`Code::Conflict`](crate::Code::Conflict) if the flow is no script, with
    /// [`Code::RateLimited`](crate::Code::RateLimited) or [`Code::TargetSaturated`](crate::Code::TargetSaturated) if too
    /// many are being asked, and with whatever the script meets.
    async fn fields(
        &self,
        scope: &CustomerScope,
        installation: &Installation,
        flow: &str,
    ) -> Result<BTreeMap<String, Vec<Choice>>>;
    /// Lets a schedule of an installation rest (`paused`), or go on, apart from the installation. What it would have
    /// started while it rests is not made up for. Answers with the schedule as it is then.
    ///
    /// Fails with [`Code::NotFound`](crate::Code::NotFound) if the customer has no such installation, or it no such
    /// schedule.
    async fn pause_schedule(
        &self,
        scope: &CustomerScope,
        installation: InstallationId,
        flow: &str,
        paused: bool,
    ) -> Result<Schedule>;
}

/// Reads schedules. Implemented by the runtime.
pub trait Timetable: Send + Sync + Debug + 'static {
    /// The first tick strictly after a time; `None` if there is none.
    ///
    /// # Errors
    /// [`Code::ScheduleInvalid`](crate::Code::ScheduleInvalid) with what is wrong.
    fn next(&self, spec: &ScheduleSpec, after: Timestamp) -> Result<Option<Timestamp>>;

    /// The next `count` ticks after a time, for people who want to see what a schedule means. Fewer if it ends.
    ///
    /// # Errors
    /// [`Code::ScheduleInvalid`](crate::Code::ScheduleInvalid) with what is wrong.
    fn upcoming(&self, spec: &ScheduleSpec, after: Timestamp, count: usize) -> Result<Vec<Timestamp>> {
        let mut ticks = Vec::new();
        let mut at = after;
        while ticks.len() < count {
            match self.next(spec, at)? {
                Some(next) => {
                    at = next;
                    ticks.push(next);
                }
                None => break,
            }
        }
        Ok(ticks)
    }
}

/// Makes clients of connections. Implemented by the connectors.
#[async_trait]
pub trait Credentials: Send + Sync + Debug + 'static {
    /// A client that carries the connection's credential.
    async fn client(&self, scope: &CustomerScope, connection: ConnectionId) -> Result<ConnectionClient>;
    /// The raw fields, for code that declared that it needs them.
    async fn fields(&self, scope: &CustomerScope, connection: ConnectionId) -> Result<CredentialFields>;
}

/// What a customer's user enters to connect.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// The connector's id.
    pub connector: String,
    /// Which of its authentication schemes, by name; the first unless given.
    pub scheme: Option<String>,
    /// Its name for people.
    pub label: Option<String>,
    /// What is not secret, such as `base_url`.
    pub variables: BTreeMap<String, String>,
    /// The secrets.
    pub fields: CredentialFields,
    /// Replaces the credential of this connection instead of making a new one.
    pub reconnect: Option<ConnectionId>,
}

impl ConnectRequest {
    /// A new connection with these fields.
    #[must_use]
    pub fn new(connector: impl Into<String>, fields: CredentialFields) -> Self {
        Self {
            connector: connector.into(),
            scheme: None,
            label: None,
            variables: BTreeMap::new(),
            fields,
            reconnect: None,
        }
    }
}

/// The result of a connection test.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct ConnectionTest {
    /// Whether the provider accepted the credentials.
    pub ok: bool,
    /// In a sentence.
    pub message: String,
    /// How long the provider took, in milliseconds.
    pub took_ms: u64,
}

impl ConnectionTest {
    /// A result.
    pub fn new(ok: bool, message: impl Into<String>, took: Duration) -> Self {
        Self {
            ok,
            message: message.into(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Connects customers to providers. Implemented by the connectors.
#[async_trait]
pub trait Authorizer: Send + Sync + Debug + 'static {
    /// How connections of a connector can authenticate.
    ///
    /// # Errors
    /// [`Code::NotFound`](crate::Code::NotFound) if there is no such connector.
    fn schemes(&self, connector: &str) -> Result<Vec<AuthScheme>>;
    /// Checks, seals and stores a credential.
    async fn connect(&self, scope: &CustomerScope, request: ConnectRequest) -> Result<Connection>;
    /// Asks the provider whether the credential works, and notes the answer as the connection's health.
    async fn test(&self, scope: &CustomerScope, connection: ConnectionId) -> Result<ConnectionTest>;
}

/// Dynamic choices for forms. Implemented by the connectors.
#[async_trait]
pub trait Choices: Send + Sync + Debug + 'static {
    /// A page of the choices that `source` (`connector.name`) offers over one of the customer's own connections.
    async fn choices(
        &self,
        scope: &CustomerScope,
        connection: ConnectionId,
        source: &str,
        query: &ChoiceQuery,
    ) -> Result<ChoicePage>;
}

/// One thing that a user may be allowed to do.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Permission {
    /// See the catalogue.
    CatalogueRead,
    /// See installations and connections.
    InstallationRead,
    /// Install, configure, pause, resume and remove.
    InstallationManage,
    /// Connect, test and disconnect.
    ConnectionManage,
    /// See executions and the business log.
    ExecutionRead,
    /// Start, replay and cancel executions.
    ExecutionRun,
}

impl Permission {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::CatalogueRead,
        Self::InstallationRead,
        Self::InstallationManage,
        Self::ConnectionManage,
        Self::ExecutionRead,
        Self::ExecutionRun,
    ];
}

/// Who is calling, as the host has established.
///
/// ```
/// use crosspoint_core::{CustomerId, Permission, Principal};
/// let ann = Principal::admin(CustomerId::new("acme")?, "ann");
/// assert!(ann.may(Permission::InstallationManage));
/// # Ok::<(), crosspoint_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Principal {
    /// The client company the user belongs to.
    pub customer: CustomerId,
    /// The company's name for people.
    pub customer_name: String,
    /// The user, in the host's words.
    pub user: String,
    /// What the user may do.
    pub permissions: Vec<Permission>,
}

impl Principal {
    /// Somebody who may do everything that a customer's user can do.
    #[must_use]
    pub fn admin(customer: CustomerId, user: impl Into<String>) -> Self {
        Self {
            customer_name: customer.as_str().to_owned(),
            customer,
            user: user.into(),
            permissions: Permission::ALL.to_vec(),
        }
    }

    /// Somebody who may look.
    #[must_use]
    pub fn viewer(customer: CustomerId, user: impl Into<String>) -> Self {
        let mut viewer = Self::admin(customer, user);
        viewer.permissions = vec![
            Permission::CatalogueRead,
            Permission::InstallationRead,
            Permission::ExecutionRead,
        ];
        viewer
    }

    /// With the company's name for people.
    #[must_use]
    pub fn customer_name(mut self, name: impl Into<String>) -> Self {
        self.customer_name = name.into();
        self
    }

    /// Whether the user may.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }
}

/// Establishes who is calling. Implemented by the host over its own session.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not authenticate",
    note = "implement `Authenticate` over the host's own session"
)]
pub trait Authenticate: Send + Sync + Debug + 'static {
    /// Who sent this request.
    ///
    /// Fails with [`Code::SessionMissing`](crate::Code::SessionMissing) or
    /// [`Code::SessionExpired`](crate::Code::SessionExpired).
    async fn authenticate(&self, parts: &http::request::Parts) -> Result<Principal>;
}
