//! On whose behalf a store is read or written.
//!
//! Every method that touches customer data takes a scope, and a scope cannot be made from a request body: neither type
//! deserialises, and clippy forbids [`CustomerScope::trusted`] and [`FleetScope::trusted`] outside authenticators and
//! the runtime.

use crate::CustomerId;

/// The right to one customer's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerScope(CustomerId);

impl CustomerScope {
    /// For authenticators, after they have established who is calling, and for the runtime, which acts for the owner
    /// of the work that it holds.
    #[must_use]
    pub const fn trusted(customer: CustomerId) -> Self {
        Self(customer)
    }

    /// Whose data it is.
    #[must_use]
    pub const fn customer(&self) -> &CustomerId {
        &self.0
    }
}

/// The right to act over all customers: scheduler, worker, re-seal and operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetScope(());

impl FleetScope {
    /// For the platform's own tasks and for authenticated operators.
    #[must_use]
    pub const fn trusted() -> Self {
        Self(())
    }
}

/// One of the two.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a third kind of scope would have to be handled everywhere"
)]
pub enum Scope<'a> {
    /// One customer's data.
    Customer(&'a CustomerScope),
    /// Everybody's.
    Fleet(&'a FleetScope),
}

impl Scope<'_> {
    /// Whether this scope covers what belongs to `owner`.
    #[must_use]
    pub fn covers(&self, owner: &CustomerId) -> bool {
        self.customer().is_none_or(|customer| customer == owner)
    }

    /// The customer, unless the scope is the whole fleet.
    #[must_use]
    pub const fn customer(&self) -> Option<&CustomerId> {
        match self {
            Self::Customer(scope) => Some(&scope.0),
            Self::Fleet(_) => None,
        }
    }
}

impl<'a> From<&'a CustomerScope> for Scope<'a> {
    fn from(scope: &'a CustomerScope) -> Self {
        Self::Customer(scope)
    }
}

impl<'a> From<&'a FleetScope> for Scope<'a> {
    fn from(scope: &'a FleetScope) -> Self {
        Self::Fleet(scope)
    }
}
