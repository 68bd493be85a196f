//! The http binding: the same messages, fetched and posted over HTTP/1.1 with a token of the run.
//!
//! Messages in either direction go in numbered batches, so that a request whose answer was lost is made again without
//! harm: the same batch is answered again, and a batch that was taken is not taken twice.

use super::{Line, Shared, hear};
use bytes::Bytes;
use crosspoint_core::{Code, ErrorExt, Result};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    fs::File,
    io::Read,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};

/// How long a request for messages waits for some.
const WAIT: Duration = Duration::from_secs(25);

/// How long a request may take to come in.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections at once; further ones wait.
const CONNECTIONS: usize = 16;

/// The number of a batch, in both directions.
const BATCH: &str = "xp-batch";

/// A listener on the host's loopback for one run.
#[derive(Debug)]
pub(in super::super) struct Desk {
    listener: std::net::TcpListener,
    url: String,
    token: String,
}

/// What is known of both directions.
#[derive(Debug)]
struct Books {
    /// The batch to the guest that was made last.
    sent: u64,
    /// Its lines, until the guest says that it has them.
    lines: Option<Bytes>,
    /// The batch of the guest that was taken last.
    taken: u64,
}

/// One run's side of the service.
#[derive(Debug)]
struct Service {
    shared: Arc<Shared>,
    token: String,
    longest: usize,
    books: Mutex<Books>,
}

impl Desk {
    /// Blocks for a moment.
    pub(in super::super) fn open() -> Result<Self> {
        let failed = "the run's listener could not be opened";
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_fail(Code::ScriptNotStarted, failed)?;
        listener.set_nonblocking(true).or_fail(Code::ScriptNotStarted, failed)?;
        let address = listener.local_addr().or_fail(Code::ScriptNotStarted, failed)?;
        let mut random = [0; 32];
        let drawn = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
        drawn.or_fail(Code::ScriptNotStarted, "the system has no random numbers")?;
        Ok(Self {
            listener,
            url: format!("http://{address}/v1"),
            token: random.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// Where it is, and what opens it.
    pub(in super::super) fn address(&self) -> (String, String) {
        (self.url.clone(), self.token.clone())
    }

    /// Serves until the guest has ended and everything that it has sent was taken.
    pub(super) fn serve(
        self,
        shared: Arc<Shared>,
        hello: Vec<u8>,
        longest: usize,
    ) -> Result<impl Future<Output = ()> + Send + use<>> {
        let listener = TcpListener::from_std(self.listener);
        let listener = listener.or_fail(Code::ScriptNotStarted, "the run's listener could not be opened")?;
        let service = Arc::new(Service {
            shared,
            token: self.token,
            longest,
            books: Mutex::new(Books {
                sent: 1,
                lines: Some(Bytes::from(hello)),
                taken: 0,
            }),
        });
        Ok(serve(service, listener))
    }
}

async fn serve(service: Arc<Service>, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = service.shared.ended.notified() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(Arc::clone(&service), stream))),
                // Most often the host has no descriptor left.
                Err(_) => sleep(Duration::from_millis(50)).await,
            },
        }
    }
    // What the guest sent with its last breath waits to be accepted.
    while let Ok(Ok((stream, _))) = timeout(Duration::ZERO, listener.accept()).await {
        connections.spawn(connection(Arc::clone(&service), stream));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(service: Arc<Service>, stream: TcpStream) {
    stream.set_nodelay(true).ok();
    let answer = service_fn(|request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let serving = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), answer);
    // A guest that breaks off is no news.
    drop(serving.await);
}

type Answer = Response<Full<Bytes>>;

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if !self.knows(request.headers()) {
            return empty(StatusCode::UNAUTHORIZED);
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/messages") => self.fetch(request.uri().query()).await,
            (&Method::POST, "/v1/messages") => self.post(request).await,
            (_, "/v1/messages") => empty(StatusCode::METHOD_NOT_ALLOWED),
            _ => empty(StatusCode::NOT_FOUND),
        }
    }

    /// Compares all of the token, however early it differs.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given
            .and_then(|given| given.strip_prefix(b"Bearer "))
            .unwrap_or_default();
        let token = self.token.as_bytes();
        given.len() == token.len() && given.iter().zip(token).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }

    /// The batch after the one that the guest names, as soon as there is one.
    async fn fetch(&self, query: Option<&str>) -> Answer {
        let after = query.into_iter().flat_map(|query| query.split('&'));
        let after = after.filter_map(|pair| pair.strip_prefix("after=")).next();
        let Some(after) = after.and_then(|after| after.parse().ok()) else {
            return empty(StatusCode::BAD_REQUEST);
        };
        let until = Instant::now() + WAIT;
        loop {
            if let Some(answer) = self.next(after) {
                return answer;
            }
            if timeout_at(until, self.shared.to_say.notified()).await.is_err() {
                return empty(StatusCode::NO_CONTENT);
            }
        }
    }

    fn next(&self, after: u64) -> Option<Answer> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        if after == books.sent {
            let lines = self.shared.heard().to_guest.take();
            books.lines = (!lines.is_empty()).then(|| Bytes::from(lines));
            if books.lines.is_some() {
                books.sent += 1;
            }
        } else if after.checked_add(1) != Some(books.sent) {
            return Some(empty(StatusCode::CONFLICT));
        }
        let mut answer = Response::new(Full::new(books.lines.clone()?));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        headers.insert(BATCH, HeaderValue::from(books.sent));
        Some(answer)
    }

    /// Takes a batch of the guest's, whole or not at all.
    async fn post(&self, request: Request<Incoming>) -> Answer {
        let number = request
            .headers()
            .get(BATCH)
            .map(|number| number.to_str().ok()?.parse::<u64>().ok());
        if number == Some(None) {
            return empty(StatusCode::BAD_REQUEST);
        }
        let body = Limited::new(request.into_body(), self.longest).collect();
        let body = match timeout(PATIENCE, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return empty(StatusCode::PAYLOAD_TOO_LARGE),
            Ok(Err(_)) => return empty(StatusCode::BAD_REQUEST),
            Err(_) => return empty(StatusCode::REQUEST_TIMEOUT),
        };
        // Held while the batch is taken, so that nobody takes it at the same time.
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        match number.flatten() {
            Some(number) if number <= books.taken => return empty(StatusCode::NO_CONTENT),
            Some(number) if number != books.taken.saturating_add(1) => return empty(StatusCode::CONFLICT),
            Some(number) => books.taken = number,
            None => {}
        }
        for line in body.split(|byte| *byte == b'\n') {
            hear(&self.shared, &Line::Whole(line));
        }
        empty(StatusCode::NO_CONTENT)
    }
}
