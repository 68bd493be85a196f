//! States that an attempt keeps before its end, under its lease.

use async_trait::async_trait;
use crosspoint_core::{Checkpoint, Checkpointed, Code, Error, FlowRef, FlowState, LeaseRef, Result, StateSnapshot};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

/// Writes states of one attempt, each in place of the one before.
#[derive(Debug)]
pub(super) struct Keeper {
    store: Arc<dyn FlowState>,
    lease: LeaseRef,
    flow: FlowRef,
    known: Mutex<Known>,
}

/// What is known of the state in the store.
#[derive(Debug)]
struct Known {
    version: u64,
    /// What was sent last, if no answer came: it may have been kept.
    unanswered: Option<Value>,
}

impl Keeper {
    pub(super) fn new(store: Arc<dyn FlowState>, lease: LeaseRef, flow: FlowRef, version: u64) -> Self {
        let known = Known {
            version,
            unanswered: None,
        };
        Self {
            store,
            lease,
            flow,
            known: Mutex::new(known),
        }
    }

    /// The version that the next write replaces.
    pub(super) async fn version(&self) -> u64 {
        let mut known = self.known.lock().await;
        if let Err(error) = self.settle(&mut known).await {
            tracing::warn!(?error, "whether a state was kept is not known");
        }
        known.version
    }

    /// Finds out what became of a write that was not answered: the state, if it was kept.
    async fn settle(&self, known: &mut Known) -> Result<Option<Value>> {
        let Some(sent) = &known.unanswered else {
            return Ok(None);
        };
        let fleet = crate::scope::fleet();
        let (installation, flow) = (self.flow.installation, &self.flow.flow);
        let kept = self.store.state((&fleet).into(), installation, flow).await?;
        // Nobody else writes at this version under our lease, unless the flow declares that its state may be merged.
        let ours = kept.version == known.version.saturating_add(1) && kept.value == *sent;
        known.unanswered = None;
        if ours {
            known.version = kept.version;
        }
        Ok(ours.then_some(kept.value))
    }
}

/// Takes the states of one attempt and keeps none of them.
#[derive(Debug)]
pub(super) struct Discard {
    read_at: u64,
    taken: AtomicU64,
}

impl Discard {
    pub(super) const fn new(read_at: u64) -> Self {
        Self {
            read_at,
            taken: AtomicU64::new(0),
        }
    }

    /// How many checkpoints were thrown away.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Checkpoint for Discard {
    /// Answers with the version that the state would have.
    async fn save(&self, _: Value) -> Result<u64> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        Ok(self.read_at.saturating_add(taken))
    }
}

#[async_trait]
impl Checkpoint for Keeper {
    async fn save(&self, state: Value) -> Result<u64> {
        let mut known = self.known.lock().await;
        if self.settle(&mut known).await?.as_ref() == Some(&state) {
            return Ok(known.version);
        }
        let snapshot = StateSnapshot::new(known.version, state);
        let fleet = crate::scope::fleet();
        // Set before the write and taken back after its answer, so that a save which is dropped half way counts as unanswered.
        known.unanswered = Some(snapshot.value.clone());
        let answer = self.store.checkpoint(&fleet, self.lease, snapshot).await?;
        known.unanswered = None;
        match answer {
            Checkpointed::Applied { version } => {
                known.version = version;
                Ok(version)
            }
            Checkpointed::StateConflict => Err(Error::new(
                Code::StateConflict,
                "the flow's state was changed while it ran",
            )),
            _ => Err(super::stale()),
        }
    }
}
