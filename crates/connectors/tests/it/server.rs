//! What the tests share: a recording HTTP server, a clock that stands still, and an engine over an empty store.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use crosspoint_connectors::{ConnectorEngine, EnvelopeVault, HttpClient, KeyRing};
use crosspoint_core::{
    AuthScheme, Clock, ConnectionClient, Connector, CredentialFields, CustomerId, CustomerScope, EgressPolicy, Memory,
    Registry, Store, Timestamp,
};
use http::{HeaderMap, Method, StatusCode};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A server that records every request.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) async fn start(respond: impl Fn(&Seen) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let respond = Arc::new(respond);
        let handler = move |request: Request| {
            let (record, respond) = (Arc::clone(&record), Arc::clone(&respond));
            async move {
                let (parts, body) = request.into_parts();
                let one = Seen {
                    method: parts.method,
                    path: parts.uri.to_string(),
                    headers: parts.headers,
                    body: axum::body::to_bytes(body, usize::MAX).await.unwrap(),
                };
                record.lock().unwrap().push(one.clone());
                respond(&one)
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(handler)).await });
        Self { address, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The one request that came.
    pub(crate) fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }
}

pub(crate) fn status(code: u16) -> Response {
    answer(code, &[], "{}")
}

pub(crate) fn answer(code: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut builder = Response::builder().status(StatusCode::from_u16(code).unwrap());
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

pub(crate) const NOW: &str = "2026-11-21T09:30:00Z";

/// A clock that stands still.
#[derive(Debug)]
pub(crate) struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW.parse().unwrap()
    }
}

/// Permits the servers of a test and nothing else.
pub(crate) fn permit(servers: &[&Server]) -> EgressPolicy {
    servers.iter().fold(EgressPolicy::new(), |policy, server| {
        policy.allow_host(&server.address.to_string()).unwrap()
    })
}

pub(crate) fn http(servers: &[&Server]) -> HttpClient {
    HttpClient::builder().egress(permit(servers)).build().unwrap()
}

pub(crate) const KEY: &str = "canary-key-5d1c";

pub(crate) fn credential() -> CredentialFields {
    CredentialFields::from([("api_key", KEY), ("username", "ann"), ("password", "canary-word-77")])
}

/// A client of the first server with a bearer key; the others may be called too.
pub(crate) fn client(servers: &[&Server]) -> ConnectionClient {
    client_with(&http(servers), &servers[0].url(), &AuthScheme::bearer())
}

pub(crate) fn client_with(http: &HttpClient, base: &str, scheme: &AuthScheme) -> ConnectionClient {
    http.client_for(base, scheme, &credential(), Arc::new(Still)).unwrap()
}

pub(crate) fn get(path: &str) -> http::Request<Bytes> {
    http::Request::get(path).body(Bytes::new()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a test stands in for the authenticator")]
pub(crate) fn scope(customer: &str) -> CustomerScope {
    CustomerScope::trusted(CustomerId::new(customer).unwrap())
}

/// An engine with its store.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) engine: ConnectorEngine,
    pub(crate) store: Store,
}

pub(crate) fn bench(http: HttpClient, connectors: Vec<Arc<dyn Connector>>) -> Bench {
    let mut registry = Registry::new();
    for connector in connectors {
        registry.add_connector(connector).unwrap();
    }
    let store: Store = Memory::new().into();
    let keys = Arc::new(KeyRing::generate().unwrap());
    let vault = EnvelopeVault::new(keys, store.data_keys.clone(), Arc::new(Still));
    let engine = ConnectorEngine::new(
        Arc::new(registry),
        store.connections.clone(),
        Arc::new(vault),
        Arc::new(Still),
        http,
    );
    Bench {
        engine: engine.unwrap(),
        store,
    }
}
