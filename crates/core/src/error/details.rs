//! An error as `application/problem+json` (RFC 9457).

use super::{Code, Error, Problem, Retry};
use crate::Timestamp;

/// Whether, and when, the same request is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Verdict {
    /// The answer would be the same.
    Never,
    /// At another time, not before `retry_at` if that is given.
    Later,
    /// After somebody has authorised the connection again.
    Reauthorize,
}

/// What went wrong, as a caller over HTTP gets to read it.
///
/// ```
/// use crosspoint_core::{Code, Error, ProblemDetails};
/// let problem = ProblemDetails::of(&Error::new(Code::NotFound, "there is no such order"));
/// let json = serde_json::to_value(&problem)?;
/// assert_eq!(json["status"], 404);
/// assert_eq!(json["code"], "not-found");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
#[schemars(rename = "Problem")]
#[non_exhaustive]
pub struct ProblemDetails {
    /// Names the kind of problem: `urn:crosspoint:error:<code>`. Each code has a page in the documentation.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The stable code.
    pub code: Code,
    /// Whether the same request is worth another try.
    pub retry: Verdict,
    /// Not before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// What is wrong with the input, by JSON pointer into the body that was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Problem>,
    /// Names this failure in the host's log; given for failures on the server's side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
}

impl ProblemDetails {
    /// The media type of its JSON.
    pub const CONTENT_TYPE: &'static str = "application/problem+json";

    /// What an error says, with its message as the detail. Context and causes stay out.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        let code = error.code();
        let (retry, retry_at) = match error.retry() {
            Retry::Never => (Verdict::Never, None),
            Retry::Backoff => (Verdict::Later, None),
            Retry::At(at) => (Verdict::Later, Some(at)),
            Retry::Reauthorize => (Verdict::Reauthorize, None),
        };
        Self {
            kind: format!("urn:crosspoint:error:{code}"),
            title: code.title(),
            status: code.status(),
            detail: error.message().to_owned(),
            code,
            retry,
            retry_at,
            errors: error.problems().to_vec(),
            instance: None,
        }
    }

    /// The same without saying what happened: for failures whose message may name paths, hosts or tables.
    #[must_use]
    pub fn withheld(mut self) -> Self {
        self.title.clone_into(&mut self.detail);
        self.errors.clear();
        self
    }

    /// As bytes of JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}
