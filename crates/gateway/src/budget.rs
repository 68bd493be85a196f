//! A number of things that may be taken at once, in this process and by one customer: places of clients that are kept
//! waiting, and bytes of bodies.

use crosspoint_core::CustomerId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How much may be taken, and how much is.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    most_per_customer: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    customers: HashMap<CustomerId, usize>,
}

/// What there is not enough left of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spent {
    All,
    Customer,
}

impl Budget {
    pub(crate) fn new(most: usize, most_per_customer: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_customer,
            taken: Mutex::default(),
        })
    }

    /// Takes a part; with a customer, also of what that customer may have. What is larger than a whole budget takes all of it.
    pub(crate) fn take(self: &Arc<Self>, amount: usize, customer: Option<&CustomerId>) -> Result<Part, Spent> {
        let fits = |most: usize, taken| amount.min(most.max(1)) <= most.saturating_sub(taken);
        let mut taken = self.lock();
        let own = customer.and_then(|customer| taken.customers.get(customer));
        let own = own.copied().unwrap_or(0);
        if customer.is_some() && !fits(self.most_per_customer, own) {
            return Err(Spent::Customer);
        }
        if !fits(self.most, taken.all) {
            return Err(Spent::All);
        }
        let amount = amount.min(self.most);
        taken.all += amount;
        if let Some(customer) = customer {
            taken.customers.insert(customer.clone(), own + amount);
        }
        drop(taken);
        Ok(Part {
            budget: Arc::clone(self),
            amount,
            customer: customer.cloned(),
        })
    }

    /// How much is taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was taken; free again when dropped.
#[derive(Debug)]
pub(crate) struct Part {
    budget: Arc<Budget>,
    amount: usize,
    customer: Option<CustomerId>,
}

impl Part {
    /// Gives back what has turned out not to be needed.
    pub(crate) fn shrink(&mut self, amount: usize) {
        let mut taken = self.budget.lock();
        let spare = self.amount.saturating_sub(amount);
        self.amount -= spare;
        taken.all = taken.all.saturating_sub(spare);
        let Some(customer) = &self.customer else { return };
        let left = taken.customers.get_mut(customer).map(|own| {
            *own = own.saturating_sub(spare);
            *own
        });
        if left == Some(0) {
            taken.customers.remove(customer);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customers() -> (CustomerId, CustomerId) {
        (CustomerId::new("a").unwrap(), CustomerId::new("b").unwrap())
    }

    #[test]
    fn there_is_so_much_in_all_and_so_much_for_each_customer() {
        let budget = Budget::new(3, 2);
        let (a, b) = customers();
        let first = budget.take(1, Some(&a)).unwrap();
        let _second = budget.take(1, Some(&a)).unwrap();
        assert_eq!(budget.take(1, Some(&a)).unwrap_err(), Spent::Customer);
        let _third = budget.take(1, Some(&b)).unwrap();
        assert_eq!(budget.take(1, Some(&b)).unwrap_err(), Spent::All);
        assert_eq!(budget.take(1, None).unwrap_err(), Spent::All);
        drop(first);
        assert_eq!(budget.taken(), 2);
        let _again = budget.take(1, Some(&a)).unwrap();
        assert_eq!(budget.lock().customers.len(), 2);
    }

    #[test]
    fn nothing_is_taken_of_nothing() {
        let (a, _) = customers();
        assert_eq!(Budget::new(0, 1).take(1, Some(&a)).unwrap_err(), Spent::All);
        assert_eq!(Budget::new(1, 0).take(1, Some(&a)).unwrap_err(), Spent::Customer);
        assert!(Budget::new(0, 0).take(0, Some(&a)).is_ok());
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let budget = Budget::new(4000, 4000);
        let mut first = budget.take(3000, None).unwrap();
        assert!(budget.take(1001, None).is_err());
        first.shrink(1000);
        let second = budget.take(3000, None).unwrap();
        assert!(budget.take(1, None).is_err());
        assert!(budget.take(0, None).is_ok(), "nothing takes no room");
        drop((first, second));
        assert!(budget.take(usize::MAX, None).is_ok(), "the whole, if it is free");
    }

    #[test]
    fn what_is_larger_than_a_customers_part_takes_all_of_that() {
        let budget = Budget::new(4000, 1000);
        let (a, b) = customers();
        let mut first = budget.take(800, Some(&a)).unwrap();
        assert_eq!(budget.take(201, Some(&a)).unwrap_err(), Spent::Customer);
        let whole = budget.take(2000, Some(&b)).unwrap();
        assert_eq!(budget.taken(), 2800);
        assert_eq!(budget.take(1, Some(&b)).unwrap_err(), Spent::Customer);
        first.shrink(500);
        drop(budget.take(500, Some(&a)).unwrap());
        drop((first, whole));
        let taken = budget.lock();
        assert_eq!((taken.all, taken.customers.len()), (0, 0));
    }
}
