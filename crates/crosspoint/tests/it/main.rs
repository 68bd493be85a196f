//! The platform as a host uses it.

mod dispatch;
mod flows;
mod setup;
