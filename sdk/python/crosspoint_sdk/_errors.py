"""How a script says what became of it, and whether another attempt is worth it."""

from typing import Optional


class Failed(Exception):
    """The run failed. Another attempt is made as the flow's policy says."""

    code = "failed"
    exit_code = 1
    retryable = None  # type: Optional[bool]

    def __init__(self, message: str, code: Optional[str] = None, after: Optional[float] = None):
        super().__init__(message)
        if code is not None:
            self.code = code
        self.after = after


class Later(Failed):
    """It failed for now; `after` is the number of seconds before which another attempt is of no use."""

    code = "later"
    exit_code = 75
    retryable = True


class Never(Failed):
    """Another attempt would fail in the same way."""

    code = "never"
    exit_code = 65
    retryable = False


class InputInvalid(Never):
    """The input is wrong."""

    code = "input-invalid"


class ConfigInvalid(Never):
    """The configuration is wrong."""

    code = "config-invalid"
    exit_code = 78


class CredentialsRefused(Never):
    """The provider refused the credentials: a person has to connect it again."""

    code = "credentials-refused"
    exit_code = 77


class Refused(Exception):
    """The supervisor did not take over a state; `code` says why."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


class Cancelled(Exception):
    """The run was told to stop; `reason` is `deadline`, `cancelled`, `draining` or `lease-lost`."""

    def __init__(self, reason: str):
        super().__init__("the run was told to stop: " + reason)
        self.reason = reason
