#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(unix)]
pub mod artifacts;
mod attention;
mod control;
#[cfg(unix)]
mod egress;
mod handler;
mod inprocess;
mod numbers;
mod problem;
mod redact;
mod runners;
mod scheduler;
mod scope;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod spawn;
mod starter;
#[cfg(target_os = "linux")]
mod stat;
#[cfg(unix)]
mod subprocess;
mod timetable;
mod trust;

pub use control::Runtime;
pub use handler::{FlowHandler, Parts};
pub use inprocess::InProcess;
pub use runners::Runners;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use spawn::SandboxOptions;
pub use starter::{Capacity, Starter, labelled, target_of};
#[cfg(unix)]
pub use subprocess::{Subprocess, WarmOptions, WarmStats};
pub use timetable::CronTimetable;
pub use trust::{Subject, Trust, TrustClass};

/// The spawn core by itself, for this repository's tests and benches.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#[doc(hidden)]
pub mod bare {
    pub use crate::spawn::{Cause, Child, Ended, Input, Job, Reach, Sandbox, SandboxOptions, Stdin, Tmpfs};
}

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
