//! What installations had before they were changed.

use super::Data;
use crate::{Installation, InstallationId, InstallationState, Timestamp};

/// The past of one installation.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    /// The revision since which it has what it has now.
    since: u64,
    /// What it had before, oldest first.
    kept: Vec<Kept>,
}

/// What an installation had from one revision to another, both included.
#[derive(Debug, Clone)]
struct Kept {
    first: u64,
    last: u64,
    /// Until when.
    until: Timestamp,
    record: Installation,
}

impl Data {
    /// Keeps what a save changes; `new` has its new revision already.
    pub(super) fn keep(&mut self, new: &Installation, now: Timestamp) {
        let past = self.pasts.entry(new.id).or_default();
        let Some(old) = self.installations.get(&new.id) else {
            past.since = new.revision;
            return;
        };
        if old.runs_as(new) {
            return;
        }
        if old.state != InstallationState::Draft {
            past.kept.push(Kept {
                first: past.since,
                last: old.revision,
                until: now,
                record: old.clone(),
            });
            let over = past.kept.len().saturating_sub(Installation::KEPT);
            past.kept.drain(..over);
        }
        past.since = new.revision;
    }

    pub(super) fn as_of(&self, id: InstallationId, revision: u64) -> Option<Installation> {
        let (now, past) = (self.installations.get(&id)?, self.pasts.get(&id)?);
        let mut record = now.clone();
        if !(past.since..=now.revision).contains(&revision) {
            let kept = past
                .kept
                .iter()
                .find(|kept| (kept.first..=kept.last).contains(&revision));
            let had = &kept?.record;
            record.version.clone_from(&had.version);
            record.config.clone_from(&had.config);
            record.secrets.clone_from(&had.secrets);
            record.connections.clone_from(&had.connections);
        }
        record.revision = revision;
        Some(record)
    }

    /// Forgets what was changed before a time and no execution refers to any more.
    pub(super) fn forget(&mut self, before: Timestamp) {
        let executions: Vec<(InstallationId, u64)> = self.queue.rows.values().filter_map(|row| row.ran()).collect();
        for (id, past) in &mut self.pasts {
            past.kept.retain(|kept| {
                let refers =
                    |(of, revision): &(InstallationId, u64)| of == id && (kept.first..=kept.last).contains(revision);
                kept.until >= before || executions.iter().any(refers)
            });
        }
    }
}
