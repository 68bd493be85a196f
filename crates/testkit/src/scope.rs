//! Scopes for tests.

use crosspoint_core::{CustomerId, CustomerScope, FleetScope};

/// The scope of a customer.
#[must_use]
pub fn customer(id: &str) -> CustomerScope {
    CustomerScope::trusted(CustomerId::new(id).unwrap())
}

/// The scope of everything.
#[must_use]
pub const fn fleet() -> FleetScope {
    FleetScope::trusted()
}
