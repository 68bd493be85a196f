//! A marketplace with two connectors, two integrations and two customers.

use crate::fakes::{Channels, Connects, Hands, Hourly, Mask, Queues, Sessions, scope};
use ::http::{Method, Request, Response, StatusCode};
use async_trait::async_trait;
use axum::{Router, body::Body};
use crosspoint_core::{
    AuthScheme, BaseUrl, ChoicePage, ChoiceQuery, Clock, ConnectionClient, Connector, ConnectorDescriptor, Control,
    DataSource, Event, Flow, FlowContext, Installation, InstallationId, Integration, Memory, Registry, Result, Scope,
    SecretRef, Store, Tick, Trigger, Vault,
};
use crosspoint_marketplace::{Marketplace, Parts};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Settings {
    /// Where new orders are announced
    #[schemars(extend("x-crosspoint" = { "widget": "dynamic-select", "source": "shop.channels" }))]
    channel: String,
    /// Orders above this amount
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    minimum: i64,
    /// Signs the announcements
    token: SecretRef,
    /// For old systems
    #[serde(default)]
    extra: Option<SecretRef>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    amount: u64,
}

impl Event for Order {
    const NAME: &'static str = "order.created";
}

struct Announce;

#[async_trait]
impl Flow for Announce {
    type Config = Settings;
    type Input = Order;
    type Output = u64;
    async fn run(&self, _: &FlowContext<Settings>, order: Order) -> Result<u64> {
        Ok(order.amount)
    }
}

struct Nightly;

#[async_trait]
impl Flow for Nightly {
    type Config = Settings;
    type Input = Tick;
    type Output = ();
    async fn run(&self, _: &FlowContext<Settings>, _: Tick) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Source;

#[async_trait]
impl DataSource for Source {
    fn name(&self) -> &str {
        "channels"
    }
    async fn page(&self, _: &ConnectionClient, _: &ChoiceQuery) -> Result<ChoicePage> {
        Ok(ChoicePage::default())
    }
}

#[derive(Debug)]
struct Shop(ConnectorDescriptor);

impl Connector for Shop {
    fn descriptor(&self) -> &ConnectorDescriptor {
        &self.0
    }
    fn data_sources(&self) -> Vec<Arc<dyn DataSource>> {
        vec![Arc::new(Source)]
    }
}

pub(crate) fn connector(id: &str, base_url: BaseUrl) -> Arc<dyn Connector> {
    Arc::new(Shop(
        ConnectorDescriptor::new(id, format!("The {id}"), base_url).auth(AuthScheme::bearer()),
    ))
}

fn orders(version: &str) -> Integration<Settings> {
    Integration::new("orders", version)
        .title("Orders <script>alert(1)</script>")
        .summary("Announces orders & more")
        .category("sales")
        .connection("shop", "shop")
        .config::<Settings>()
        .flow("announce", Trigger::event::<Order>(), Announce)
        .flow("nightly", Trigger::schedule("0 3 * * *"), Nightly)
        .flow("by-hand", Trigger::call::<Order>(), Announce)
}

/// Finds nothing.
struct Nothing;

#[async_trait]
impl crosspoint_core::Poll for Nothing {
    type Config = crosspoint_core::NoConfig;
    type Cursor = u64;
    type Item = ();
    async fn poll(
        &self,
        _: &FlowContext<crosspoint_core::NoConfig>,
        _: Option<u64>,
    ) -> Result<crosspoint_core::Polled<(), u64>> {
        Ok(crosspoint_core::Polled::new(0))
    }
}

struct Plain;

#[async_trait]
impl Flow for Plain {
    type Config = crosspoint_core::NoConfig;
    type Input = ();
    type Output = ();
    async fn run(&self, _: &FlowContext<crosspoint_core::NoConfig>, (): ()) -> Result<()> {
        Ok(())
    }
}

pub(crate) fn registry(version: &str) -> Registry {
    let mut registry = Registry::new();
    registry
        .add_connector(connector("shop", BaseUrl::Fixed("https://shop.example".into())))
        .unwrap();
    registry
        .add_connector(connector("own", BaseUrl::PerConnection))
        .unwrap();
    registry.add_integration(orders(version)).unwrap();
    registry
        .add_integration(Integration::new("plain", "1.0.0").flow("go", Trigger::call::<()>(), Plain))
        .unwrap();
    let polls = Integration::new("polls", "1.0.0").poll("book", std::time::Duration::from_secs(60), Nothing, Plain);
    registry.add_integration(polls).unwrap();
    registry
}

/// Everything that a test needs to ask and to look behind the answers.
pub(crate) struct World {
    pub(crate) app: Router,
    pub(crate) marketplace: Marketplace,
    pub(crate) store: Store,
    pub(crate) clock: Arc<Hands>,
    pub(crate) queues: Queues,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: ::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
    /// The answer, if it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }
    /// The problem's code, of a failure that is told as one.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        let code = problem["code"].as_str().unwrap().to_owned();
        assert_eq!(problem["type"], format!("urn:crosspoint:error:{code}"));
        code
    }
    /// The pointers of the problems of an input.
    pub(crate) fn pointers(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().cloned().unwrap_or_default();
        errors
            .iter()
            .map(|e| e["pointer"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::over(Memory::new().into(), registry("1.0.0"))
    }

    pub(crate) fn over(store: Store, registry: Registry) -> Self {
        let clock = Arc::new(Hands::default());
        let dyn_clock: Arc<dyn Clock> = clock.clone();
        let vault: Arc<dyn Vault> = Arc::new(Mask);
        let marketplace = Marketplace::new(Parts {
            registry: Arc::new(registry),
            store: store.clone(),
            clock: dyn_clock.clone(),
            auth: Arc::new(Sessions),
            authorizer: Arc::new(Connects {
                store: store.clone(),
                vault: vault.clone(),
                clock: dyn_clock.clone(),
            }),
            choices: Arc::new(Channels),
            control: Arc::new(Queues {
                store: store.clone(),
                clock: dyn_clock.clone(),
            }),
            timetable: Arc::new(Hourly),
            vault,
        })
        .unwrap();
        Self {
            app: Router::new().nest_service("/integrations", marketplace.router()),
            queues: Queues {
                store: store.clone(),
                clock: dyn_clock,
            },
            marketplace,
            store,
            clock,
        }
    }

    /// The routes as they are, not nested.
    pub(crate) fn router(&self) -> Router {
        self.marketplace.router()
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response: Response<Body> = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// Sends what the user interface would send.
    pub(crate) async fn call(&self, session: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send(request(session, method, path, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("admin:acme", Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("admin:acme", Method::POST, path, Some(body)).await
    }

    /// A change or removal that starts from a revision.
    pub(crate) async fn at(&self, revision: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = request("admin:acme", method, path, body);
        request.headers_mut().insert("if-match", revision.parse().unwrap());
        self.send(request).await
    }

    /// A connection to a connector.
    pub(crate) async fn connect(&self, session: &str, connector: &str) -> String {
        let body = json!({
            "connector": connector, "fields": { "api_key": "key-canary" }, "variables": { "base_url": "https://own.example" }
        });
        let answer = self.call(session, Method::POST, "v1/connections", Some(body)).await;
        id(&answer.expect(201))
    }

    /// An installation that runs.
    pub(crate) async fn install(&self, session: &str) -> String {
        let connection = self.connect(session, "shop").await;
        let answer = self
            .call(session, Method::POST, "v1/installations", Some(installing(&connection)))
            .await;
        id(&answer.expect(201))
    }

    /// An execution of an installation, in the queue.
    pub(crate) async fn execution(&self, session: &str, installation: &str) -> String {
        let (_, customer) = session.split_once(':').unwrap();
        let scope = scope(customer);
        let installation: InstallationId = installation.parse().unwrap();
        let started = self
            .queues
            .start(&scope, installation, "by-hand", json!({ "amount": 1 }));
        started.await.unwrap().to_string()
    }

    /// The record behind an installation.
    pub(crate) async fn record(&self, customer: &str, installation: &str) -> Installation {
        let scope = scope(customer);
        let id = installation.parse().unwrap();
        let found = self.store.installations.get(Scope::Customer(&scope), id).await;
        found.unwrap().unwrap()
    }
}

/// What the user interface sends.
pub(crate) fn request(session: &str, method: Method, path: &str, body: Option<Value>) -> Request<Body> {
    let safe = method.is_safe();
    let mut builder = Request::builder()
        .method(method)
        .uri(format!("/integrations/{path}"))
        .header("host", "saas.example")
        .header("x-session", session);
    if !safe {
        builder = builder
            .header("x-crosspoint", "1")
            .header("origin", "https://saas.example")
            .header("sec-fetch-site", "same-origin");
    }
    match body {
        Some(body) => builder
            .header("content-type", "application/json")
            .body(Body::from(body.to_string())),
        None => builder.body(Body::empty()),
    }
    .unwrap()
}

/// A complete set-up of the integration `orders`.
pub(crate) fn installing(connection: &str) -> Value {
    json!({
        "integration": "orders",
        "config": { "channel": "c1", "minimum": 5, "token": "token-canary" },
        "connections": { "shop": connection }
    })
}

pub(crate) fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap().to_owned()
}
