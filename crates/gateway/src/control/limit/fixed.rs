//! A limit that is known.

use super::{LimitAlgorithm, Window};

#[derive(Debug)]
pub(super) struct Constant(pub(super) f64);

impl LimitAlgorithm for Constant {
    fn update(&mut self, _: &Window) -> f64 {
        self.0
    }
}
