//! Everything that a backend keeps, in one value.

use crate::{
    BusinessLog, Connections, Customers, DataKeys, DispatchStore, Executions, FlowState, Installations, Schedules,
};
use std::sync::Arc;

/// The stores of a platform.
///
/// A backend that implements every repository becomes a `Store` by [`Store::of`]; the backends of the family have
/// `impl From<Backend> for Store`.
///
/// ```
/// use crosspoint_core::{Memory, Store};
/// let store: Store = Memory::new().into();
/// assert!(store.dispatch.capabilities().fence);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Store {
    /// Queue, idempotency keys and replies.
    pub dispatch: Arc<dyn DispatchStore>,
    /// Records of executions.
    pub executions: Arc<dyn Executions>,
    /// Lines of the logs.
    pub log: Arc<dyn BusinessLog>,
    /// What flows remember.
    pub state: Arc<dyn FlowState>,
    /// Schedules.
    pub schedules: Arc<dyn Schedules>,
    /// Installations.
    pub installations: Arc<dyn Installations>,
    /// Connections.
    pub connections: Arc<dyn Connections>,
    /// Customers.
    pub customers: Arc<dyn Customers>,
    /// Data keys.
    pub data_keys: Arc<dyn DataKeys>,
}

impl Store {
    /// A backend that keeps everything.
    #[must_use]
    pub fn of<B>(backend: Arc<B>) -> Self
    where
        B: DispatchStore
            + Executions
            + BusinessLog
            + FlowState
            + Schedules
            + Installations
            + Connections
            + Customers
            + DataKeys,
    {
        Self {
            dispatch: backend.clone(),
            executions: backend.clone(),
            log: backend.clone(),
            state: backend.clone(),
            schedules: backend.clone(),
            installations: backend.clone(),
            connections: backend.clone(),
            customers: backend.clone(),
            data_keys: backend,
        }
    }
}
