//! Bodies of calls that are about to be queued, within one budget of bytes for the process.

use crate::gateway::Inner;
use bytes::Bytes;
use crosspoint_core::{BoxError, Code, Error, Result};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::sync::Arc;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// What one permit stands for, in bytes.
const UNIT: usize = 1024;

/// The budget.
#[derive(Debug)]
pub(crate) struct Rooms {
    free: Arc<Semaphore>,
    all: u32,
}

/// So much of the budget; free again when dropped.
#[derive(Debug)]
pub(crate) struct Room(OwnedSemaphorePermit);

impl Rooms {
    pub(crate) fn new(bytes: usize) -> Self {
        let all = units(bytes);
        // A permit count above this is refused by the semaphore.
        let all = all.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let free = Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(Semaphore::MAX_PERMITS)));
        Self { free, all }
    }

    /// Room for so many bytes. A body larger than the whole budget takes all of it.
    fn take(&self, bytes: usize) -> Option<Room> {
        let wanted = units(bytes).min(self.all);
        Arc::clone(&self.free).try_acquire_many_owned(wanted).ok().map(Room)
    }
}

impl Room {
    /// Gives back what a body has turned out not to need.
    fn shrink(&mut self, bytes: usize) {
        let needed = usize::try_from(units(bytes)).unwrap_or(usize::MAX);
        drop(self.0.split(self.0.num_permits().saturating_sub(needed)));
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

impl Inner {
    /// Reads a body of at most `most` bytes.
    ///
    /// # Errors
    /// [`Code::TargetSaturated`] if too much is being read already; else what is wrong with the body.
    pub(crate) async fn read<B>(&self, body: B, most: usize) -> Result<(Bytes, Room)>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let told = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        let Some(mut room) = self.rooms.take(told.unwrap_or(most).min(most)) else {
            let message = "too many bodies are being read and stored; try again in a moment";
            return Err(Error::new(Code::TargetSaturated, message));
        };
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
        let rooms = Rooms::new(4 * UNIT);
        let mut first = rooms.take(3 * UNIT).unwrap();
        assert!(rooms.take(UNIT + 1).is_none());
        first.shrink(1);
        let second = rooms.take(3 * UNIT).unwrap();
        assert!(rooms.take(1).is_none());
        assert!(rooms.take(0).is_some(), "nothing takes no room");
        drop((first, second));
        assert!(rooms.take(usize::MAX).is_some(), "the whole, if it is free");
    }
}
