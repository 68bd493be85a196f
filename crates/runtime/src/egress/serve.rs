//! Accepts the run's connections and serves HTTP/1.1 on each.

use super::{
    Accepted, Accepting, Shared,
    answer::{self, Content, refused},
    broker, forward,
    host::{Host, Place},
    meter::{Line, Metered},
    numbers::REQUESTS,
    tunnel::{self, Becomes},
};
use crosspoint_core::{Code, Error, Result, Retry};
use http::{HeaderValue, Method, Request, Response, header};
use hyper::{body::Incoming, server::conn::http1::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::oneshot,
    task::{JoinError, JoinSet},
    time::sleep,
};

/// How long accepting rests after it failed, most often because the host has no descriptor left.
const REST: Duration = Duration::from_millis(50);

/// The parser takes no less.
pub(super) const LEAST_BUFFER: usize = 8 * 1024;

/// Serves until it is told to stop, or nobody is left who could tell it. Then every connection is closed.
pub(super) async fn serve(shared: Arc<Shared>, listener: Accepting, stop: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    tokio::select! {
        _ = stop => {}
        () = accept(&shared, listener, &mut connections) => {}
    }
    connections.shutdown().await;
}

async fn accept(shared: &Arc<Shared>, listener: Accepting, connections: &mut JoinSet<()>) {
    let most = shared.limits.connections.max(1);
    for _ in 0..shared.limits.total {
        if connections.len() >= most {
            shared
                .notes
                .write("network: as many connections are open as may be; further ones wait");
        }
        let accepted = loop {
            let room = connections.len() < most;
            tokio::select! {
                biased;
                Some(ended) = connections.join_next() => ended_well(shared, ended),
                accepted = listener.accept(&shared.meter.numbers), if room => match accepted {
                    Ok(accepted) => break accepted,
                    Err(error) => {
                        tracing::debug!(%error, "a connection of a run could not be accepted");
                        sleep(REST).await;
                    }
                },
            }
        };
        let shared = Arc::clone(shared);
        shared.meter.numbers.connections.increment(1);
        shared.pace.turn().await;
        match accepted {
            Accepted::Tcp(stream) => {
                stream.set_nodelay(true).ok();
                connections.spawn(connection(shared, stream));
            }
            #[cfg(unix)]
            Accepted::Unix(stream) => {
                connections.spawn(connection(shared, stream));
            }
        }
    }
    drop(listener);
    shared
        .notes
        .write("network: the run has opened as many connections as it may");
    while connections.join_next().await.is_some() {}
    // Until it is told to stop.
    std::future::pending::<()>().await;
}

fn ended_well(shared: &Shared, ended: std::result::Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection of a run ended badly");
        shared
            .notes
            .write("network: a connection ended by a defect of the runner");
    }
}

/// One connection, from its first byte to its last.
pub(super) async fn connection<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(shared: Arc<Shared>, stream: S) {
    let line = Line::new(Arc::clone(&shared.meter));
    let becomes = Arc::new(Becomes::default());
    let limits = &shared.limits;
    let service = service_fn(|request| {
        let (shared, line, becomes) = (Arc::clone(&shared), Arc::clone(&line), Arc::clone(&becomes));
        async move { Ok::<_, Infallible>(respond(&shared, &line, &becomes, request).await) }
    });
    let serving = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.buffer.max(LEAST_BUFFER))
        .max_header_size(limits.head)
        .serve_connection(TokioIo::new(Metered::new(stream, Arc::clone(&line))), service)
        .with_upgrades();
    tokio::select! {
        _ = serving => {}
        // Whoever waits for somebody else gives up first, with an answer.
        () = line.idle(limits.idle + REST) => return,
    }
    let tunnel = becomes.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        tunnel.carry(&shared, &line).await;
    }
}

async fn respond(
    shared: &Shared,
    line: &Arc<Line>,
    becomes: &Becomes,
    request: Request<Incoming>,
) -> Response<Content> {
    // Nothing that follows a body whose end was up to the run is read as a request.
    let last = request.headers().contains_key(header::TRANSFER_ENCODING);
    let what = what(&request);
    let mut response = match route(shared, line, becomes, request).await {
        Ok(response) => response,
        Err(error) => {
            note(shared, &what, &error);
            answer::problem(&error, shared.clock.now())
        }
    };
    if last {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

async fn route(
    shared: &Shared,
    line: &Arc<Line>,
    becomes: &Becomes,
    request: Request<Incoming>,
) -> Result<Response<Content>> {
    shared.pace.turn().await;
    if shared.requests.fetch_add(1, Relaxed) >= shared.limits.requests {
        shared.meter.numbers.refused(REQUESTS);
        let error = Error::new(Code::RateLimited, "this run has made as many requests as it may");
        return Err(error.with_retry(Retry::Never));
    }
    if shared.meter.is_full() {
        return Err(refused("bytes", super::FULL));
    }
    if *request.method() == Method::CONNECT {
        let (response, tunnel) = tunnel::open(shared, request).await?;
        *becomes.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
        return Ok(response);
    }
    if request.uri().scheme().is_some() && !is_own(shared, &request) {
        return forward::send(shared, line, request).await;
    }
    if request.uri().path().starts_with(broker::PREFIX) {
        return broker::send(shared, line, request).await;
    }
    Err(broker::elsewhere())
}

/// Whether a client that sends everything through the proxy asks the proxy for the broker.
fn is_own<B>(shared: &Shared, request: &Request<B>) -> bool {
    let authority = request.uri().authority();
    let place = authority.and_then(|authority| Place::read(authority, Some(80)).ok());
    place.is_some_and(|place| {
        let loopback = match &place.host {
            Host::Address(address) => address.is_loopback(),
            Host::Name(name) => name == "localhost",
        };
        loopback && shared.port == Some(place.port)
    })
}

/// The request in a few words, without what may be secret in it.
fn what<B>(request: &Request<B>) -> String {
    let (method, uri) = (request.method(), request.uri());
    match uri.authority() {
        Some(authority) => {
            let text = authority.as_str();
            let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
            format!("{method} {host}")
        }
        None => format!("{method} {}", uri.path()),
    }
}

/// Tells the author what did not get through.
fn note(shared: &Shared, what: &str, error: &Error) {
    shared.meter.numbers.failed(error);
    shared
        .notes
        .write(&format!("network: {what}: {} ({})", error.message(), error.code()));
}
