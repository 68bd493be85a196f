//! The platform as a host uses it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(unix)]
mod artifacts;
mod dispatch;
mod flows;
mod setup;
