//! "Ledgerly", the third party: a small accounting service on a port of its own. Each of its accounts has an API key; it
//! remembers what it booked in a file, and can be stopped and started again to see what happens to calls in the meantime.

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::oneshot};

/// The keys that Ledgerly accepts, with the accounts that they are for. A real provider would have given them to the
/// customers.
pub const API_KEYS: [(&str, &str); 2] = [("ledgerly-demo-key", "acme"), ("ledgerly-other-key", "globex")];

/// Bookings in one answer, at most.
const PAGE: usize = 100;

/// The provider, running or stopped.
#[derive(Clone)]
pub struct Ledgerly(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    file: PathBuf,
    /// Bookings by idempotency key.
    booked: Mutex<BTreeMap<String, Value>>,
    stop: Mutex<Option<oneshot::Sender<()>>>,
}

impl Ledgerly {
    /// Starts it on a port of its own; what it booked is kept in `file`.
    pub async fn start(port: u16, file: PathBuf) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let mut booked = BTreeMap::new();
        for line in std::fs::read_to_string(&file).unwrap_or_default().lines() {
            if let Ok(booking) = serde_json::from_str::<Value>(line) {
                booked.insert(booking["key"].as_str().unwrap_or_default().to_owned(), booking);
            }
        }
        let inner = Inner {
            address: listener.local_addr()?,
            file,
            booked: Mutex::new(booked),
            stop: Mutex::new(None),
        };
        let provider = Self(Arc::new(inner));
        provider.serve(listener);
        Ok(provider)
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// Whether it answers.
    pub fn is_running(&self) -> bool {
        self.0.stop.lock().unwrap().is_some()
    }

    /// What it has booked.
    pub fn bookings(&self) -> Vec<Value> {
        self.0.booked.lock().unwrap().values().cloned().collect()
    }

    /// Stops listening: connections are refused from now on.
    pub fn stop(&self) {
        self.0.stop.lock().unwrap().take();
    }

    /// Listens again on the same port.
    pub async fn resume(&self) -> std::io::Result<()> {
        if !self.is_running() {
            let listener = TcpListener::bind(self.0.address).await?;
            self.serve(listener);
        }
        Ok(())
    }

    fn serve(&self, listener: TcpListener) {
        let app = Router::new()
            .route("/v1/me", get(me))
            .route("/v1/bookings", get(booked).post(book))
            .with_state(self.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        *self.0.stop.lock().unwrap() = Some(stop);
        tokio::spawn(async move {
            tokio::select! {
                served = axum::serve(listener, app) => served.expect("Ledgerly stopped by itself"),
                _ = stopped => {}
            }
        });
    }
}

/// Whose key was sent, if it is known.
fn account(headers: &HeaderMap) -> Option<&'static str> {
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    let known = API_KEYS.iter().find(|(key, _)| given == Some(*key));
    known.map(|(_, account)| *account)
}

fn unknown() -> Response {
    answer(StatusCode::UNAUTHORIZED, json!({ "error": "unknown key" }))
}

fn answer(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

async fn me(headers: HeaderMap) -> Response {
    account(&headers).map_or_else(unknown, |account| answer(StatusCode::OK, json!({ "account": account })))
}

#[derive(Deserialize)]
struct After {
    /// How many the caller knows already.
    #[serde(default)]
    after: usize,
}

/// The account's bookings, oldest first.
async fn booked(
    State(provider): State<Ledgerly>,
    Query(After { after }): Query<After>,
    headers: HeaderMap,
) -> Response {
    let Some(account) = account(&headers) else {
        return unknown();
    };
    let mut all = provider.bookings();
    all.retain(|booking| booking["account"] == account);
    all.sort_by_key(number);
    let page: Vec<Value> = all.iter().skip(after).take(PAGE).map(entry).collect();
    let next = after + page.len();
    answer(
        StatusCode::OK,
        json!({ "bookings": page, "next": next, "more": next < all.len() }),
    )
}

/// Numbers have four digits or, later, more.
fn number(booking: &Value) -> (usize, String) {
    let number = booking["number"].to_string();
    (number.len(), number)
}

fn entry(booking: &Value) -> Value {
    let order = &booking["order"];
    json!({ "number": booking["number"], "text": order["text"], "cents": order["cents"] })
}

/// Books an order once for each idempotency key of an account, however often it is sent.
async fn book(State(provider): State<Ledgerly>, headers: HeaderMap, Json(order): Json<Value>) -> Response {
    let Some(account) = account(&headers) else {
        return unknown();
    };
    let Some(key) = headers.get("idempotency-key").and_then(|value| value.to_str().ok()) else {
        let error = "an Idempotency-Key header is required";
        return answer(StatusCode::BAD_REQUEST, json!({ "error": error }));
    };
    let key = format!("{account}:{key}");
    let mut booked = provider.0.booked.lock().unwrap();
    let number = booked.len() + 1;
    if !booked.contains_key(&key) {
        let booking = json!({ "key": key, "account": account, "number": format!("L-{number:04}"), "order": order });
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&provider.0.file);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{booking}")) {
            return answer(StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": error.to_string() }));
        }
        booked.insert(key.clone(), booking);
    }
    answer(StatusCode::CREATED, booked[&key].clone())
}
