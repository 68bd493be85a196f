//! Where a call stands.

use super::{Failure, Origin};
use crate::{CustomerId, InvocationId, Reply, TargetId, Timestamp};
use std::sync::Arc;

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CallState {
    /// Waiting for its turn.
    Queued,
    /// Waiting for the time of its next attempt.
    Delayed,
    /// A worker holds it.
    Leased,
    /// There is a reply.
    Completed,
    /// A dead letter.
    Dead,
    /// Started, and nobody can know how it ended.
    Unknown,
    /// Cancelled before there was a reply.
    Cancelled,
    /// Not begun in time.
    Expired,
}

impl CallState {
    /// Whether it can never change again.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Dead | Self::Unknown | Self::Cancelled | Self::Expired
        )
    }
}

/// What the store knows of a call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallStatus {
    /// The call.
    pub id: InvocationId,
    /// Whose it is.
    pub customer: CustomerId,
    /// Where it goes.
    pub target: TargetId,
    /// Who may see the reply.
    pub principal: Option<Arc<str>>,
    /// Where it stands.
    pub state: CallState,
    /// How many attempts were begun.
    pub attempt: u32,
    /// When it was accepted.
    pub created: Timestamp,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// The reply, once completed.
    pub reply: Option<Reply>,
    /// The last failure.
    pub failure: Option<Failure>,
    /// What it repeats.
    pub origin: Origin,
}

impl CallStatus {
    /// For implementations of [`DispatchStore`](crate::DispatchStore).
    #[must_use]
    pub const fn new(
        id: InvocationId,
        customer: CustomerId,
        target: TargetId,
        state: CallState,
        created: Timestamp,
    ) -> Self {
        Self {
            id,
            customer,
            target,
            principal: None,
            state,
            attempt: 0,
            created,
            finished: None,
            reply: None,
            failure: None,
            origin: Origin::First,
        }
    }
}

/// The answer to a wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cancel {
    /// It had not been started and never will be.
    Cancelled,
    /// It is running or, being a flow, will be closed by its owner; it has been told.
    Requested,
    /// It had already ended.
    Finished,
    /// There is no such call in this scope.
    NotFound,
}
