#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a suite reports what is wrong by panicking"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "suites act for every customer and for the fleet"
)]

mod clock;
pub mod envelope;
mod faults;
mod harness;
pub mod life;
mod macros;
pub mod model;
pub mod scope;
pub mod suites;

pub use clock::{HeldTime, ManualClock, VirtualClock, hold_time};
pub use faults::{Faults, Method, When};
pub use harness::{Harness, LEASE, race};
