//! Killing all of a process group, and only that.

use rustix::process::{Pid, Signal, kill_process_group};
use std::sync::{Arc, Mutex, PoisonError};

/// The process group of a run. It is known only until its leader is reaped: as long as the leader is at least a zombie
/// the kernel gives its number to nobody else, so that no signal can reach a stranger.
#[derive(Debug, Clone)]
pub(super) struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    pub(super) fn new(leader: Pid) -> Self {
        Self(Arc::new(Mutex::new(Some(leader))))
    }

    /// Signals every process of the group, if there still is one.
    pub(super) fn signal(&self, signal: Signal) {
        let leader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = *leader {
            // It fails only when nobody is left.
            let _gone = kill_process_group(leader, signal);
        }
    }

    /// Kills what is left of the group and forgets its number; the leader may be reaped now.
    pub(super) fn finish(&self) {
        self.signal(Signal::KILL);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
