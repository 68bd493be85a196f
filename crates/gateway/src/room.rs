//! Bodies of calls that are about to be queued, within one budget of bytes for the process.

use crate::{gateway::Inner, quota::Quota};
use bytes::Bytes;
use crosspoint_core::{BoxError, Code, CustomerId, Error, Result};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::timeout;

/// The budget, and of it what one customer may have.
#[derive(Debug)]
pub(crate) struct Rooms {
    most: usize,
    most_per_customer: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    customers: HashMap<CustomerId, usize>,
}

/// So much of the budget; free again when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    rooms: Arc<Rooms>,
    bytes: usize,
    customer: Option<CustomerId>,
}

impl Rooms {
    pub(crate) fn new(most: usize, most_per_customer: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_customer,
            taken: Mutex::default(),
        })
    }

    /// Room for so many bytes. A body larger than a whole budget takes all of it.
    ///
    /// # Errors
    /// [`Code::TargetSaturated`] if too much is taken in all, [`Code::RateLimited`] if it is by this customer.
    fn take(self: &Arc<Self>, bytes: usize, customer: Option<&CustomerId>) -> Result<Room> {
        let mut taken = self.lock();
        if let Some(customer) = customer {
            let own = taken.customers.get(customer).copied().unwrap_or(0);
            if own.saturating_add(bytes.min(self.most_per_customer)) > self.most_per_customer {
                let limit = u64::try_from(self.most_per_customer).unwrap_or(u64::MAX);
                return Err(Quota::buffered(limit).used_up().with("customer", customer));
            }
        }
        let bytes = bytes.min(self.most);
        let all = taken.all.saturating_add(bytes);
        if all > self.most {
            let message = "too many bodies are being read and stored; try again in a moment";
            return Err(Error::new(Code::TargetSaturated, message));
        }
        taken.all = all;
        if let Some(customer) = customer {
            let own = taken.customers.entry(customer.clone()).or_default();
            *own = own.saturating_add(bytes);
        }
        drop(taken);
        Ok(Room {
            rooms: Arc::clone(self),
            bytes,
            customer: customer.cloned(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Gives back what a body has turned out not to need.
    fn shrink(&mut self, bytes: usize) {
        let mut taken = self.rooms.lock();
        let spare = self.bytes.saturating_sub(bytes);
        self.bytes -= spare;
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

impl Drop for Room {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

impl Inner {
    /// Reads a body of at most `most` bytes, within the budget of the process and, if one is named, of its customer.
    ///
    /// # Errors
    /// [`Code::TargetSaturated`] if too much is being read already, [`Code::RateLimited`] if it is this customer's; else what
    /// is wrong with the body.
    pub(crate) async fn read<B>(&self, body: B, most: usize, customer: Option<&CustomerId>) -> Result<(Bytes, Room)>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let told = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        let mut room = self.rooms.take(told.unwrap_or(most).min(most), customer)?;
        let within = self.config.body_timeout;
        let Ok(collected) = timeout(within, Limited::new(body, most).collect()).await else {
            return Err(Error::new(Code::BodyTooSlow, Code::BodyTooSlow.title()).with("limit", within.as_secs()));
        };
        let collected = collected.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let message = "too large to be queued; send it again when the target has capacity, or send less";
                Error::new(Code::BodyTooLarge, message).with("limit", most)
            } else {
                Error::new(Code::BodyMalformed, "the body could not be read to its end").caused_by(error)
            }
        })?;
        let bytes = collected.to_bytes();
        room.shrink(bytes.len());
        Ok((bytes, room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_given_back_and_never_more_than_there_is() {
        let rooms = Rooms::new(4000, 4000);
        let take = |bytes| rooms.take(bytes, None);
        let mut first = take(3000).unwrap();
        assert_eq!(take(1001).unwrap_err().code(), Code::TargetSaturated);
        first.shrink(1000);
        let second = take(3000).unwrap();
        assert!(take(1).is_err());
        assert!(take(0).is_ok(), "nothing takes no room");
        drop((first, second));
        assert!(take(usize::MAX).is_ok(), "the whole, if it is free");
    }

    #[test]
    fn one_customer_has_no_more_than_its_share() {
        let rooms = Rooms::new(4000, 1000);
        let (a, b) = (CustomerId::new("a").unwrap(), CustomerId::new("b").unwrap());
        let mut first = rooms.take(800, Some(&a)).unwrap();
        assert_eq!(rooms.take(201, Some(&a)).unwrap_err().code(), Code::RateLimited);
        let whole = rooms.take(2000, Some(&b)).unwrap();
        assert_eq!(rooms.take(1, Some(&b)).unwrap_err().code(), Code::RateLimited);
        first.shrink(500);
        drop(rooms.take(500, Some(&a)).unwrap());
        drop((first, whole));
        let taken = rooms.lock();
        assert_eq!((taken.all, taken.customers.len()), (0, 0));
    }
}
