//! A limit by an algorithm of the host's own.

use super::LimitAlgorithm;
use std::{fmt, sync::Arc};

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

    pub(super) fn make(&self) -> Box<dyn LimitAlgorithm> {
        (self.make)()
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
