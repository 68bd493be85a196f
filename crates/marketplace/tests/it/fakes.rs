//! The parts that other crates implement, as small as they can be and still be true to their traits.

use async_trait::async_trait;
use crosspoint_core::{
    AuthScheme, Authenticate, Authorizer, Cancel, Choice, ChoicePage, ChoiceQuery, Choices, Clock, Code,
    ConnectRequest, Connection, ConnectionId, ConnectionTest, Control, CustomerId, CustomerScope, Enqueue, Envelope,
    Error, ExposeSecret, FlowRef, Installation, InstallationId, Invocation, InvocationId, Meta, Origin, Permission,
    Principal, ReplayConfig, ReplayOptions, Result, Schedule, ScheduleSpec, Scope, SealContext, Sealed, SecretBox,
    SecretBytes, Store, TargetId, Timestamp, Timetable, TriggerKind, Vault,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// The header `x-session: role:customer` stands for the host's session.
#[derive(Debug)]
pub(crate) struct Sessions;

#[async_trait]
impl Authenticate for Sessions {
    async fn authenticate(&self, parts: &::http::request::Parts) -> Result<Principal> {
        let session = parts.headers.get("x-session").and_then(|value| value.to_str().ok());
        let Some((role, customer)) = session.and_then(|session| session.split_once(':')) else {
            return Err(Error::new(Code::SessionMissing, "nobody is signed in"));
        };
        let customer = CustomerId::new(customer)?;
        let mut principal = Principal::admin(customer.clone(), "ann").customer_name(format!("{customer} <b>Inc</b>"));
        match role {
            "admin" => {}
            "viewer" => principal.permissions = Principal::viewer(customer, "ann").permissions,
            "outsider" => principal.permissions = Vec::new(),
            "runner" => principal.permissions = vec![Permission::ExecutionRun],
            _ => return Err(Error::new(Code::SessionExpired, "the session has expired")),
        }
        Ok(principal)
    }
}

/// Connects to anything.
#[derive(Debug)]
pub(crate) struct Connects {
    pub(crate) store: Store,
    pub(crate) vault: Arc<dyn Vault>,
    pub(crate) clock: Arc<dyn Clock>,
}

#[async_trait]
impl Authorizer for Connects {
    fn schemes(&self, _: &str) -> Result<Vec<AuthScheme>> {
        Ok(vec![AuthScheme::bearer(), AuthScheme::Basic])
    }

    async fn connect(&self, scope: &CustomerScope, request: ConnectRequest) -> Result<Connection> {
        let now = self.clock.now();
        let old = match request.reconnect {
            Some(id) => self.store.connections.get(Scope::Customer(scope), id).await?,
            None => None,
        };
        let id = request.reconnect.unwrap_or_else(|| ConnectionId::mint(&*self.clock));
        let scheme = request.scheme.unwrap_or_else(|| "api-key-header".into());
        let customer = scope.customer().clone();
        let mut connection = Connection::new(id, customer.clone(), request.connector, scheme, now);
        connection.generation = old.map_or(0, |old| old.generation) + 1;
        connection.label = request.label.unwrap_or_else(|| "Shop".into());
        connection.variables = request.variables;
        let context = SealContext::credential(customer, id, connection.generation);
        connection.sealed = Some(self.vault.seal(&context, &request.fields.to_plaintext()).await?);
        self.store.connections.save(Scope::Customer(scope), &connection).await?;
        Ok(connection)
    }

    async fn test(&self, _: &CustomerScope, _: ConnectionId) -> Result<ConnectionTest> {
        Ok(ConnectionTest::new(true, "It works", Duration::from_millis(12)))
    }
}

/// Offers two pages of channels.
#[derive(Debug)]
pub(crate) struct Channels;

#[async_trait]
impl Choices for Channels {
    async fn choices(
        &self,
        _: &CustomerScope,
        _: ConnectionId,
        source: &str,
        query: &ChoiceQuery,
    ) -> Result<ChoicePage> {
        let label = format!("{source} {}", query.search);
        let next = query.after.is_none().then(|| "2".to_owned());
        Ok(ChoicePage::new(vec![Choice::new("c1", label)], next))
    }
}

/// Queues executions and never runs them.
#[derive(Debug)]
pub(crate) struct Queues {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Queues {
    pub(crate) fn envelope(&self, customer: &CustomerId, installation: InstallationId, input: &Value) -> Envelope {
        let id = InvocationId::mint(&*self.clock);
        let meta = Meta::new(id, customer.clone(), TargetId::new("flows").unwrap());
        let request = ::http::Request::new(input.to_string().into());
        let flow = FlowRef::new(installation, "orders", "1.0.0", "by-hand", TriggerKind::Call);
        Envelope::flow(Invocation::new(meta, request), flow, self.clock.now())
    }

    async fn put(&self, envelope: Envelope) -> Result<InvocationId> {
        let id = envelope.id();
        self.store.dispatch.enqueue(vec![Enqueue::queued(envelope)]).await?;
        Ok(id)
    }
}

#[async_trait]
impl Control for Queues {
    async fn cancel(&self, scope: &CustomerScope, id: InvocationId) -> Result<Cancel> {
        self.store.executions.cancel(Scope::Customer(scope), id).await
    }

    async fn replay(&self, scope: &CustomerScope, id: InvocationId, options: ReplayOptions) -> Result<InvocationId> {
        let stored = self
            .store
            .executions
            .envelope(Scope::Customer(scope), id)
            .await?
            .unwrap();
        let new = InvocationId::mint(&*self.clock);
        let mut again = stored.again(new, self.clock.now(), Origin::Replay(id));
        let flow = again.flow.as_mut().unwrap();
        flow.state = options.state;
        if options.config == ReplayConfig::Original {
            flow.revision = Some(1);
        }
        self.put(again).await
    }

    async fn start(
        &self,
        scope: &CustomerScope,
        installation: InstallationId,
        _: &str,
        input: Value,
    ) -> Result<InvocationId> {
        self.put(self.envelope(scope.customer(), installation, &input)).await
    }

    async fn fields(
        &self,
        scope: &CustomerScope,
        installation: &Installation,
        flow: &str,
    ) -> Result<BTreeMap<String, Vec<Choice>>> {
        assert_eq!(installation.customer, *scope.customer());
        let told = json!({ "config": installation.config, "connections": installation.connections });
        Ok([(flow.to_owned(), vec![Choice::new("told", told.to_string())])].into())
    }

    async fn pause_schedule(
        &self,
        scope: &CustomerScope,
        installation: InstallationId,
        flow: &str,
        paused: bool,
    ) -> Result<Schedule> {
        let now = self.clock.now();
        let (paused, next) = match paused {
            true => (Some(now), None),
            false => (None, Some(now.plus(Duration::from_secs(3600)))),
        };
        let schedules = &self.store.schedules;
        let found = schedules
            .pause(Scope::Customer(scope), installation, flow, paused, next)
            .await?;
        found.ok_or_else(|| Error::new(Code::NotFound, "there is no such schedule"))
    }
}

/// Ticks every hour.
#[derive(Debug)]
pub(crate) struct Hourly;

impl Timetable for Hourly {
    fn next(&self, _: &ScheduleSpec, after: Timestamp) -> Result<Option<Timestamp>> {
        Ok(Some(after.plus(Duration::from_secs(3600))))
    }
}

/// Not a cipher, but it keeps its promise about contexts, and the plaintext does not show.
#[derive(Debug)]
pub(crate) struct Mask;

#[async_trait]
impl Vault for Mask {
    async fn seal(&self, context: &SealContext, secret: &SecretBytes) -> Result<Sealed> {
        let mut bytes = format!("{context:?}\n").into_bytes();
        bytes.extend(secret.expose_secret().iter().map(|byte| byte ^ 0x5a));
        Ok(Sealed::from_bytes(bytes))
    }

    async fn open(&self, context: &SealContext, sealed: &Sealed) -> Result<SecretBytes> {
        let head = format!("{context:?}\n");
        let masked = sealed
            .as_bytes()
            .strip_prefix(head.as_bytes())
            .ok_or_else(|| Error::new(Code::SecretUnreadable, "sealed with another context"))?;
        Ok(SecretBox::new(Box::new(
            masked.iter().map(|byte| byte ^ 0x5a).collect(),
        )))
    }
}

/// A clock that moves when it is told to.
#[derive(Debug, Default)]
pub(crate) struct Hands(AtomicI64);

impl Hands {
    pub(crate) fn advance(&self, by: Duration) {
        self.0
            .fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_767_225_600_000 + self.0.load(Ordering::SeqCst))
    }
}

/// The right to a customer's data.
pub(crate) fn scope(customer: &str) -> CustomerScope {
    #[expect(clippy::disallowed_methods, reason = "the tests look behind the answers")]
    CustomerScope::trusted(CustomerId::new(customer).unwrap())
}
