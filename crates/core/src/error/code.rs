//! The table of codes: the single place where a code, its kind, its verdict and its HTTP status stand together.

use super::Retry;
use std::fmt;

/// The broad class of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The caller sent something that cannot be accepted.
    InvalidInput,
    /// Nobody is signed in, or the session has ended.
    Unauthenticated,
    /// Somebody is signed in who may not do this.
    Forbidden,
    /// There is no such thing (for this caller).
    NotFound,
    /// It clashes with the present state.
    Conflict,
    /// A limit on the rate of calls was reached.
    RateLimited,
    /// The target cannot take the call now.
    Unavailable,
    /// Time ran out.
    Timeout,
    /// Somebody asked for it to stop.
    Cancelled,
    /// The credentials of a connection are missing, refused or unreadable.
    Credentials,
    /// The third party answered with an error or not at all.
    Provider,
    /// The integration's own code failed.
    Execution,
    /// The isolation asked for cannot be enforced here.
    Isolation,
    /// The store failed.
    Storage,
    /// The host's own set-up is wrong.
    Setup,
    /// A defect of Crosspoint.
    Internal,
}

macro_rules! codes {
    ($( $(#[doc = $doc:literal])+ $name:ident = $text:literal, $kind:ident, $retry:ident, $status:literal; )+) => {
        /// A stable code; each has a page in `docs/errors/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code { $( $(#[doc = $doc])+ $name, )+ }

        impl Code {
            /// Every code, for documentation and tests.
            pub const ALL: &'static [Self] = &[$( Self::$name, )+];

            /// The code as it appears in logs, records and `application/problem+json`.
            #[must_use]
            pub const fn as_str(self) -> &'static str { match self { $( Self::$name => $text, )+ } }

            /// The class it belongs to.
            #[must_use]
            pub const fn kind(self) -> Kind { match self { $( Self::$name => Kind::$kind, )+ } }

            /// The verdict it implies unless the error says otherwise.
            #[must_use]
            pub const fn retry(self) -> Retry { match self { $( Self::$name => Retry::$retry, )+ } }

            /// The HTTP status of an answer that carries it.
            #[must_use]
            pub const fn status(self) -> u16 { match self { $( Self::$name => $status, )+ } }

            /// What it means, in one sentence.
            #[must_use]
            pub const fn title(self) -> &'static str { match self { $( Self::$name => concat!($($doc),+).trim_ascii(), )+ } }
        }
    };
}

codes! {
    /// The input is not what this operation takes.
    InputInvalid = "input-invalid", InvalidInput, Never, 422;
    /// The configuration does not fit the integration's schema.
    ConfigInvalid = "config-invalid", InvalidInput, Never, 422;
    /// What was to be published is not an integration that this host takes.
    ArtifactInvalid = "artifact-invalid", InvalidInput, Never, 422;
    /// The packages that an integration needs could not be installed.
    DependenciesFailed = "dependencies-failed", InvalidInput, Backoff, 422;
    /// The body is not well-formed.
    BodyMalformed = "body-malformed", InvalidInput, Never, 400;
    /// The body is larger than the limit.
    BodyTooLarge = "body-too-large", InvalidInput, Never, 413;
    /// The body did not arrive in time.
    BodyTooSlow = "body-too-slow", Timeout, Backoff, 408;
    /// The content type is not one this route takes.
    ContentTypeUnsupported = "content-type-unsupported", InvalidInput, Never, 415;
    /// The id has the wrong form.
    IdMalformed = "id-malformed", InvalidInput, Never, 400;
    /// The schedule is not a valid cron expression or interval.
    ScheduleInvalid = "schedule-invalid", InvalidInput, Never, 422;
    /// The idempotency key was used before with another request.
    KeyReused = "key-reused", InvalidInput, Never, 422;
    /// This route needs an idempotency key.
    KeyMissing = "key-missing", InvalidInput, Never, 400;
    /// The idempotency key has the wrong form.
    KeyMalformed = "key-malformed", InvalidInput, Never, 400;
    /// The method is not one this route takes.
    MethodNotAllowed = "method-not-allowed", InvalidInput, Never, 405;

    /// Nobody is signed in.
    SessionMissing = "session-missing", Unauthenticated, Never, 401;
    /// The session has expired.
    SessionExpired = "session-expired", Unauthenticated, Never, 401;
    /// The signed-in user lacks the capability for this.
    CapabilityMissing = "capability-missing", Forbidden, Never, 403;
    /// The request did not come from the host's own pages.
    OriginRefused = "origin-refused", Forbidden, Never, 403;
    /// There is no such thing here.
    NotFound = "not-found", NotFound, Never, 404;
    /// It existed, and its retention is over.
    Gone = "gone", NotFound, Never, 410;
    /// The configuration that this ran with is not kept any more.
    ConfigGone = "config-gone", NotFound, Never, 410;

    /// It clashes with the present state.
    Conflict = "conflict", Conflict, Never, 409;
    /// Somebody else changed it in the meantime.
    RevisionStale = "revision-stale", Conflict, Never, 412;
    /// A change needs the revision it starts from, in If-Match.
    RevisionRequired = "revision-required", Conflict, Never, 428;
    /// The lease was lost; another worker owns the work now.
    LeaseStale = "lease-stale", Conflict, Never, 409;
    /// The flow's state changed under this attempt.
    StateConflict = "state-conflict", Conflict, Backoff, 409;

    /// A rate limit was reached.
    RateLimited = "rate-limited", RateLimited, Backoff, 429;
    /// The target is not reachable.
    TargetUnavailable = "target-unavailable", Unavailable, Backoff, 503;
    /// The target has no capacity to spare.
    TargetSaturated = "target-saturated", Unavailable, Backoff, 503;
    /// This process is shutting down.
    ShuttingDown = "shutting-down", Unavailable, Backoff, 503;
    /// The deadline passed.
    DeadlineExceeded = "deadline-exceeded", Timeout, Backoff, 504;
    /// The call was started and nobody can know how it ended.
    OutcomeUnknown = "outcome-unknown", Timeout, Never, 504;
    /// It was cancelled.
    Cancelled = "cancelled", Cancelled, Never, 409;

    /// The provider refused the credentials.
    CredentialsRefused = "credentials-refused", Credentials, Reauthorize, 424;
    /// The connection that this needs does not exist.
    ConnectionMissing = "connection-missing", Credentials, Reauthorize, 424;
    /// A sealed secret cannot be opened with the keys at hand.
    SecretUnreadable = "secret-unreadable", Credentials, Never, 500;
    /// No encryption keys are configured.
    KeysMissing = "keys-missing", Setup, Never, 500;

    /// The provider answered with an error.
    ProviderError = "provider-error", Provider, Backoff, 502;
    /// The provider refused the request as wrong.
    ProviderRejected = "provider-rejected", Provider, Never, 502;
    /// The provider could not be reached.
    ProviderUnreachable = "provider-unreachable", Provider, Backoff, 502;
    /// The response is larger than the limit.
    ResponseTooLarge = "response-too-large", Provider, Never, 502;
    /// The address is not one that may be called.
    EgressRefused = "egress-refused", Forbidden, Never, 403;

    /// The flow returned an error.
    FlowFailed = "flow-failed", Execution, Backoff, 500;
    /// The flow panicked.
    FlowPanicked = "flow-panicked", Execution, Backoff, 500;
    /// The script ended with an exit code that means failure.
    ScriptFailed = "script-failed", Execution, Backoff, 500;
    /// The script was killed by a signal.
    ScriptCrashed = "script-crashed", Execution, Backoff, 500;
    /// The script or its interpreter could not be started.
    ScriptNotStarted = "script-not-started", Execution, Never, 500;
    /// The script wrote a result or state that is not valid.
    ScriptOutputInvalid = "script-output-invalid", Execution, Never, 500;
    /// The workers that ran it were lost before it ended.
    WorkersLost = "workers-lost", Execution, Never, 500;
    /// All attempts were used up.
    AttemptsExhausted = "attempts-exhausted", Execution, Never, 500;
    /// The work expired before it could run.
    Expired = "expired", Execution, Never, 504;
    /// The installed version is not registered in this process.
    VersionMissing = "version-missing", Setup, Never, 500;

    /// The isolation asked for cannot be enforced on this machine.
    IsolationUnavailable = "isolation-unavailable", Isolation, Never, 500;

    /// The store does not answer.
    StoreUnavailable = "store-unavailable", Storage, Backoff, 503;
    /// The store holds something that cannot be read.
    StoreCorrupt = "store-corrupt", Storage, Never, 500;
    /// The store was written by a newer release.
    StoreTooNew = "store-too-new", Storage, Never, 500;
    /// The store cannot be written.
    StoreReadOnly = "store-read-only", Storage, Never, 500;
    /// The store is on a network file system.
    StoreOnNetwork = "store-on-network", Storage, Never, 500;
    /// The store lacks an ability that a setting needs.
    StoreUnsupported = "store-unsupported", Setup, Never, 500;

    /// A definition is incomplete or contradicts itself.
    SetupInvalid = "setup-invalid", Setup, Never, 500;
    /// A defect of Crosspoint.
    Internal = "internal", Internal, Never, 500;
}

impl Code {
    /// The code with this text, for reading records back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("unknown error code `{text}`")))
    }
}

impl schemars::JsonSchema for Code {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ErrorCode".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "description": "A stable error code" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_read_back() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
    }

    #[test]
    fn every_code_has_its_page_and_its_row_and_no_page_is_left_over() {
        let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let index = std::fs::read_to_string(docs.join("README.md")).unwrap();
        for code in Code::ALL {
            let page = std::fs::read_to_string(docs.join(format!("{code}.md")));
            let page = page.unwrap_or_else(|error| panic!("docs/errors/{code}.md: {error}"));
            assert!(page.lines().count() >= 9, "docs/errors/{code}.md says too little");
            let row = index
                .lines()
                .find(|line| line.starts_with(&format!("| [{code}]({code}.md) |")));
            let row = row.unwrap_or_else(|| panic!("docs/errors/README.md has no row for {code}"));
            assert!(
                row.ends_with(&format!("| {} |", code.status())),
                "another status: {row}"
            );
        }
        for page in std::fs::read_dir(docs).unwrap() {
            let name = page.unwrap().file_name().into_string().unwrap();
            let code = name.trim_end_matches(".md");
            assert!(
                code == "README" || Code::parse(code).is_some(),
                "docs/errors/{name} is about no code"
            );
        }
    }
}
