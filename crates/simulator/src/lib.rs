#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod autoscaler;
mod bound;
pub mod case;
mod client;
mod front;
mod ledger;
mod measure;
mod pool;
mod random;
mod report;
mod store;
mod time;
mod world;

pub use bound::bound;
pub use front::{CUSTOMER, Crosspoint, Door, Entry, Front, Site, open, target};
pub use ledger::{End, Ledger, Sample};
pub use pool::{Fate, Pool, REQUEST, WAY, answer, number_of};
pub use random::Random;
pub use report::{Figure, Point, Report, table};
pub use store::RunStore;
pub use time::{RunTime, seconds};
pub use world::{run, run_behind, run_here};
