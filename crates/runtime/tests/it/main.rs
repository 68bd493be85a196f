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
mod checkpoints;
mod connections;
mod control;
mod faults;
mod flows;
mod framed;
mod http;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod levels;
mod polls;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod sandbox;
mod schedules;
mod scripts;
mod sdk;
mod stops;
mod timetable;
mod trust;
mod world;
