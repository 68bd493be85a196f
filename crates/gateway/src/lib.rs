#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod accept;
mod adopt;
mod backlog;
mod budget;
pub mod callback;
mod config;
mod control;
mod dispatch;
mod estimate;
pub mod gate;
mod gateway;
mod http;
mod inbox;
mod intake;
pub mod later;
mod layer;
mod metric;
mod millis;
mod operate;
pub mod outcome;
mod purge;
mod quota;
pub mod remote;
mod replay;
mod reply;
mod room;
mod status;
mod target;
mod wait;
mod worker;
mod write;

#[doc = include_str!("../GUIDE.md")]
pub mod guide {}

pub use config::{CallPolicy, Config, Eligible, OnDisconnect, Settles, TargetConfig};
pub use control::{
    Aimd, CoolOff, Custom, Gradient2, HoldOrder, Knee, Limit, LimitAlgorithm, Policy, Sticky, Vegas, Window,
};
pub use gateway::Gateway;
pub use layer::{Attempt, Boxed, BoxedDispatchLayer, Dispatch, DispatchLayer, Keys, PermitUntil};
pub use remote::HttpTarget;
pub use replay::Replayed;
