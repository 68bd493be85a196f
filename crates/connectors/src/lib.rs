#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod engine;
pub mod http;
mod keys;
mod seal;
mod transport;
mod vault;

pub use engine::ConnectorEngine;
pub use keys::KeyRing;
pub use transport::{HttpClient, HttpClientBuilder, Notifier, SystemResolver, retry_after};
pub use vault::{EnvelopeVault, Rewrapped};
