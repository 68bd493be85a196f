//! The gateway over the in-memory store: what a client sees, what the store holds, and what became of the permits.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod adopt;
mod direct;
mod divert;
mod drain;
mod keys;
mod leases;
mod outcome;
mod remote;
mod site;
mod status;
mod stubborn;
mod submit;
