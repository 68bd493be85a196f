//! Admission: the mode, the word and the waiters together. Nothing here knows what a call is.
//!
//! A permit is handed over rather than freed when somebody waits, so that nobody can take it in between. Waiters join and
//! leave under a lock that neither an admission nor a release takes as long as nobody waits.

use super::{
    Refusal, State,
    left_over::LeftOver,
    mode::{Mode, ModeWord},
    sync::{AtomicU64, Line, Mutex, MutexGuard, Ordering},
    waiters::{Answer, Waiters},
    word::{Class, MAX_LIMIT, Reading, Word},
};
use std::{
    future::poll_fn,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

pub(super) struct Admission {
    mode: Line<ModeWord>,
    word: Line<Word>,
    waiters: Mutex<Waiters>,
    /// Locked before the waiters, where both are.
    left_over: Mutex<LeftOver>,
    /// How many calls that are, for those who do not wait for the lock.
    left: AtomicU64,
}

impl Admission {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            mode: Line(ModeWord::new()),
            word: Line(Word::new(limit)),
            waiters: Mutex::new(Waiters::default()),
            left_over: Mutex::new(LeftOver::new(limit)),
            left: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn mode(&self) -> &ModeWord {
        &self.mode.0
    }

    #[inline]
    pub(super) fn word(&self) -> &Word {
        &self.word.0
    }

    /// The word without calls that are left over.
    pub(super) fn present(&self) -> Reading {
        let left = self.left.load(Ordering::Relaxed);
        self.word.0.read().without(u32::try_from(left).unwrap_or(u32::MAX))
    }

    fn tell(&self, left: &LeftOver) {
        self.left.store(u64::from(left.calls()), Ordering::Relaxed);
    }

    /// Gives the permit of a call back, or to whoever waits for it.
    #[inline]
    pub(super) fn release(&self, generation: u64) {
        let after = self.word.0.try_release().unwrap_or_else(|| self.hand_over());
        // Whoever counts what is left over changes the mode first and then the word. So a call that was counted sees the
        // change here, having found that word.
        if self.mode.0.generation() != generation {
            self.released_late(generation, after);
        }
    }

    /// A call may have been counted as left over while its permit was given back.
    #[cold]
    fn released_late(&self, generation: u64, after: Reading) {
        let mut left = self.lock_left_over();
        if left.end_late(generation, after) {
            self.word.0.set_limit(left.limit());
            self.tell(&left);
        }
    }

    /// The same for a call of an earlier generation.
    #[cold]
    pub(super) fn release_old(&self, generation: u64) {
        let mut left = self.lock_left_over();
        let over = left.end(generation);
        self.tell(&left);
        if over && self.word.0.try_shrink() {
            drop(left);
            // There is as much room as before, but an idle target may take what a busy one may not.
            self.changed(self.word.0.read().in_flight() == 0);
            return;
        }
        drop(left);
        self.release(generation);
    }

    #[cold]
    fn hand_over(&self) -> Reading {
        let mut woken = Vec::new();
        let mut waiters = self.lock();
        waiters.freed();
        let (mode, now) = (self.mode.0.read(), self.word.0.read());
        let after = match waiters.choose(mode, now.in_flight().saturating_sub(1), now.limit()) {
            Some((class, _)) => {
                let after = self.word.0.pass_on();
                waiters.grant(class, mode, &self.word.0, &mut woken);
                after
            }
            None => self.word.0.release(),
        };
        self.settle(&mut waiters, &mut woken);
        drop(waiters);
        wake(woken);
        after
    }

    /// Gives out what is free: after a change of limit, state or reserve, and when somebody has joined or left.
    fn settle(&self, waiters: &mut Waiters, woken: &mut Vec<Waker>) {
        let mut mode = self.mode.0.read();
        if !mode.may_wait() {
            let why = refusal(mode).unwrap_or(Refusal::Saturated);
            waiters.refuse(Class::Patient, why, &self.word.0, woken);
        }
        loop {
            let now = self.word.0.read();
            let Some((class, spare)) = waiters.choose(mode, now.in_flight(), now.limit()) else {
                return;
            };
            if self.word.0.try_take(spare) {
                waiters.grant(class, mode, &self.word.0, woken);
            }
            mode = self.mode.0.read();
        }
    }

    /// Takes a permit for queued work unless others of its kind wait already.
    pub(super) fn try_drain(&self, class: Class) -> Option<Mode> {
        let waiters = self.lock();
        let mode = self.mode.0.read();
        let spare = if class == Class::Sideline { waiters.reserve } else { 0 };
        let held = waiters.len(Class::Held) > 0 || (class == Class::Sideline && waiters.held_expected);
        let first = !held && waiters.len(class) == 0;
        (mode.may_drain() && first && self.word.0.try_take(spare)).then_some(mode)
    }

    /// Waits for a permit. May be dropped at any time.
    pub(super) async fn wait(&self, class: Class) -> Answer {
        let mut place = None;
        poll_fn(move |cx| self.poll_wait(class, &mut place, cx)).await
    }

    pub(super) fn poll_wait<'a>(
        &'a self,
        class: Class,
        place: &mut Option<Place<'a>>,
        cx: &Context<'_>,
    ) -> Poll<Answer> {
        let mut woken = Vec::new();
        let mut waiters = self.lock();
        let id = if let Some(place) = place {
            place.id
        } else {
            if let Some(refusal) = (class == Class::Patient).then(|| self.impatient(&waiters)).flatten() {
                return Poll::Ready(Err(refusal));
            }
            let id = waiters.join(class, cx.waker().clone(), &self.word.0);
            *place = Some(Place {
                admission: self,
                class,
                id,
                left: false,
            });
            self.settle(&mut waiters, &mut woken);
            id
        };
        let answer = waiters.ask(class, id, cx.waker());
        if let (Some(place), true) = (place, answer.is_some()) {
            place.left = true;
        }
        drop(waiters);
        wake(woken);
        answer.map_or(Poll::Pending, Poll::Ready)
    }

    /// Why a direct call must not wait in memory.
    fn impatient(&self, waiters: &Waiters) -> Option<Refusal> {
        let mode = self.mode.0.read();
        let most = self.word.0.read().limit() as usize;
        if !mode.may_wait() {
            return Some(refusal(mode).unwrap_or(Refusal::Saturated));
        }
        (waiters.len(Class::Held) > 0 || waiters.len(Class::Patient) >= most).then_some(Refusal::Saturated)
    }

    /// Sets the state; in those in which a target comes back, calls that it has not answered yet are left over.
    pub(super) fn set_state(&self, state: State) -> bool {
        let mut left = self.lock_left_over();
        let before = self.word.0.read();
        let changed = self.mode.0.set_state(state);
        if changed && matches!(state, State::Probing | State::Ramping) {
            let now = self.word.0.leave_over(left.permits(), before);
            left.count(now.older_than(before), self.mode.0.generation(), now);
            self.tell(&left);
        }
        drop(left);
        self.changed(changed)
    }

    pub(super) fn set_available(&self, available: bool) -> bool {
        self.changed(self.mode.0.set_available(available))
    }

    pub(super) fn set_drained_in_cool_off(&self, drained: bool) -> bool {
        self.changed(self.mode.0.set_drained(drained))
    }

    pub(super) fn trip(&self, generation: u64) -> bool {
        self.changed(self.mode.0.trip(generation))
    }

    /// Sets how many calls may be in flight besides those that are left over.
    pub(super) fn set_limit(&self, limit: u32) {
        let mut left = self.lock_left_over();
        let now = self.word.0.read();
        left.set_permits(limit.min(MAX_LIMIT), now.in_flight());
        let limit = left.limit().min(MAX_LIMIT);
        self.word.0.set_limit(limit);
        self.tell(&left);
        drop(left);
        // Wakes whoever waits, so only when it is a change.
        self.changed(limit != now.limit());
    }

    /// The limit without calls that are left over, and how many those are.
    pub(super) fn permits(&self) -> (u32, u32) {
        let left = self.lock_left_over();
        (left.permits(), left.calls())
    }

    pub(super) fn set_reserve(&self, permits: u32) {
        self.lock().reserve = permits;
        self.changed(true);
    }

    /// Sets whether held calls are known to wait, whose drain may be about to ask for permits.
    pub(super) fn expect_held(&self, expected: bool) {
        let mut waiters = self.lock();
        let changed = waiters.held_expected != expected;
        waiters.held_expected = expected;
        drop(waiters);
        self.changed(changed && !expected);
    }

    fn changed(&self, changed: bool) -> bool {
        if changed {
            let mut woken = Vec::new();
            self.settle(&mut self.lock(), &mut woken);
            wake(woken);
        }
        changed
    }

    /// How many wait for the held queue and for the sideline, and how many permits nobody fetched.
    pub(super) fn look(&self) -> (usize, usize, u64) {
        let waiters = self.lock();
        (
            waiters.len(Class::Held),
            waiters.len(Class::Sideline),
            waiters.abandoned,
        )
    }

    fn lock_left_over(&self) -> MutexGuard<'_, LeftOver> {
        self.left_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a mode admits no direct call at all.
pub(super) fn refusal(mode: Mode) -> Option<Refusal> {
    if !mode.is_available() {
        return Some(Refusal::Unavailable);
    }
    matches!(mode.state(), State::CoolOff | State::Probing).then_some(Refusal::CoolOff)
}

fn wake(woken: Vec<Waker>) {
    for waker in woken {
        waker.wake();
    }
}

/// A place among the waiters; given up when dropped, together with a permit that nobody has fetched.
pub(super) struct Place<'a> {
    admission: &'a Admission,
    class: Class,
    id: u64,
    left: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let admission = self.admission;
        let mut woken = Vec::new();
        let mut waiters = admission.lock();
        let granted = waiters.forget(self.class, self.id, &admission.word.0);
        admission.settle(&mut waiters, &mut woken);
        drop(waiters);
        wake(woken);
        if let Some(mode) = granted {
            admission.release(mode.generation());
        }
    }
}
