#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![expect(
    clippy::result_large_err,
    reason = "rusqlite's error is large and the answer of every closure that reads a row; it never leaves the crate"
)]

mod connect;
mod fail;
mod ledger;
mod options;
mod place;
mod readers;
mod repos;
mod schema;
mod sql;
mod store;
#[cfg(test)]
mod tests;
mod turnstile;
mod writer;

pub use options::Options;
pub use store::Sqlite;
