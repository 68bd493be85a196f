//! The platform as a host uses it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dispatch;
mod flows;
mod setup;
