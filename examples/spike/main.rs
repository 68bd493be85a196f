//! Run the spike on your laptop: ten times the load for 20 s on a target that grows only slowly, in front of it the
//! usual protections, one after the other, and Crosspoint.
//! `cargo run --release --example spike -- --svg spike.svg`
//!
//! Everything but the protection is the same for all: arrivals, clients, replicas, autoscaler. Time is simulated, so the
//! whole takes seconds; `--real` does it with real sockets and on the wall clock instead.

mod knative;
mod output;
mod peers;
mod plot;
mod real;

use crosspoint_simulator::{
    Report,
    case::{self, Case, Profile},
    run_behind,
};
use output::Progress;
use peers::Peer;
use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

const USAGE: &str = "usage: spike [--seed N] [--policy NAME]... [--svg PATH] [--json] [--full] [--real] [--list]

--seed N       which random numbers (default 1)
--policy NAME  only this one; may be given several times (--list shows the names)
--svg PATH     writes a plot of answered calls and latency over time
--json         one line a policy
--full         full scale also in a debug build
--real         real sockets and wall-clock time, about 20 s a policy; scaled down, and only three policies unless told";

struct Options {
    seed: u64,
    peers: Vec<Peer>,
    svg: Option<String>,
    json: bool,
    full: bool,
    real: bool,
}

impl Options {
    /// Whether a slow build gets less to do.
    const fn small(&self) -> bool {
        cfg!(debug_assertions) && !self.full && !self.real
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let case = scaled(&options);
    let results = if options.real {
        real::run(&case, &options.peers, options.seed)
    } else {
        simulate(&case, &options)
    };
    let results = match results {
        Ok(results) => results,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    };
    if options.json {
        for (peer, report) in &results {
            println!("{}", output::line(*peer, report));
        }
    } else {
        print!("{}", output::table(&case, &results, &options));
    }
    if let Some(path) = &options.svg {
        if let Err(error) = std::fs::write(path, plot::draw(&case, &results, &options)) {
            eprintln!("{path} could not be written: {error}");
            return ExitCode::FAILURE;
        }
        if !options.json {
            println!("\nplot: {path}");
        }
    }
    ExitCode::SUCCESS
}

fn options() -> Result<Option<Options>, String> {
    let mut options = Options {
        seed: 1,
        peers: Vec::new(),
        svg: None,
        json: false,
        full: false,
        real: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--seed" => options.seed = value()?.parse().map_err(|_| "the seed is a whole number".to_owned())?,
            "--policy" => {
                let name = value()?;
                let peer = Peer::ALL.iter().find(|peer| peer.name() == name);
                options.peers.push(*peer.ok_or(format!("there is no policy {name}"))?);
            }
            "--svg" => options.svg = Some(value()?),
            "--json" => options.json = true,
            "--full" => options.full = true,
            "--real" => options.real = true,
            "--list" => {
                for peer in Peer::ALL {
                    println!("{:<20}{}", peer.name(), peer.title());
                }
                return Ok(None);
            }
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(None);
            }
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    if options.peers.is_empty() {
        let few = [Peer::Crosspoint, Peer::Shed, Peer::Knative10];
        options.peers = if options.real { few.to_vec() } else { Peer::ALL.to_vec() };
    }
    Ok(Some(options))
}

/// How long a client waits, in seconds, whatever is in front of the target.
const PATIENCE: f64 = 30.0;

/// The spike at the size that fits the build and the clock.
fn scaled(options: &Options) -> Case {
    let mut case = case::named("w02").expect("the case comes with the simulator");
    case.load.client.patience = Some(PATIENCE);
    if options.real {
        // Four times as fast as in the simulation, and half as much of everything.
        case.load.rate /= 2.0;
        case.pool.workers /= 2;
        case.gateway.hold /= 4.0;
        case.load.client.patience = Some(PATIENCE / 4.0);
        case.load.client.ask /= 4.0;
        case.duration = 16.0;
        case.disturbance = (4.0, 9.0);
        case.load.profile = Profile::Spike {
            from: 4.0,
            until: 9.0,
            factor: 10.0,
        };
        if let Some(autoscaler) = &mut case.autoscaler {
            autoscaler.pause /= 4.0;
            autoscaler.ready /= 4.0;
        }
    } else if options.small() {
        case.load.rate /= 4.0;
        case.pool.workers /= 4;
    }
    case
}

type Results = Vec<(Peer, Report)>;

/// All policies, two at a time.
fn simulate(case: &Case, options: &Options) -> Result<Results, String> {
    let (next, ready) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let done: Mutex<Vec<(usize, Result<Report, String>)>> = Mutex::default();
    let progress = Progress::new(options.peers.len());
    progress.show(0, "");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((turn, peer)) = {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    options.peers.get(turn).map(|peer| (turn, *peer))
                } {
                    let report = run_behind(&peer.case(case), options.seed, &peer);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((turn, report));
                    progress.show(ready.fetch_add(1, Ordering::Relaxed) + 1, peer.name());
                }
            });
        }
    });
    progress.clear();
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(turn, _)| *turn);
    done.into_iter()
        .map(|(turn, report)| Ok((options.peers[turn], report?)))
        .collect()
}
