//! The thread's loop.

use super::{Answer, Command, GivenBack, Job, LeaseCall, Shared, waiter::Tried};
use crate::{
    fail::{Fail, shared},
    ledger::Ledger,
    turnstile::Turnstile,
};
use crosspoint_core::{Error, Result};
use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// The most operations of a group.
const GROUP: usize = 512;
/// How long a group may take to apply; heartbeats wait for it.
const APPLYING: Duration = Duration::from_millis(4);
/// How often to look at the clock and at other processes while somebody waits for work.
const WAITING: Duration = Duration::from_millis(5);
/// The same while nobody does.
const IDLE: Duration = Duration::from_millis(250);
/// How far the wall clock may drift between two looks before it counts as a jump, in milliseconds.
const JUMP: i64 = 2000;

pub(super) struct Engine {
    ledger: Ledger,
    turnstile: Turnstile,
    desk: Desk,
    /// Wall and monotonic time of the last look, if jumps are watched for.
    seen: Option<(i64, Instant)>,
    /// The last group failed: what was not asked for by anybody is not tried again at once.
    sick: bool,
}

/// Where leases go whose takers have left.
pub(super) type Back = mpsc::UnboundedSender<GivenBack>;

/// What is to be done: taken from the inboxes, waiting, come back.
struct Desk {
    shared: Arc<Shared>,
    heartbeats: VecDeque<Job>,
    work: VecDeque<Command>,
    waiting: VecDeque<LeaseCall>,
    back: Back,
    came_back: mpsc::UnboundedReceiver<GivenBack>,
}

/// Why the thread wakes.
enum Wake {
    Group,
    Nothing,
    Close,
}

impl Engine {
    pub(super) fn new(ledger: Ledger, turnstile: Turnstile, shared: Arc<Shared>, watch_clock: bool) -> (Self, Back) {
        let (back, came_back) = mpsc::unbounded_channel();
        let returns = back.clone();
        let seen = watch_clock.then(|| (ledger.now(), Instant::now()));
        let engine = Self {
            ledger,
            turnstile,
            desk: Desk {
                shared,
                heartbeats: VecDeque::new(),
                work: VecDeque::new(),
                waiting: VecDeque::new(),
                back,
                came_back,
            },
            seen,
            sick: false,
        };
        (engine, returns)
    }

    pub(super) fn run(mut self) {
        loop {
            match self.sleep() {
                Wake::Group => self.group(),
                Wake::Nothing => {}
                Wake::Close => break,
            }
        }
        if let Err(error) = self.ledger.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::debug!(%error, "the write-ahead log was not emptied at the end");
        }
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self) -> Wake {
        if self.desk.has_work() {
            return Wake::Group;
        }
        let due = !self.sick && self.ledger.now() >= self.ledger.due();
        let pause = if self.desk.waiting.is_empty() || self.sick {
            IDLE
        } else {
            WAITING
        };
        let shared = Arc::clone(&self.desk.shared);
        let mut inboxes = shared.lock();
        if inboxes.is_quiet() && !due {
            let waited = shared.bell.wait_timeout(inboxes, pause);
            inboxes = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let work = inboxes.has_work();
        inboxes.look = false;
        if work {
            return Wake::Group;
        }
        if inboxes.closing {
            return Wake::Close;
        }
        drop(inboxes);
        self.look_around()
    }

    /// Nothing has come: other processes and the clock may still have brought something.
    fn look_around(&mut self) -> Wake {
        let foreign = self.ledger.look_around().unwrap_or_else(|error| {
            tracing::warn!(%error, "the store could not be looked at");
            false
        });
        self.publish();
        if self.ledger.now() >= self.ledger.due() || (foreign && !self.desk.waiting.is_empty()) {
            Wake::Group
        } else {
            Wake::Nothing
        }
    }

    fn publish(&self) {
        self.desk.shared.due.store(self.ledger.due(), Ordering::Release);
    }

    /// One transaction, and the answers to everybody in it.
    fn group(&mut self) {
        let mut answers = Vec::new();
        let outcome = self.transact(&mut answers);
        self.sick = outcome.is_err();
        if let Err(error) = &outcome {
            tracing::error!(%error, "a group of writes failed");
            self.ledger.roll_back();
            self.desk.refuse_waiting(&mut answers, error);
        }
        self.publish();
        for answer in answers {
            answer(outcome.as_ref().err());
        }
    }

    fn transact(&mut self, answers: &mut Vec<Answer>) -> Result<()> {
        let entered = self.turnstile.enter();
        let started = entered.and_then(|turn| self.ledger.start().map(|()| turn));
        let turn = match started {
            Ok(turn) => turn,
            Err(error) => {
                // What would go wrong for each goes wrong for all that are there.
                self.desk.refuse_all(answers, &error);
                return Err(error);
            }
        };
        let prepared = watch_clock(&mut self.ledger, &mut self.seen).and_then(|()| self.ledger.run_timers());
        let done = match prepared.map_err(any) {
            Ok(()) => self
                .desk
                .apply(&mut self.ledger, answers)
                .and_then(|()| self.ledger.commit()),
            Err(error) => {
                self.desk.refuse_all(answers, &error);
                Err(error)
            }
        };
        if done.is_err() {
            // Before the turn ends, or the next process finds the file locked.
            self.ledger.roll_back();
        }
        drop(turn);
        done
    }
}

impl Desk {
    fn has_work(&self) -> bool {
        !self.heartbeats.is_empty() || !self.work.is_empty() || !self.came_back.is_empty()
    }

    /// Takes both inboxes whole.
    fn take(&mut self) {
        let mut inboxes = self.shared.lock();
        self.heartbeats.append(&mut inboxes.heartbeats);
        self.work.append(&mut inboxes.work);
    }

    /// Heartbeats first.
    fn next(&mut self) -> Option<Command> {
        if self.heartbeats.is_empty() && self.work.is_empty() {
            self.take();
        }
        let beat = self.heartbeats.pop_front().map(Command::Call);
        beat.or_else(|| self.work.pop_front())
    }

    /// Applies what there is, within the limits of a group; then those who wait for work.
    fn apply(&mut self, ledger: &mut Ledger, answers: &mut Vec<Answer>) -> Result<()> {
        self.take();
        while let Ok(leases) = self.came_back.try_recv() {
            ledger.give_back(&leases).map_err(any)?;
        }
        let began = Instant::now();
        for _ in 0..GROUP {
            let next = self.next();
            let landed = match &next {
                Some(Command::Job(_)) => ledger.land().map_err(any),
                _ => Ok(()),
            };
            match next {
                Some(Command::Job(job) | Command::Call(job)) => {
                    let applied = job(landed.as_ref().map(|()| &mut *ledger));
                    answers.push(applied.answer);
                    if let Some(error) = applied.spoilt.or_else(|| landed.err()) {
                        return Err(error);
                    }
                }
                Some(Command::Lease(call)) => self.waiting.push_back(call),
                None => break,
            }
            if began.elapsed() >= APPLYING {
                break;
            }
        }
        for _ in 0..self.waiting.len() {
            let Some(call) = self.waiting.pop_front() else {
                break;
            };
            match call.attempt(ledger, &self.back) {
                Tried::Waits(call) => self.waiting.push_back(call),
                Tried::Answered(answer) => answers.push(answer),
                Tried::Left => {}
                Tried::Spoilt(error, answer) => {
                    answers.push(answer);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn refuse_all(&mut self, answers: &mut Vec<Answer>, error: &Error) {
        while let Some(command) = self.next() {
            match command {
                Command::Job(job) | Command::Call(job) => answers.push(job(Err(error)).answer),
                Command::Lease(call) => answers.push(call.refused(shared(error))),
            }
        }
    }

    fn refuse_waiting(&mut self, answers: &mut Vec<Answer>, error: &Error) {
        let waiting = self.waiting.drain(..);
        answers.extend(waiting.map(|call| call.refused(shared(error))));
    }
}

impl Drop for Desk {
    /// Also when the thread panics: nobody is left waiting.
    fn drop(&mut self) {
        let mut inboxes = self.shared.lock();
        inboxes.closed = true;
        inboxes.heartbeats.clear();
        inboxes.work.clear();
        for gone in inboxes.gone.drain(..) {
            // Whoever waited for the end may have left.
            gone.send(()).unwrap_or_default();
        }
    }
}

/// A jump of the wall clock is one against the time that has really passed.
fn watch_clock(ledger: &mut Ledger, seen: &mut Option<(i64, Instant)>) -> Result<(), Fail> {
    let Some((wall, at)) = *seen else {
        return Ok(());
    };
    let (now, instant) = (ledger.now(), Instant::now());
    *seen = Some((now, instant));
    let passed = i64::try_from(instant.duration_since(at).as_millis()).unwrap_or(i64::MAX);
    let jump = now.saturating_sub(wall).saturating_sub(passed);
    if jump.abs() > JUMP {
        ledger.clock_jumped(jump)?;
    }
    Ok(())
}

fn any(fail: Fail) -> Error {
    match fail {
        Fail::Refused(error) | Fail::Group(error) => error,
    }
}
