#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod adopt;
pub mod callback;
mod config;
mod dispatch;
mod estimate;
pub mod gate;
mod gateway;
mod http;
mod inbox;
pub mod later;
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
pub use layer::{Attempt, Dispatch, DispatchLayer, Keys};
pub use replay::Replayed;
