//! The in-memory store: every repository, for tests and for trying things out. Nothing survives the process.
//!
//! All of it stands behind one mutex, so that each method is one transaction.

mod bounds;
mod dispatch;
mod executions;
mod lanes;
mod past;
mod platform;
mod queue;
mod row;

use crate::{
    BusinessLog, Clock, Code, Connection, ConnectionId, Customer, CustomerId, DataKey, Error, FleetScope, Installation,
    InstallationId, InvocationId, LeaseRef, LogEntry, Page, Paged, Progress, Result, Schedule, StateSnapshot, Store,
    SystemClock,
};
use queue::Queue;
use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Every store, in memory.
///
/// ```
/// use crosspoint_core::{Durability, Memory, Store};
/// let store: Store = Memory::new().into();
/// assert_eq!(store.dispatch.capabilities().durability, Durability::None);
/// ```
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

/// Says nothing of what is kept: records do not belong in a log.
impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

struct Shared {
    data: Mutex<Data>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Data {
    queue: Queue,
    logs: HashMap<InvocationId, Vec<LogEntry>>,
    state: HashMap<(InstallationId, String), StateSnapshot>,
    schedules: BTreeMap<(InstallationId, String), Schedule>,
    installations: BTreeMap<InstallationId, Installation>,
    pasts: BTreeMap<InstallationId, past::Past>,
    connections: BTreeMap<ConnectionId, Connection>,
    customers: BTreeMap<CustomerId, Customer>,
    data_keys: BTreeMap<CustomerId, Vec<DataKey>>,
    notes: HashMap<crate::TargetId, String>,
}

impl Memory {
    /// An empty store on the machine's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// An empty store on this clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                data: Mutex::default(),
                clock,
            }),
        }
    }

    fn data(&self) -> MutexGuard<'_, Data> {
        self.shared.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one transaction: timers first, then `f`. Whoever waits for work that came with it looks again
    /// after that.
    fn transact<T>(&self, f: impl FnOnce(&mut Data, crate::Timestamp) -> T) -> T {
        let now = self.shared.clock.now();
        let mut data = self.data();
        data.queue.run_timers(now);
        f(&mut data, now)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Memory> for Store {
    fn from(memory: Memory) -> Self {
        Self::of(Arc::new(memory))
    }
}

/// A page of what an iterator yields behind the cursor; the key is an item's place in the list.
///
/// # Errors
/// [`Code::InputInvalid`] for a cursor that cannot be a key of this list.
fn page_of<K, T>(items: impl Iterator<Item = (K, T)>, page: &Page) -> Result<Paged<T>>
where
    K: FromStr + PartialEq + ToString,
{
    let after: Option<K> = match &page.after {
        None => None,
        Some(cursor) => Some(cursor.parse().map_err(|_| bad_cursor())?),
    };
    let mut items = items
        .skip_while(|(key, _)| after.as_ref().is_some_and(|after| after != key))
        .skip(usize::from(after.is_some()));
    let mut taken = Vec::new();
    let mut last = None;
    for (key, item) in items.by_ref().take(page.limit) {
        last = Some(key);
        taken.push(item);
    }
    let more = items.next().is_some();
    Ok(Paged::new(taken, last.filter(|_| more).map(|key| key.to_string())))
}

fn bad_cursor() -> Error {
    Error::new(
        Code::InputInvalid,
        "the cursor is not one that a page of this list gave",
    )
}

#[async_trait::async_trait]
impl BusinessLog for Memory {
    async fn report(&self, _: &FleetScope, lease: LeaseRef, progress: Progress) -> Result<bool> {
        Ok(self.transact(|data, _| data.report(lease, progress)))
    }

    async fn lines(
        &self,
        scope: crate::Scope<'_>,
        execution: InvocationId,
        audience: crate::Audience,
        page: Page,
    ) -> Result<Paged<LogEntry>> {
        let data = self.data();
        let visible = data
            .queue
            .row(execution)
            .is_some_and(|row| scope.covers(row.envelope.customer()));
        let lines = data
            .logs
            .get(&execution)
            .filter(|_| visible)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let lines = lines
            .iter()
            .enumerate()
            .filter(|(_, line)| audience == crate::Audience::Developer || line.audience == audience)
            .map(|(n, line)| (n, line.clone()));
        page_of(lines, &page)
    }
}
