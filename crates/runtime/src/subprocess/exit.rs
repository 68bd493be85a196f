//! What the end of a script means.

use crosspoint_core::{Code, Error, Retry, StopReason};
use rustix::io::Errno;
use std::{
    io::{self, ErrorKind},
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
};

/// How a script ended, before anybody looks at what it left behind.
#[derive(Debug)]
pub(super) enum Exit {
    Done,
    Failed(Error),
    Stopped(StopReason),
}

/// Exit codes with a meaning are believed even from a script that was told to stop, except when it was cancelled or its
/// lease was lost: then whatever it says comes too late.
pub(super) fn interpret(status: ExitStatus, stop: Option<StopReason>) -> Exit {
    if let Some(why @ (StopReason::Cancelled | StopReason::LeaseLost)) = stop {
        return Exit::Stopped(why);
    }
    match (status.code(), stop) {
        (Some(0), _) => Exit::Done,
        (Some(code @ (65 | 75 | 77 | 78)), _) | (Some(code), None) => Exit::Failed(failure(code)),
        (_, Some(why)) => Exit::Stopped(why),
        (None, None) => Exit::Failed(crashed(status.signal())),
    }
}

fn failure(code: i32) -> Error {
    let (kind, message, retry) = match code {
        65 => (
            Code::ScriptFailed,
            "the script refused its input (exit code 65)",
            Retry::Never,
        ),
        75 => (
            Code::ScriptFailed,
            "the script failed for now (exit code 75)",
            Retry::Backoff,
        ),
        77 => {
            let message = "the script says that the provider refused the credentials (exit code 77)";
            (Code::CredentialsRefused, message, Retry::Reauthorize)
        }
        78 => (
            Code::ScriptFailed,
            "the script refused its configuration (exit code 78)",
            Retry::Never,
        ),
        126 => (
            Code::ScriptNotStarted,
            "a program could not be executed (exit code 126)",
            Retry::Never,
        ),
        127 => (
            Code::ScriptNotStarted,
            "a program was not found (exit code 127)",
            Retry::Never,
        ),
        _ => {
            return Error::new(Code::ScriptFailed, format!("the script ended with exit code {code}"))
                .with("exit", code);
        }
    };
    Error::new(kind, message).with_retry(retry).with("exit", code)
}

/// The end of a run that held more memory than it may.
pub(super) fn out_of_memory(limit: u64) -> Error {
    Error::new(
        Code::ScriptCrashed,
        "the script was killed for using more memory than it may",
    )
    .with("limit_bytes", limit)
}

/// The end of a run that used more processor time than it may.
pub(super) fn out_of_time(limit_ms: u64) -> Error {
    Error::new(
        Code::ScriptCrashed,
        "the script was killed for using more processor time than it may",
    )
    .with("limit_ms", limit_ms)
}

/// The end of a run that made a system call which no script may make.
pub(super) fn forbidden() -> Error {
    Error::new(
        Code::ScriptCrashed,
        "the script was killed for a system call that is forbidden to it",
    )
    .with_retry(Retry::Never)
}

fn crashed(signal: Option<i32>) -> Error {
    let signal = signal.unwrap_or(0);
    let name = match signal {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL, perhaps for want of memory",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU: its processor time was used up",
        25 => "SIGXFSZ: it wrote a larger file than it may",
        31 => "SIGSYS: it made a system call that is forbidden to it",
        _ => "a signal",
    };
    Error::new(Code::ScriptCrashed, format!("the script was killed by {name}")).with("signal", signal)
}

/// Whether a program that the system did not start may start later. A machine that is short of processes, descriptors or
/// memory recovers; a program that is missing or cannot be executed is a mistake in the set-up.
pub(super) fn unstarted(error: &io::Error) -> Retry {
    let lasting = matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidInput
            | ErrorKind::NotADirectory
            | ErrorKind::ArgumentListTooLong
    );
    if lasting || Errno::from_io_error(error) == Some(Errno::NOEXEC) {
        Retry::Never
    } else {
        Retry::Backoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_short_of_something_gets_another_try() {
        let cases = [
            (Errno::AGAIN, Retry::Backoff),
            (Errno::MFILE, Retry::Backoff),
            (Errno::NOMEM, Retry::Backoff),
            (Errno::TXTBSY, Retry::Backoff),
            (Errno::NOENT, Retry::Never),
            (Errno::ACCESS, Retry::Never),
            (Errno::NOEXEC, Retry::Never),
            (Errno::INVAL, Retry::Never),
        ];
        for (errno, retry) in cases {
            assert_eq!(unstarted(&errno.into()), retry, "{errno}");
        }
    }

    fn exit(code: i32, stop: Option<StopReason>) -> Exit {
        interpret(ExitStatus::from_raw(code << 8), stop)
    }

    #[test]
    fn codes_have_their_verdicts() {
        let cases = [
            (65, Code::ScriptFailed, Retry::Never),
            (75, Code::ScriptFailed, Retry::Backoff),
            (77, Code::CredentialsRefused, Retry::Reauthorize),
            (78, Code::ScriptFailed, Retry::Never),
            (126, Code::ScriptNotStarted, Retry::Never),
            (127, Code::ScriptNotStarted, Retry::Never),
            (1, Code::ScriptFailed, Retry::Backoff),
            (143, Code::ScriptFailed, Retry::Backoff),
        ];
        for (code, expected, retry) in cases {
            let Exit::Failed(error) = exit(code, None) else {
                panic!("{code}")
            };
            assert_eq!((error.code(), error.retry()), (expected, retry), "{code}");
        }
        let Exit::Failed(error) = interpret(ExitStatus::from_raw(11), None) else {
            panic!()
        };
        assert_eq!(error.code(), Code::ScriptCrashed);
        assert!(error.message().contains("SIGSEGV"));
    }

    #[test]
    fn a_script_that_was_told_to_stop_may_still_finish() {
        assert!(matches!(exit(0, Some(StopReason::Deadline)), Exit::Done));
        assert!(matches!(exit(75, Some(StopReason::Draining)), Exit::Failed(_)));
        assert!(matches!(
            exit(143, Some(StopReason::Deadline)),
            Exit::Stopped(StopReason::Deadline)
        ));
        assert!(matches!(
            interpret(ExitStatus::from_raw(15), Some(StopReason::Draining)),
            Exit::Stopped(StopReason::Draining)
        ));
        assert!(matches!(
            exit(0, Some(StopReason::Cancelled)),
            Exit::Stopped(StopReason::Cancelled)
        ));
    }
}
