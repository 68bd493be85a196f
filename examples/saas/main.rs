//! A small SaaS with an embedded marketplace: `cargo run --example saas [-- --data DIR]`.
//!
//! Orders are the host's own data. What its customers' integrations do with them is Crosspoint's part: it is kept in a
//! SQLite file in the data folder, and goes on after a crash where it stopped.

mod exports;
mod integrations;
mod orders;
mod pages;
mod provider;
mod scripts;
mod session;

use axum::{
    Form, Json, Router,
    extract::{Query, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use crosspoint::{
    core::OperatorPermission,
    marketplace::OperatorToken,
    prelude::*,
    runtime::artifacts::{ArtifactsConfig, AuthorPolicy},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use orders::Orders;
use provider::Ledgerly;
use scripts::Ground;
use serde::{Deserialize, Serialize};
use serde_json::json;
use session::{Sessions, USERS, User};
use std::{error::Error as StdError, future::IntoFuture, io::IsTerminal, path::PathBuf, time::Duration};

#[derive(Clone)]
struct App {
    platform: Platform,
    orders: Orders,
    sessions: Sessions,
    ledgerly: Ledgerly,
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn StdError>> {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "warn,crosspoint=info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stdout().is_terminal())
        .init();
    let metrics = PrometheusBuilder::new().install_recorder()?;

    let (data, _temporary) = data_folder()?;
    let port: u16 = std::env::var("PORT").ok().map_or(Ok(3000), |port| port.parse())?;
    let provider_port = std::env::var("PROVIDER_PORT").ok().map_or(Ok(0), |port| port.parse())?;
    let ledgerly = Ledgerly::start(provider_port, data.join("ledgerly.jsonl")).await?;
    let orders = Orders::open(data.join("orders"))?;

    let ground = Ground::of(&Platform::probe().await);
    let platform = platform(&data, &ledgerly, &orders, &ground).await?;
    for user in USERS {
        for order in orders.unannounced(&user.customer_id()) {
            announce(&platform, &orders, &user.customer_id(), &order).await?;
        }
    }

    let app = App {
        platform: platform.clone(),
        orders,
        sessions: Sessions::default(),
        ledgerly: ledgerly.clone(),
    };
    let metrics = get(move || std::future::ready(metrics.render()));
    let router = operators(router(app)?, &platform)?.route("/metrics", metrics);
    platform.serve_queued(router.clone())?;

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    welcome(&format!("http://{}", listener.local_addr()?), &data, &ledgerly, &ground);
    // The server finishes its connections while the platform drains: who is held gets 202 instead of an error.
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let interrupted = async move {
        let _ = tokio::signal::ctrl_c().await;
        println!("Draining: finishing what runs, leaving the rest in the queue");
        let _ = stopping.send(());
    };
    let serve = axum::serve(listener, router)
        .with_graceful_shutdown(interrupted)
        .into_future();
    let drain = async {
        let _ = stopped.await;
        platform.shutdown().await
    };
    let (served, drained) = tokio::join!(serve, drain);
    served?;
    drained?;
    println!("Stopped");
    Ok(())
}

fn welcome(url: &str, data: &std::path::Path, ledgerly: &Ledgerly, ground: &Ground) {
    let [(key, _), (other, _)] = provider::API_KEYS;
    let text = include_str!("welcome.txt")
        .replace("{url}", url)
        .replace("{provider}", &ledgerly.url())
        .replace("{data}", &data.display().to_string())
        .replace("{key}", key)
        .replace("{other}", other)
        .replace("{isolation}", &ground.notes.join("\n              "));
    println!("{text}");
}

/// `--data DIR`, or a temporary folder that goes with the process.
fn data_folder() -> std::io::Result<(PathBuf, Option<tempfile::TempDir>)> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("--data") {
        let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "saas-data".to_owned()));
        std::fs::create_dir_all(&folder)?;
        return Ok((folder.canonicalize()?, None));
    }
    let temporary = tempfile::tempdir()?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}

async fn platform(data: &std::path::Path, ledgerly: &Ledgerly, orders: &Orders, ground: &Ground) -> Result<Platform> {
    let mut builder = Platform::builder()
        .store(Sqlite::open(data.join("crosspoint.db")).await?)
        .keys(KeyRing::from_file(data.join("keys"))?)
        // The provider of this demonstration is on this machine, which the egress guard would otherwise refuse.
        .egress(EgressPolicy::default().allow_host(ledgerly.url().trim_start_matches("http://"))?)
        .connector(
            HttpConnector::new("ledgerly", "Ledgerly", ledgerly.url())
                .summary("Bookkeeping, for the demonstration")
                .auth(AuthScheme::bearer())
                .probe("/v1/me"),
        )
        // What is published asks for the same as the host's own scripts.
        .artifacts(
            ArtifactsConfig::folder(data.join("artifacts")).authors(AuthorPolicy::new().isolation(ground.isolation)),
        )
        .integration(integrations::booking());
    for integration in ground.integrations(orders) {
        builder = builder.integration(integration);
    }
    builder.start().await
}

/// Integrations are published over `/operators` by whoever has the token in `OPERATOR_TOKEN`; without one, by nobody.
fn operators(router: Router, platform: &Platform) -> Result<Router> {
    match std::env::var("OPERATOR_TOKEN") {
        Err(_) => Ok(router),
        Ok(token) => {
            let auth = OperatorToken::new("ci", token, OperatorPermission::ALL)?;
            Ok(router.nest_service("/operators", platform.operators(auth)?))
        }
    }
}

fn router(app: App) -> Result<Router> {
    let sessions = app.sessions.clone();
    let scan = app
        .platform
        .dispatch("scan")?
        .permits(2)
        .customer({
            let sessions = sessions.clone();
            move |parts: &Parts| sessions.user(parts).ok().map(|user| user.customer_id())
        })
        .principal(move |parts: &Parts| sessions.user(parts).ok().map(|user| user.name.into()))
        .hold(Duration::from_secs(3));
    Ok(Router::new()
        .route("/", get(home))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/orders", post(create_order))
        .route("/api/orders", get(list_orders).post(create_order_json))
        .route("/provider/stop", post(stop_provider))
        .route("/provider/start", post(start_provider))
        .route("/exports", get(exports::page))
        .route("/exports/{id}", get(exports::download))
        .route("/settings/integrations", get(settings))
        .route("/v1/scan", post(scan_file).layer(scan))
        .nest_service("/integrations", app.platform.marketplace(app.sessions.clone()))
        .nest_service("/requests", app.platform.requests(app.sessions.clone()))
        .with_state(app))
}

/// A host service that is slow on purpose and takes two calls at a time: `POST /v1/scan?ms=500`. Under the layer, a
/// third call waits in the queue, and one that waits for longer than three seconds gets 202 and an id.
async fn scan_file(Query(scan): Query<Scan>, body: String) -> Json<serde_json::Value> {
    tokio::time::sleep(Duration::from_millis(scan.ms.min(60_000))).await;
    Json(json!({ "clean": !body.contains("EICAR"), "bytes": body.len() }))
}

#[derive(Deserialize)]
struct Scan {
    #[serde(default)]
    ms: u64,
}

async fn home(State(app): State<App>, parts: Parts) -> Response {
    match app.sessions.user(&parts) {
        Err(_) => pages::login().into_response(),
        Ok(user) => {
            let orders = app.orders.list(&user.customer_id());
            pages::orders(user, &orders, app.ledgerly.is_running(), &app.ledgerly.bookings()).into_response()
        }
    }
}

async fn settings(State(app): State<App>, parts: Parts) -> Response {
    app.sessions.user(&parts).map_or_else(
        |_| Redirect::to("/").into_response(),
        |user| pages::integrations(user).into_response(),
    )
}

#[derive(Deserialize)]
struct Login {
    user: String,
}

async fn login(State(app): State<App>, Form(form): Form<Login>) -> Response {
    match USERS.iter().find(|user| user.name == form.user) {
        Some(user) => ([(header::SET_COOKIE, app.sessions.sign_in(*user))], Redirect::to("/")).into_response(),
        None => (StatusCode::UNPROCESSABLE_ENTITY, "no such user").into_response(),
    }
}

async fn logout(State(app): State<App>, parts: Parts) -> Redirect {
    app.sessions.sign_out(&parts);
    Redirect::to("/")
}

#[derive(Deserialize)]
struct NewOrder {
    item: String,
    cents: u64,
}

#[derive(Serialize)]
struct Created {
    id: u64,
    executions: Vec<InvocationId>,
}

/// Tells the customer's integrations of an order: each is told once, however often this is done.
async fn announce(
    platform: &Platform,
    orders: &Orders,
    customer: &CustomerId,
    order: &orders::Order,
) -> std::result::Result<Vec<InvocationId>, Box<dyn StdError>> {
    let executions = platform
        .emit_once(customer, &format!("order-{}", order.id), order.event())
        .await?;
    orders.announced(customer, order.id)?;
    Ok(executions)
}

/// Writes the order down, then announces it to the integrations that the customer has installed.
async fn create(app: &App, user: User, new: NewOrder) -> std::result::Result<Created, Response> {
    let customer = user.customer_id();
    let created = async {
        let order = app.orders.create(&customer, &new.item, new.cents)?;
        let executions = announce(&app.platform, &app.orders, &customer, &order).await?;
        Ok::<_, Box<dyn StdError>>(Created {
            id: order.id,
            executions,
        })
    };
    created
        .await
        .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response())
}

async fn create_order(State(app): State<App>, parts: Parts, Form(new): Form<NewOrder>) -> Response {
    let Ok(user) = app.sessions.user(&parts) else {
        return Redirect::to("/").into_response();
    };
    create(&app, user, new)
        .await
        .map_or_else(|error| error, |_| Redirect::to("/").into_response())
}

async fn create_order_json(State(app): State<App>, parts: Parts, Json(new): Json<NewOrder>) -> Response {
    let Ok(user) = app.sessions.user(&parts) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    create(&app, user, new).await.map_or_else(
        |error| error,
        |created| (StatusCode::CREATED, Json(created)).into_response(),
    )
}

async fn list_orders(State(app): State<App>, parts: Parts) -> Response {
    let Ok(user) = app.sessions.user(&parts) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let orders: Vec<_> = app
        .orders
        .list(&user.customer_id())
        .iter()
        .map(orders::Order::event)
        .collect();
    Json(orders).into_response()
}

async fn stop_provider(State(app): State<App>) -> Redirect {
    app.ledgerly.stop();
    Redirect::to("/")
}

async fn start_provider(State(app): State<App>) -> Response {
    match app.ledgerly.resume().await {
        Ok(()) => Redirect::to("/").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
