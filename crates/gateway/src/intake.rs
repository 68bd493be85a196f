//! Writing diverted and recorded calls to the store when the store may be in trouble.
//!
//! A write that takes too long counts as failed, and after some failures in a row nothing is written for a while but one
//! probe at a time: clients learn at once that their call was not taken. Other direct calls never come here.

use crosspoint_core::{Code, Error, Result};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// So many failures in a row close the intake.
const FAILURES: u32 = 3;

/// For so long it stays closed before the next probe.
const CLOSED: Duration = Duration::from_secs(1);

/// Whether calls are taken.
#[derive(Debug, Default)]
pub(crate) struct Intake(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    closed_until: Option<Instant>,
    probing: bool,
}

impl Intake {
    /// The right to try one write.
    ///
    /// # Errors
    /// [`Code::StoreUnavailable`] while the intake is closed.
    pub(crate) fn enter(&self) -> Result<Pass<'_>> {
        let mut state = self.lock();
        let probe = match state.closed_until {
            None => false,
            Some(until) if !state.probing && Instant::now() >= until => true,
            Some(_) => {
                let message = "the store has failed several times in a row; it is left alone for a moment";
                return Err(Error::new(Code::StoreUnavailable, message));
            }
        };
        state.probing |= probe;
        Ok(Pass {
            intake: self,
            probe,
            judged: false,
        })
    }

    /// Whether a call would be taken now, so that nothing is read for one that would not.
    ///
    /// # Errors
    /// As [`Intake::enter`].
    pub(crate) fn ask(&self) -> Result<()> {
        // Dropped without a verdict, it leaves everything as it was.
        self.enter().map(drop)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One write; dropped without a verdict when its client leaves.
pub(crate) struct Pass<'a> {
    intake: &'a Intake,
    probe: bool,
    judged: bool,
}

impl Pass<'_> {
    /// The store has answered, or not.
    pub(crate) fn judge(mut self, answered: bool) {
        self.judged = true;
        let mut state = self.intake.lock();
        if self.probe {
            state.probing = false;
        }
        if answered {
            if state.closed_until.take().is_some() {
                tracing::info!("the store answers again");
            }
            state.failures = 0;
            return;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            if state.closed_until.is_none() {
                tracing::warn!("the store does not answer; calls that would be queued are refused");
            }
            state.closed_until = Some(Instant::now() + CLOSED);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe && !self.judged {
            self.intake.lock().probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_three_failures_in_a_row_one_probe_a_second_is_let_through() {
        let intake = Intake::default();
        for answered in [false, false, true, false, false, false] {
            intake.enter().unwrap().judge(answered);
        }
        assert!(intake.enter().is_err());
        tokio::time::advance(CLOSED).await;
        let probe = intake.enter().unwrap();
        assert!(intake.enter().is_err(), "one at a time");
        probe.judge(false);
        assert!(intake.enter().is_err());
        tokio::time::advance(CLOSED).await;
        drop(intake.enter().unwrap());
        intake.enter().unwrap().judge(true);
        drop([intake.enter().unwrap(), intake.enter().unwrap()]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_was_asked_for_earlier_opens_it_too() {
        let intake = Intake::default();
        let late = intake.enter().unwrap();
        for _ in 0..3 {
            intake.enter().unwrap().judge(false);
        }
        assert!(intake.enter().is_err());
        late.judge(true);
        assert!(intake.enter().is_ok());
    }
}
