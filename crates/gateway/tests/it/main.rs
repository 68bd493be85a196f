//! The gateway over the in-memory store: what a client sees, what the store holds, and what became of the permits.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod adopt;
mod again;
mod allocations;
mod call;
mod callbacks;
mod clients;
mod contract;
mod control;
mod cool_off;
mod direct;
mod divert;
mod drain;
mod faults;
mod hold;
mod keys;
mod later;
mod leases;
mod limits;
mod outcome;
mod permits;
mod quota;
mod record;
mod remote;
mod share;
mod site;
mod status;
mod stubborn;
mod submit;
mod trouble;
