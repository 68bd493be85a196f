#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod platform;

pub use platform::{Builder, Platform};

pub use crosspoint_connectors as connectors;
pub use crosspoint_core as core;
pub use crosspoint_gateway as gateway;
pub use crosspoint_marketplace as marketplace;
pub use crosspoint_runtime as runtime;
#[cfg(feature = "sqlite")]
pub use crosspoint_sqlite as sqlite;

/// The names that most programs need.
pub mod prelude {
    pub use crate::Platform;
    pub use crosspoint_connectors::{
        KeyRing,
        http::{Http, HttpConnector},
    };
    pub use crosspoint_core::{
        Action, AuthScheme, Authenticate, Clock, Code, ConnectionClient, Connector, CustomerId, EgressPolicy, Error,
        Event, Flow, FlowContext, FlowOptions, Integration, InvocationId, Isolation, Level, Memory, Permission,
        Principal, Result, RetryPolicy, ScheduleSpec, Script, SecretRef, Submitted, SystemClock, Tick, Timestamp,
        Trigger,
    };
    pub use crosspoint_gateway::{CoolOff, Gateway, HttpTarget, Limit, Policy};
    #[cfg(feature = "sqlite")]
    pub use crosspoint_sqlite::Sqlite;
}
