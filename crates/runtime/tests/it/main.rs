//! Executions end to end over the in-memory store.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says what is wrong by panicking"
)]

#[cfg(unix)]
mod artifacts;
mod attention;
mod control;
mod faults;
mod flows;
mod schedules;
mod scripts;
mod stops;
mod timetable;
mod world;
