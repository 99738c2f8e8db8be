"""All errors of Fulcrum, flat, each with a stable code that the faces map once.

A denial is a value (`core.decision`), never an exception. Messages have three parts: what, where, what to do.
"""

__all__ = [
    "Conflict",
    "FulcrumError",
    "Invalid",
    "NotFound",
    "Unauthenticated",
    "Unavailable",
    "Unprivileged",
    "UpstreamFailed",
]


class FulcrumError(Exception):
    """Base of all; `code` is stable."""

    code = "internal"


class Invalid(FulcrumError):
    """Something given to us is wrong: a configuration file, a policy, a request."""

    code = "invalid"


class Unauthenticated(FulcrumError):
    """No credential, or one that is not valid."""

    code = "unauthenticated"


class Unprivileged(FulcrumError):
    """The credential lacks a scope."""

    code = "forbidden"


class NotFound(FulcrumError):
    """No such thing in this tenant."""

    code = "not_found"


class Conflict(FulcrumError):
    """It exists already, or somebody was faster."""

    code = "conflict"


class Unavailable(FulcrumError):
    """A part that is needed does not answer; trying again later may help.

    `busy`: in a millisecond already. `doubtful`: what was asked for may have been done, or may still be done.
    """

    code = "unavailable"

    def __init__(self, message: str, *, busy: bool = False, doubtful: bool = False) -> None:
        super().__init__(message)
        self.busy = busy
        self.doubtful = doubtful


class UpstreamFailed(Unavailable):
    """An upstream does not answer, breaks off or lies. `sent` is False only if it has not seen one byte of it."""

    code = "upstream_failed"

    def __init__(self, message: str, *, sent: bool, timeout: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
        self.timeout = timeout
