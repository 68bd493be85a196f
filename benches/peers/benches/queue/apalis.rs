//! apalis-sqlite with its ordinary worker. Its `setup()` sets `synchronous = OFF` on the connection that it runs on; with one
//! connection, whose mode is set again afterwards, every commit is as durable as the others' are.

use crate::load::{BATCH, CALLERS, CALLS, REPLY, REQUEST};
use apalis::prelude::*;
use apalis_sqlite::{Config, SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteStorage};
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{runtime::Runtime, sync::Notify, time::Instant};

/// How often its worker looks for work.
pub const POLL: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Call {
    body: String,
}

#[derive(Clone)]
struct Progress {
    done: Arc<AtomicUsize>,
    all: Arc<Notify>,
}

async fn handle(_: Call, progress: Data<Progress>) -> Result<String, BoxDynError> {
    if progress.done.fetch_add(1, Ordering::Relaxed) + 1 == CALLS {
        progress.all.notify_one();
    }
    Ok(String::from_utf8(REPLY.to_vec())?)
}

/// The time from the first push until the worker, told to stop after the last call, has written the last result.
pub fn end_to_end(runtime: &Runtime) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let pool = open(&folder.path().join("apalis.db")).await;
        let storage = SqliteStorage::<Call>::new(&pool).with_config(Config::default().queue("bench").batch_size(BATCH));
        let progress = Progress {
            done: Arc::default(),
            all: Arc::default(),
        };
        let worker = WorkerBuilder::new("bench-worker")
            .backend(storage.clone().poll_with_interval(POLL))
            .data(progress.clone())
            .concurrency(CALLERS)
            .build(handle);
        let before = Instant::now();
        let all = progress.all.clone();
        let worker = tokio::spawn(worker.run_until(async move {
            all.notified().await;
            Ok::<_, std::io::Error>(())
        }));
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let mut storage = storage.clone();
                tokio::spawn(async move {
                    for _ in 0..CALLS / CALLERS {
                        let body = String::from_utf8(REQUEST.to_vec()).unwrap();
                        storage.push(Call { body }).await.unwrap();
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        worker.await.unwrap().unwrap();
        let took = before.elapsed();
        check(&pool).await;
        pool.close().await;
        took
    })
}

async fn open(path: &Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .unwrap();
    SqliteStorage::setup(&pool).await.unwrap();
    sqlx::query("PRAGMA synchronous = FULL").execute(&pool).await.unwrap();
    pool
}

/// All of it is there, and was written as durably as is claimed.
async fn check(pool: &SqlitePool) {
    let sync: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(pool).await.unwrap();
    assert_eq!(sync, 2, "synchronous is not FULL");
    let done: i64 = sqlx::query_scalar("SELECT count(*) FROM Jobs WHERE status = 'Done'")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(usize::try_from(done).unwrap(), CALLS, "calls that are done");
}
