//! Integrations that are published while the host runs.

mod archives;
mod crash;
mod folders;
mod live;
mod manifests;
mod packages;
mod site;
