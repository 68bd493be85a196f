//! A gateway in front of three service pods, each a process of its own, on one SQLite file; and what clients see while
//! the pods are killed: `cargo run --example pods [-- --seconds N]`.
//!
//! The gateway forwards calls to the pod with the least to do. With every pod gone it keeps its clients waiting, and
//! what they asked for is in the store: a pod that comes back takes it from there, or gets it from the gateway.

mod child;

use async_trait::async_trait;
use axum::{Router, routing::get};
use child::{Process, listen, parent_gone};
use crosspoint::{
    core::{Authenticate, Handler, Invocation, Reply, Store, TargetId},
    gateway::{
        Config, Gateway, HttpTarget, TargetConfig,
        remote::{RemoteConfig, Serve, SharedSecret},
    },
    prelude::*,
};
use http::request::Parts;
use std::{collections::BTreeMap, error::Error as StdError, path::Path, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

type AnyResult<T = ()> = std::result::Result<T, Box<dyn StdError + Send + Sync>>;

const PODS: usize = 3;
const CLIENTS: usize = 16;
/// How long a scan takes.
const WORK: Duration = Duration::from_millis(40);
/// How long the gateway keeps a client waiting before it answers 202.
const HOLD: Duration = Duration::from_secs(2);

const USAGE: &str = "usage: pods [--seconds N]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments.as_slice() {
        ["pod", data, port, secret] => pod(Path::new(data), port, secret).await,
        ["gateway", data, secret, pods @ ..] => gateway(Path::new(data), secret, pods).await,
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        [] => child::until_interrupted(demonstrate(12)).await,
        ["--seconds", seconds]
            if seconds
                .parse::<u64>()
                .is_ok_and(|seconds| (4..=3600).contains(&seconds)) =>
        {
            child::until_interrupted(demonstrate(seconds.parse().unwrap_or(12))).await
        }
        _ => {
            eprintln!("{USAGE}, 4 to 3600");
            return ExitCode::from(2);
        }
    };
    child::exit_code("pods", ended)
}

/// The service. It does not know which way a call came.
#[derive(Debug)]
struct Scan;

#[async_trait]
impl Handler for Scan {
    async fn handle(&self, call: Invocation) -> Result<Reply> {
        sleep(WORK).await;
        let way = if call.meta.delivery.is_some() {
            "queue"
        } else {
            "gateway"
        };
        let mut reply = Reply::new(call.request.into_body());
        // For the table only.
        reply
            .headers_mut()
            .insert("x-came-by", http::HeaderValue::from_static(way));
        Ok(reply)
    }
}

async fn open(data: &Path) -> AnyResult<Gateway> {
    let store: Store = Sqlite::open(data.join("pods.db")).await?.into();
    let mut config = Config::default();
    config.hold = HOLD;
    config.poll = Duration::from_millis(100);
    // A killed process keeps its leases for so long.
    config.lease = Duration::from_secs(2);
    Ok(Gateway::new(store.dispatch, Arc::new(SystemClock::new()), config))
}

async fn pod(data: &Path, port: &str, secret: &str) -> AnyResult {
    let gateway = open(data).await?;
    let serve = Serve::with_secret(SharedSecret::new(secret)?).target(TargetConfig::default().permits(8));
    let app = gateway.serve(TargetId::new("scan")?, Arc::new(Scan), serve)?;
    let listener = listen(port.parse()?).await?;
    axum::serve(listener, app).with_graceful_shutdown(parent_gone()).await?;
    Ok(())
}

/// One customer, whoever asks: a real host looks at its own session.
#[derive(Debug)]
struct Everybody;

#[async_trait]
impl Authenticate for Everybody {
    async fn authenticate(&self, _: &Parts) -> Result<Principal> {
        Ok(Principal::admin(CustomerId::new("acme")?, "ann"))
    }
}

async fn gateway(data: &Path, secret: &str, pods: &[&str]) -> AnyResult {
    let gateway = open(data).await?;
    let scan = TargetId::new("scan")?;
    let mut config = RemoteConfig::default();
    config.secret = Some(SharedSecret::new(secret)?);
    config.eject_for = Duration::from_millis(500);
    let pool = HttpTarget::new(scan.clone(), config)?.customer(|_| CustomerId::new("acme").ok());
    let bases: std::result::Result<Vec<_>, _> = pods.iter().map(|pod| format!("http://{pod}").parse()).collect();
    pool.set_replicas(&bases?)?;
    let layer = gateway
        .layer(scan.clone())
        .path("/v1/scan")
        .permits(24)
        .customer(|_| CustomerId::new("acme").ok())
        // To look through a text twice does no harm.
        .repeatable(true);
    let app = Router::new().fallback_service(pool).layer(layer);
    gateway.serve_queued(scan, app.clone())?;
    let app = app
        .route("/health", get(|| async {}))
        .nest("/requests", gateway.requests(Arc::new(Everybody)));
    let listener = listen(0).await?;
    axum::serve(listener, app).with_graceful_shutdown(parent_gone()).await?;
    Ok(())
}

/// What became of the calls that were sent in one second.
#[derive(Debug, Default, Clone, Copy)]
struct Row {
    sent: usize,
    direct: usize,
    queued: usize,
    later: usize,
    other: usize,
    slowest: Duration,
}

enum Seen {
    Direct,
    Queued,
    Later,
    Other,
}

async fn demonstrate(seconds: u64) -> AnyResult {
    let length = Duration::from_secs(seconds);
    let folder = tempfile::tempdir()?;
    let data = folder.path().to_str().ok_or("a folder with a strange name")?;
    let secret = uuid::Uuid::new_v4().simple().to_string();
    // The first one makes the file.
    let mut pods = Vec::new();
    for _ in 0..PODS {
        pods.push(Some(Process::start(&["pod", data, "0", &secret]).await?));
    }
    let addresses: Vec<String> = pods.iter().flatten().map(|pod| pod.address.clone()).collect();
    let mut arguments = vec!["gateway", data, secret.as_str()];
    arguments.extend(addresses.iter().map(String::as_str));
    let front = Process::start(&arguments).await?;
    println!(
        "A gateway and {PODS} pods in {} processes on one SQLite file; {CLIENTS} clients\n",
        PODS + 1
    );

    let began = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(front.address.clone(), number, began, length));
    }
    let mut events = BTreeMap::new();
    let mut at = async |share: f64, what: &str| {
        let when = length.mul_f64(share);
        sleep_until(began + when).await;
        events
            .entry(when.as_secs())
            .or_insert_with(Vec::new)
            .push(what.to_owned());
    };
    for (number, share) in [(0, 0.15), (1, 0.3), (2, 0.45)] {
        at(share, &format!("pod {} killed", number + 1)).await;
        if let Some(pod) = pods[number].take() {
            pod.kill().await?;
        }
    }
    for (number, share) in [(0, 0.65), (1, 0.75), (2, 0.85)] {
        at(share, &format!("pod {} back", number + 1)).await;
        let port = addresses[number].rsplit(':').next().unwrap_or("0");
        pods[number] = Some(Process::start(&["pod", data, port, &secret]).await?);
    }
    let mut rows = vec![Row::default(); usize::try_from(length.as_secs())? + 1];
    while let Some(calls) = clients.join_next().await {
        for (second, took, seen) in calls?? {
            let row = &mut rows[second];
            row.sent += 1;
            row.slowest = row.slowest.max(took);
            match seen {
                Seen::Direct => row.direct += 1,
                Seen::Queued => row.queued += 1,
                Seen::Later => row.later += 1,
                Seen::Other => row.other += 1,
            }
        }
    }
    print(&rows, &events);
    front.end().await?;
    for pod in pods.into_iter().flatten() {
        pod.end().await?;
    }
    Ok(())
}

/// Sends one call after another, and asks later for what was accepted.
async fn client(
    address: String,
    number: usize,
    began: Instant,
    length: Duration,
) -> AnyResult<Vec<(usize, Duration, Seen)>> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut calls = Vec::new();
    while began.elapsed() < length {
        let sent = Instant::now();
        let second = usize::try_from((sent - began).as_secs())?;
        let text = format!("text {} of client {number}", calls.len());
        let answer = http
            .post(format!("http://{address}/v1/scan"))
            .body(text.clone())
            .send()
            .await?;
        let status = answer.status().as_u16();
        let header = |name: &str| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (way, place) = (header("x-came-by"), header("location"));
        let body = answer.text().await?;
        let at_once = way.as_deref() == Some("gateway") && sent.elapsed() < WORK * 5;
        let seen = match status {
            200 if body != text => Seen::Other,
            200 if at_once => Seen::Direct,
            200 => Seen::Queued,
            202 => {
                let place = format!("http://{address}{}", place.ok_or("202 without a place to ask")?);
                if ask(&http, &place).await? == text {
                    Seen::Later
                } else {
                    Seen::Other
                }
            }
            _ => Seen::Other,
        };
        calls.push((second, sent.elapsed(), seen));
        sleep(Duration::from_millis(20)).await;
    }
    Ok(calls)
}

/// Asks for an accepted call until it has ended; reqwest follows the redirect to the reply.
async fn ask(http: &reqwest::Client, place: &str) -> AnyResult<String> {
    for _ in 0..60 {
        let answer = http.get(place).header("prefer", "wait=1").send().await?;
        if answer.url().path().ends_with("/response") {
            return Ok(answer.text().await?);
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok("never answered".to_owned())
}

fn print(rows: &[Row], events: &BTreeMap<u64, Vec<String>>) {
    println!("second   sent  at once  after a wait  202, then asked  other  slowest");
    let mut total = Row::default();
    for (second, row) in rows.iter().enumerate() {
        let happened = events
            .get(&(second as u64))
            .map(|what| what.join(", "))
            .unwrap_or_default();
        line(&format!("{second:>6}"), row, &happened);
        total.sent += row.sent;
        total.direct += row.direct;
        total.queued += row.queued;
        total.later += row.later;
        total.other += row.other;
        total.slowest = total.slowest.max(row.slowest);
    }
    line("   all", &total, "");
    let answered = total.direct + total.queued + total.later;
    println!("\n{answered} of {} calls were answered by a pod", total.sent);
}

fn line(second: &str, row: &Row, happened: &str) {
    let Row {
        sent,
        direct,
        queued,
        later,
        other,
        slowest,
    } = row;
    let slowest = slowest.as_secs_f64();
    let line =
        format!("{second}  {sent:>5}  {direct:>7}  {queued:>12}  {later:>15}  {other:>5}  {slowest:>6.2}s  {happened}");
    println!("{}", line.trim_end());
}
