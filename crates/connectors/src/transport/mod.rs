//! HTTP on behalf of a connection.
//!
//! One [`HttpClient`] per process holds pools of connections, the egress guard and the limits. For every connection that
//! is used the engine makes a [`Transport`](crosspoint_core::Transport) over it, which knows the base URL and carries
//! the credential. Nothing is tried again in here: an error says whether that can help, and the runtime does it.

mod client;
mod connection;
mod credential;
mod exchange;
mod guard;
mod health;
mod hidden;
mod notify;
mod retry_after;
mod target;

pub use client::{HttpClient, HttpClientBuilder};
pub use guard::SystemResolver;
pub use notify::Notifier;
pub use retry_after::retry_after;

pub(crate) use connection::ConnectionTransport;
pub(crate) use credential::Credential;
pub(crate) use health::Watch;
pub(crate) use target::{Base, check_url};
