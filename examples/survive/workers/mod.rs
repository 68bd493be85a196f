//! `survive --workers N`: many executions of flows with a memory, on N worker processes that share one SQLite file and are
//! killed at random. In the end the store is asked whether each execution ended once, and whether any memory went back; and
//! the journal that the flows wrote tells how long a dead worker's executions waited for the next one.

mod journal;
mod verdict;
mod worker;

pub use worker::run as run_worker;

use crate::{Done, Random, millis, processes};
use crosspoint::{core::InstallationId, prelude::*};
use futures_util::future::try_join_all;
use journal::Journal;
use processes::Running;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use verdict::Verdict;
use worker::{COUNTERS, emit};

/// Customers, each with one installation; its flows run one at a time.
const CUSTOMERS: u64 = 40;

/// Events that are emitted at once, so that storing the work does not take longer than doing it.
const CHUNK: usize = 40;

/// How many executions may wait for the workers when more are started: enough for all of them.
const AHEAD: u64 = 160;

/// How long nothing may end while there is work: far longer than any lease.
const STUCK: Duration = Duration::from_secs(60);

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub workers: usize,
    pub executions: u64,
    pub kills: u32,
    pub seed: u64,
    /// Whether a run that begins again later than the lease and a second is a failure: a matter of the machine's load too.
    pub on_time: bool,
}

/// From when until when a worker could work: from its own word that it is ready until it was killed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Life {
    ready: Option<i64>,
    killed: Option<i64>,
}

/// Of all workers, by name.
type Lives = Arc<Mutex<BTreeMap<String, Life>>>;

pub async fn survive(plan: Plan, json: bool) -> Done<ExitCode> {
    let folder = tempfile::tempdir()?;
    let platform = worker::parent(folder.path()).await?;
    let customers: Vec<CustomerId> = (0..CUSTOMERS)
        .map(|number| CustomerId::new(format!("customer-{number}")))
        .collect::<Result<_>>()?;
    let mut installations = Vec::new();
    for customer in &customers {
        let installation = platform.install(customer, "counting", serde_json::json!({})).await?;
        installations.push((customer.clone(), installation));
    }
    let began = Instant::now();
    let mut crew = Crew::start(folder.path(), plan.workers, platform.isolation().level)?;
    let emitting = emit_all(&platform, &customers, folder.path(), plan);
    tokio::try_join!(emitting, crew.kill_at_random(plan, json))?;
    all_ended(&platform, &installations).await?;
    let took = began.elapsed();
    let lives = std::mem::take(&mut *crew.lives.lock().unwrap());
    drop(crew);

    let journal = Journal::read(folder.path())?;
    let verdict = Verdict::of(&platform, &installations, &journal, &lives).await?;
    if json {
        println!("{}", verdict.json(plan, took));
    } else {
        verdict.print(plan, took);
    }
    platform.shutdown().await?;
    Ok(if verdict.good(plan) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Starts the work a little ahead of the workers: a run whose worker was killed is to wait for its lease's end, and not for
/// its customer's turn in a queue of thousands.
async fn emit_all(platform: &Platform, customers: &[CustomerId], folder: &Path, plan: Plan) -> Done<()> {
    for first in (0..plan.executions).step_by(CHUNK) {
        // One of twenty writes no line.
        let begun = first.saturating_sub(AHEAD) * 19 / 20;
        journal::wait_for(folder, begun, STUCK).await?;
        let chunk = first..plan.executions.min(first + CHUNK as u64);
        let emits = chunk.map(|number| emit_one(platform, customers, number, plan.seed));
        try_join_all(emits).await?;
    }
    Ok(())
}

/// Most executions are of the Rust flow; one in twenty is of each script. Now and then an event is emitted twice.
async fn emit_one(platform: &Platform, customers: &[CustomerId], number: u64, seed: u64) -> Result<()> {
    let counter = match Random::new(seed ^ number).below(20) {
        0 => &COUNTERS[1],
        1 => &COUNTERS[2],
        _ => &COUNTERS[0],
    };
    let customer = &customers[usize::try_from(number % CUSTOMERS).unwrap_or(0)];
    for _ in 0..if number.is_multiple_of(50) { 2 } else { 1 } {
        emit(platform, customer, counter, number).await?;
    }
    Ok(())
}

async fn all_ended(platform: &Platform, installations: &[(CustomerId, InstallationId)]) -> Done<()> {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    loop {
        let open = verdict::open(platform, installations).await?;
        if open == 0 {
            return Ok(());
        }
        if open < least {
            (least, since) = (open, Instant::now());
        } else if since.elapsed() > STUCK {
            return Err(format!("{open} executions have not ended, and none has within {STUCK:?}").into());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The worker processes.
struct Crew {
    folder: PathBuf,
    level: String,
    running: Vec<Running>,
    starts: usize,
    lives: Lives,
}

impl Crew {
    fn start(folder: &Path, count: usize, strongest: Isolation) -> Done<Self> {
        let mut crew = Self {
            folder: folder.to_owned(),
            level: strongest.min(Isolation::Sandboxed).to_string(),
            running: Vec::new(),
            starts: 0,
            lives: Lives::default(),
        };
        for _ in 0..count {
            let another = crew.another()?;
            crew.running.push(another);
        }
        Ok(crew)
    }

    fn another(&mut self) -> Done<Running> {
        let name = format!("worker-{}", self.starts);
        self.starts += 1;
        let words = ["counting", &self.folder.to_string_lossy(), &name, &self.level];
        let (running, mut ready) = processes::spawn(&name, &words, &Arc::<AtomicU64>::default())?;
        let lives = Arc::clone(&self.lives);
        tokio::spawn(async move {
            if ready.recv().await.is_some() {
                lives.lock().unwrap().entry(name).or_default().ready = Some(millis());
            }
        });
        Ok(running)
    }

    /// Kills spread over the work: whenever so many runs have begun as drawn, a worker that is drawn, and sometimes all of
    /// them. Each is started again at once, under a name of its own.
    async fn kill_at_random(&mut self, plan: Plan, json: bool) -> Done<()> {
        let mut random = Random::new(plan.seed);
        // Flows with a journal are nineteen of twenty, and none is killed before there is work or after it.
        let mut moments: Vec<u64> = (0..plan.kills)
            .map(|_| plan.executions / 50 + random.below(plan.executions * 9 / 10))
            .collect();
        moments.sort_unstable();
        for moment in moments {
            journal::wait_for(&self.folder, moment, STUCK).await?;
            sleep(Duration::from_millis(random.below(300))).await;
            let all = random.below(8) == 0;
            let chosen = usize::try_from(random.below(plan.workers as u64))?;
            for place in (0..plan.workers).filter(|place| all || *place == chosen) {
                let at = millis();
                self.running[place].kill()?;
                let worker = &self.running[place].name;
                if !json {
                    println!("{worker} is killed after {moment} runs");
                }
                self.lives.lock().unwrap().entry(worker.clone()).or_default().killed = Some(at);
            }
            for place in (0..plan.workers).filter(|place| all || *place == chosen) {
                self.running[place] = self.another()?;
            }
        }
        Ok(())
    }
}

/// What a worker that lives needs at most to take up an execution whose lease is over.
const MARGIN: Duration = Duration::from_secs(1);

const fn in_millis(time: Duration) -> i64 {
    time.as_millis() as i64
}
