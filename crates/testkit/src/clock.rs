//! Clocks that tests move.

use crosspoint_core::{Clock, Timestamp};
use std::{
    sync::{
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    time::Duration,
};
use tokio::time::Instant;

/// Where both clocks start unless told otherwise: 1 January 2026, 00:00 UTC.
const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// A wall clock that stands still until it is moved. Any thread may read it, so it is the one for stores that work on
/// threads of their own.
///
/// ```
/// use crosspoint_core::Clock;
/// use crosspoint_testkit::ManualClock;
/// use std::time::Duration;
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(before), Duration::from_secs(60));
/// ```
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Stands at the beginning of 2026.
    #[must_use]
    pub const fn new() -> Self {
        Self::at(START)
    }

    /// Stands at this time.
    #[must_use]
    pub const fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.as_millis()))
    }

    /// Jumps to a time, forwards or backwards.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }

    /// Moves forwards.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A wall clock that follows tokio's: in a test with paused time, `sleep` and `advance` move both together. It can be
/// moved further on its own, as a wall clock can that is set by hand.
///
/// Read it on the runtime's threads only: elsewhere tokio's clock is not paused. [`ManualClock`] is for those.
///
/// ```
/// use crosspoint_core::Clock;
/// use crosspoint_testkit::VirtualClock;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let clock = VirtualClock::new();
/// let before = clock.now();
/// tokio::time::sleep(Duration::from_secs(86_400)).await;
/// assert_eq!(clock.now().since(before), Duration::from_secs(86_400));
/// # }
/// ```
#[derive(Debug)]
pub struct VirtualClock {
    origin: Instant,
    wall: AtomicI64,
}

impl VirtualClock {
    /// Now is the beginning of 2026.
    #[must_use]
    pub fn new() -> Self {
        Self::at(START)
    }

    /// Now is this time.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            origin: Instant::now(),
            wall: AtomicI64::new(now.as_millis()),
        }
    }

    /// Moves the wall clock alone, backwards if negative; timers do not notice.
    pub fn jump(&self, millis: i64) {
        self.wall.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall.load(Ordering::SeqCst)).plus(self.origin.elapsed())
    }
}

/// Keeps a paused clock still until the answer is dropped.
///
/// With paused time tokio moves its clock on as soon as no task of it can run, also while a thread that it does not
/// know (a store's writer, a child process) is about to answer: every timeout around such work elapses at once. While
/// this is held the clock only moves by `tokio::time::advance`.
///
/// ```
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (answer, work) = tokio::sync::oneshot::channel();
/// let held = crosspoint_testkit::hold_time();
/// std::thread::spawn(move || answer.send(42));
/// let answer = tokio::time::timeout(Duration::from_secs(30), work).await;
/// assert_eq!(answer.expect("no time passed").expect("sent"), 42);
/// drop(held);
/// # }
/// ```
#[must_use = "time goes on when this is dropped"]
pub fn hold_time() -> HeldTime {
    let (release, parked) = mpsc::channel::<()>();
    // Receives nothing: the answer is that the sender has gone.
    tokio::task::spawn_blocking(move || parked.recv().is_err());
    HeldTime { _release: release }
}

/// See [`hold_time`].
#[derive(Debug)]
pub struct HeldTime {
    _release: mpsc::Sender<()>,
}
