//! What the program says: a bar while it works, then a table or lines of JSON.

use crate::{Options, Results, peers::Peer};
use crosspoint_simulator::{Report, case::Case};
use serde::Serialize;
use std::{
    fmt::Write as _,
    io::{IsTerminal, Write},
};

/// A bar on a terminal, nothing elsewhere.
pub struct Progress {
    all: usize,
    shown: bool,
}

impl Progress {
    pub fn new(all: usize) -> Self {
        Self {
            all,
            shown: std::io::stderr().is_terminal(),
        }
    }

    pub fn show(&self, ready: usize, name: &str) {
        if self.shown {
            let full = 30 * ready / self.all.max(1);
            eprint!("\r[{:<30}] {ready} of {} {name:<20}", "#".repeat(full), self.all);
            let _ = std::io::stderr().flush();
        }
    }

    pub fn clear(&self) {
        if self.shown {
            eprint!("\r{:80}\r", "");
        }
    }
}

/// A policy's line; the fields come in this order.
#[derive(Serialize)]
struct Line {
    policy: &'static str,
    answered: f64,
    on_connection: f64,
    share_of_optimum: f64,
    lost: u64,
    /// Null if nobody was answered on the connection.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    replica_seconds: f64,
}

/// The result of a policy as one line of JSON.
pub fn line(peer: Peer, report: &Report) -> String {
    let rounded = |value: f64, places: i32| (value * 10f64.powi(places)).round() / 10f64.powi(places);
    let share = |name: &str| rounded(report.figure(name) / 100.0, 5);
    let millis = |name: &str| Some(rounded(report.figure(name) * 1000.0, 1)).filter(|value| value.is_finite());
    let line = Line {
        policy: peer.name(),
        answered: share("answered"),
        on_connection: share("on_connection"),
        share_of_optimum: share("share"),
        lost: report.figure("lost") as u64,
        p50_ms: millis("p50"),
        p99_ms: millis("p99"),
        replica_seconds: rounded(report.figure("replica_seconds"), 1),
    };
    serde_json::to_string(&line).expect("numbers and a name")
}

/// What load meets what.
pub fn setting(case: &Case) -> String {
    let most = case.autoscaler.as_ref().map(|autoscaler| autoscaler.most);
    format!(
        "{:.0} calls a second, {:.0} from second {} to {}; {} replicas of {} workers, {} at most, 50 ms a call",
        case.load.rate,
        case.load.rate_at(case.disturbance.0),
        case.disturbance.0,
        case.disturbance.1,
        case.pool.replicas,
        case.pool.workers,
        most.unwrap_or(case.pool.replicas),
    )
}

/// How the figures came about.
pub const fn manner(options: &Options) -> &'static str {
    if options.real {
        "Real: HTTP over loopback sockets and the wall clock, everything in one process. Half the load, four times as \
         fast; replicas sleep, the store is in memory."
    } else if options.small() {
        "Simulated, in a debug build: a quarter of the load on replicas of a quarter of the size (--full for all of it)."
    } else {
        "Simulated: the real layers on a simulated clock, network and pool of replicas."
    }
}

/// All results for people.
pub fn table(case: &Case, results: &Results, options: &Options) -> String {
    let (setting, manner) = (setting(case), manner(options));
    let mut text = format!("{}: {setting}\n{manner}\nSeed {}.\n", case.title, options.seed);
    let _ = writeln!(
        text,
        "\n{:<20}{:>9}{:>9}{:>9}{:>7}{:>10}{:>10}{:>10}{:>11}",
        "policy", "answered", "on conn.", "optimum", "lost", "p50", "p99", "normal", "replica-s"
    );
    for (peer, report) in results {
        let figure = |name: &str| report.figure(name);
        let time = |name: &str| match figure(name) {
            value if value.is_finite() => format!("{value:.2} s"),
            _ => "-".to_owned(),
        };
        let _ = writeln!(
            text,
            "{:<20}{:>8.1}%{:>8.1}%{:>8.1}%{:>7}{:>10}{:>10}{:>8.0} s{:>11.0}",
            peer.name(),
            figure("answered"),
            figure("on_connection"),
            figure("share"),
            figure("lost"),
            time("p50"),
            time("p99"),
            figure("base_again"),
            figure("replica_seconds"),
        );
    }
    let _ = write!(
        text,
        "\nanswered   with the target's reply, on the connection or later, when the client asked\n\
         on conn.   on the connection that the call came on; clients wait {} s\n\
         optimum    on conn. as a share of what could be reached, within {} s and on the same replicas, by somebody who\n\
         \x20          knows the future\n\
         lost       accepted with 202 and never answered\n\
         p50, p99   of calls answered on the connection, from when they should have been sent\n\
         normal     after the spike, until 99 % of each second's calls are answered on the connection within a second\n\
         replica-s  seconds of replicas, together\n",
        case.load.client.patience.unwrap_or(f64::INFINITY),
        case.gateway.hold,
    );
    text
}
