//! The marketplace over the in-memory store, through its router, with the other parts faked.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test reports what is wrong by panicking"
)]

mod catalogue;
mod connections;
mod executions;
mod fakes;
mod http;
mod installations;
mod matrix;
mod openapi;
mod operators;
mod secrets;
mod start;
mod world;
