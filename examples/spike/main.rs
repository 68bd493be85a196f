//! Run the spike on your laptop: ten times the load for 20 s on a target that grows only slowly, in front of it the
//! usual protections, one after the other, and Crosspoint.
//! `cargo run --release --example spike -- --svg spike.svg`
//!
//! Everything but the protection is the same for all: arrivals, clients, replicas, autoscaler. Time is simulated, so the
//! whole takes seconds; `--real` does it with real sockets and on the wall clock instead.

mod knative;
mod peers;
mod plot;
mod real;

use crosspoint_simulator::{
    Report,
    case::{self, Case, Profile},
    run_behind,
};
use peers::Peer;
use std::{
    io::{IsTerminal, Write},
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
            println!("{}", line(*peer, report));
        }
    } else {
        print!("{}", table(&case, &results, &options));
    }
    if let Some(path) = &options.svg {
        if let Err(error) = std::fs::write(path, plot::draw(&case, &results)) {
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

/// The spike at the size that fits the build and the clock.
fn scaled(options: &Options) -> Case {
    let mut case = case::named("w02").expect("the case comes with the simulator");
    if options.real {
        // Four times as fast as in the simulation, and half as much of everything.
        case.load.rate /= 2.0;
        case.pool.workers /= 2;
        case.gateway.hold /= 4.0;
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
    } else if cfg!(debug_assertions) && !options.full {
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

/// A bar on a terminal, nothing elsewhere.
pub(crate) struct Progress {
    all: usize,
    shown: bool,
}

impl Progress {
    pub(crate) fn new(all: usize) -> Self {
        Self {
            all,
            shown: std::io::stderr().is_terminal(),
        }
    }

    pub(crate) fn show(&self, ready: usize, name: &str) {
        if self.shown {
            let full = 30 * ready / self.all.max(1);
            eprint!("\r[{:<30}] {ready} of {} {name:<20}", "#".repeat(full), self.all);
            let _ = std::io::stderr().flush();
        }
    }

    pub(crate) fn clear(&self) {
        if self.shown {
            eprint!("\r{:70}\r", "");
        }
    }
}

fn line(peer: Peer, report: &Report) -> serde_json::Value {
    let share = |name: &str| report.figure(name) / 100.0;
    serde_json::json!({
        "policy": peer.name(),
        "answered": share("answered"),
        "on_connection": share("on_connection"),
        "share_of_optimum": share("share"),
        "lost": report.figure("lost") as u64,
        "p50_ms": report.figure("p50") * 1000.0,
        "p99_ms": report.figure("p99") * 1000.0,
        "replica_seconds": report.figure("replica_seconds"),
    })
}

fn table(case: &Case, results: &Results, options: &Options) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "{}: {} calls a second, then {}; {} replicas of {} workers, {} at most\n",
        case.title,
        case.load.rate,
        case.load.rate_at(case.disturbance.0),
        case.pool.replicas,
        case.pool.workers,
        case.autoscaler
            .as_ref()
            .map_or(case.pool.replicas, |autoscaler| autoscaler.most),
    );
    if options.real {
        text.push_str(
            "real sockets on one machine, wall-clock time, four times as fast and half as much as simulated\n",
        );
    } else if cfg!(debug_assertions) && !options.full {
        text.push_str(
            "a debug build: a quarter of the load on replicas of a quarter of the size (--full for all of it)\n",
        );
    }
    let _ = writeln!(
        text,
        "\n{:<20}{:>9}{:>9}{:>9}{:>7}{:>10}{:>10}{:>11}{:>10}",
        "policy", "answered", "on conn.", "optimum", "lost", "p50", "p99", "normal", "replica-s"
    );
    for (peer, report) in results {
        let figure = |name: &str| report.figure(name);
        let _ = writeln!(
            text,
            "{:<20}{:>8.1}%{:>8.1}%{:>8.1}%{:>7}{:>8.2} s{:>8.2} s{:>8.0} s{:>11.0}",
            peer.name(),
            figure("answered"),
            figure("on_connection"),
            figure("share"),
            figure("lost"),
            figure("p50"),
            figure("p99"),
            figure("base_again"),
            figure("replica_seconds"),
        );
    }
    text.push_str(
        "\nanswered: at all, also when the client asked later    on conn.: on the connection that the call came on\n\
         optimum: on conn. as a share of what somebody could reach who knows everything, within the hold\n\
         p50, p99: of calls answered on the connection         normal: so long after the spike all is as before\n",
    );
    text
}
