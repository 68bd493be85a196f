//! The mode word: state, whether customers are watched, whether the operator has closed the way, and the generation; and
//! beside it the streak of calls that could not be started.

use super::{
    State,
    sync::{AtomicU64, Ordering},
};

const STATE: u64 = 0b11;
const UNAVAILABLE: u64 = 0b100;
const WATCHED: u64 = 0b1000;
const DRAINED: u64 = 0b1_0000;
/// What makes a call take another way than the plain one.
const UNUSUAL: u64 = 0xff;
const GENERATION: u64 = 0x100;

/// So many calls in a row that could not be started show that none can be.
const STREAK: u64 = 3;
const LENGTH: u64 = 0xff;

/// One reading of the mode word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode(u64);

impl Mode {
    /// State Direct, available, nobody watched.
    #[inline]
    pub(super) const fn is_plain(self) -> bool {
        self.0 & UNUSUAL == 0
    }

    /// State `CoolOff`, available: the most frequent refusal.
    #[inline]
    pub(super) const fn is_cooling(self) -> bool {
        self.0 & (STATE | UNAVAILABLE) == bits(State::CoolOff)
    }

    #[inline]
    pub(super) const fn generation(self) -> u64 {
        self.0 / GENERATION
    }

    pub(super) const fn is_available(self) -> bool {
        self.0 & UNAVAILABLE == 0
    }

    pub(super) const fn is_watched(self) -> bool {
        self.0 & WATCHED != 0
    }

    pub(super) const fn state(self) -> State {
        match self.0 & STATE {
            0 => State::Direct,
            1 => State::CoolOff,
            2 => State::Probing,
            _ => State::Ramping,
        }
    }

    /// Whether queued work may run.
    pub(super) fn may_drain(self) -> bool {
        self.is_available() && (self.state() != State::CoolOff || self.0 & DRAINED != 0)
    }

    /// Whether direct calls may wait in memory.
    pub(super) fn may_wait(self) -> bool {
        self.is_available() && self.state() == State::Direct
    }
}

const fn bits(state: State) -> u64 {
    match state {
        State::Direct => 0,
        State::CoolOff => 1,
        State::Probing => 2,
        State::Ramping => 3,
    }
}

pub(super) struct ModeWord {
    mode: AtomicU64,
    /// Low 8 bits: the length. Above: the generation that it belongs to, so that a late call cannot lengthen a later one.
    streak: AtomicU64,
}

impl ModeWord {
    pub(super) fn new() -> Self {
        Self {
            mode: AtomicU64::new(0),
            streak: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn read(&self) -> Mode {
        Mode(self.mode.load(Ordering::Acquire))
    }

    /// The present generation, for somebody who needs nothing else to have happened before.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        Mode(self.mode.load(Ordering::Relaxed)).generation()
    }

    /// Sets the state; begins a new generation if that is a change, and answers whether it is.
    pub(super) fn set_state(&self, state: State) -> bool {
        self.set(STATE, bits(state), GENERATION)
    }

    pub(super) fn set_available(&self, available: bool) -> bool {
        self.set(UNAVAILABLE, if available { 0 } else { UNAVAILABLE }, GENERATION)
    }

    /// Watching changes what is noted of a call and not what its end means: the generation stays.
    pub(super) fn set_watched(&self, on: bool) -> bool {
        self.set(WATCHED, if on { WATCHED } else { 0 }, 0)
    }

    /// Opens the queue's way in cool-offs. Set before one begins: the generation stays.
    pub(super) fn set_drained(&self, on: bool) -> bool {
        self.set(DRAINED, if on { DRAINED } else { 0 }, 0)
    }

    /// Begins a cool-off if `generation` is still the present one.
    pub(super) fn trip(&self, generation: u64) -> bool {
        self.update(|mode| {
            let fresh = Mode(mode).generation() == generation && Mode(mode).state() != State::CoolOff;
            fresh.then(|| ((mode & !STATE) | bits(State::CoolOff)).wrapping_add(GENERATION))
        })
    }

    /// Whether a streak is under way, of whatever generation.
    #[inline]
    pub(super) fn has_streak(&self) -> bool {
        self.streak.load(Ordering::Relaxed) & LENGTH != 0
    }

    /// A call of `generation` could not be started. Answers whether that was one too many.
    pub(super) fn lengthen(&self, generation: u64) -> bool {
        let mut streak = self.streak.load(Ordering::Acquire);
        loop {
            let length = match (streak / GENERATION).cmp(&generation) {
                std::cmp::Ordering::Less => 1,
                std::cmp::Ordering::Equal => (streak & LENGTH).saturating_add(1).min(LENGTH),
                std::cmp::Ordering::Greater => return false,
            };
            let next = generation * GENERATION + length;
            match self
                .streak
                .compare_exchange_weak(streak, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return length >= STREAK,
                Err(now) => streak = now,
            }
        }
    }

    /// A call of `generation` was carried out.
    pub(super) fn end_streak(&self, generation: u64) {
        let streak = self.streak.load(Ordering::Acquire);
        if streak & LENGTH != 0 && streak / GENERATION == generation {
            // Lost against another call that has just failed: then that one came later.
            self.streak
                .compare_exchange(streak, streak & !LENGTH, Ordering::AcqRel, Ordering::Acquire)
                .ok();
        }
    }

    fn set(&self, mask: u64, bits: u64, step: u64) -> bool {
        self.update(|mode| (mode & mask != bits).then(|| ((mode & !mask) | bits).wrapping_add(step)))
    }

    fn update(&self, to: impl Fn(u64) -> Option<u64>) -> bool {
        let mut mode = self.mode.load(Ordering::Acquire);
        while let Some(next) = to(mode) {
            match self
                .mode
                .compare_exchange_weak(mode, next, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(now) => mode = now,
            }
        }
        false
    }
}

#[cfg(all(test, not(crosspoint_loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_change_of_state_begins_a_generation_and_no_other_does() {
        let mode = ModeWord::new();
        assert!(mode.read().is_plain());
        assert!(!mode.set_state(State::Direct));
        for (generation, state) in [State::CoolOff, State::Probing, State::Ramping].into_iter().enumerate() {
            assert!(mode.set_state(state));
            assert_eq!(
                (mode.read().state(), mode.read().generation()),
                (state, generation as u64 + 1)
            );
            assert!(!mode.read().is_plain());
        }
        assert!(mode.set_watched(true));
        assert_eq!(mode.read().generation(), 3);
        assert!(mode.set_available(false));
        assert_eq!(mode.read().generation(), 4);
        assert_eq!(mode.read().state(), State::Ramping, "orthogonal");
        assert!(!mode.read().may_drain());
    }

    #[test]
    fn three_in_a_row_of_one_generation_are_one_too_many() {
        let mode = ModeWord::new();
        assert!(!mode.lengthen(0) && !mode.lengthen(0));
        mode.end_streak(0);
        assert!(!mode.has_streak());
        assert!(!mode.lengthen(0) && !mode.lengthen(0) && !mode.lengthen(1));
        assert!(!mode.lengthen(0), "too late");
        assert!(!mode.lengthen(1));
        mode.end_streak(0);
        assert!(mode.lengthen(1), "an old success does not heal");
    }

    #[test]
    fn only_the_present_generation_trips() {
        let mode = ModeWord::new();
        mode.set_state(State::Probing);
        assert!(!mode.trip(0));
        assert!(mode.trip(1));
        assert_eq!((mode.read().state(), mode.read().generation()), (State::CoolOff, 2));
        assert!(!mode.trip(2), "it is one already");
    }
}
