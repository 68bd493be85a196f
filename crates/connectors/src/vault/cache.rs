//! A small cache of unwrapped data keys: the least recently used one leaves first, and leaving wipes it.

use crate::seal::Key;
use crosspoint_core::CustomerId;
use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(super) struct Cache {
    capacity: usize,
    /// Least recently used first. Few enough that searching them costs less than one decryption.
    entries: Mutex<VecDeque<Entry>>,
}

struct Entry {
    customer: CustomerId,
    number: u32,
    key: Arc<Key>,
}

impl Cache {
    pub(super) const fn new(capacity: usize) -> Self {
        Self {
            capacity,
            entries: Mutex::new(VecDeque::new()),
        }
    }

    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, customer: &CustomerId, number: u32) -> Option<Arc<Key>> {
        let mut entries = self.entries();
        let at = entries
            .iter()
            .position(|entry| entry.number == number && entry.customer == *customer)?;
        let entry = entries.remove(at)?;
        let key = Arc::clone(&entry.key);
        entries.push_back(entry);
        Some(key)
    }

    pub(super) fn put(&self, customer: CustomerId, number: u32, key: Arc<Key>) {
        let mut entries = self.entries();
        entries.retain(|entry| entry.number != number || entry.customer != customer);
        while entries.len() >= self.capacity {
            entries.pop_front();
        }
        entries.push_back(Entry { customer, number, key });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} of {})", self.entries().len(), self.capacity)
    }
}
