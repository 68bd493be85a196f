//! Targets in other processes: a gateway in front of replicas, and the replicas' own two doors.
//!
//! [`HttpTarget`] is the pool as the gateway sees it, a service to put a [`DispatchLayer`](crate::DispatchLayer) on.
//! [`Gateway::serve`](crate::Gateway::serve) is the other end of it. Between the two travel plain HTTP/1.1 requests with a
//! few headers:
//!
//! | Header | Meaning |
//! |---|---|
//! | `crosspoint-id`, `crosspoint-attempt`, `crosspoint-run-key` | the call, the number of this try, the key of its outside effects |
//! | `crosspoint-customer`, `crosspoint-principal` | whose call it is, percent-encoded |
//! | `crosspoint-timeout-ms` | how long the gateway still waits |
//! | `crosspoint-secret` | the [`SharedSecret`] |
//! | `crosspoint-outcome` in a response | `full`, `not-started` or `unknown`: the replica answers for itself, not for its handler |
//!
//! The replica believes them, so it must be sure who sent them: a secret is required unless the replica is opened
//! explicitly. The gateway removes all of them from what clients send, and from what it answers.
//!
//! A gate over a pool that it cannot see inside is only as good as the pool's balancer: permits that a balancer hands to
//! a cold or broken replica are lost to the warm ones. That is why the pool chooses the least loaded replica, starts new
//! ones slowly and ejects those that fail, and why a single address behind which somebody else takes turns is second best.

mod config;
mod context;
mod forward;
mod metric;
mod pool;
mod replica;
mod secret;
mod serve;
mod target;

pub use config::{HealthCheck, RemoteConfig};
pub use replica::ReplicaState;
pub use secret::SharedSecret;
pub use serve::Serve;
pub use target::{HttpTarget, ReplicaStatus};
