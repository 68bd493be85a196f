//! The one error type of the family.
//!
//! Every failure carries a stable [`Code`] (with a page in `docs/errors/`), a [`Kind`] to match on, and a
//! [`Retry`] verdict: *later*, *re-authorise* or *permanent*. The verdict, and nothing else, decides whether work is
//! tried again.

mod code;
mod details;

pub use code::{Code, Kind};
pub use details::{ProblemDetails, Verdict};

use crate::Timestamp;
use std::{error::Error as StdError, fmt};

/// `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A boxed error from elsewhere, kept as the source.
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// Whether, and when, the same work is worth another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Retry {
    /// The answer would be the same: permanent.
    Never,
    /// Not before this time (a provider said so).
    At(Timestamp),
    /// Later, at times the [`RetryPolicy`](crate::RetryPolicy) chooses.
    Backoff,
    /// Only after somebody has authorised the connection again.
    Reauthorize,
}

/// What went wrong, in a form that machines can act on and people can read.
///
/// ```
/// use crosspoint_core::{Code, Error, Kind, Retry};
///
/// let error = Error::new(Code::ProviderUnreachable, "connection refused").with("connector", "slack");
/// assert_eq!(error.kind(), Kind::Provider);
/// assert_eq!(error.retry(), Retry::Backoff);
/// assert_eq!(error.code().as_str(), "provider-unreachable");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    code: Code,
    message: String,
    retry: Option<Retry>,
    context: Vec<(&'static str, String)>,
    problems: Vec<Problem>,
    source: Option<BoxError>,
}

/// One thing wrong with an input, and where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct Problem {
    /// JSON pointer (RFC 6901) to the offending value; empty for the whole document.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem at `pointer`.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
        }
    }
}

impl Error {
    /// An error with a code and a message for the reader of a log. Secrets never belong in `message`.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            retry: None,
            context: Vec::new(),
            problems: Vec::new(),
            source: None,
        }))
    }

    /// Adds a fact: an id, a path, a limit. Never a secret.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// Keeps the cause, reachable through [`StdError::source`].
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Replaces the verdict that the code implies.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = Some(retry);
        self
    }

    /// Attaches every problem found in an input, so that a form can show them all at once.
    #[must_use]
    pub fn with_problems(mut self, problems: Vec<Problem>) -> Self {
        self.0.problems = problems;
        self
    }

    /// The stable code; `docs/errors/<code>.md` says what happened, what to do and what is safe.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The broad class to match on.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.code.kind()
    }

    /// Whether the same work is worth another attempt.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.0.retry.unwrap_or_else(|| self.0.code.retry())
    }

    /// The message without code, context and cause.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The facts added by [`Error::with`], in order.
    #[must_use]
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// What is wrong with the input, piece by piece; empty where that does not apply.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0.problems
    }

    /// Whether an error of type `T` stands anywhere in the chain of causes.
    #[must_use]
    pub fn is_caused_by<T: StdError + 'static>(&self) -> bool {
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(error) = next {
            if error.is::<T>() {
                return true;
            }
            next = error.source();
        }
        false
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)?;
        for (key, value) in &self.0.context {
            write!(f, ", {key}={value}")?;
        }
        for problem in &self.0.problems {
            write!(f, "; {} {}", problem.pointer, problem.message)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        let mut next = self.source();
        while let Some(error) = next {
            write!(f, "\n  caused by: {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|e| &**e as &(dyn StdError + 'static))
    }
}

/// `.context(code, "what was being done")` on any result.
///
/// ```
/// use crosspoint_core::{Code, ErrorExt};
/// let e = "x".parse::<u8>().or_fail(Code::InputInvalid, "the limit must be a number").unwrap_err();
/// assert!(e.is_caused_by::<std::num::ParseIntError>());
/// ```
pub trait ErrorExt<T> {
    /// Turns any error into [`Error`] with the original kept as its source.
    ///
    /// # Errors
    /// Whatever the result held, under `code`.
    fn or_fail(self, code: Code, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<BoxError>> ErrorExt<T> for std::result::Result<T, E> {
    fn or_fail(self, code: Code, message: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::new(code, message).caused_by(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_kept_and_found() {
        let io = std::io::Error::other("disk");
        let error = Error::new(Code::StoreUnavailable, "write failed").caused_by(io);
        assert!(error.is_caused_by::<std::io::Error>());
        assert!(!error.is_caused_by::<fmt::Error>());
        assert!(format!("{error:?}").contains("caused by: disk"));
    }

    #[test]
    fn a_verdict_can_be_sharpened_but_the_code_stays() {
        let error = Error::new(Code::RateLimited, "slow down").with_retry(Retry::At(Timestamp::from_millis(5)));
        assert_eq!(error.retry(), Retry::At(Timestamp::from_millis(5)));
        assert_eq!(error.kind(), Kind::RateLimited);
    }

    #[test]
    fn a_result_with_it_is_one_word() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
