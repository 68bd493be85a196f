//! The held calls of one target that wait in the queue, as far as this process has put them there.
//!
//! Only the slow way touches this. It answers two questions: how many calls go before a new one, and how many the drain
//! may expect. Calls that other processes hold are not counted; each process also has only its own share of the permits.

use crosspoint_core::{CustomerId, InvocationId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Who waits, by call.
#[derive(Debug, Default)]
pub(crate) struct Backlog(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    calls: HashMap<InvocationId, Call>,
    waiting: usize,
    customers: HashMap<CustomerId, usize>,
    /// At `n`: how many customers have more than `n` calls waiting.
    over: Vec<usize>,
}

#[derive(Debug)]
struct Call {
    customer: CustomerId,
    stands: Stands,
}

/// Where a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// In the queue, or on its way there.
    Queue,
    /// On its way into the store, which may lease it to whoever stores it: it has a permit.
    Permitted,
    /// It is leased here.
    Leased,
}

impl Counts {
    /// Customers take turns, so of each other customer at most one call more goes first than this one has itself.
    fn ahead(&self, customer: &CustomerId) -> usize {
        let own = self.customers.get(customer).copied().unwrap_or(0);
        self.over.iter().take(own + 1).sum()
    }

    fn add(&mut self, customer: &CustomerId) {
        let own = self.customers.entry(customer.clone()).or_insert(0);
        if *own == self.over.len() {
            self.over.push(0);
        }
        if let Some(customers) = self.over.get_mut(*own) {
            *customers += 1;
        }
        *own += 1;
        self.waiting += 1;
    }

    fn subtract(&mut self, customer: &CustomerId) {
        let Some(own) = self.customers.get_mut(customer) else {
            return;
        };
        *own = own.saturating_sub(1);
        let left = *own;
        if left == 0 {
            self.customers.remove(customer);
        }
        if let Some(customers) = self.over.get_mut(left) {
            *customers = customers.saturating_sub(1);
        }
        while self.over.last() == Some(&0) {
            self.over.pop();
        }
        self.waiting = self.waiting.saturating_sub(1);
    }
}

impl Backlog {
    /// Takes a place for a call if `may`, which is told how many calls go before it, agrees.
    pub(crate) fn join(
        self: &Arc<Self>,
        id: InvocationId,
        customer: &CustomerId,
        may: impl FnOnce(usize) -> bool,
    ) -> Option<Place> {
        let mut counts = self.lock();
        if counts.calls.contains_key(&id) || !may(counts.ahead(customer)) {
            return None;
        }
        counts.add(customer);
        let customer = customer.clone();
        let stands = Stands::Queue;
        counts.calls.insert(id, Call { customer, stands });
        drop(counts);
        Some(Place {
            backlog: Arc::clone(self),
            id,
        })
    }

    /// The call is stored with a permit: if the store agrees, it does not wait.
    pub(crate) fn permitted(&self, id: InvocationId) {
        self.turn(id, |stands| match stands {
            Stands::Queue => Stands::Permitted,
            other => other,
        });
    }

    /// The call was stored, and the store would not have it use its permit. A worker may have been faster.
    pub(crate) fn queued(&self, id: InvocationId) {
        self.turn(id, |stands| match stands {
            Stands::Permitted => Stands::Queue,
            other => other,
        });
    }

    /// The call was leased in this process.
    pub(crate) fn leased(&self, id: InvocationId) {
        self.turn(id, |_| Stands::Leased);
    }

    /// The call was given back before it had begun.
    pub(crate) fn released(&self, id: InvocationId) {
        self.turn(id, |_| Stands::Queue);
    }

    /// How many calls wait.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn turn(&self, id: InvocationId, to: impl FnOnce(Stands) -> Stands) {
        let mut counts = self.lock();
        let Some(call) = counts.calls.get_mut(&id) else {
            return;
        };
        let waited = call.stands == Stands::Queue;
        call.stands = to(call.stands);
        let waits = call.stands == Stands::Queue;
        if waits == waited {
            return;
        }
        let customer = call.customer.clone();
        if waits {
            counts.add(&customer);
        } else {
            counts.subtract(&customer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A held call's place; given up when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    backlog: Arc<Backlog>,
    id: InvocationId,
}

impl Place {
    /// Whether nobody in this process has leased the call.
    pub(crate) fn waits(&self) -> bool {
        let counts = self.backlog.lock();
        let call = counts.calls.get(&self.id);
        call.is_some_and(|call| call.stands != Stands::Leased)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.backlog.lock();
        let call = counts.calls.remove(&self.id);
        if let Some(call) = call.filter(|call| call.stands == Stands::Queue) {
            counts.subtract(&call.customer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn customer(name: &str) -> CustomerId {
        CustomerId::new(name).unwrap()
    }

    fn id(n: usize) -> InvocationId {
        InvocationId::derive(&[&n.to_string()])
    }

    fn ahead(backlog: &Arc<Backlog>, of: &str) -> usize {
        let seen = Cell::new(None);
        let refused = backlog.join(id(usize::MAX), &customer(of), |ahead| {
            seen.set(Some(ahead));
            false
        });
        assert!(refused.is_none());
        seen.get().unwrap()
    }

    #[test]
    fn customers_take_turns() {
        let backlog = Arc::new(Backlog::default());
        let mut places = Vec::new();
        for (n, name) in ["a", "a", "a", "a", "b"].into_iter().enumerate() {
            places.push(backlog.join(id(n), &customer(name), |_| true).unwrap());
        }
        assert_eq!(ahead(&backlog, "a"), 5, "its own four and one of b");
        assert_eq!(ahead(&backlog, "b"), 3, "its own and two of a");
        assert_eq!(ahead(&backlog, "new"), 2, "one of each");
        drop(places.swap_remove(0));
        assert_eq!((ahead(&backlog, "a"), backlog.waiting()), (4, 4));
        drop(places);
        assert_eq!((ahead(&backlog, "a"), backlog.waiting()), (0, 0));
    }

    #[test]
    fn a_leased_call_no_longer_waits_until_it_is_given_back() {
        let backlog = Arc::new(Backlog::default());
        let place = backlog.join(id(1), &customer("a"), |_| true).unwrap();
        assert!(place.waits());
        backlog.leased(id(1));
        backlog.leased(id(1));
        assert!(!place.waits());
        assert_eq!(backlog.waiting(), 0);
        backlog.released(id(1));
        assert!(place.waits());
        backlog.leased(id(1));
        drop(place);
        // Its client has left in the meantime: nothing is counted.
        backlog.released(id(1));
        assert_eq!(backlog.waiting(), 0);
    }

    #[test]
    fn a_call_that_is_stored_with_a_permit_waits_only_if_the_store_says_so() {
        let backlog = Arc::new(Backlog::default());
        let place = backlog.join(id(1), &customer("a"), |_| true).unwrap();
        backlog.permitted(id(1));
        assert_eq!((backlog.waiting(), ahead(&backlog, "b")), (0, 0));
        assert!(place.waits(), "nobody has leased it");
        backlog.queued(id(1));
        assert_eq!((backlog.waiting(), ahead(&backlog, "b")), (1, 1));
        // A worker hears of its lease before the write hears that there is none.
        backlog.permitted(id(1));
        backlog.leased(id(1));
        backlog.queued(id(1));
        backlog.permitted(id(1));
        assert_eq!(backlog.waiting(), 0);
        assert!(!place.waits());
        let other = backlog.join(id(2), &customer("a"), |_| true).unwrap();
        backlog.permitted(id(2));
        drop(other);
        assert_eq!(backlog.waiting(), 0);
    }
}
