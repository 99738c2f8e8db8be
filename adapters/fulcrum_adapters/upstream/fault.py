"""What went wrong between us and an upstream, before it is told to anybody.

Transports raise `Fault`; `http` and `reply` turn it into `UpstreamFailed` with the upstream's name and place. The
reason holds no header value, query string or credential.
"""

__all__ = ["Fault"]


class Fault(Exception):
    """One failed exchange; `sent` is False only if not one byte was written, `connect` if no connection came about."""

    def __init__(
        self, reason: str, *, sent: bool = True, timeout: bool = False, connect: bool = False, remedy: str = ""
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.timeout = timeout
        self.connect = connect
        self.remedy = remedy
