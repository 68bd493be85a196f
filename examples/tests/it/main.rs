//! The examples as a person would run them: real processes, real sockets, real kills.

mod client;
mod doctor;
mod remote;
mod saas;
mod survive;
