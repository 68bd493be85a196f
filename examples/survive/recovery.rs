//! How long a kill is felt: until every call that was open then has its end.

use std::{collections::BTreeSet, sync::Mutex, time::Duration};
use tokio::time::Instant;

/// One recovery for each kill, in order.
#[derive(Debug, Default)]
pub struct Recoveries(Mutex<Vec<Recovery>>);

/// From one kill until the client of each call that had an id and no end at that moment was told its end. Clients ask ten
/// times a second. Another kill on the way makes it longer.
#[derive(Debug, Clone)]
pub struct Recovery {
    killed: Instant,
    open: BTreeSet<u64>,
    /// How many calls were open.
    pub calls: usize,
    /// How long it took; `None` as long as a call is open.
    pub took: Option<Duration>,
}

impl Recoveries {
    /// A process is killed now, while these calls are open.
    pub fn begin(&self, open: BTreeSet<u64>) {
        let recovery = Recovery {
            killed: Instant::now(),
            calls: open.len(),
            took: open.is_empty().then_some(Duration::ZERO),
            open,
        };
        self.0.lock().unwrap().push(recovery);
    }

    /// The client of a call knows how it ended.
    pub fn ended(&self, call: u64) {
        for recovery in self.0.lock().unwrap().iter_mut() {
            if recovery.open.remove(&call) && recovery.open.is_empty() {
                recovery.took = Some(recovery.killed.elapsed());
            }
        }
    }

    pub fn take(&self) -> Vec<Recovery> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
