//! Who waits for a permit, in which order, and what they were told.

use super::{
    Refusal,
    mode::Mode,
    word::{Class, Word, fits},
};
use std::{collections::VecDeque, task::Waker};

/// At least every so many-th permit that is freed goes to sideline work that waits.
const TURN: u32 = 50;

/// What a waiter is told: the mode in which it got a permit, or why it got none.
pub(super) type Answer = Result<Mode, Refusal>;

struct Waiter {
    id: u64,
    waker: Waker,
}

#[derive(Default)]
pub(super) struct Waiters {
    held: VecDeque<Waiter>,
    patient: VecDeque<Waiter>,
    sideline: VecDeque<Waiter>,
    /// Of waiters that have not fetched theirs yet. There are as many as permits were freed a moment ago.
    answers: Vec<(u64, Answer)>,
    next: u64,
    /// Permits that are kept free of sideline work.
    pub(super) reserve: u32,
    /// Whether held calls are known to wait in the store. Their drain asks for one permit at a time; those that are freed
    /// before it can ask again are for it, and not for the sideline.
    pub(super) held_expected: bool,
    /// Permits that others have got since sideline work got its last one, or began to wait.
    passed: u32,
    /// Permits that were granted to waiters who had given up: admissions without a call.
    pub(super) abandoned: u64,
}

impl Waiters {
    pub(super) fn len(&self, class: Class) -> usize {
        match class {
            Class::Held => self.held.len(),
            Class::Patient => self.patient.len(),
            Class::Sideline => self.sideline.len(),
        }
    }

    fn queue(&mut self, class: Class) -> &mut VecDeque<Waiter> {
        match class {
            Class::Held => &mut self.held,
            Class::Patient => &mut self.patient,
            Class::Sideline => &mut self.sideline,
        }
    }

    pub(super) fn join(&mut self, class: Class, waker: Waker, word: &Word) -> u64 {
        let id = self.next;
        self.next += 1;
        if class == Class::Sideline && self.sideline.is_empty() {
            self.passed = 0;
        }
        self.queue(class).push_back(Waiter { id, waker });
        word.set_waiting(class, true);
        id
    }

    /// Takes a waiter's answer; without one, remembers how to wake it.
    pub(super) fn ask(&mut self, class: Class, id: u64, waker: &Waker) -> Option<Answer> {
        let answer = self.take_answer(id);
        if answer.is_none()
            && let Some(waiter) = self.queue(class).iter_mut().find(|waiter| waiter.id == id)
            && !waiter.waker.will_wake(waker)
        {
            waiter.waker.clone_from(waker);
        }
        answer
    }

    /// Forgets a waiter that gave up; answers the mode in which it got a permit, which is now the caller's.
    pub(super) fn forget(&mut self, class: Class, id: u64, word: &Word) -> Option<Mode> {
        if let Some(answer) = self.take_answer(id) {
            self.abandoned += u64::from(answer.is_ok());
            return answer.ok();
        }
        self.queue(class).retain(|waiter| waiter.id != id);
        if self.queue(class).is_empty() {
            word.set_waiting(class, false);
        }
        None
    }

    fn take_answer(&mut self, id: u64) -> Option<Answer> {
        let at = self.answers.iter().position(|(other, _)| *other == id)?;
        Some(self.answers.swap_remove(at).1)
    }

    /// A permit was freed: counts towards the sideline's turn.
    pub(super) fn freed(&mut self) {
        if !self.sideline.is_empty() {
            self.passed = self.passed.saturating_add(1);
        }
    }

    /// Who gets the next permit while `in_flight` calls run, and how many permits it has to leave over.
    pub(super) fn choose(&self, mode: Mode, in_flight: u32, limit: u32) -> Option<(Class, u32)> {
        let drains = mode.may_drain();
        let sideline = drains && !self.sideline.is_empty();
        let (class, spare) = if sideline && self.passed >= TURN {
            (Class::Sideline, 0)
        } else if drains && !self.held.is_empty() {
            (Class::Held, 0)
        } else if mode.may_wait() && !self.patient.is_empty() {
            (Class::Patient, 0)
        } else if sideline && !self.held_expected {
            (Class::Sideline, self.reserve)
        } else {
            return None;
        };
        fits(in_flight, limit, spare).then_some((class, spare))
    }

    /// Gives the permit that the caller has in hand to the first of a class.
    pub(super) fn grant(&mut self, class: Class, mode: Mode, word: &Word, woken: &mut Vec<Waker>) {
        if class == Class::Sideline {
            self.passed = 0;
        }
        self.tell_first(class, Ok(mode), word, woken);
    }

    /// Tells everybody of a class that there is nothing to wait for.
    pub(super) fn refuse(&mut self, class: Class, why: Refusal, word: &Word, woken: &mut Vec<Waker>) {
        while self.tell_first(class, Err(why), word, woken) {}
    }

    fn tell_first(&mut self, class: Class, answer: Answer, word: &Word, woken: &mut Vec<Waker>) -> bool {
        let Some(waiter) = self.queue(class).pop_front() else {
            return false;
        };
        self.answers.push((waiter.id, answer));
        woken.push(waiter.waker);
        if self.queue(class).is_empty() {
            word.set_waiting(class, false);
        }
        true
    }
}
