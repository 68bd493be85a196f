//! The admission state of one target.
//!
//! A gate is two words: the mode (with its generation) and the packed limit, calls in flight and waiting drains. A
//! direct call costs one load and two atomic changes; it takes no lock and allocates nothing. Everything that decides
//! *what* the limit and the mode should be works off the hot path and only writes these words.

mod word;

#[cfg(crosspoint_loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(crosspoint_loom))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, pin::pin, sync::Arc};
use tokio::sync::Notify;
use word::Word;

/// Whether direct calls are admitted at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// Calls go straight to the target while there are permits.
    Direct,
    /// The target cannot be reached: every call is diverted and the drain rests.
    Unavailable,
}

impl Mode {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Direct, Self::Unavailable];

    /// As in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why a gate did not admit a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Every permit is in use, or queued work is waiting for the next one.
    Saturated,
    /// The mode is [`Mode::Unavailable`].
    Unavailable,
}

impl Refusal {
    /// As in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Saturated => "saturated",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Keeps a word off its neighbours' cache lines (two of them, because of the adjacent-line prefetcher).
#[repr(align(128))]
struct Line<T>(T);

/// The admission state of one target in this process: who may call it now.
///
/// ```
/// use crosspoint_gateway::gate::{Gate, Refusal};
/// use std::sync::Arc;
///
/// let gate = Arc::new(Gate::new(1));
/// let permit = gate.enter().unwrap();
/// assert_eq!(gate.enter().unwrap_err(), Refusal::Saturated);
/// drop(permit);
/// assert!(gate.enter().is_ok());
/// ```
pub struct Gate {
    mode: Line<AtomicU64>,
    word: Line<Hot>,
    freed: Notify,
}

/// What every direct call writes.
struct Hot {
    word: Word,
    admitted: AtomicU64,
}

const UNAVAILABLE: u64 = 1;
const GENERATION: u64 = 2;

impl Gate {
    /// A gate in mode [`Mode::Direct`] with `limit` permits (at most 16 777 215).
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            mode: Line(AtomicU64::new(0)),
            word: Line(Hot {
                word: Word::new(limit),
                admitted: AtomicU64::new(0),
            }),
            freed: Notify::new(),
        }
    }

    /// Admits one direct call, or says why not. Queued work that waits for a permit goes first.
    ///
    /// # Errors
    /// The reason to divert the call.
    #[inline]
    pub fn enter(self: &Arc<Self>) -> Result<Permit, Refusal> {
        let generation = self.admit()?;
        Ok(Permit {
            gate: Arc::clone(self),
            generation,
        })
    }

    /// [`Gate::enter`] for a caller that keeps the gate alive by itself and calls [`Gate::leave`]; answers the generation.
    #[inline]
    pub(crate) fn admit(&self) -> Result<u64, Refusal> {
        let mode = self.mode.0.load(Ordering::Acquire);
        if mode & UNAVAILABLE != 0 {
            return Err(Refusal::Unavailable);
        }
        if !self.word.0.word.try_direct() {
            return Err(Refusal::Saturated);
        }
        self.word.0.admitted.fetch_add(1, Ordering::Relaxed);
        Ok(mode / GENERATION)
    }

    /// Gives back what [`Gate::admit`] has given.
    #[inline]
    pub(crate) fn leave(&self) {
        if self.word.0.word.release() {
            self.freed.notify_one();
        }
    }

    /// A permit for what [`Gate::admit`] has given.
    pub(crate) fn admitted(self: &Arc<Self>, generation: u64) -> Permit {
        Permit {
            gate: Arc::clone(self),
            generation,
        }
    }

    /// A permit for queued work, if one is free now.
    #[must_use]
    pub fn try_drain(self: &Arc<Self>) -> Option<Permit> {
        let mode = self.mode.0.load(Ordering::Acquire);
        (mode & UNAVAILABLE == 0 && self.word.0.word.try_drain()).then(|| self.permit(mode))
    }

    /// Waits for a permit for queued work. While somebody waits, no direct call overtakes. May be dropped at any time.
    pub async fn drain(self: &Arc<Self>) -> Permit {
        let mut waiting = Waiting::new(self);
        loop {
            // Enabled before looking: two releases between the look and the wait must wake two waiters.
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            let mode = self.mode.0.load(Ordering::Acquire);
            if mode & UNAVAILABLE == 0 && self.word.0.word.try_waiter() {
                waiting.registered = false;
                return self.permit(mode);
            }
            freed.await;
        }
    }

    /// Sets how many calls may be in flight at once. Those above a lowered limit go on.
    pub fn set_limit(&self, limit: u32) {
        self.word.0.word.set_limit(limit);
        self.wake_all();
    }

    /// Opens or closes the direct way. Starts a new generation if that is a change.
    pub fn set_mode(&self, mode: Mode) {
        let bit = match mode {
            Mode::Direct => 0,
            Mode::Unavailable => UNAVAILABLE,
        };
        let change = |word: u64| (word & UNAVAILABLE != bit).then(|| (word ^ UNAVAILABLE).wrapping_add(GENERATION));
        let mut word = self.mode.0.load(Ordering::Acquire);
        while let Some(next) = change(word) {
            match self
                .mode
                .0
                .compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return self.wake_all(),
                Err(now) => word = now,
            }
        }
    }

    /// How the gate stands now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let word = self.word.0.word.read();
        let mode = self.mode.0.load(Ordering::Acquire);
        Snapshot {
            mode: if mode & UNAVAILABLE == 0 {
                Mode::Direct
            } else {
                Mode::Unavailable
            },
            generation: mode / GENERATION,
            limit: word.limit,
            in_flight: word.in_flight,
            waiting: word.waiting,
            admitted: self.word.0.admitted.load(Ordering::Relaxed),
        }
    }

    /// Resolves when the mode is [`Mode::Direct`].
    pub(crate) async fn available(&self) {
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.mode.0.load(Ordering::Acquire) & UNAVAILABLE == 0 {
                // The notification may have been meant for somebody who waits for a permit.
                self.freed.notify_one();
                return;
            }
            freed.await;
        }
    }

    fn permit(self: &Arc<Self>, mode: u64) -> Permit {
        Permit {
            gate: Arc::clone(self),
            generation: mode / GENERATION,
        }
    }

    fn wake_all(&self) {
        self.freed.notify_waiters();
        self.freed.notify_one();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// How a gate stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Whether direct calls are admitted.
    pub mode: Mode,
    /// Rises with every change of the mode; permits carry it, so that a late result cannot speak for a later state.
    pub generation: u64,
    /// How many calls may be in flight.
    pub limit: u32,
    /// How many are, direct and drained together.
    pub in_flight: u32,
    /// How many pieces of queued work wait for a permit.
    pub waiting: u32,
    /// How many direct calls were admitted since the start.
    pub admitted: u64,
}

/// The right to one concurrent call. Dropping it gives it back.
#[must_use = "a permit that is dropped is given back"]
pub struct Permit {
    gate: Arc<Gate>,
    generation: u64,
}

impl Permit {
    /// The generation of the gate that admitted the call.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        self.gate.leave();
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit(generation {})", self.generation)
    }
}

/// A registered waiter; gives its place up when dropped.
struct Waiting<'a> {
    gate: &'a Gate,
    registered: bool,
}

impl<'a> Waiting<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.word.0.word.register();
        Self { gate, registered: true }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.registered && self.gate.word.0.word.unregister() {
            self.gate.freed.notify_one();
        }
    }
}

#[cfg(all(test, not(crosspoint_loom)))]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_released_permit_goes_to_the_waiting_drain_first() {
        let gate = Arc::new(Gate::new(1));
        let permit = gate.enter().unwrap();
        let drain = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.drain().await }
        });
        while gate.snapshot().waiting == 0 {
            tokio::task::yield_now().await;
        }
        drop(permit);
        assert_eq!(gate.enter().unwrap_err(), Refusal::Saturated, "no overtaking");
        let drained = drain.await.unwrap();
        assert_eq!(gate.snapshot().waiting, 0);
        drop(drained);
        assert!(gate.enter().is_ok());
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_no_trace() {
        let gate = Arc::new(Gate::new(1));
        let permit = gate.enter().unwrap();
        {
            let mut drain = std::pin::pin!(gate.drain());
            assert!(drain.as_mut().now_or_never().is_none());
            assert_eq!(gate.snapshot().waiting, 1);
        }
        assert_eq!(gate.snapshot().waiting, 0);
        drop(permit);
        assert!(gate.enter().is_ok());
    }

    #[tokio::test]
    async fn an_unavailable_target_admits_nobody_until_it_is_back() {
        let gate = Arc::new(Gate::new(2));
        gate.set_mode(Mode::Unavailable);
        assert_eq!(gate.enter().unwrap_err(), Refusal::Unavailable);
        assert!(gate.try_drain().is_none());
        let mut drain = std::pin::pin!(gate.drain());
        assert!(drain.as_mut().now_or_never().is_none());
        gate.set_mode(Mode::Unavailable);
        assert_eq!(gate.snapshot().generation, 1, "no change, no generation");
        gate.set_mode(Mode::Direct);
        assert_eq!(drain.await.generation(), 2);
    }

    #[tokio::test]
    async fn a_raised_limit_wakes_every_waiter() {
        let gate = Arc::new(Gate::new(0));
        let drains: Vec<_> = (0..3)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move { gate.drain().await })
            })
            .collect();
        while gate.snapshot().waiting < 3 {
            tokio::task::yield_now().await;
        }
        gate.set_limit(3);
        for drain in drains {
            drop(drain.await.unwrap());
        }
        assert_eq!(gate.snapshot().in_flight, 0);
    }
}
