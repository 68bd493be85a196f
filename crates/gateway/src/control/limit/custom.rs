//! A limit by an algorithm of the host's own.

use super::{LimitAlgorithm, Window};
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Makes an algorithm for each target; see [`Limit::custom`](super::Limit::custom). Two are equal if they are clones.
#[derive(Clone)]
pub struct Custom {
    pub(super) initial: u32,
    make: Arc<dyn Fn() -> Box<dyn LimitAlgorithm> + Send + Sync>,
}

impl Custom {
    pub(super) fn new(initial: u32, make: impl Fn() -> Box<dyn LimitAlgorithm> + Send + Sync + 'static) -> Self {
        Self {
            initial,
            make: Arc::new(make),
        }
    }
}

/// An algorithm of the host's, which may panic: the control of a target must not end with it.
#[derive(Debug)]
pub(super) struct Guarded(Option<Box<dyn LimitAlgorithm>>);

impl Guarded {
    pub(super) fn new(custom: &Custom) -> Self {
        let made = catch_unwind(AssertUnwindSafe(|| (custom.make)()));
        if made.is_err() {
            tracing::error!("making a custom limit panicked: the limit stays at {}", custom.initial);
        }
        Self(made.ok())
    }
}

impl LimitAlgorithm for Guarded {
    fn update(&mut self, window: &Window) -> f64 {
        let Some(algorithm) = &mut self.0 else {
            return window.limit;
        };
        // What it may have left half done is not looked at again.
        let asked = catch_unwind(AssertUnwindSafe(|| algorithm.update(window)));
        asked.unwrap_or_else(|_| {
            tracing::error!(
                "a custom limit panicked and is not asked again: the limit stays at {}",
                window.limit
            );
            let broken = self.0.take();
            catch_unwind(AssertUnwindSafe(|| drop(broken))).ok();
            window.limit
        })
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.initial == other.initial && Arc::ptr_eq(&self.make, &other.make)
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Custom(from {})", self.initial)
    }
}
