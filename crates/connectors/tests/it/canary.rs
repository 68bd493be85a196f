//! No secret in what is traced, printed or reported.

use crate::server::{Server, Still, answer, bench, get, http};
use crosspoint_connectors::{
    HttpClient, KeyRing, SystemResolver,
    http::{Http, HttpConnector, Send, SendRequest, SendResponse},
};
use crosspoint_core::{Action, AuthScheme, Authorizer, ConnectRequest, CredentialFields, Credentials, EgressPolicy};
use std::{
    fmt::Debug,
    io,
    sync::{Arc, Mutex, OnceLock},
};
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

const KEY: &str = "canary-a1b2c3";
const WORD: &str = "canary-d4e5f6";

/// Keeps everything that this process traces or logs, on every level.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Kept {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn kept() -> &'static Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    KEPT.get_or_init(|| {
        let kept = Kept::default();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_writer(kept.clone());
        tracing_subscriber::registry().with(layer).init();
        kept
    })
}

fn all_traced() -> String {
    String::from_utf8_lossy(&kept().0.lock().unwrap()).into_owned()
}

#[tokio::test]
async fn a_secret_is_never_traced() {
    kept();
    let server = Server::start(|seen| match seen.path.as_str() {
        path if path.contains("/go") => answer(302, &[("location", "/there")], ""),
        path if path.contains("/401") => answer(401, &[], "{}"),
        path if path.contains("/out") => answer(302, &[("location", "https://169.254.169.254/")], ""),
        _ => answer(200, &[], "{}"),
    })
    .await;
    let bench = bench(http(&[&server]), vec![Arc::new(Http::new())]);
    #[expect(clippy::disallowed_methods, reason = "a test stands in for the authenticator")]
    let acme = crosspoint_core::CustomerScope::trusted("acme".parse().unwrap());
    let mut shown = Vec::new();
    for scheme in ["api-key-header", "api-key-query", "basic"] {
        let fields = match scheme {
            "basic" => CredentialFields::from([("username", "ann"), ("password", WORD)]),
            _ => CredentialFields::from([("api_key", KEY)]),
        };
        let mut request = ConnectRequest::new("http", fields);
        request.scheme = Some(scheme.to_owned());
        // As the URL of a chat's webhook: its path is a secret of its own, and stays out of the trace.
        let base = format!("{}/services/{WORD}", server.url());
        request.variables = [("base_url".to_owned(), base)].into();
        shown.push(format!("{request:?}").replace(WORD, ""));
        let connection = bench.engine.connect(&acme, request).await.unwrap();
        let test = bench.engine.test(&acme, connection.id).await.unwrap();
        let client = bench.engine.client(&acme, connection.id).await.unwrap();
        shown.push(format!("{test:?} {client:?} {:?}", bench.engine));
        for path in ["/x?page=2", "/go", "/401"] {
            client.send(get(path)).await.unwrap();
        }
        shown.push(format!("{:?}", client.send(get("/out")).await.unwrap_err()));
        shown.push(format!(
            "{:?}",
            Send.call(&client, SendRequest::get("/401")).await.unwrap_err()
        ));
    }
    let traced = all_traced();
    assert!(
        traced.contains("provider.request") && traced.contains("/x"),
        "the trace is being kept"
    );
    assert!(
        traced.contains("reqwest::") || traced.contains("hyper_util::"),
        "and that of the libraries too"
    );
    for secret in [KEY, WORD, "YW5uOmNhbmFyeS1kNGU1ZjY"] {
        assert!(!traced.contains(secret), "{secret} was traced");
        for text in &shown {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
    assert!(!traced.contains("page=2"), "queries are not traced");
}

#[test]
fn every_public_type_says_something_and_no_secret() {
    let policy = EgressPolicy::new().allow_host("127.0.0.1:1").unwrap();
    let client = HttpClient::builder().egress(policy).build().unwrap();
    let fields = CredentialFields::from([("api_key", KEY)]);
    let connection = client.client_for("http://127.0.0.1:1", &AuthScheme::bearer(), &fields, Arc::new(Still));
    let ring = KeyRing::parse("k1:Y2FuYXJ5LWExYjJjM2NhbmFyeS1hMWIyYzNjYW5hcnk=").unwrap();
    let types: [&dyn Debug; 10] = [
        &client,
        &HttpClient::builder(),
        &connection.unwrap(),
        &ring,
        &SystemResolver::new(),
        &Http::new(),
        &HttpConnector::new("erp", "ERP", "https://erp.example"),
        &Send,
        &SendRequest::get("/x"),
        &SendResponse::default(),
    ];
    for value in types {
        let text = format!("{value:?}");
        assert!(!text.is_empty());
        assert!(!text.contains(KEY) && !text.contains("Y2FuYXJ5"), "{text}");
    }
}
