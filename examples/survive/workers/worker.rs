//! A worker, and what it runs: three flows that count their runs in their state, one in Rust and two in sh.

use super::journal::{self, Begin};
use crate::{Done, LEASE, millis};
use async_trait::async_trait;
use crosspoint::{core::NoConfig, gateway::Config, prelude::*};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The flows; the first and the second write the journal.
pub const COUNTERS: [&str; 3] = ["rust", "sh", "sh-sandboxed"];

/// How long a run of the Rust flow takes.
const WORK: Duration = Duration::from_millis(10);

macro_rules! counted {
    ($name:ident, $event:literal) => {
        #[derive(Debug, Serialize, Deserialize, JsonSchema)]
        struct $name {
            number: u64,
        }

        impl Event for $name {
            const NAME: &'static str = $event;
        }
    };
}

counted!(InRust, "counted.rust");
counted!(InShell, "counted.sh");
counted!(InSandbox, "counted.sh-sandboxed");

/// Starts one of the flows; the same number starts nothing a second time.
pub async fn emit(platform: &Platform, customer: &CustomerId, counter: &str, number: u64) -> Result<()> {
    let id = format!("event-{number}");
    match counter {
        "sh" => platform.emit_once(customer, &id, InShell { number }).await,
        "sh-sandboxed" => platform.emit_once(customer, &id, InSandbox { number }).await,
        _ => platform.emit_once(customer, &id, InRust { number }).await,
    }
    .map(drop)
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    pub count: u64,
}

struct Count {
    journal: PathBuf,
    worker: String,
}

#[async_trait]
impl Flow for Count {
    const STATEFUL: bool = true;
    type Config = NoConfig;
    type Input = InRust;
    type Output = u64;

    async fn run(&self, cx: &FlowContext<NoConfig>, _: InRust) -> Result<u64> {
        let Memory { count } = cx.state()?.unwrap_or_default();
        let run = cx.run();
        let begin = Begin {
            flow: run.flow.to_string(),
            customer: run.customer.to_string(),
            execution: run.execution.to_string(),
            key: cx.run_key().to_string(),
            attempt: run.attempt,
            count,
            worker: self.worker.clone(),
            at: millis(),
        };
        begin
            .write(&self.journal)
            .map_err(|error| Error::new(Code::FlowFailed, "the journal cannot be written").caused_by(error))?;
        tokio::time::sleep(WORK).await;
        let count = count + 1;
        cx.set_state(&Memory { count })?;
        Ok(count)
    }
}

/// The platform of a process that runs nothing: it stores the work and asks what became of it.
pub async fn parent(folder: &Path) -> Done<Platform> {
    platform(
        folder,
        "nobody",
        Platform::probe().await.level.min(Isolation::Sandboxed),
        false,
    )
    .await
}

/// A worker, until it is killed.
pub async fn run(folder: PathBuf, name: String, level: Isolation) -> Done<()> {
    let platform = platform(&folder, &name, level, true).await?;
    println!("READY");
    std::future::pending::<()>().await;
    Ok(platform.shutdown().await?)
}

async fn platform(folder: &Path, name: &str, strongest: Isolation, works: bool) -> Done<Platform> {
    let journal = journal::file(folder);
    let script = Script::inline("sh", include_str!("count.sh"));
    let seen = script
        .clone()
        .isolation(Isolation::Process)
        .env("JOURNAL", journal.display().to_string())
        .env("WORKER", name);
    let count = Count {
        journal,
        worker: name.to_owned(),
    };
    // However often its worker is killed, no execution may give up.
    let options = FlowOptions::default().retry(RetryPolicy::default().with_max_attempts(1000));
    let counting = Integration::new("counting", "1.0.0")
        .flow_with(COUNTERS[0], Trigger::event::<InRust>(), count, options.clone())
        .script_with(COUNTERS[1], Trigger::event::<InShell>(), seen, options.clone())
        .script_with(
            COUNTERS[2],
            Trigger::event::<InSandbox>(),
            script.isolation(strongest),
            options,
        );
    let mut config = Config::default();
    config.lease = LEASE;
    config.poll = Duration::from_millis(100);
    let builder = Platform::builder()
        .store(Sqlite::open(folder.join("executions.db")).await?)
        .keys(KeyRing::from_file(folder.join("keys"))?)
        .gateway(config)
        .concurrency(8, 2)
        .integration(counting);
    let builder = if works { builder } else { builder.only_labels(["none"]) };
    Ok(builder.start().await?)
}
