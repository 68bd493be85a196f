//! What can happen next.

/// One thing that one of the two workers, or the world around them, does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A worker with nothing in its hands asks for work.
    Lease(usize),
    /// A worker begins what it has prefetched.
    Begin(usize),
    /// A worker finishes with success, or closes what was delivered to be closed.
    Succeed(usize),
    /// A worker's attempt fails.
    Fail(usize),
    /// A worker gives its work back.
    Release(usize),
    /// A worker dies and comes back without memory.
    Crash(usize),
    /// Nobody sends a heartbeat for longer than a lease lasts. The workers do not notice.
    Expire,
    /// Somebody asks for the call to stop.
    Cancel,
}
