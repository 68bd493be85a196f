//! The suites. Each function is one rule of the contract; [`conformance!`](crate::conformance) makes a test of each.

pub mod adoption;
pub mod bounds;
pub mod cancel;
pub mod chaos;
pub mod close;
pub mod connections;
pub mod crash;
pub mod customers;
pub mod data_keys;
pub mod executions;
pub mod held;
pub mod installations;
pub mod keys;
pub mod leases;
pub mod logs;
pub mod order;
pub mod pages;
pub mod past;
pub mod queue;
pub mod retention;
pub mod retries;
pub mod schedules;
pub mod scopes;
pub mod starts;
pub mod state;
pub mod turns;

/// The target of most suites.
const T: &str = "target";
