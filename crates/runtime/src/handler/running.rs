//! The attempts that run in this process, so that a wish to cancel one need not wait for its next heartbeat.

use crosspoint_core::{Fence, InvocationId, StopReason, StopSignal, StopSource};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// One execution may be here twice for a moment: with a lease that was lost, and with the next one.
type Attempt = (InvocationId, Fence);

#[derive(Debug, Clone, Default)]
pub(crate) struct Running(Arc<Mutex<HashMap<Attempt, StopSource>>>);

impl Running {
    fn map(&self) -> MutexGuard<'_, HashMap<Attempt, StopSource>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers an attempt until the guard is dropped.
    pub(super) fn enter(&self, id: InvocationId, fence: Fence) -> (Entered, StopSignal) {
        let source = StopSource::new();
        let signal = source.signal();
        self.map().insert((id, fence), source);
        let entered = Entered {
            running: self.clone(),
            attempt: (id, fence),
        };
        (entered, signal)
    }

    /// Tells the attempts of an execution to stop, if any run here.
    pub(crate) fn stop(&self, id: InvocationId, why: StopReason) {
        for ((running, _), source) in &*self.map() {
            if *running == id {
                source.stop(why);
            }
        }
    }
}

/// Held while an attempt runs.
#[derive(Debug)]
pub(super) struct Entered {
    running: Running,
    attempt: Attempt,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.running.map().remove(&self.attempt);
    }
}
