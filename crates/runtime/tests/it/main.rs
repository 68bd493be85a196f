//! Executions end to end over the in-memory store.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says what is wrong by panicking"
)]

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod abuse;
#[cfg(unix)]
mod artifacts;
mod attention;
mod bounds;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod bubblewrap;
mod checkpoints;
mod connections;
mod control;
mod faults;
mod fields;
mod flows;
mod framed;
mod http;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod levels;
mod looks;
mod machine;
mod polls;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod processes;
mod progress;
mod replays;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod sandbox;
mod schedules;
mod scripts;
mod sdk;
mod stops;
mod timetable;
mod trust;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod warm;
mod world;
