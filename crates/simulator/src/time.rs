//! Time of a run: seconds since its beginning, over several runtimes if the gateway was killed in between.

use crate::Random;
use crosspoint_core::{Clock, Timestamp};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Where wall time starts: 1 January 2026, 00:00 UTC.
const START: i64 = 1_767_225_600_000;

/// The time of one run. It follows tokio's clock, paused or not. The ids that it mints are the same in every run of a seed.
#[derive(Debug)]
pub struct RunTime {
    begun: Mutex<Option<(f64, Instant)>>,
    ids: Mutex<Random>,
}

impl RunTime {
    /// At 0 until [`RunTime::resume`] is called.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            begun: Mutex::new(None),
            ids: Mutex::new(Random::keyed(seed, 4)),
        }
    }

    /// From now on this is `second`; to be called within the runtime.
    pub fn resume(&self, second: f64) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some((second, Instant::now()));
    }

    /// Seconds since the beginning.
    #[must_use]
    pub fn now(&self) -> f64 {
        match *self.begun.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((base, origin)) => base + origin.elapsed().as_secs_f64(),
            None => 0.0,
        }
    }

    /// Sleeps until this second, not at all if it has passed.
    pub async fn until(&self, second: f64) {
        let left = second - self.now();
        if left > 0.0 {
            tokio::time::sleep(seconds(left)).await;
        }
    }
}

impl Clock for RunTime {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(START + (self.now() * 1000.0).round() as i64)
    }

    fn random(&self) -> [u8; 10] {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 10];
        let both = u128::from(ids.bits()) << 64 | u128::from(ids.bits());
        bytes.copy_from_slice(&both.to_be_bytes()[..10]);
        bytes
    }
}

/// A duration of so many seconds; of none if negative.
#[must_use]
pub fn seconds(of: f64) -> Duration {
    Duration::from_secs_f64(of.clamp(0.0, 1e9))
}

/// Tokio's timers round up to the millisecond, which would lengthen every service time by half of one: round to the
/// nearest instead.
#[must_use]
pub(crate) fn whole_millis(of: f64) -> Duration {
    Duration::from_millis((of * 1000.0).round().max(1.0) as u64)
}
