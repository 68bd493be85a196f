#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod adopt;
mod config;
mod dispatch;
pub mod gate;
mod gateway;
mod http;
mod inbox;
mod layer;
mod metric;
pub mod outcome;
mod replay;
mod reply;
mod status;
mod target;
mod wait;
mod worker;

pub use config::{CallPolicy, Config, Settles, TargetConfig};
pub use gateway::Gateway;
pub use layer::{Attempt, Boxed, BoxedDispatchLayer, Dispatch, DispatchLayer, Keys, PermitUntil};
pub use replay::Replayed;
