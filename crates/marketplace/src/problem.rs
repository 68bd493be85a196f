//! Failures as `application/problem+json` (RFC 9457).

use axum::{body::Body, response::Response};
use crosspoint_core::{Code, Error, InvocationId, Kind, ProblemDetails, SystemClock};
use http::{HeaderValue, StatusCode, header};

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
    let mut body = ProblemDetails::of(error);
    if ours {
        let id = InvocationId::mint(&SystemClock::new());
        tracing::error!(%id, code = code.as_str(), error = ?error, "a request to the marketplace failed");
        body = body.withheld();
        body.instance = Some(format!("urn:uuid:{id}"));
    }
    let mut response = Response::new(Body::from(body.to_json()));
    *response.status_mut() = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(ProblemDetails::CONTENT_TYPE),
    );
    response
}

/// The answer to an operator whose request failed: they run the host, so they are told what is wrong with its set-up; what
/// the store or a defect says stays in the log.
pub(crate) fn to_operator(error: &Error) -> Response {
    if matches!(error.kind(), Kind::Internal | Kind::Storage) {
        return response(error);
    }
    let body = ProblemDetails::of(error);
    let mut response = Response::new(Body::from(body.to_json()));
    let status = StatusCode::from_u16(error.code().status());
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(ProblemDetails::CONTENT_TYPE),
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
    use crosspoint_core::{Retry, Timestamp};
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
