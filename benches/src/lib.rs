//! What the benches share.

use std::time::Duration;

/// The processor time that the calling thread has used. On a machine that others use too, it says what code costs;
/// wall time says how busy the others were.
#[must_use]
pub fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}
