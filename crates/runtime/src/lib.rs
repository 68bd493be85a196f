#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(unix)]
pub mod artifacts;
mod attention;
mod control;
mod handler;
mod inprocess;
mod problem;
mod redact;
mod runners;
mod scheduler;
mod scope;
mod starter;
#[cfg(unix)]
mod subprocess;
mod timetable;

pub use control::Runtime;
pub use handler::{FlowHandler, Parts};
pub use inprocess::InProcess;
pub use runners::Runners;
pub use starter::{Starter, target_of};
#[cfg(unix)]
pub use subprocess::Subprocess;
pub use timetable::CronTimetable;

use crosspoint_core::{Code, Error, Isolation};
use std::time::Duration;

/// Longer than any run; keeps sums of instants from overflowing.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The refusal to run code at less isolation than it asks for.
fn isolation_unavailable(asked: Isolation, achieved: Isolation, missing: &str) -> Error {
    let message = format!("the code asks for isolation `{asked}`, and what can be enforced here is `{achieved}`");
    Error::new(Code::IsolationUnavailable, message)
        .with("asked", asked)
        .with("achieved", achieved)
        .with("missing", missing)
}
