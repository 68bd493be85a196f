#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod adopt;
mod config;
mod control;
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
pub use control::{
    Aimd, CoolOff, Custom, Gradient2, HoldOrder, Knee, Limit, LimitAlgorithm, Policy, Sticky, Vegas, Window,
};
pub use gateway::Gateway;
pub use layer::{Attempt, Dispatch, DispatchLayer, Keys};
pub use replay::Replayed;
