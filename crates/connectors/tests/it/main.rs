//! Connections against real servers on loopback.
#![expect(
    clippy::unwrap_used,
    reason = "clippy's exception covers test functions, not the helpers beside them"
)]

mod actions;
mod canary;
mod egress;
mod engine;
mod notify;
mod redirects;
mod server;
mod transport;
