//! The error of a handler that could not hand a call to its target.
//!
//! A code alone proves nothing: a handler that has done its work may pass on the error of another target that it had
//! called. So the error of a call that was not begun names the target whose call it was.

use super::Outcome;
use crosspoint_core::{Code, Error, TargetId};
use std::time::Duration;

const TARGET: &str = "target";
const RETRY_AFTER: &str = "retry_after";

/// The error for a call of `target` that was not answered.
pub(crate) fn undelivered(outcome: Outcome, target: &TargetId, why: &str) -> Error {
    let code = match outcome {
        Outcome::Overloaded { .. } => Code::TargetSaturated,
        Outcome::NotStarted => Code::TargetUnavailable,
        _ => Code::OutcomeUnknown,
    };
    let error = Error::new(code, why).with(TARGET, target);
    match outcome {
        Outcome::Overloaded {
            retry_after: Some(after),
        } => error.with(RETRY_AFTER, after.as_secs()),
        _ => error,
    }
}

/// What the error of a handler says about a call of `target`.
pub(crate) fn verdict_of(error: &Error, target: &TargetId) -> Outcome {
    let fact = |name| {
        error
            .context()
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.as_str())
    };
    let ours = fact(TARGET) == Some(target.as_str());
    match error.code() {
        Code::TargetUnavailable | Code::ShuttingDown if ours => Outcome::NotStarted,
        Code::TargetSaturated if ours => Outcome::Overloaded {
            retry_after: fact(RETRY_AFTER)
                .and_then(|after| after.parse().ok())
                .map(Duration::from_secs),
        },
        Code::OutcomeUnknown => Outcome::Unknown,
        // Our own limits and our own end say nothing about the target.
        Code::ShuttingDown | Code::Cancelled | Code::ResponseTooLarge => Outcome::Cancelled,
        _ => Outcome::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> TargetId {
        TargetId::new(name).unwrap()
    }

    #[test]
    fn only_an_error_that_names_the_target_says_that_its_call_was_not_begun() {
        let scan = target("scan");
        let full = Outcome::Overloaded {
            retry_after: Some(Duration::from_secs(7)),
        };
        for outcome in [
            full,
            Outcome::Overloaded { retry_after: None },
            Outcome::NotStarted,
            Outcome::Unknown,
        ] {
            let error = undelivered(outcome, &scan, "as listed");
            assert_eq!(verdict_of(&error, &scan), outcome);
            let other = verdict_of(&error, &target("mail"));
            let wanted = if outcome == Outcome::Unknown {
                Outcome::Unknown
            } else {
                Outcome::Failed
            };
            assert_eq!(other, wanted, "{error}");
        }
        let nobody = Error::new(Code::TargetUnavailable, "somewhere below");
        assert_eq!(verdict_of(&nobody, &scan), Outcome::Failed);
    }
}
