//! The processes that are killed: the same service behind the same dispatch layer, once with a door for clients and once
//! without. Both drain the queue in the file that they share.

use crate::{Done, LEASE, target, workers};
use async_trait::async_trait;
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, request::Parts},
    routing::post,
};
use crosspoint::{
    core::{Store, TargetId},
    gateway::{Config, Gateway},
    prelude::*,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::{io::Read, path::PathBuf, sync::Arc, time::Duration};

/// What a child process is, with everything that it has to know.
#[derive(Debug)]
pub enum Role {
    Target {
        folder: PathBuf,
    },
    Gateway {
        host: Host,
        port: u16,
    },
    Worker {
        host: Host,
    },
    /// See [`workers`].
    Counting {
        folder: PathBuf,
        name: String,
        level: Isolation,
    },
}

#[derive(Debug)]
pub struct Host {
    folder: PathBuf,
    /// Different for each start, so that effects can be told apart.
    name: String,
    target: String,
}

impl Role {
    /// The words after `--role`.
    pub fn parse(words: &mut dyn Iterator<Item = String>) -> Done<Self> {
        let mut word = || words.next().ok_or("--role is for the program itself");
        let (role, folder) = (word()?, PathBuf::from(word()?));
        if role == "target" {
            return Ok(Self::Target { folder });
        }
        let name = word()?;
        if role == "counting" {
            let level = serde_json::from_value(word()?.into())?;
            return Ok(Self::Counting { folder, name, level });
        }
        let target = word()?;
        let host = Host { folder, name, target };
        Ok(match role.as_str() {
            "gateway" => Self::Gateway {
                host,
                port: word()?.parse()?,
            },
            _ => Self::Worker { host },
        })
    }

    pub async fn run(self) -> Done<()> {
        std::thread::spawn(end_with_parent);
        match self {
            Self::Target { folder } => target::run(folder).await,
            Self::Gateway { host, port } => {
                let app = host.open().await?;
                let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
                println!("READY http://{}", listener.local_addr()?);
                Ok(axum::serve(listener, app).await?)
            }
            Self::Counting { folder, name, level } => workers::run_worker(folder, name, level).await,
            Self::Worker { host } => {
                let app = host.open().await?;
                println!("READY");
                std::future::pending::<()>().await;
                drop(app);
                Ok(())
            }
        }
    }
}

impl Host {
    /// Opens the file and starts to drain the queue; answers with the router that a gateway serves.
    async fn open(self) -> Done<Router> {
        let metrics = PrometheusBuilder::new().install_recorder()?;
        tokio::spawn(tell_stale(metrics));
        let store = Store::from(Sqlite::open(self.folder.join("calls.db")).await?);
        let mut config = Config::default();
        config.lease = LEASE;
        config.poll = Duration::from_millis(100);
        config.hold = Duration::from_millis(300);
        let gateway = Gateway::new(store.dispatch, Arc::new(SystemClock::new()), config);
        let layer = gateway
            .layer(TargetId::new("orders")?)
            .path("/orders/{call}")
            .permits(6)
            // The target is asked at least once; what it is asked twice for, it has to recognise.
            .repeatable(true)
            .customer(|parts| CustomerId::new(parts.headers.get("x-customer")?.to_str().ok()?).ok());
        let orders = Orders {
            client: reqwest::Client::builder().no_proxy().build()?,
            url: format!("{}/effects", self.target),
            name: self.name,
        };
        let app = Router::new()
            .route("/orders/{call}", post(order))
            .with_state(Arc::new(orders))
            .layer(layer);
        gateway.serve_all_queued(app.clone())?;
        Ok(app.nest("/requests", gateway.requests(Arc::new(Header))))
    }
}

struct Orders {
    client: reqwest::Client,
    url: String,
    name: String,
}

/// Hands the call on to the target.
async fn order(State(orders): State<Arc<Orders>>, Path(call): Path<u64>) -> Result<String, StatusCode> {
    let url = format!("{}/{call}?by={}", orders.url, orders.name);
    let asked = async { orders.client.post(url).send().await?.error_for_status()?.text().await };
    asked.await.map_err(|_| StatusCode::BAD_GATEWAY)
}

/// Believes what the header says.
#[derive(Debug)]
struct Header;

#[async_trait]
impl Authenticate for Header {
    async fn authenticate(&self, parts: &Parts) -> crosspoint::core::Result<Principal> {
        let customer = parts.headers.get("x-customer").and_then(|value| value.to_str().ok());
        let missing = || Error::new(Code::SessionMissing, "no x-customer");
        Ok(Principal::admin(
            CustomerId::new(customer.ok_or_else(missing)?)?,
            "survive",
        ))
    }
}

/// Tells the parent how many results the store has refused because their lease was lost; a killed process cannot be asked.
async fn tell_stale(metrics: PrometheusHandle) {
    const NAME: &str = "crosspoint_dispatch_duplicate_completions_total";
    let mut told = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let text = metrics.render();
        let lines = text.lines().filter(|line| line.starts_with(NAME));
        let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        let now = counts.sum();
        if now > told {
            println!("STALE {}", now - told);
            told = now;
        }
    }
}

/// The parent holds the other end of standard input, and lets go of it however it ends.
fn end_with_parent() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}
