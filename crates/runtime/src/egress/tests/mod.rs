//! The service as a run sees it, over real sockets.

mod abuse;
mod broker;
mod clients;
mod proxy;

use super::{Limits, Listener, Peers, Policy, Server, Shared, SystemResolver, serve};
use crate::redact::Redactor;
use async_trait::async_trait;
use bytes::Bytes;
use crosspoint_core::{
    CallOptions, Clock, ConnectionClient, CustomerId, Egress, EgressPolicy, InstallationId, InvocationId, Resolve,
    Result, RunSpec, Script, SystemClock, Timestamp, Transport, Work,
};
use http::{Request, Response};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream},
};

/// What the fake provider demands, and nobody else may see.
const CANARY: &str = "canary-token-77c1";

/// A request as the provider got it.
type Seen = (Request<Bytes>, CallOptions);

type Answer = dyn Fn(&Request<Bytes>) -> Result<Response<Bytes>> + Send + Sync;

/// A provider behind a transport that adds the credential, as the connectors' own does.
#[derive(Clone)]
struct Provider {
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<Answer>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider")
    }
}

#[async_trait]
impl Transport for Provider {
    async fn send(&self, mut request: Request<Bytes>, options: &CallOptions) -> Result<Response<Bytes>> {
        let key = format!("Bearer {CANARY}").parse().unwrap();
        request.headers_mut().insert("authorization", key);
        let answer = (self.answer)(&request);
        self.seen.lock().unwrap().push((request, *options));
        answer
    }
}

impl Provider {
    fn new(answer: impl Fn(&Request<Bytes>) -> Result<Response<Bytes>> + Send + Sync + 'static) -> Self {
        Self {
            seen: Arc::default(),
            answer: Arc::new(answer),
        }
    }

    /// Answers 200 with what it got for a body.
    fn echo() -> Self {
        Self::new(|request| Ok(Response::new(request.body().clone())))
    }

    fn client(&self) -> ConnectionClient {
        ConnectionClient::new(Arc::new(self.clone()))
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn keys(&self) -> Vec<Option<String>> {
        let key = |(request, _): &Seen| Some(request.headers().get("idempotency-key")?.to_str().unwrap().to_owned());
        self.seen().iter().map(key).collect()
    }
}

/// Answers with one list after another, the last for ever.
#[derive(Debug, Clone)]
struct Answers(Arc<Mutex<Vec<Vec<IpAddr>>>>, Arc<Mutex<Vec<String>>>);

impl Answers {
    fn new(lists: &[&[&str]]) -> Self {
        let lists = lists
            .iter()
            .map(|list| list.iter().map(|text| text.parse().unwrap()).collect());
        Self(Arc::new(Mutex::new(lists.collect())), Arc::default())
    }

    fn asked(&self) -> Vec<String> {
        self.1.lock().unwrap().clone()
    }
}

#[async_trait]
impl Resolve for Answers {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>> {
        self.1.lock().unwrap().push(host.to_owned());
        let mut lists = self.0.lock().unwrap();
        Ok(if lists.len() > 1 {
            lists.remove(0)
        } else {
            lists[0].clone()
        })
    }
}

fn policy(egress: Egress) -> Policy {
    let clock = Arc::new(SystemClock::new());
    let spec = RunSpec::new(
        InvocationId::derive(&["execution"]),
        CustomerId::new("acme").unwrap(),
        InstallationId::derive(&["installation"]),
        "flow",
        Work::Script(Arc::new(Script::inline("sh", "true"))),
        clock.now().plus(Duration::from_secs(60)),
    );
    Policy::of(&spec, egress, Arc::new(SystemResolver::new()), clock)
}

/// A broker with one connection, `shop`.
fn shop(provider: &Provider) -> Policy {
    let mut policy = policy(Egress::Broker);
    policy.connections.insert("shop".to_owned(), provider.client());
    policy
}

/// A proxy to these hosts, which may be on this machine; every name is 127.0.0.1.
fn allow(rules: &[String]) -> Policy {
    let mut policy = policy(Egress::Allow(rules.to_vec()));
    policy.resolve = Arc::new(Answers::new(&[&["127.0.0.1"]]));
    for rule in rules {
        policy.internal = policy.internal.allow_host(rule).unwrap();
    }
    policy
}

fn start(policy: Policy) -> (Server, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (Server::start(Listener::Tcp(listener), policy).unwrap(), address)
}

/// Sends bytes and reads until the service closes.
async fn exchange(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The service may have closed before everything was sent.
    stream.write_all(bytes.as_ref()).await.ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request that asks for the connection to be closed after it.
fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text + "\r\n" + body
}

async fn send(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> String {
    exchange(address, request(method, target, headers, body)).await
}

/// A connection without the kernel, for tests on the paused clock: time stands still while bytes move.
fn dial(policy: Policy) -> (Arc<Shared>, DuplexStream) {
    let (shared, _) = Shared::new(policy, None).unwrap();
    let near = dial_again(&shared);
    (shared, near)
}

fn dial_again(shared: &Arc<Shared>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(16 * 1024);
    tokio::spawn(serve::connection(Arc::clone(shared), far));
    near
}

/// As [`exchange`], over such a connection.
async fn exchange_over(mut near: DuplexStream, bytes: impl AsRef<[u8]>) -> String {
    near.write_all(bytes.as_ref()).await.ok();
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.ok();
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("no status: {answer:?}"))
}

fn body(answer: &str) -> &str {
    answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no body: {answer:?}"))
        .1
}

fn json(answer: &str) -> serde_json::Value {
    serde_json::from_str(body(answer)).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    let found = head.lines().filter_map(|line| line.split_once(": "));
    found
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .next()
}

async fn log(server: Server) -> Vec<String> {
    server.finish().await.1.into_iter().map(|line| line.message).collect()
}

/// A host that records what each connection sends and answers it with `answer`.
struct Host {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Host {
    /// Reads what comes at once, answers, and closes.
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let record = Arc::clone(&record);
                tokio::spawn(async move {
                    let mut got = vec![0; 64 * 1024];
                    let n = stream.read(&mut got).await.unwrap_or(0);
                    record
                        .lock()
                        .unwrap()
                        .push(String::from_utf8_lossy(&got[..n]).into_owned());
                    stream.write_all(answer.as_bytes()).await.ok();
                });
            }
        });
        Self { address, seen }
    }

    fn rule(&self, name: &str) -> String {
        format!("{name}:{}", self.address.port())
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

#[tokio::test]
async fn with_none_and_open_nothing_listens() {
    for egress in [Egress::None, Egress::Open] {
        let (server, address) = start(policy(egress));
        assert!(TcpStream::connect(address).await.is_err());
        assert_eq!(server.usage(), crosspoint_core::Usage::default());
        assert!(log(server).await.is_empty());
    }
}

#[tokio::test]
async fn dropping_it_closes_everything_at_once() {
    let provider = Provider::echo();
    let (server, address) = start(shop(&provider));
    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(b"GET /c/shop/ HTTP/1.1\r\n\r\n").await.unwrap();
    let mut some = [0; 8];
    open.read_exact(&mut some).await.unwrap();
    drop(server);
    let mut rest = Vec::new();
    open.read_to_end(&mut rest).await.ok();
    // The listener goes with the task that holds it, which has been told by now.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_goes_through_is_counted() {
    let provider = Provider::new(|_| Ok(Response::new(Bytes::from(vec![b'x'; 5000]))));
    let (server, address) = start(shop(&provider));
    let sent = request("POST", "/c/shop/", &[], &"y".repeat(3000));
    let got = exchange(address, &sent).await;
    let (usage, log) = server.finish().await;
    assert_eq!((usage.sent, usage.received), (sent.len() as u64, got.len() as u64));
    assert!(got.len() > 5000 && log.is_empty(), "{log:?}");
}

#[tokio::test]
async fn a_rule_that_is_none_is_refused_at_the_start() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let policy = policy(Egress::Allow(vec!["https://x".to_owned()]));
    let refused = Server::start(Listener::Tcp(listener), policy).unwrap_err();
    assert_eq!(refused.code(), crosspoint_core::Code::SetupInvalid);
}
