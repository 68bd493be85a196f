//! One binary: the rules of the store traits, and what only a file can get wrong.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they skip"
)]
#![expect(clippy::result_large_err, reason = "rusqlite's error is large")]

mod busy;
mod conformance;
mod crash;
mod disk_full;
mod files;
mod fixture;
mod processes;
mod throughput;
mod world;
