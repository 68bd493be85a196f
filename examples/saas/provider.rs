//! "Ledgerly", the third party: a small accounting service on a port of its own. It takes an API key, remembers what it
//! booked in a file, and can be stopped and started again to see what happens to calls in the meantime.

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::{net::TcpListener, sync::oneshot};

/// The key that Ledgerly accepts. A real provider would have given it to the customer.
pub const API_KEY: &str = "ledgerly-demo-key";

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
            .route("/v1/bookings", post(book))
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

fn refuse(headers: &HeaderMap) -> Option<Response> {
    let expected = format!("Bearer {API_KEY}");
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    (given != Some(expected.as_str()))
        .then(|| (StatusCode::UNAUTHORIZED, Json(json!({ "error": "unknown key" }))).into_response())
}

async fn me(headers: HeaderMap) -> Response {
    refuse(&headers).unwrap_or_else(|| Json(json!({ "account": "Ledgerly demo" })).into_response())
}

/// Books an order once for each idempotency key, however often it is sent.
async fn book(State(provider): State<Ledgerly>, headers: HeaderMap, Json(order): Json<Value>) -> Response {
    if let Some(refusal) = refuse(&headers) {
        return refusal;
    }
    let Some(key) = headers
        .get("idempotency-key")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
    else {
        return (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": "an Idempotency-Key header is required" })),
        )
            .into_response();
    };
    let mut booked = provider.0.booked.lock().unwrap();
    let number = booked.len() + 1;
    if !booked.contains_key(&key) {
        let booking = json!({ "key": key, "number": format!("L-{number:04}"), "order": order });
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&provider.0.file);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{booking}")) {
            return (
                StatusCode::INTERNAL_SERVER_ERROR,
                Json(json!({ "error": error.to_string() })),
            )
                .into_response();
        }
        booked.insert(key.clone(), booking);
    }
    (StatusCode::CREATED, Json(booked[&key].clone())).into_response()
}
