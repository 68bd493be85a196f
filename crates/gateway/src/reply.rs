//! Waiting for the reply of a call that somebody else submitted.

use crate::{Gateway, wait::from_now};
use crosspoint_core::{CallStatus, Code, CustomerScope, Error, InvocationId, Reply, Result, Scope};
use std::time::Duration;

impl Gateway {
    /// Waits up to `wait` for the stored reply of a call or an execution of this customer.
    ///
    /// # Errors
    /// [`Code::NotFound`] if the customer has no such call, or [`Code::Gone`] if the id is older than what is kept. [`Code::DeadlineExceeded`] if it has not ended in time. If it
    /// ended without a reply, the failure that is recorded.
    pub async fn reply(&self, scope: &CustomerScope, id: InvocationId, wait: Duration) -> Result<Reply> {
        self.start_tasks();
        let until = from_now(wait);
        let mut waiter = self.inner.inbox.register(id);
        let mut status = self.status(scope, id).await?;
        if !status.state.is_terminal() {
            self.inner.hold(scope.customer(), &mut waiter, until).await;
            status = self.status(scope, id).await?;
        }
        if let Some(reply) = status.reply {
            return Ok(reply);
        }
        Err(match status.failure {
            Some(failure) if status.state.is_terminal() => Error::new(failure.code, failure.message),
            _ if status.state.is_terminal() => Error::new(Code::OutcomeUnknown, "the call ended without a reply"),
            _ => Error::new(Code::DeadlineExceeded, "there is no reply yet; ask again"),
        }
        .with("id", id))
    }

    async fn status(&self, scope: &CustomerScope, id: InvocationId) -> Result<CallStatus> {
        let found = self.inner.store.get(Scope::Customer(scope), id).await?;
        found.ok_or_else(|| self.inner.missing(id).with("id", id))
    }
}
