//! Collects everything that is wrong with some settings.

use crosspoint_core::{Code, Error, Problem, Result};

/// The nearest figure within bounds; for what is no number, the usual one.
pub(crate) const fn near(figure: f64, least: f64, most: f64, usual: f64) -> f64 {
    if figure.is_nan() {
        usual
    } else {
        figure.clamp(least, most)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<Problem>);

impl Checks {
    /// Notes a problem unless `holds`. `message` says what would be right.
    pub(crate) fn check(&mut self, holds: bool, pointer: impl Into<String>, message: &str) {
        if !holds {
            self.0.push(Problem::new(pointer, message));
        }
    }

    /// Whether everything held.
    pub(crate) fn finish(self, what: &str) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::SetupInvalid, what).with_problems(self.0))
    }
}
