#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod accept;
mod adopt;
mod backlog;
mod config;
mod control;
mod dispatch;
pub mod gate;
mod gateway;
mod http;
mod inbox;
mod intake;
mod layer;
mod metric;
mod operate;
pub mod outcome;
mod replay;
mod reply;
mod seats;
mod status;
mod target;
mod wait;
mod worker;

pub use config::{CallPolicy, Config, Eligible, OnDisconnect, Settles, TargetConfig};
pub use control::{
    Aimd, CoolOff, Custom, Gradient2, HoldOrder, Knee, Limit, LimitAlgorithm, Policy, Sticky, Vegas, Window,
};
pub use gateway::Gateway;
pub use layer::{Attempt, Dispatch, DispatchLayer, Keys};
pub use replay::Replayed;
