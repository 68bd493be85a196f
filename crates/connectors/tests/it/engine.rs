//! Connecting, testing, using.

use crate::server::{Bench, KEY, Server, answer, bench, get, http, scope};
use async_trait::async_trait;
use crosspoint_connectors::{
    ConnectorEngine, EnvelopeVault, HttpClient, KeyRing,
    http::{Http, HttpConnector},
};
use crosspoint_core::{
    AuthScheme, Authorizer, Choice, ChoicePage, ChoiceQuery, Choices, Code, ConnectRequest, Connection,
    ConnectionClient, ConnectionId, Connector, CredentialFields, Credentials, DataSource, ExposeSecret, Health, Memory,
    Registry, Result, Retry, Saved, Store, SystemClock,
};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

/// Choices that need the provider.
#[derive(Debug)]
struct Channels;

#[async_trait]
impl DataSource for Channels {
    fn name(&self) -> &str {
        "channels"
    }
    async fn page(&self, client: &ConnectionClient, query: &ChoiceQuery) -> Result<ChoicePage> {
        let path = format!("/channels?q={}", query.search);
        let names: Vec<String> = client.json(::http::Method::GET, &path, None::<&()>).await?;
        Ok(ChoicePage::new(
            names.iter().map(|name| Choice::new(name, name)).collect(),
            None,
        ))
    }
}

fn erp(server: &Server) -> Arc<dyn Connector> {
    let connector = HttpConnector::new("erp", "ERP", server.url())
        .auth(AuthScheme::bearer())
        .auth(AuthScheme::Basic)
        .probe("/me")
        .data_source(Channels);
    Arc::new(connector)
}

fn key(value: &str) -> CredentialFields {
    CredentialFields::from([("api_key", value)])
}

/// A provider whose answer can be changed.
async fn provider() -> (Server, Arc<AtomicU16>) {
    let code = Arc::new(AtomicU16::new(200));
    let shared = Arc::clone(&code);
    let server = Server::start(move |seen| {
        let code = shared.load(Ordering::SeqCst);
        let body = if seen.path.starts_with("/channels") {
            r#"["general"]"#
        } else {
            "{}"
        };
        answer(code, &[], body)
    })
    .await;
    (server, code)
}

async fn connected(bench: &Bench, customer: &str) -> Connection {
    bench
        .engine
        .connect(&scope(customer), ConnectRequest::new("erp", key(KEY)))
        .await
        .unwrap()
}

async fn health(bench: &Bench, connection: &Connection) -> Health {
    let scope = scope(connection.customer.as_str());
    let stored = bench.store.connections.get((&scope).into(), connection.id).await;
    stored.unwrap().unwrap().health
}

#[tokio::test]
async fn what_is_entered_is_sealed_and_used() {
    let (server, _) = provider().await;
    let bench = bench(http(&[&server]), vec![erp(&server)]);
    let connection = connected(&bench, "acme").await;
    assert_eq!(
        (connection.label.as_str(), connection.scheme.as_str()),
        ("ERP", "api-key-header")
    );
    assert_eq!(connection.health, Health::Unknown);

    let acme = scope("acme");
    let stored = bench
        .store
        .connections
        .get((&acme).into(), connection.id)
        .await
        .unwrap()
        .unwrap();
    let sealed = stored.sealed.as_ref().unwrap().as_bytes();
    assert!(!sealed.windows(KEY.len()).any(|part| part == KEY.as_bytes()));
    assert!(!format!("{stored:?}").contains(KEY));

    let client = bench.engine.client(&acme, connection.id).await.unwrap();
    client.send(get("/orders")).await.unwrap();
    assert_eq!(
        server.only().header("authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
    assert_eq!(health(&bench, &connection).await, Health::Connected);

    let fields = bench.engine.fields(&acme, connection.id).await.unwrap();
    assert_eq!(fields.get("api_key").unwrap().expose_secret(), KEY);
}

#[tokio::test]
async fn a_foreign_connection_is_one_that_does_not_exist() {
    let (server, _) = provider().await;
    let bench = bench(http(&[&server]), vec![erp(&server)]);
    let theirs = connected(&bench, "globex").await.id;
    let nobodys = ConnectionId::derive(&["nobody's"]);
    let acme = scope("acme");
    let mut texts = Vec::new();
    for id in [theirs, nobodys] {
        let mut errors = vec![
            bench.engine.client(&acme, id).await.unwrap_err(),
            bench.engine.fields(&acme, id).await.unwrap_err(),
        ];
        assert!(errors.iter().all(|e| e.code() == Code::ConnectionMissing));
        let mut again = ConnectRequest::new("erp", key(KEY));
        again.reconnect = Some(id);
        let asked = vec![
            bench.engine.test(&acme, id).await.unwrap_err(),
            bench
                .engine
                .choices(&acme, id, "erp.channels", &ChoiceQuery::default())
                .await
                .unwrap_err(),
            bench.engine.connect(&acme, again).await.unwrap_err(),
        ];
        assert!(asked.iter().all(|e| e.code() == Code::NotFound), "{asked:?}");
        errors.extend(asked);
        texts.push(format!("{errors:?}").replace(&id.to_string(), "ID"));
    }
    assert_eq!(texts[0], texts[1]);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn every_problem_of_a_form_is_told_at_once_and_no_value() {
    let (server, _) = provider().await;
    let bench = bench(http(&[&server]), vec![erp(&server), Arc::new(Http::new())]);
    let mut request = ConnectRequest::new("http", CredentialFields::from([("username", KEY), ("other", KEY)]));
    request.label = Some("  ".to_owned());
    request.variables = [
        ("base_url", "https://169.254.169.254/latest"),
        ("header", "Host"),
        ("region", "eu"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let error = bench.engine.connect(&scope("acme"), request).await.unwrap_err();
    assert_eq!(error.code(), Code::InputInvalid);
    let mut pointers: Vec<_> = error
        .problems()
        .iter()
        .map(|problem| problem.pointer.as_str())
        .collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/fields/api_key",
            "/fields/other",
            "/fields/username",
            "/label",
            "/variables/base_url",
            "/variables/header",
            "/variables/region"
        ]
    );
    assert!(!format!("{error:?}").contains(KEY));

    for value in ["", " ", " padded ", "two\nlines"] {
        let refused = bench
            .engine
            .connect(&scope("acme"), ConnectRequest::new("erp", key(value)))
            .await
            .unwrap_err();
        assert_eq!(refused.problems()[0].pointer, "/fields/api_key", "{value:?}");
    }
    let mut request = ConnectRequest::new("erp", key(KEY));
    request.scheme = Some("oauth".to_owned());
    let refused = bench.engine.connect(&scope("acme"), request).await.unwrap_err();
    assert!(refused.to_string().contains("api-key-header, basic"), "{refused}");
    let unknown = ConnectRequest::new("nothing", key(KEY));
    let refused = bench.engine.connect(&scope("acme"), unknown).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn a_connection_may_name_its_server_and_header() {
    let (server, _) = provider().await;
    let bench = bench(http(&[&server]), vec![Arc::new(Http::new())]);
    let acme = scope("acme");
    let mut request = ConnectRequest::new(Http::ID, key(KEY));
    request.variables = [
        ("base_url", format!("{}/api", server.url())),
        ("header", "X-Token".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let connection = bench.engine.connect(&acme, request).await.unwrap();
    let client = bench.engine.client(&acme, connection.id).await.unwrap();
    client.send(get("/x")).await.unwrap();
    let seen = server.only();
    assert_eq!((seen.path.as_str(), seen.header("x-token")), ("/api/x", Some(KEY)));
    assert_eq!(seen.header("authorization"), None);
}

#[tokio::test]
async fn connecting_again_keeps_the_id_and_forgets_the_old_key() {
    let (server, code) = provider().await;
    let bench = bench(http(&[&server]), vec![erp(&server)]);
    let acme = scope("acme");
    let first = connected(&bench, "acme").await;
    let old = bench.engine.client(&acme, first.id).await.unwrap();
    let late = bench.engine.client(&acme, first.id).await.unwrap();

    code.store(401, Ordering::SeqCst);
    let refused = old
        .json::<(), serde_json::Value>(::http::Method::GET, "/x", None)
        .await
        .unwrap_err();
    assert_eq!(refused.retry(), Retry::Reauthorize);
    assert_eq!(health(&bench, &first).await, Health::NeedsReconnect);

    let mut again = ConnectRequest::new("erp", key("second-key"));
    again.reconnect = Some(first.id);
    let second = bench.engine.connect(&acme, again).await.unwrap();
    assert_eq!((second.id, second.generation), (first.id, first.generation + 1));
    assert_eq!(health(&bench, &first).await, Health::Unknown);

    // The old key is refused once more, late: that says nothing about the new one.
    assert_eq!(late.send(get("/late")).await.unwrap().status(), 401);
    assert_eq!(health(&bench, &first).await, Health::Unknown);

    code.store(200, Ordering::SeqCst);
    let new = bench.engine.client(&acme, first.id).await.unwrap();
    new.send(get("/y")).await.unwrap();
    assert_eq!(health(&bench, &first).await, Health::Connected);
    let last = server.seen().pop().unwrap();
    assert_eq!(last.header("authorization"), Some("Bearer second-key"));
}

#[tokio::test]
async fn an_old_generation_that_is_put_back_does_not_open() {
    let (server, _) = provider().await;
    let bench = bench(http(&[&server]), vec![erp(&server)]);
    let acme = scope("acme");
    let first = connected(&bench, "acme").await;
    let mut rolled = first.clone();
    rolled.generation += 1;
    let saved = bench.store.connections.save((&acme).into(), &rolled).await.unwrap();
    assert_eq!(saved, Saved::Applied);
    let error = bench.engine.client(&acme, first.id).await.unwrap_err();
    assert_eq!(error.code(), Code::SecretUnreadable);
}

#[tokio::test]
async fn a_test_tells_what_the_provider_said() {
    let (server, code) = provider().await;
    let bench = bench(http(&[&server]), vec![erp(&server)]);
    let acme = scope("acme");
    let connection = connected(&bench, "acme").await;
    for (answer, ok, expected) in [
        (204, true, Health::Connected),
        (503, false, Health::Degraded),
        (403, false, Health::NeedsReconnect),
        (500, false, Health::NeedsReconnect),
        (200, true, Health::Connected),
        (401, false, Health::NeedsReconnect),
    ] {
        code.store(answer, Ordering::SeqCst);
        let test = bench.engine.test(&acme, connection.id).await.unwrap();
        assert_eq!((test.ok, health(&bench, &connection).await), (ok, expected), "{answer}");
    }
    assert!(server.seen().iter().all(|one| one.path == "/me"));
}

#[tokio::test]
async fn without_a_probe_only_a_refusal_is_sure() {
    let (server, code) = provider().await;
    let plain: Arc<dyn Connector> = Arc::new(HttpConnector::new("erp", "ERP", server.url()).auth(AuthScheme::bearer()));
    let bench = bench(http(&[&server]), vec![plain]);
    let connection = connected(&bench, "acme").await;
    code.store(404, Ordering::SeqCst);
    let test = bench.engine.test(&scope("acme"), connection.id).await.unwrap();
    assert!(test.ok && test.message.contains("no test"), "{test:?}");
    assert_eq!(health(&bench, &connection).await, Health::Unknown);
    code.store(401, Ordering::SeqCst);
    let test = bench.engine.test(&scope("acme"), connection.id).await.unwrap();
    assert!(!test.ok);
    assert_eq!(health(&bench, &connection).await, Health::NeedsReconnect);
}

#[tokio::test]
async fn choices_come_from_the_customers_own_connection() {
    let (server, _) = provider().await;
    let bench = bench(http(&[&server]), vec![erp(&server), Arc::new(Http::new())]);
    let acme = scope("acme");
    let connection = connected(&bench, "acme").await;
    let mut query = ChoiceQuery::default();
    "gen".clone_into(&mut query.search);
    let page = bench
        .engine
        .choices(&acme, connection.id, "erp.channels", &query)
        .await
        .unwrap();
    assert_eq!(
        serde_json::to_value(page.items).unwrap(),
        json!([{ "value": "general", "label": "general" }])
    );
    assert_eq!(server.only().path, "/channels?q=gen");
    for source in ["erp.nothing", "http.channels", "channels", "."] {
        let refused = bench
            .engine
            .choices(&acme, connection.id, source, &query)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{source}");
    }
}

#[tokio::test]
async fn two_who_connect_again_at_once_do_not_overwrite_each_other() {
    let (server, _) = provider().await;
    let bench = Arc::new(bench(http(&[&server]), vec![erp(&server)]));
    let connection = connected(&bench, "acme").await;
    let again = |value: &'static str| {
        let bench = Arc::clone(&bench);
        async move {
            let mut request = ConnectRequest::new("erp", key(value));
            request.reconnect = Some(connection.id);
            bench
                .engine
                .connect(&scope("acme"), request)
                .await
                .map(|saved| (saved.generation, value))
        }
    };
    let (one, two) = tokio::join!(tokio::spawn(again("one")), tokio::spawn(again("two")));
    let results = [one.unwrap(), two.unwrap()];
    let (newest, value) = results.iter().flatten().max().unwrap();
    let fields = bench.engine.fields(&scope("acme"), connection.id).await.unwrap();
    assert_eq!(fields.get("api_key").unwrap().expose_secret(), *value);
    assert_eq!(usize::try_from(*newest).unwrap(), 1 + results.iter().flatten().count());
    assert!(results.iter().flat_map(Result::as_ref).count() >= 1);
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(error.code(), Code::RevisionStale);
    }
}

fn engine_of(connector: HttpConnector) -> Result<ConnectorEngine> {
    let mut registry = Registry::new();
    registry.add_connector(Arc::new(connector)).unwrap();
    let store: Store = Memory::new().into();
    let clock = Arc::new(SystemClock::new());
    let vault = EnvelopeVault::new(Arc::new(KeyRing::generate()?), store.data_keys.clone(), clock.clone());
    ConnectorEngine::new(
        Arc::new(registry),
        store.connections,
        Arc::new(vault),
        clock,
        HttpClient::new()?,
    )
}

#[tokio::test]
async fn a_connector_that_cannot_work_is_refused_at_start() {
    let of = |url: &str| HttpConnector::new("erp", "ERP", url);
    let good = "https://erp.example/api";
    let header = |header: &str| AuthScheme::ApiKeyHeader {
        header: header.to_owned(),
        prefix: String::new(),
    };
    assert!(engine_of(of(good).auth(header("x-key")).probe("/me")).is_ok());
    for (connector, code) in [
        (of("erp.example"), Code::SetupInvalid),
        (of("http://erp.example"), Code::EgressRefused),
        (of("https://10.0.0.1"), Code::EgressRefused),
        (of(good).probe("me"), Code::SetupInvalid),
        (
            of(good).auth(header("x-key")).auth(AuthScheme::bearer()),
            Code::SetupInvalid,
        ),
        (of(good).auth(header("two words")), Code::SetupInvalid),
    ] {
        assert_eq!(engine_of(connector).unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn a_scheme_that_was_taken_away_asks_to_connect_again() {
    let (server, _) = provider().await;
    let before = bench(http(&[&server]), vec![erp(&server)]);
    let mut basic = ConnectRequest::new("erp", CredentialFields::from([("username", "u"), ("password", "p")]));
    basic.scheme = Some("basic".to_owned());
    let connection = before.engine.connect(&scope("acme"), basic).await.unwrap();
    let client = before.engine.client(&scope("acme"), connection.id).await.unwrap();
    client.send(get("/")).await.unwrap();

    let later = bench(
        http(&[&server]),
        vec![Arc::new(HttpConnector::new("erp", "ERP", server.url()))],
    );
    let mut bare = connection.clone();
    bare.sealed = None;
    later
        .store
        .connections
        .save((&scope("acme")).into(), &bare)
        .await
        .unwrap();
    let error = later.engine.client(&scope("acme"), connection.id).await.unwrap_err();
    assert_eq!(
        (error.code(), error.retry()),
        (Code::CredentialsRefused, Retry::Reauthorize)
    );
}
