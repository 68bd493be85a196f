//! Telling a running attempt to stop, and why.

use std::sync::Arc;
use tokio::sync::watch;

/// Why a running attempt has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StopReason {
    /// Somebody cancelled the execution.
    Cancelled,
    /// Its deadline passed.
    Deadline,
    /// The lease was lost: another worker may already be running it, so nothing may be written any more.
    LeaseLost,
    /// The process is shutting down; the work goes back to the queue without using up an attempt.
    Draining,
}

/// The sending end: held by whoever owns the lease.
#[derive(Debug, Clone)]
pub struct StopSource(Arc<watch::Sender<Option<StopReason>>>);

/// The receiving end: part of every delivery. The first reason stays.
///
/// ```
/// use crosspoint_core::{StopReason, StopSource};
/// let source = StopSource::new();
/// let signal = source.signal();
/// source.stop(StopReason::Cancelled);
/// source.stop(StopReason::Deadline);
/// assert_eq!(signal.reason(), Some(StopReason::Cancelled));
/// ```
#[derive(Debug, Clone)]
pub struct StopSignal(watch::Receiver<Option<StopReason>>);

impl StopSource {
    /// A source that has not fired.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Fires; a second reason is ignored.
    pub fn stop(&self, why: StopReason) {
        self.0.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(why);
            }
            first
        });
    }

    /// A signal connected to this source.
    #[must_use]
    pub fn signal(&self) -> StopSignal {
        StopSignal(self.0.subscribe())
    }
}

impl Default for StopSource {
    fn default() -> Self {
        Self::new()
    }
}

impl StopSignal {
    /// A signal that never fires.
    #[must_use]
    pub fn never() -> Self {
        Self(watch::channel(None).1)
    }

    /// The reason, if it has fired.
    #[must_use]
    pub fn reason(&self) -> Option<StopReason> {
        *self.0.borrow()
    }

    /// Waits until it fires; for ever if every source is gone without having fired.
    pub async fn stopped(&self) -> StopReason {
        let mut receiver = self.0.clone();
        loop {
            if let Some(reason) = *receiver.borrow_and_update() {
                return reason;
            }
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_is_woken_by_the_first_reason() {
        let source = StopSource::new();
        let signal = source.signal();
        let waiter = tokio::spawn(async move { signal.stopped().await });
        source.stop(StopReason::Deadline);
        source.stop(StopReason::Cancelled);
        assert_eq!(waiter.await.unwrap(), StopReason::Deadline);
    }
}
