//! What the disk does with a sync, since everything here waits for it.

use std::{io::Write, time::Duration};
use tokio::time::Instant;

/// Appends of 4 KiB, each with fdatasync: p50 and p99.
pub fn fdatasync() -> (Duration, Duration) {
    let mut file = tempfile::tempfile().unwrap();
    let mut times: Vec<Duration> = (0..1000)
        .map(|_| {
            let before = Instant::now();
            file.write_all(&[7; 4096]).unwrap();
            file.sync_data().unwrap();
            before.elapsed()
        })
        .collect();
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}
