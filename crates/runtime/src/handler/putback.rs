//! Work that this process could not begin, for reasons that say nothing about the work.

use super::{Task, finish::Written, stale};
use crosspoint_core::{Code, Error, Finish, Kind, Outcome, Reply, Result};
use std::time::Duration;

/// When it is delivered again: at once, it would come straight back and keep others waiting.
const PAUSE: Duration = Duration::from_secs(5);

/// Whether an attempt that met this before it ran is not to be judged by anybody's retry policy: another process, or this
/// one a little later, can do better. A record that cannot be read is the exception, as it will not get better.
pub(super) fn not_ours(error: &Error) -> bool {
    error.code() == Code::VersionMissing || (error.kind() == Kind::Storage && error.code() != Code::StoreCorrupt)
}

impl Task<'_> {
    /// Gives the work back, to be delivered again after a pause, as if it had not been delivered. The answer is why.
    pub(super) async fn put_back(&self, why: Error) -> Result<Reply> {
        tracing::warn!(installation = %self.flow.installation, error = ?why, "work could not be begun here");
        // No line in the logs: it may happen many times, and nothing was done.
        let mut finish = Finish::new(
            self.delivery.lease,
            Outcome::Postponed {
                at: self.inner.clock.now().plus(PAUSE),
            },
        );
        finish.timings = Self::timings(self.queue_ms, self.arrived.elapsed(), Duration::ZERO);
        match self.write(&finish).await {
            Ok(Written::Applied) => Err(why),
            Ok(Written::Ended(reply)) => Ok(reply),
            Ok(Written::StateConflict | Written::Stale) => Err(stale()),
            // By this code the gateway goes on trying to give it back while the lease lasts.
            Err(error) => {
                let message = "it was not begun, and could not be given back yet";
                Err(Error::new(Code::TargetUnavailable, message).caused_by(error))
            }
        }
    }
}
