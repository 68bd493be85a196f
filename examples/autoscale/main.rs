//! A pool of real processes that a small autoscaler grows and shrinks by the gateway's demand, through a spike of load:
//! `cargo run --example autoscale [-- --seconds N --seed S --json]`.
//!
//! The demand is the number of calls that would have to run at once to answer what arrives, and the backlog soon. It
//! rises while calls are held or queued, which calls in flight, capped by the gateway's own limit, do not. Each pod works
//! on a fixed number of calls at once; the scaler divides the one by seven tenths of the other. The demand follows a step
//! within a few seconds, like the arrivals that it averages.
//!
//! In Kubernetes, KEDA's Prometheus trigger or an HPA with an external metric of type `AverageValue` does the same with the
//! query `sum(crosspoint_dispatch_demand_concurrency{target="scan"})` over all gateways and pods, and seven tenths of the
//! calls that a pod works on at once as the threshold (2.8 here).

#[path = "../pods/child.rs"]
mod child;
mod load;

use async_trait::async_trait;
use axum::Router;
use child::{Process, listen, parent_gone};
use crosspoint::{
    core::{Handler, Invocation, Reply, Store, TargetId},
    gateway::{
        Config, Gateway, HttpTarget, TargetConfig,
        remote::{RemoteConfig, Serve, SharedSecret},
    },
    prelude::*,
};
use load::Load;
use serde::Serialize;
use std::{error::Error as StdError, path::Path, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

type AnyResult<T = ()> = std::result::Result<T, Box<dyn StdError + Send + Sync>>;

/// How many calls one pod works on at once.
const PER_POD: u32 = 4;
/// The share of that which is meant to be used.
const MEANT: f64 = 0.7;
const MOST: usize = 6;
const WORK: Duration = Duration::from_millis(50);
/// A real pod needs a while until it serves; so does one here.
const COLD_START: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(500);
/// For how long fewer pods must be enough before one goes.
const PATIENCE: Duration = Duration::from_secs(3);

const USAGE: &str = "usage: autoscale [--seconds N] [--seed S] [--json]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match arguments.as_slice() {
        ["pod", data, secret] => pod(Path::new(data), secret).await,
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => match options(&arguments) {
            Some((length, seed, json)) => child::until_interrupted(demonstrate(length, seed, json)).await,
            None => {
                eprintln!("{USAGE}; N from 6 to 3600");
                return ExitCode::from(2);
            }
        },
    };
    child::exit_code("autoscale", ended)
}

fn options(arguments: &[&str]) -> Option<(Duration, u64, bool)> {
    let (mut length, mut seed, mut json) = (20, 1, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--json" => json = true,
            "--seconds" => length = rest.next()?.parse().ok()?,
            "--seed" => seed = rest.next()?.parse().ok()?,
            _ => return None,
        }
    }
    (6..=3600)
        .contains(&length)
        .then_some((Duration::from_secs(length), seed, json))
}

#[derive(Debug)]
struct Scan;

#[async_trait]
impl Handler for Scan {
    async fn handle(&self, call: Invocation) -> Result<Reply> {
        sleep(WORK).await;
        Ok(Reply::new(call.request.into_body()))
    }
}

async fn open(data: &Path) -> AnyResult<Gateway> {
    let store: Store = Sqlite::open(data.join("autoscale.db")).await?.into();
    let mut config = Config::default();
    config.poll = Duration::from_millis(100);
    Ok(Gateway::new(store.dispatch, Arc::new(SystemClock::new()), config))
}

async fn pod(data: &Path, secret: &str) -> AnyResult {
    sleep(COLD_START).await;
    let gateway = open(data).await?;
    let config = TargetConfig::default().permits(PER_POD);
    let serve = Serve::with_secret(SharedSecret::new(secret)?).target(config);
    let app = gateway.serve(TargetId::new("scan")?, Arc::new(Scan), serve)?;
    let listener = listen(0).await?;
    axum::serve(listener, app).with_graceful_shutdown(parent_gone()).await?;
    gateway.drain(Duration::from_secs(2)).await;
    Ok(())
}

/// The processes of the pool.
struct Pods<'a> {
    running: Vec<Process>,
    starting: JoinSet<std::io::Result<Process>>,
    pool: &'a HttpTarget,
    data: &'a str,
    secret: &'a str,
    enough_since: Option<Instant>,
}

impl Pods<'_> {
    /// One step towards as many pods as the demand asks for.
    async fn scale(&mut self, demand: f64) -> AnyResult {
        let before = self.running.len();
        while let Some(started) = self.starting.try_join_next() {
            self.running.push(started??);
        }
        let have = self.running.len() + self.starting.len();
        let wanted = (demand / (f64::from(PER_POD) * MEANT)).ceil().clamp(1.0, MOST as f64) as usize;
        if wanted >= have {
            self.enough_since = None;
            for _ in have..wanted {
                let (data, secret) = (self.data.to_owned(), self.secret.to_owned());
                self.starting
                    .spawn(async move { Process::start(&["pod", &data, &secret]).await });
            }
        } else if self.enough_since.get_or_insert_with(Instant::now).elapsed() >= PATIENCE
            && self.running.len() > 1
            && let Some(last) = self.running.pop()
        {
            // First no more calls for it, then its end.
            self.tell()?;
            tokio::spawn(last.end());
            self.enough_since = None;
        }
        if self.running.len() > before {
            self.tell()?;
        }
        Ok(())
    }

    fn tell(&self) -> AnyResult {
        let bases: std::result::Result<Vec<_>, _> = self
            .running
            .iter()
            .map(|pod| format!("http://{}", pod.address).parse())
            .collect();
        Ok(self.pool.set_replicas(&bases?)?)
    }

    async fn end(mut self) -> AnyResult {
        while let Some(started) = self.starting.join_next().await {
            self.running.push(started??);
        }
        for pod in self.running {
            pod.end().await?;
        }
        Ok(())
    }
}

/// One look at the whole.
#[derive(Debug, Serialize)]
struct Look {
    second: f64,
    rate: f64,
    replicas: usize,
    demand: f64,
    in_flight: u32,
    held: usize,
    answered: usize,
}

async fn demonstrate(length: Duration, seed: u64, json: bool) -> AnyResult {
    let folder = tempfile::tempdir()?;
    let data = folder.path().to_str().ok_or("a folder with a strange name")?;
    let secret = uuid::Uuid::new_v4().simple().to_string();
    let scan = TargetId::new("scan")?;
    let gateway = open(folder.path()).await?;
    let mut config = RemoteConfig::default();
    config.secret = Some(SharedSecret::new(secret.as_str())?);
    let acme = |_: &http::request::Parts| CustomerId::new("acme").ok();
    let pool = HttpTarget::new(scan.clone(), config)?.customer(acme);
    let layer = gateway
        .layer(scan.clone())
        .path("/v1/scan")
        .customer(acme)
        .repeatable(true);
    let app = Router::new().fallback_service(pool.clone()).layer(layer);
    gateway.serve_queued(scan.clone(), app.clone())?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut pods = Pods {
        running: vec![Process::start(&["pod", data, &secret]).await?],
        starting: JoinSet::new(),
        pool: &pool,
        data,
        secret: &secret,
        enough_since: None,
    };
    pods.tell()?;
    let load = Load::start(format!("http://{address}/v1/scan"), length, seed);
    if !json {
        println!("A spike of load on a pool of at most {MOST} processes, {PER_POD} calls at once in each\n");
        println!("second  calls/s  pods  demand  in flight  held  answered");
    }
    let began = Instant::now();
    let mut looks = Vec::new();
    while began.elapsed() < length {
        let snapshot = gateway.snapshot(&scan).ok_or("the target is not known")?;
        let second = began.elapsed().as_secs_f64();
        let look = Look {
            second: (second * 10.0).round() / 10.0,
            rate: load.rate(second),
            replicas: pods.running.len(),
            demand: gateway.demand(&scan).unwrap_or(0.0),
            in_flight: snapshot.in_flight,
            held: load.waiting().saturating_sub(snapshot.in_flight as usize),
            answered: load.answered(),
        };
        if !json && looks.len() % 2 == 0 {
            let Look {
                second,
                rate,
                replicas,
                demand,
                in_flight,
                held,
                answered,
            } = &look;
            println!(
                "{second:>6.1}  {rate:>7.0}  {replicas:>4}  {demand:>6.1}  {in_flight:>9}  {held:>4}  {answered:>8}"
            );
        }
        pods.scale(look.demand).await?;
        looks.push(look);
        sleep(LOOK).await;
    }
    let summary = load.finish(&looks).await?;
    pods.end().await?;
    if json {
        println!(
            "{}",
            serde_json::json!({ "seed": seed, "looks": looks, "summary": summary })
        );
    } else {
        println!("\n{summary}");
    }
    Ok(())
}
