//! Who kills what, and what survives: `cargo run --example survive [-- --kills N --seed S --json]`, and for flows with
//! `--workers N --executions M`, which is told in [`workers`].
//!
//! Three kinds of process on this machine, all of them this program: a gateway and a worker, which share nothing but a SQLite
//! file, and the target that both of them call, which writes down every effect that it has. Under load the gateway or the
//! worker is killed with SIGKILL and started again, and now and then the worker is stopped for longer than its lease lasts.
//! In the end every call that was acknowledged, with its answer or with an id, must have had its effect; the exit code is 1
//! if one has not.

mod clients;
mod host;
mod processes;
mod recovery;
mod report;
mod target;
mod workers;

use clients::{Clients, Ledger};
use crosspoint::prelude::*;
use processes::{Kind, Processes};
use report::Report;
use std::{error::Error as StdError, path::PathBuf, process::ExitCode, str::FromStr, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// How long a lease of either process lasts: short, so that the work of a dead one is soon taken up.
const LEASE: Duration = Duration::from_secs(2);

/// Until when every accepted call must have ended once the killing is over.
const LAST_ANSWER: Duration = Duration::from_secs(60);

const USAGE: &str = "usage: survive [--kills N] [--seed S] [--json] [--workers N [--executions M] [--on-time]]";

type Done<T> = std::result::Result<T, Box<dyn StdError>>;

#[derive(Debug)]
struct Arguments {
    kills: u32,
    seed: u64,
    /// Worker processes of flows; none for the gateway in front of a service.
    workers: Option<usize>,
    executions: u64,
    on_time: bool,
    json: bool,
    help: bool,
    role: Option<host::Role>,
}

fn main() -> ExitCode {
    let run = || -> Done<ExitCode> {
        let arguments = Arguments::parse(std::env::args().skip(1))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        match arguments.role {
            Some(role) => runtime.block_on(role.run()).map(|()| ExitCode::SUCCESS),
            None if arguments.help => {
                println!("{USAGE}");
                Ok(ExitCode::SUCCESS)
            }
            None => runtime.block_on(async {
                tokio::select! {
                    survived = arguments.survive() => survived,
                    _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
                }
            }),
        }
    };
    run().unwrap_or_else(|error| {
        eprintln!("survive: {error}");
        ExitCode::from(2)
    })
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Done<Self> {
        let mut arguments = Self {
            kills: 6,
            seed: 1,
            workers: None,
            executions: 10_000,
            on_time: false,
            json: false,
            help: false,
            role: None,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} wants a value"));
            match word.as_str() {
                "--kills" => arguments.kills = whole(&value()?)?,
                "--seed" => arguments.seed = whole(&value()?)?,
                "--workers" => arguments.workers = Some(whole::<usize>(&value()?)?.max(1)),
                "--executions" => arguments.executions = whole::<u64>(&value()?)?.max(1),
                "--on-time" => arguments.on_time = true,
                "--json" => arguments.json = true,
                "--help" | "-h" => arguments.help = true,
                // How the program starts itself.
                "--role" => arguments.role = Some(host::Role::parse(words.by_ref())?),
                other => return Err(format!("{other} is unknown\n{USAGE}").into()),
            }
        }
        Ok(arguments)
    }

    async fn survive(&self) -> Done<ExitCode> {
        let Some(workers) = self.workers else {
            return survive(self).await;
        };
        let plan = workers::Plan {
            workers,
            executions: self.executions,
            kills: self.kills,
            seed: self.seed,
            on_time: self.on_time,
        };
        workers::survive(plan, self.json).await
    }
}

fn whole<N: FromStr>(text: &str) -> Done<N> {
    text.parse()
        .map_err(|_| format!("{text} is no whole number\n{USAGE}").into())
}

async fn survive(arguments: &Arguments) -> Done<ExitCode> {
    let folder = tempfile::tempdir()?;
    let mut random = Random::new(arguments.seed);
    let mut processes = Processes::start(folder.path().to_owned()).await?;
    let ledger = Arc::new(Ledger::default());
    let clients = Clients::start(processes.gateway_url(), Arc::clone(&ledger), arguments.seed);
    let mut first_answer = Duration::ZERO;
    ledger.next_answer().await;
    for kill in 1..=arguments.kills {
        sleep(Duration::from_millis(300 + random.below(1500))).await;
        let kind = if random.below(2) == 0 {
            Kind::Gateway
        } else {
            Kind::Worker
        };
        let killed = Instant::now();
        ledger.killed();
        processes.kill(kind)?;
        processes.spawn(kind)?;
        timeout(LAST_ANSWER, ledger.next_answer())
            .await
            .map_err(|_| format!("no answer within {LAST_ANSWER:?} of kill {kill}"))?;
        first_answer = first_answer.max(killed.elapsed());
        if !arguments.json {
            println!(
                "kill {kill:>3}: {:<7} next answer to anybody after {:>5} ms",
                kind.name(),
                killed.elapsed().as_millis()
            );
        }
        if kill % 3 == 2 {
            processes
                .stall(Kind::Worker, LEASE + Duration::from_millis(700))
                .await?;
        }
    }
    let unfinished = clients.finish(LAST_ANSWER).await;
    if !processes.target_lives() {
        return Err("the target has ended, and with it the measure of everything else".into());
    }
    let effects = target::effects(&effects_file(folder.path().to_owned()))?;
    let report = Report::new(&ledger.take(), unfinished, &effects, &processes, first_answer);
    if arguments.json {
        println!("{}", report.json(arguments.kills, arguments.seed));
    } else {
        report.print();
    }
    Ok(if report.lost == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn effects_file(folder: PathBuf) -> PathBuf {
    folder.join("effects")
}

/// `splitmix64`: the same seed kills the same processes in the same order.
#[derive(Debug)]
struct Random(u64);

impl Random {
    const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// Milliseconds of the machine's clock, which all processes share.
fn millis() -> i64 {
    SystemClock::new().now().as_millis()
}
