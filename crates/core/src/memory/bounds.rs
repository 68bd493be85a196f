//! How many calls of one key run, and which of them wait for room.

use super::lanes::Entry;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// By key. A key without calls that run or wait is not kept.
#[derive(Default)]
pub(super) struct Bounds(HashMap<Arc<str>, Bound>);

#[derive(Default)]
struct Bound {
    running: u32,
    waiting: BTreeSet<Entry>,
}

impl Bounds {
    fn bound(&mut self, key: &Arc<str>) -> &mut Bound {
        self.0.entry(Arc::clone(key)).or_default()
    }

    fn tidy(&mut self, key: &Arc<str>) {
        if self.0.get(key).is_some_and(|b| b.running == 0 && b.waiting.is_empty()) {
            self.0.remove(key);
        }
    }

    /// How many may start now.
    pub(super) fn room(&self, key: &Arc<str>, max: u32) -> u32 {
        max.saturating_sub(self.0.get(key).map_or(0, |bound| bound.running))
    }

    pub(super) fn started(&mut self, key: &Arc<str>) {
        self.bound(key).running += 1;
    }

    pub(super) fn stopped(&mut self, key: &Arc<str>) {
        let bound = self.bound(key);
        bound.running = bound.running.saturating_sub(1);
        self.tidy(key);
    }

    pub(super) fn wait(&mut self, key: &Arc<str>, entry: Entry) {
        self.bound(key).waiting.insert(entry);
    }

    pub(super) fn leave(&mut self, key: &Arc<str>, entry: Entry) {
        self.bound(key).waiting.remove(&entry);
        self.tidy(key);
    }

    /// All who wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u64> {
        self.0
            .values()
            .flat_map(|bound| bound.waiting.iter().map(|(_, seq)| *seq))
    }

    /// Who waits first.
    pub(super) fn first(&self, key: &Arc<str>) -> Option<u64> {
        let (_, seq) = self.0.get(key)?.waiting.first()?;
        Some(*seq)
    }
}
