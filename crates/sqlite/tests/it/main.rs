//! One binary: the rules of the store traits, and what only a file can get wrong.

mod conformance;
mod crash;
mod disk_full;
mod files;
mod fixture;
mod processes;
mod throughput;
mod world;
