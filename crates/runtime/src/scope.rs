//! The one place that makes scopes: the runtime acts for the owner of the work that it holds.

use crosspoint_core::{CustomerId, CustomerScope, FleetScope};

#[expect(
    clippy::disallowed_methods,
    reason = "workers and the scheduler act over all customers"
)]
pub(crate) const fn fleet() -> FleetScope {
    FleetScope::trusted()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the customer comes from a stored envelope or schedule"
)]
pub(crate) fn of(customer: &CustomerId) -> CustomerScope {
    CustomerScope::trusted(customer.clone())
}
