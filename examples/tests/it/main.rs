//! The examples as a person would run them: real processes, real sockets, real kills.

mod client;
mod saas;
mod survive;
