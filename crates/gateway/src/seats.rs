//! The places for clients that are kept waiting, in this process and for one customer.

use crosspoint_core::CustomerId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How many clients are kept waiting.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    most_per_customer: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    customers: HashMap<CustomerId, usize>,
}

impl Seats {
    pub(crate) fn new(most: usize, most_per_customer: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_customer,
            taken: Mutex::default(),
        })
    }

    /// A seat, if one is left; with a customer, also one of that customer's.
    pub(crate) fn take(self: &Arc<Self>, customer: Option<&CustomerId>) -> Option<Seat> {
        let mut taken = self.lock();
        if taken.all >= self.most {
            return None;
        }
        if let Some(customer) = customer {
            let own = taken.customers.get(customer).copied().unwrap_or(0);
            if own >= self.most_per_customer {
                return None;
            }
            taken.customers.insert(customer.clone(), own + 1);
        }
        taken.all += 1;
        drop(taken);
        Some(Seat {
            seats: Arc::clone(self),
            customer: customer.cloned(),
        })
    }

    /// How many seats are taken.
    pub(crate) fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seat; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    customer: Option<CustomerId>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all = taken.all.saturating_sub(1);
        let Some(customer) = &self.customer else { return };
        let left = taken.customers.get_mut(customer).map(|own| {
            *own = own.saturating_sub(1);
            *own
        });
        if left == Some(0) {
            taken.customers.remove(customer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_in_all_and_so_many_for_each_customer() {
        let seats = Seats::new(3, 2);
        let (a, b) = (CustomerId::new("a").unwrap(), CustomerId::new("b").unwrap());
        let first = seats.take(Some(&a)).unwrap();
        let _second = seats.take(Some(&a)).unwrap();
        assert!(seats.take(Some(&a)).is_none(), "all of a");
        let _third = seats.take(Some(&b)).unwrap();
        assert!(seats.take(Some(&b)).is_none(), "all");
        assert!(seats.take(None).is_none());
        drop(first);
        assert_eq!(seats.taken(), 2);
        let _again = seats.take(Some(&a)).unwrap();
        assert_eq!(seats.lock().customers.len(), 2);
    }
}
