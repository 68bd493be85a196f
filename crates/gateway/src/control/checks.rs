//! Collects everything that is wrong with some settings.

use crosspoint_core::{Code, Error, Problem, Result};

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
