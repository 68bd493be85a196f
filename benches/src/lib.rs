//! What the benches share.

use rustix::time::ClockId;
use std::{fs::File, io::Write, time::Duration};

/// The processor time that the calling thread has used. On a machine that others use too, it says what code costs;
/// wall time says how busy the others were.
#[must_use]
pub fn thread_time() -> Duration {
    processor_time(ClockId::ThreadCPUTime)
}

/// The processor time that all threads of this process have used together.
#[must_use]
pub fn process_time() -> Duration {
    processor_time(ClockId::ProcessCPUTime)
}

/// Appends 4 KiB to a file and waits until the disk has them: what a commit cannot be quicker than.
///
/// # Panics
/// If the file cannot be written.
#[expect(clippy::disallowed_types, clippy::unwrap_used, reason = "a bench measures real time")]
pub fn synced_append(file: &mut File) -> Duration {
    let before = std::time::Instant::now();
    file.write_all(&[7; 4096]).unwrap();
    file.sync_data().unwrap();
    before.elapsed()
}

fn processor_time(clock: ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanos)
}
