//! Bodies of calls that are about to be queued, within one budget of bytes for the process.

use crate::{
    budget::{Part, Spent},
    gateway::Inner,
    quota::Quota,
};
use bytes::Bytes;
use crosspoint_core::{BoxError, Code, CustomerId, Error, Result};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;

impl Inner {
    /// Reads a body of at most `most` bytes, within the budget of the process and, if one is named, of its customer.
    ///
    /// # Errors
    /// [`Code::TargetSaturated`] if too much is being read already, [`Code::RateLimited`] if it is this customer's; else what
    /// is wrong with the body.
    pub(crate) async fn read<B>(&self, body: B, most: usize, customer: Option<&CustomerId>) -> Result<(Bytes, Part)>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let told = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        let mut room = self.room(told.unwrap_or(most).min(most), customer)?;
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

    fn room(&self, bytes: usize, customer: Option<&CustomerId>) -> Result<Part> {
        self.rooms
            .take(bytes, customer)
            .map_err(|spent| match (spent, customer) {
                (Spent::Customer, Some(customer)) => {
                    let limit = u64::try_from(self.config.max_buffered_per_customer).unwrap_or(u64::MAX);
                    Quota::buffered(limit).used_up().with("customer", customer)
                }
                _ => {
                    let message = "too many bodies are being read and stored; try again in a moment";
                    Error::new(Code::TargetSaturated, message)
                }
            })
    }
}
