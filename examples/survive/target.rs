//! The target: has effects, and writes each down before it says so. It is never killed: it is what the others are checked
//! against.

use crate::{Done, effects_file, millis};
use axum::{
    Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::post,
};
use serde::Deserialize;
use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How long a call takes, half of it before the effect and half of it after.
const WORK: Duration = Duration::from_millis(20);

/// One line of the file.
#[derive(Debug, Clone)]
pub struct Effect {
    pub call: u64,
    /// Which process asked for it.
    pub by: String,
    pub at: i64,
}

#[derive(Deserialize)]
struct By {
    by: String,
}

pub async fn run(folder: PathBuf) -> Done<()> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(effects_file(folder))?;
    let app = Router::new()
        .route("/effects/{call}", post(effect))
        .with_state(Arc::new(Mutex::new(file)));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("READY http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

async fn effect(
    State(file): State<Arc<Mutex<File>>>,
    Path(call): Path<u64>,
    Query(By { by }): Query<By>,
) -> Result<String, StatusCode> {
    tokio::time::sleep(WORK / 2).await;
    let line = format!("{call} {by} {}\n", millis());
    let written = tokio::task::spawn_blocking(move || {
        let mut file = file.lock().unwrap();
        file.write_all(line.as_bytes())?;
        file.sync_data()
    });
    written.await.unwrap().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    tokio::time::sleep(WORK / 2).await;
    Ok(call.to_string())
}

/// Everything that the target has done, in order.
pub fn effects(file: &std::path::Path) -> Done<Vec<Effect>> {
    let text = std::fs::read_to_string(file)?;
    let effect = |line: &str| -> Option<Effect> {
        let mut words = line.split(' ');
        Some(Effect {
            call: words.next()?.parse().ok()?,
            by: words.next()?.to_owned(),
            at: words.next()?.parse().ok()?,
        })
    };
    let effects: Option<Vec<_>> = text.lines().map(effect).collect();
    Ok(effects.ok_or("the target's file has a line that is none")?)
}
