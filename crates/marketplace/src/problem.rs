//! Failures as `application/problem+json` (RFC 9457).

use axum::{body::Body, response::Response};
use crosspoint_core::{Code, Error, InvocationId, Kind, Problem, Retry, SystemClock, Timestamp};
use http::{HeaderValue, StatusCode, header};

/// Where the pages of the codes are.
const PAGES: &str = "https://docs.rs/crosspoint/latest/crosspoint/errors/#";

/// Whether, and when, the same request is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// The answer would be the same.
    Never,
    /// At another time, not before `retry_at` if that is given.
    Later,
    /// After somebody has authorised the connection again.
    Reauthorize,
}

/// What went wrong.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct ProblemDetails {
    /// The page of the code.
    #[serde(rename = "type")]
    page: String,
    /// What the code means.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened this time.
    detail: String,
    /// The stable code.
    code: Code,
    /// Whether the same request is worth another try.
    retry: Verdict,
    /// Not before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_at: Option<Timestamp>,
    /// What is wrong with the input, by JSON pointer into the body that was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Problem>,
    /// Names this failure in the host's log; given for failures on the server's side.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

/// The answer to a request that failed.
///
/// What a server-side failure says about itself is for the host's log alone: it may name paths, hosts and tables. The
/// caller gets the meaning of the code and an id by which the log line is found.
pub(crate) fn response(error: &Error) -> Response {
    let code = error.code();
    let ours = matches!(
        error.kind(),
        Kind::Internal | Kind::Storage | Kind::Setup | Kind::Isolation | Kind::Execution
    );
    let mut instance = None;
    let mut detail = error.message().to_owned();
    if ours {
        let id = InvocationId::mint(&SystemClock::new());
        tracing::error!(%id, code = code.as_str(), error = ?error, "a request to the marketplace failed");
        instance = Some(format!("urn:uuid:{id}"));
        code.title().trim().clone_into(&mut detail);
    }
    let (retry, retry_at) = match error.retry() {
        Retry::At(at) => (Verdict::Later, Some(at)),
        Retry::Backoff => (Verdict::Later, None),
        Retry::Reauthorize => (Verdict::Reauthorize, None),
        _ => (Verdict::Never, None),
    };
    let body = ProblemDetails {
        page: format!("{PAGES}{code}"),
        title: code.title().trim(),
        status: code.status(),
        detail,
        code,
        retry,
        retry_at,
        errors: error.problems().to_vec(),
        instance,
    };
    let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap_or_default()));
    *response.status_mut() = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}

/// `not-found`, the same for what does not exist and for what belongs to somebody else.
pub(crate) fn not_found(what: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no such {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::Value;

    async fn told(error: &Error) -> Value {
        let body = response(error).into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn what_failed_on_our_side_is_told_by_its_id_alone() {
        let cause = std::io::Error::other("/var/lib/secret-place");
        let error = Error::new(Code::StoreUnavailable, "cannot open /var/lib/app.db").caused_by(cause);
        let problem = told(&error.with("path", "/var/lib/app.db")).await;
        assert!(!problem.to_string().contains("/var/lib"), "{problem}");
        assert!(problem["instance"].as_str().unwrap().starts_with("urn:uuid:"));
        assert_eq!((&problem["status"], &problem["retry"]), (&503.into(), &"later".into()));
    }

    #[tokio::test]
    async fn the_verdict_and_its_time_are_told() {
        let at = Timestamp::from_millis(1_767_225_600_000);
        let problem = told(&Error::new(Code::RateLimited, "slow down").with_retry(Retry::At(at))).await;
        assert_eq!(
            (&problem["retry"], &problem["retry_at"]),
            (&"later".into(), &"2026-01-01T00:00:00.000Z".into())
        );
        assert_eq!(problem["detail"], "slow down");
        let problem = told(&Error::new(Code::CredentialsRefused, "wrong key")).await;
        assert_eq!(
            (&problem["retry"], problem.get("retry_at")),
            (&"reauthorize".into(), None)
        );
    }
}
