//! The primitives that loom replaces when it explores interleavings.

#[cfg(crosspoint_loom)]
pub(super) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(crosspoint_loom))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

/// Keeps a word off its neighbours' cache lines (two of them, because of the adjacent-line prefetcher).
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);
