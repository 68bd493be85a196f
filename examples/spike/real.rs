//! The spike for real: clients, the protection and every replica talk HTTP over loopback sockets, on the wall clock.
//! Replicas still sleep instead of computing, so that the machine itself is not what is measured. Every policy has the same
//! forwarder and the same choice of a replica behind it: protections are compared, not balancers. What the gateway brings along
//! for that, `HttpTarget` and `Gateway::serve`, is at work in `examples/pods` and `examples/autoscale`.

use crate::{Progress, Results, peers::Peer};
use axum::{
    Router,
    body::Body,
    extract::{Request as Incoming, State},
    routing::any,
};
use crosspoint::core::{Code, Error, Result};
use crosspoint_simulator::{CUSTOMER, Door, Fate, Front, Pool, REQUEST, Site, answer, case::Case, number_of, run_here};
use http::{Request, Response, StatusCode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    convert::Infallible,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tower::{Service, util::BoxCloneSyncService};

/// Open sockets at the worst moment: every call has two ends before the policy and two behind it.
const SOCKETS: u64 = 16_000;

/// Many systems allow a process a thousand open files until it asks for more.
fn allow_sockets() -> std::result::Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= SOCKETS) {
        return Ok(());
    }
    let current = limit.maximum.map_or(SOCKETS, |maximum| maximum.min(SOCKETS));
    let wanted = Rlimit {
        current: Some(current),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, wanted).map_err(|error| format!("{current} open files: {error}"))
}

/// Runs the policies one after the other.
pub fn run(case: &Case, peers: &[Peer], seed: u64) -> std::result::Result<Results, String> {
    allow_sockets()?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let progress = Progress::new(peers.len());
    let mut results = Results::new();
    for peer in peers {
        progress.show(results.len(), peer.name());
        let report = runtime.block_on(run_here(&peer.case(case), seed, &Sockets(*peer)))?;
        results.push((*peer, report));
    }
    progress.clear();
    Ok(results)
}

/// A policy behind a server, before replicas that are servers.
struct Sockets(Peer);

impl Front for Sockets {
    fn open(&self, site: &Site, number: usize) -> Result<Door> {
        let replicas = Replicas {
            pool: site.pool.clone(),
            client: client()?,
            servers: Arc::default(),
        };
        let mut door = self.0.before(site, number, replicas)?;
        let router = Router::new().fallback_service(door.service);
        let address = serve(router)?;
        door.service = BoxCloneSyncService::new(Browser {
            client: client()?,
            address,
        });
        Ok(door)
    }
}

fn client() -> Result<reqwest::Client> {
    let client = reqwest::Client::builder().no_proxy().build();
    client.map_err(|error| Error::new(Code::SetupInvalid, error.to_string()))
}

/// Serves a router on a free port.
fn serve(router: Router) -> Result<SocketAddr> {
    let failed = |error: std::io::Error| Error::new(Code::SetupInvalid, error.to_string());
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

type Answering = Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, Infallible>> + Send>>;

/// A client: sends what it is given over its connections.
#[derive(Clone)]
struct Browser {
    client: reqwest::Client,
    address: SocketAddr,
}

impl Service<Request<Body>> for Browser {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let mut sent = self
            .client
            .post(format!("http://{}{}", self.address, request.uri().path()));
        for name in [REQUEST, CUSTOMER] {
            if let Some(value) = request.headers().get(name) {
                sent = sent.header(name, value);
            }
        }
        Box::pin(async move {
            let mut response = Response::new(Body::empty());
            match sent.send().await {
                Ok(answer) => {
                    *response.status_mut() = answer.status();
                    *response.headers_mut() = answer.headers().clone();
                    drop(answer.bytes().await);
                }
                Err(_) => *response.status_mut() = StatusCode::BAD_GATEWAY,
            }
            Ok(response)
        })
    }
}

/// The pool, each of its replicas behind a server of its own.
#[derive(Clone)]
struct Replicas {
    pool: Pool,
    client: reqwest::Client,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Replicas {
    /// Where a replica listens; it is started when it is first needed.
    fn address(&self, index: usize) -> Result<SocketAddr> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        while servers.len() <= index {
            let replica = (self.pool.clone(), servers.len());
            servers.push(serve(Router::new().fallback(any(work)).with_state(replica))?);
        }
        Ok(servers[index])
    }

    async fn ask(&self, index: usize, number: usize) -> Fate {
        let Ok(address) = self.address(index) else {
            return Fate::NotStarted;
        };
        let sent = self
            .client
            .post(format!("http://{address}/"))
            .header(REQUEST, number.to_string());
        match sent.send().await {
            Ok(answer) if answer.status().is_success() => Fate::Done,
            Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => Fate::NotStarted,
            Ok(_) => Fate::Error,
            Err(error) if error.is_connect() => Fate::NotStarted,
            Err(_) => Fate::Lost,
        }
    }
}

/// What a replica does.
async fn work(State((pool, index)): State<(Pool, usize)>, request: Incoming) -> StatusCode {
    match pool.work(index, number_of(&request)).await {
        Fate::Done => StatusCode::OK,
        Fate::NotStarted => StatusCode::SERVICE_UNAVAILABLE,
        Fate::Error | Fate::Lost => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Service<Request<Body>> for Replicas {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let replicas = self.clone();
        Box::pin(async move {
            let queued = Pool::is_queued(&request);
            let number = number_of(&request);
            let fate = replicas
                .pool
                .attempt_by(number, queued, |index| replicas.ask(index, number))
                .await;
            Ok(answer(fate, request, queued))
        })
    }
}
